// Lossless rejection sampling (Leviathan et al.) of a drafted chain, one request at a time.
//
// Draft token x of row i stays if u_i q_i(x) < p_i(x). At the first that does not, or after the last
// one, the next token is the lowest index whose cumulative weight exceeds u_last times the sum; the
// weights are max(p - q, 0) of the refused row (p without the draft token, if q is null), or p of
// the last row.
#pragma once
#include "verify_commit/stream.cuh"

namespace verify {

struct SampleShared {
  float draft_p[kMostTokens], scaled_max[kMostTokens], inverse_sum[kMostTokens];
  Decision decision;
};

// Weights of one row in the order of the vocabulary; the sum of p need not be 1.
struct Weights {
  const TARGET* target;
  const float* q;  // null: nothing to subtract
  int masked;      // this token weighs nothing; -1: none
  float scale, scaled_max, inverse_sum;
  bool probabilities;
  int vocabulary;

  __device__ __forceinline__ float p(float x) const {
    return probabilities ? fmaxf(x, 0.0f) : rs::exp2_fast(x * scale - scaled_max) * inverse_sum;
  }
  // Those of the vector at *element*, past the end 0.
  __device__ __forceinline__ void of_vector(float (&w)[kVec], const uint4& raw,
                                            const uint4 (&draft)[kVec / 4], int element) const {
    float minus[kVec];
    memcpy(minus, draft, sizeof minus);
    unpack(w, raw);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      w[j] = fmaxf(p(w[j]) - minus[j], 0.0f);
      if (element + j == masked) w[j] = 0;
    }
  }
};

// use(i, weights of vector i of this lane), in order; several loads are on their way at once.
template <class Use>
__device__ __forceinline__ void each_vector(const Weights& w, int tile, Use&& use) {
  constexpr int kBatch = sizeof(TARGET) == 4 ? 8 : 4;
#pragma unroll
  for (int base = 0; base < kVectors; base += kBatch) {
    uint4 raw[kBatch], draft[kBatch][kVec / 4];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      int element = element_of(tile, base + i);
      raw[i] = load_vector(w.target, element, w.vocabulary);
#pragma unroll
      for (int j = 0; j < kVec / 4; ++j)
        draft[i][j] = w.q && element < w.vocabulary ? rs::load_stream(w.q + element + j * 4)
                                                    : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float value[kVec];
      w.of_vector(value, raw[i], draft[i], element_of(tile, base + i));
      use(base + i, value);
    }
  }
}

// Sum of a tile's weights, in every lane.
__device__ __forceinline__ float tile_sum(const Weights& w, int tile) {
  float sum = 0;
  each_vector(w, tile, [&](int, const float (&v)[kVec]) {
    for (int j = 0; j < kVec; ++j) sum += v[j];
  });
  return rs::warp_sum(sum);
}

__device__ __forceinline__ float prefix_sum(float v) {  // inclusive, over the lanes
  for (int d = 1; d < kLanes; d *= 2) {
    float other = __shfl_up_sync(~0u, v, d);
    if (lane() >= d) v += other;
  }
  return v;
}

// Lane of the first *weight* > 0 whose cumulative *sum* exceeds *level*, else *otherwise*.
__device__ __forceinline__ int first_above(float weight, float sum, float level, int otherwise) {
  unsigned votes = __ballot_sync(~0u, weight > 0 && sum > level);
  return votes ? __ffs(votes) - 1 : otherwise;
}
__device__ __forceinline__ int last_positive(float weight) {
  unsigned votes = __ballot_sync(~0u, weight > 0);
  return votes ? 31 - __clz(votes) : -1;
}

// The token at *uniform* of the cumulative weights, by one warp. sum_of(tile) are the tiles' sums.
// Rounding can carry the level past the end; the last token of positive weight is taken then.
// -1: no token has any.
template <class SumOf>
__device__ __forceinline__ int find_token(const Weights& w, SumOf&& sum_of, float uniform) {
  int tiles = tiles_of(w.vocabulary), each = (tiles + kLanes - 1) / kLanes;
  int begin = min(lane() * each, tiles), end = min(begin + each, tiles);
  float own = 0;
  for (int t = begin; t < end; ++t) own += sum_of(t);
  float sum = prefix_sum(own), level = uniform * __shfl_sync(~0u, sum, kLanes - 1);
  int source = first_above(own, sum, level, last_positive(own));
  if (source < 0) return -1;
  float before = sum - own, at_tile = before;
  int tile = begin;
  for (int t = begin; t < end; ++t) {
    float weight = sum_of(t);
    if (weight > 0) {
      tile = t;
      at_tile = before;
      if (before + weight > level) break;
    }
    before += weight;
  }
  tile = __shfl_sync(~0u, tile, source);
  before = __shfl_sync(~0u, at_tile, source);
  int found = -1, last = -1;
  each_vector(w, tile, [&](int i, const float (&v)[kVec]) {
    float own = 0;
    for (int j = 0; j < kVec; ++j) own += v[j];
    float sum = before + prefix_sum(own);
    int above = first_above(own, sum, level, -1), positive = last_positive(own);
    int chosen = above >= 0 ? above : positive;
    if (found < 0 && chosen >= 0) {
      int token = 0;
      float running = sum - own;
      for (int j = 0; j < kVec; ++j) {
        if (v[j] > 0) {
          token = element_of(tile, i) + j;
          if (running + v[j] > level) break;
        }
        running += v[j];
      }
      token = __shfl_sync(~0u, token, chosen);
      (above >= 0 ? found : last) = token;
    }
    before = __shfl_sync(~0u, sum, kLanes - 1);
  });
  return found >= 0 ? found : last;
}

