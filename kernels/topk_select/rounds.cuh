// The threshold of a set of keys: rounds of a histogram, then ranks by counting.
#pragma once
#include "topk_select/group.cuh"

namespace topk {

// The scores of a thread, chunk after chunk: 4 kChunks in registers. A NaN belongs to no page that
// may be chosen.
template <int kChunks>
struct Scores {
  float4 held[kChunks];
  __device__ __forceinline__ int size() const { return kChunks; }
  __device__ __forceinline__ float4 at(int c) const { return held[c]; }
};

// Order-preserving integers of scores; 0 stands for no score. -0 equals +0.
__device__ __forceinline__ unsigned key_of(float score) {
  unsigned u = __float_as_uint(score + 0.0f);
  u ^= static_cast<unsigned>(static_cast<int>(u) >> 31) | 0x80000000u;
  return score != score ? 0u : u;
}

__device__ __forceinline__ float score_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

struct Cutoff {
  unsigned key, ties;  // take every key above, and the first `ties` of those equal
};

template <class Scores, class F>
__device__ __forceinline__ void each_key(const Scores& scores, F&& f) {
#pragma unroll
  for (int c = 0; c < scores.size(); ++c) {
    float4 v = scores.at(c);
    f(key_of(v.x)), f(key_of(v.y)), f(key_of(v.z)), f(key_of(v.w));
  }
}

// Index, in the order (w, z, y, x), of the first part at which the running sum reaches *wanted*;
// *above* grows by the parts before it.
__device__ __forceinline__ int reach(const uint4& v, unsigned wanted, unsigned& above) {
  unsigned parts[4] = {v.w, v.z, v.y, v.x};
  int i = 0;
#pragma unroll
  for (int j = 0; j < 3; ++j)
    if (i == j && above + parts[j] < wanted) above += parts[j], ++i;
  return i;
}

// By one warp: the bin that holds the wanted-th key from the top, how many lie above it and how
// many inside; kNoBin and all of them if they are fewer. Leaves the bins at zero.
__device__ __forceinline__ void find_bin(Scratch& s, unsigned wanted) {
  int lane = threadIdx.x % 32, top = (31 - lane) * (kLaneBins / 4);
  uint4 v[4], sums;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = s.bins[top + i];
    s.bins[top + i] = make_uint4(0, 0, 0, 0);
  }
  sums.x = v[0].x + v[0].y + v[0].z + v[0].w;
  sums.y = v[1].x + v[1].y + v[1].z + v[1].w;
  sums.z = v[2].x + v[2].y + v[2].z + v[2].w;
  sums.w = v[3].x + v[3].y + v[3].z + v[3].w;
  unsigned own = sums.x + sums.y + sums.z + sums.w, running = own;
  for (int d = 1; d < 32; d *= 2) {
    unsigned other = __shfl_up_sync(~0u, running, d);
    if (lane >= d) running += other;
  }
  unsigned above = running - own;
  if (lane == 31 && running < wanted) s.bin = kNoBin, s.above = running;
  if (above >= wanted || running < wanted) return;
  int vector = 3 - reach(sums, wanted, above);
  uint4 inside = vector == 3 ? v[3] : vector == 2 ? v[2] : vector == 1 ? v[1] : v[0];
  int part = 3 - reach(inside, wanted, above);
  s.bin = (31 - lane) * 16 + vector * 4 + part;
  s.above = above;
  s.inside = part == 3 ? inside.w : part == 2 ? inside.z : part == 1 ? inside.y : inside.x;
}

// The wanted-th of *count* keys in the scratch, the rest of which is zero, by each warp for itself.
__device__ __forceinline__ Cutoff rank_few(const Scratch& s, unsigned wanted, unsigned count) {
  unsigned lane = threadIdx.x % 32, greater = 0, equal = 0;
  unsigned mine = lane < count ? reinterpret_cast<const unsigned*>(s.few)[lane] : 0;
#pragma unroll
  for (int i = 0; i < kFew / 4; ++i) {
    uint4 v = s.few[i];
    greater += (v.x > mine) + (v.y > mine) + (v.z > mine) + (v.w > mine);
    equal += (v.x == mine) + (v.y == mine) + (v.z == mine) + (v.w == mine);
  }
  bool is_cutoff = lane < count && greater < wanted && wanted <= greater + equal;
  int source = __ffs(__ballot_sync(~0u, is_cutoff)) - 1;
  return {__shfl_sync(~0u, mine, source), wanted - __shfl_sync(~0u, greater, source)};
}

// The cutoff of the *wanted* (at least 1) largest of the group's scores; none has a key above
// low + span, and at least *wanted* have low or more. Keys equal to `low` are never counted, only
// inferred: a value that most scores share costs no atomics.
template <class Scores>
__device__ __forceinline__ Cutoff find_cutoff(const Group& g, const Scores& scores, unsigned low,
                                              unsigned span, unsigned wanted) {
  Scratch& s = *g.s;
  unsigned* bins = &s.bins[0].x;
  while (span != 0) {
    int shift = max(0, 32 - __clz(span - 1) - kBinBits);
    each_key(scores, [&](unsigned key) {
      unsigned at = key - low - 1, bin = at >> shift;
      if (at < span) atomicAdd(&bins[bin + bin / 16 * (kLaneBins - 16)], 1u);
    });
    g.sync();
    if (g.warp() == 0) find_bin(s, wanted);
    g.sync();
    unsigned bin = s.bin, inside = s.inside;
    wanted -= s.above;
    if (bin == kNoBin) break;
    low += 1 + (bin << shift);
    span = (1u << shift) - 1;
    if (inside == wanted) return {low - 1, 0};
    if (inside <= kFew && span != 0) {
      each_key(scores, [&](unsigned key) {
        if (key - low <= span) reinterpret_cast<unsigned*>(s.few)[atomicAdd(&s.count, 1u)] = key;
      });
      g.sync();
      return rank_few(s, wanted, inside);
    }
  }
  return {low, wanted};
}

}  // namespace topk
