// Lossless rejection sampling (Leviathan et al.) of a drafted chain, one request at a time.
//
// Draft token x of row i stays if u_i q_i(x) < p_i(x). At the first that does not, or after the
// last one, the next token is the lowest index whose cumulative weight exceeds u_last times the
// sum; the weights are max(p - q, 0) of the refused row (p without the draft token, if q is null),
// or p of the last row.
#pragma once
#include "verify_commit/stream.cuh"

namespace verify {

constexpr int kFinders = 128;                   // threads that look for the token inside a tile
constexpr int kEach = kTile / kFinders / kVec;  // neighbouring vectors that each of them holds

struct SampleShared {
  float draft_p[kMostTokens], scaled_max[kMostTokens], inverse_sum[kMostTokens];
  Decision decision;
  float level, before;  // where the token lies: the cumulative weight, that before its tile
  int tile, token;
  float sums[kFinders / kLanes];
  int first[kFinders / kLanes], last[kFinders / kLanes];  // threads, by warp
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
  __device__ __forceinline__ void load(uint4& raw, uint4 (&draft)[kVec / 4], int element) const {
    raw = load_vector(target, element, vocabulary);
#pragma unroll
    for (int j = 0; j < kVec / 4; ++j)
      draft[j] = q && element < vocabulary ? rs::load_narrow(q + element + j * 4)
                                           : make_uint4(0, 0, 0, 0);
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

// Sum of a tile's weights, in every lane of a warp; several loads are on their way at once.
__device__ __forceinline__ float tile_sum(const Weights& w, int tile) {
  constexpr int kBatch = sizeof(TARGET) == 4 ? 8 : 4;
  float sum = 0;
#pragma unroll
  for (int base = 0; base < kVectors; base += kBatch) {
    uint4 raw[kBatch], draft[kBatch][kVec / 4];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) w.load(raw[i], draft[i], element_of(tile, base + i));
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float value[kVec];
      w.of_vector(value, raw[i], draft[i], element_of(tile, base + i));
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum += value[j];
    }
  }
  return rs::warp_sum(sum);
}

__device__ __forceinline__ float prefix_sum(float v) {  // inclusive, over the lanes
  for (int d = 1; d < kLanes; d *= 2) {
    float other = __shfl_up_sync(~0u, v, d);
    if (lane() >= d) v += other;
  }
  return v;
}

// Lane of the first *weight* > 0 whose cumulative *sum* exceeds *level*; -1: none.
__device__ __forceinline__ int first_above(float weight, float sum, float level) {
  return __ffs(__ballot_sync(~0u, weight > 0 && sum > level)) - 1;
}
__device__ __forceinline__ int last_positive(float weight) {
  return 31 - __clz(__ballot_sync(~0u, weight > 0));
}

// The tile of the token at *uniform* of the cumulative *weights* of the tiles, by one warp.
// Rounding can carry the level past the end; the last tile of positive weight is taken then.
__device__ __forceinline__ void find_tile(SampleShared& s, const float* weights, int tiles,
                                          float uniform) {
  int each = (tiles + kLanes - 1) / kLanes;
  int begin = min(lane() * each, tiles), end = min(begin + each, tiles);
  float own = 0;
  for (int t = begin; t < end; ++t) own += weights[t];
  float sum = prefix_sum(own), level = uniform * __shfl_sync(~0u, sum, kLanes - 1);
  int first = first_above(own, sum, level), last = last_positive(own);
  if (lane() == 0) s.level = level, s.tile = -1;
  __syncwarp();
  if (lane() != (first >= 0 ? first : last)) return;
  float before = sum - own;
  for (int t = begin; t < end; ++t) {
    float weight = weights[t];
    if (weight > 0) {
      s.tile = t;
      s.before = before;
      if (before + weight > level) break;
    }
    before += weight;
  }
}

// The token of positive weight at s.level inside s.tile, by the whole block, in s.token; -1 if
// s.tile is. The first threads hold neighbouring elements each.
__device__ __forceinline__ void find_token(SampleShared& s, const Weights& w) {
  float value[kEach * kVec], own = 0, sum = 0;
  int thread = threadIdx.x, element = s.tile * kTile + thread * kEach * kVec;
  if (thread == 0) s.token = -1;
  if (s.tile >= 0 && thread < kFinders) {
    uint4 raw[kEach], draft[kEach][kVec / 4];
#pragma unroll
    for (int i = 0; i < kEach; ++i) w.load(raw[i], draft[i], element + i * kVec);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      float part[kVec];
      w.of_vector(part, raw[i], draft[i], element + i * kVec);
#pragma unroll
      for (int j = 0; j < kVec; ++j) own += value[i * kVec + j] = part[j];
    }
    sum = prefix_sum(own);
    if (lane() == kLanes - 1) s.sums[warp()] = sum;
  }
  __syncthreads();
  float before = s.before, level = s.level;
  if (s.tile >= 0 && thread < kFinders) {
    for (int i = 0; i < warp(); ++i) before += s.sums[i];
    int first = first_above(own, before + sum, level), last = last_positive(own);
    if (lane() == 0) {
      s.first[warp()] = first < 0 ? -1 : thread + first;
      s.last[warp()] = last < 0 ? -1 : thread + last;
    }
  }
  __syncthreads();
  if (s.tile >= 0 && thread < kFinders) {
    int owner = -1;
    for (int i = 0; i < kFinders / kLanes; ++i) owner = max(owner, s.last[i]);
    for (int i = kFinders / kLanes - 1; i >= 0; --i) owner = s.first[i] >= 0 ? s.first[i] : owner;
    if (thread == owner) {
      before += sum - own;
      int token = -1;
      bool passed = false;
#pragma unroll
      for (int j = 0; j < kEach * kVec; ++j) {
        bool here = value[j] > 0 && !passed;
        before += value[j];
        token = here ? element + j : token;
        passed |= here && before > level;
      }
      s.token = token;
    }
  }
  __syncthreads();
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
  const float2 none = make_float2(__uint_as_float(0xff800000u), 0);
  float most = none.x, sum = 0;
  for (int base = 0; base < tiles; base += 4 * kLanes) {
    float2 v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int t = base + i * kLanes + lane();
      v[i] = t < tiles ? stats[t] : none;
    }
    float larger = most;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (v[i].y > 0) larger = fmaxf(larger, v[i].x);
    larger = rs::warp_max(larger);
    if (larger > most) sum *= rs::exp2_fast(most - larger);
    most = larger;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (v[i].y > 0) sum += v[i].y * rs::exp2_fast(v[i].x - most);
  }
  return make_float2(most, rs::warp_sum(sum));
}

// ---------------------------------------------------------------------------- acceptance
// Drafted tokens of request *b* that stay; draft_p(t, token) is asked of lane t. By one warp.
template <class DraftP>
__device__ __forceinline__ int count_accepted(const VerifyCommitParams& p, int b,
                                              DraftP&& draft_p) {
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