// ---------------------------------------------------------------------------- softmax of a row
// What a warp writes of a tile of logits: the largest, and the sum of 2^((x - largest) scale).
__device__ __forceinline__ void write_stats(float2* out, const Tile& t, float scale) {
  float most = __uint_as_float(0xff800000u), v[kVec];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    unpack(v, t.raw[i]);
#pragma unroll
    for (int j = 0; j < kVec; ++j) most = fmaxf(most, v[j]);
  }
  most = rs::warp_max(most);
  float sum = 0, scaled = most == __uint_as_float(0xff800000u) ? 0 : most * scale;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    unpack(v, t.raw[i]);
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum += rs::exp2_fast(v[j] * scale - scaled);
  }
  sum = rs::warp_sum(sum);
  if (lane() == 0) *out = make_float2(scaled, sum);
}

// Scaled maximum and sum of a row from its tiles, in every lane of a warp.
__device__ __forceinline__ float2 merge_stats(const float2* stats, int tiles) {
  float most = __uint_as_float(0xff800000u), sum = 0;
  for (int t = lane(); t < tiles; t += kLanes)
    if (stats[t].y > 0) most = fmaxf(most, stats[t].x);
  most = rs::warp_max(most);
  for (int t = lane(); t < tiles; t += kLanes)
    if (stats[t].y > 0) sum += stats[t].y * rs::exp2_fast(stats[t].x - most);
  return make_float2(most, rs::warp_sum(sum));
}

// ---------------------------------------------------------------------------- acceptance
// Drafted tokens of request *b* that stay; draft_p(t, token) is asked of lane t. By one warp.
template <class DraftP>
__device__ __forceinline__ int count_accepted(const VerifyCommitParams& p, int b, DraftP&& draft_p) {
  int drafts = p.new_tokens - 1, t = lane();
  bool refused = t >= drafts;
  if (!refused) {
    long long row = static_cast<long long>(b) * drafts + t;
    int token = p.draft[row];
    float q = p.draft_probs ? p.draft_probs[row * p.vocabulary + token] : 1.0f;
    refused = !(p.uniforms[b * p.new_tokens + t] * q < draft_p(t, token));
  }
  unsigned votes = __ballot_sync(~0u, refused);
  return votes ? __ffs(votes) - 1 : kLanes;
}

__device__ __forceinline__ Weights weights_of(const VerifyCommitParams& p, int b,
                                              const Decision& d) {
  int a = d.accepted, drafts = p.new_tokens - 1;
  bool residual = a < drafts;
  Weights w;
  w.target = p.target + (static_cast<long long>(b) * p.new_tokens + a) * p.vocabulary;
  w.q = residual && p.draft_probs
            ? p.draft_probs + (static_cast<long long>(b) * drafts + a) * p.vocabulary
            : nullptr;
  w.masked = residual && !p.draft_probs ? p.draft[b * drafts + a] : -1;
  w.scale = p.scale;
  w.scaled_max = d.scaled_max;
  w.inverse_sum = d.inverse_sum;
  w.probabilities = p.mode == kProbabilities;
  w.vocabulary = p.vocabulary;
  return w;
}

// Tokens and count of request *b* before clipping, by one warp.
__device__ __forceinline__ void write_tokens(const VerifyCommitParams& p, int b, int accepted,
                                             int token) {
  int t = lane(), drafts = p.new_tokens - 1;
  if (t < p.new_tokens) {
    int own = t < drafts ? p.draft[b * drafts + t] : 0;
    // Without any weight left (p equals q up to rounding) the refused draft token stands in.
    if (t == accepted && token >= 0) own = token;
    p.tokens[b * p.new_tokens + t] = t <= accepted ? own : -1;
  }
  if (lane() == 0) p.emitted[b] = accepted + 1;
}

}  // namespace verify
