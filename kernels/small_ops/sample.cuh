// One token a row from logits [rows, vocabulary]: the largest, or drawn from the softmax.
//
// A row is cut into tiles of 1024 logits and its tiles into parts, one warp a part. Each warp leaves
// the maximum of every tile and, if the row is sampled, the tile's sum of exponentials. The last
// warp to come to a row picks the tile where u * total falls and walks that tile alone; no warp
// waits for another, and the sums are added in one order whatever the timing.
#pragma once
#include "common/cuda.cuh"
#include "small_ops/inline.cuh"

#ifndef ELEMENT
#define ELEMENT __nv_bfloat16
#endif
#ifndef LOGIT
#define LOGIT ELEMENT  // or float
#endif

struct SampleParams {
  const LOGIT* logits;
  const float* temperatures;  // [rows], at most 0 for the largest; null: all rows greedy
  const float* uniforms;      // [rows] in [0, 1); unused by greedy rows
  int* tokens;                // [rows]
  float2* tiles;              // [rows, tiles]: maximum, and sum of exponentials or bits of an index
  unsigned* tickets;          // [rows], zero before and after
  int rows, vocabulary;       // vocabulary a multiple of 8
  int parts;                  // of a row, at most its tiles
};

namespace sample {

constexpr int kTile = 1024;
constexpr int kLane = kTile / 32;            // logits of a lane, contiguous in memory by fours or eights
constexpr int kChunk = 16 / sizeof(LOGIT);   // logits of a 16-byte load
constexpr int kLoads = kLane / kChunk;
constexpr float kNone = -INFINITY;

// Tile number *tile* of *row* into registers, -inf beyond the vocabulary. Load j of a lane starts at
// chunk j * 32 + lane, or lane * kLoads + j if *in_order*: then each lane has a contiguous run.
__device__ __forceinline__ void load_tile(float (&v)[kLane], const LOGIT* row, int tile,
                                          int vocabulary, bool in_order) {
  const int lane = threadIdx.x % 32;
  uint4 raw[kLoads];
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    int at = tile * kTile + (in_order ? lane * kLoads + j : j * 32 + lane) * kChunk;
    if (at < vocabulary) raw[j] = rs::load_stream(row + at);
  }
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    int at = tile * kTile + (in_order ? lane * kLoads + j : j * 32 + lane) * kChunk;
    LOGIT part[kChunk];
    memcpy(part, &raw[j], 16);
    for (int i = 0; i < kChunk; ++i)
      v[j * kChunk + i] = at < vocabulary ? rs::to_float(part[i]) : kNone;
  }
}

// Factor in exp2((v - maximum) * factor) = exp((v - maximum) / temperature).
__device__ __forceinline__ float factor(float temperature) { return 1.44269504f / temperature; }

__device__ __forceinline__ float exponential(float v, float maximum, float factor) {
  return v == kNone ? 0 : rs::exp2_fast((v - maximum) * factor);
}

// The lowest index of *maximum* among a tile's logits as load_tile gave them out of order.
__device__ __forceinline__ int lowest_index(const float (&v)[kLane], float maximum, int tile) {
  const int lane = threadIdx.x % 32;
  unsigned lowest = 0x7fffffffu;
#pragma unroll
  for (int e = kLane - 1; e >= 0; --e)
    if (v[e] == maximum)
      lowest = tile * kTile + ((e / kChunk) * 32 + lane) * kChunk + e % kChunk;
  return __reduce_min_sync(0xffffffffu, lowest);
}

__device__ __forceinline__ float scan(float v) {  // inclusive, over the warp
  const int lane = threadIdx.x % 32;
  for (int i = 1; i < 32; i *= 2) {
    float below = __shfl_up_sync(0xffffffffu, v, i);
    if (lane >= i) v += below;
  }
  return v;
}

// Lane of the first running sum above *target*, or the last lane of positive *mine*.
__device__ __forceinline__ int find(float running, float mine, float target) {
  unsigned above = __ballot_sync(0xffffffffu, running > target && mine > 0);
  unsigned some = __ballot_sync(0xffffffffu, mine > 0);
  return above ? __ffs(above) - 1 : some ? 31 - __clz(some) : 0;
}

__device__ inline int merge_greedy(const float2* tiles, int count) {
  const int lane = threadIdx.x % 32;
  float best = kNone;
  unsigned index = 0x7fffffffu;
  for (int i = lane; i < count; i += 32) {
    uint2 raw = rs::load_pair(tiles + i);
    float maximum = __uint_as_float(raw.x);
    if (maximum > best || index == 0x7fffffffu) best = maximum, index = raw.y;
  }
  float top = rs::warp_max(best);
  return __reduce_min_sync(0xffffffffu, best == top ? index : 0x7fffffffu);
}

__device__ inline int merge_sampled(const SampleParams& p, int row, int count, float factor) {
  const int lane = threadIdx.x % 32, run = (count + 31) / 32;
  const float2* tiles = p.tiles + (long long)row * count;
  float maximum = kNone;
  for (int i = lane; i < count; i += 32)
    maximum = fmaxf(maximum, __uint_as_float(rs::load_pair(tiles + i).x));
  maximum = rs::warp_max(maximum);
  auto weight = [&](int tile) {
    uint2 raw = rs::load_pair(tiles + tile);
    return __uint_as_float(raw.y) * exponential(__uint_as_float(raw.x), maximum, factor);
  };
  // Which run of tiles, then which tile of it, then which lane's logits, then which logit.
  float mine = 0;
  for (int i = lane * run; i < min(count, (lane + 1) * run); ++i) mine += weight(i);
  float running = scan(mine), total = __shfl_sync(0xffffffffu, running, 31);
  float target = p.uniforms[row] * total;
  int owner = find(running, mine, target);
  target -= __shfl_sync(0xffffffffu, running - mine, owner);
  int tile = owner * run;
  for (float w = weight(tile); tile + 1 < min(count, (owner + 1) * run); w = weight(tile)) {
    if (w > target) break;
    target -= w;
    ++tile;
  }
  float v[kLane];
  load_tile(v, p.logits + (long long)row * p.vocabulary, tile, p.vocabulary, true);
  mine = 0;
  for (int e = 0; e < kLane; ++e) mine += v[e] = exponential(v[e], maximum, factor);
  running = scan(mine);
  owner = find(running, mine, target);
  target -= running - mine;
  int chosen = 0;
  bool found = false;
  for (int e = 0; e < kLane; ++e) {
    if (found || v[e] == 0) continue;
    chosen = e;
    found = v[e] > target;
    target -= v[e];
  }
  return tile * kTile + owner * kLane + __shfl_sync(0xffffffffu, chosen, owner);
}

}  // namespace sample

// ---------------------------------------------------------------------------- stage
__device__ inline void sample_stage(const SampleParams& p, int block, int blocks, unsigned char*) {
  using namespace sample;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int count = (p.vocabulary + kTile - 1) / kTile;
  for (int item = block + threadIdx.x / 32 * blocks; item < p.rows * p.parts;
       item += blocks * warps) {
    const int row = item / p.parts, part = item % p.parts;
    const float temperature = p.temperatures ? p.temperatures[row] : 0;
    const bool greedy = !(temperature > 0);
    for (int tile = count * part / p.parts; tile < count * (part + 1) / p.parts; ++tile) {
      float v[kLane], maximum = kNone, sum = 0;
      load_tile(v, p.logits + (long long)row * p.vocabulary, tile, p.vocabulary, false);
      for (int e = 0; e < kLane; ++e) maximum = fmaxf(maximum, v[e]);
      maximum = rs::warp_max(maximum);
      if (greedy) {
        sum = __int_as_float(lowest_index(v, maximum, tile));
      } else {
        for (int e = 0; e < kLane; ++e) sum += exponential(v[e], maximum, factor(temperature));
        sum = rs::warp_sum(sum);
      }
      if (lane == 0) p.tiles[(long long)row * count + tile] = make_float2(maximum, sum);
    }
    unsigned before = lane ? 0 : rs::add_acq_rel_gpu(p.tickets + row, 1);
    if (__shfl_sync(0xffffffffu, before, 0) + 1 != p.parts) continue;
    int token = greedy ? merge_greedy(p.tiles + (long long)row * count, count)
                       : merge_sampled(p, row, count, factor(temperature));
    if (lane == 0) {
      p.tokens[row] = token;
      p.tickets[row] = 0;
    }
  }
}
