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
  int rows, vocabulary;       // vocabulary a multiple of 8, at most 262,144
  int parts;                  // of a row, at most its tiles
};

namespace sample {

constexpr int kTile = 1024;
constexpr int kLane = kTile / 32;           // logits of a lane
constexpr int kChunk = 16 / sizeof(LOGIT);  // logits of a 16-byte load
constexpr int kLoads = kLane / kChunk;
constexpr int kRun = 8;  // tiles of a lane when a row is merged: up to 262,144 logits
constexpr float kNone = -INFINITY;
constexpr int kBlocks = sizeof(LOGIT) == 4 ? 2 : 3;  // of 256 threads on an SM, without spills

// Tile number *tile* of *row*. Load j of a lane starts at chunk j * 32 + lane, or at lane * kLoads
// + j if *in_order*: then each lane has a contiguous run.
struct Tile {
  uint4 raw[kLoads];
  int first, step, vocabulary;  // place of the lane's first chunk, from one to the next, and the end

  __device__ __forceinline__ Tile(const LOGIT* row, int tile, int vocabulary, bool in_order)
      : vocabulary(vocabulary) {
    const int lane = threadIdx.x % 32;
    first = tile * kTile + (in_order ? lane * kLane : lane * kChunk);
    step = in_order ? kChunk : 32 * kChunk;
#pragma unroll
    for (int j = 0; j < kLoads; ++j)
      if (first + j * step < vocabulary) raw[j] = rs::load_narrow(row + first + j * step);
  }
  // use(logit, its place in the vocabulary) for each of the lane's logits; -inf beyond the end.
  template <class F>
  __device__ __forceinline__ void each(F use) const {
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      const int at = first + j * step;
      LOGIT part[kChunk];
      memcpy(part, &raw[j], 16);
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        use(at < vocabulary ? rs::to_float(part[i]) : kNone, at + i);
    }
  }
};

// Factor in exp2((v - maximum) * factor) = exp((v - maximum) / temperature).
__device__ __forceinline__ float factor(float temperature) { return 1.44269504f / temperature; }

__device__ __forceinline__ float exponential(float v, float maximum, float factor) {
  return v == kNone ? 0 : rs::exp2_fast((v - maximum) * factor);
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

// What the warps left of a row, kRun tiles a lane in the vocabulary's order.
struct Row {
  float maximum[kRun], sum[kRun];  // of tile lane * kRun + i; -inf and 0 beyond the last
  float top;

  __device__ __forceinline__ Row(const float2* tiles, int count) {
    uint2 raw[kRun];
    top = kNone;
    const int first = threadIdx.x % 32 * kRun;
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      raw[i] = first + i < count ? rs::load_pair(tiles + first + i)
                                 : make_uint2(__float_as_uint(kNone), 0);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      maximum[i] = __uint_as_float(raw[i].x);
      sum[i] = __uint_as_float(raw[i].y);
      top = fmaxf(top, maximum[i]);
    }
    top = rs::warp_max(top);
  }
};

__device__ inline int merge_greedy(const float2* tiles, int count) {
  const Row row(tiles, count);
  unsigned index = 0x7fffffffu;
#pragma unroll
  for (int i = kRun - 1; i >= 0; --i)
    if (row.maximum[i] == row.top && static_cast<int>(threadIdx.x % 32 * kRun + i) < count)
      index = __float_as_uint(row.sum[i]);
  return __reduce_min_sync(0xffffffffu, index);
}

// Which lane's tiles, which tile, which lane's logits of it, which logit: at each step, the first
// place where the running sum passes what is left of u * total.
__device__ inline int merge_sampled(const SampleParams& p, int row, int count, float factor) {
  Row tiles(p.tiles + (long long)row * count, count);
  float mine = 0;
#pragma unroll
  for (int i = 0; i < kRun; ++i)
    mine += tiles.sum[i] *= exponential(tiles.maximum[i], tiles.top, factor);
  float running = scan(mine);
  float target = p.uniforms[row] * __shfl_sync(0xffffffffu, running, 31);
  int owner = find(running, mine, target);
  target -= running - mine;
  int chosen = 0;
  bool found = false;
  float before = 0;  // sum of the owner's entries before the chosen one
  auto pick = [&](float weight, int i) {
    if (found || !(weight > 0)) return;
    found = weight > target;
    chosen = i;
    before = target;
    target -= weight;
  };
#pragma unroll
  for (int i = 0; i < kRun; ++i) pick(tiles.sum[i], i);
  const int tile = owner * kRun + __shfl_sync(0xffffffffu, chosen, owner);
  target = __shfl_sync(0xffffffffu, before, owner);

  const Tile logits(p.logits + (long long)row * p.vocabulary, tile, p.vocabulary, true);
  mine = 0;
  logits.each([&](float v, int) { mine += exponential(v, tiles.top, factor); });
  running = scan(mine);
  owner = find(running, mine, target);
  target -= running - mine;
  found = false;
  chosen = tile * kTile;
  logits.each([&](float v, int i) { pick(exponential(v, tiles.top, factor), i); });
  return __shfl_sync(0xffffffffu, chosen, owner);
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
      const Tile logits(p.logits + (long long)row * p.vocabulary, tile, p.vocabulary, false);
      float maximum = kNone, sum = 0;
      logits.each([&](float v, int) { maximum = fmaxf(maximum, v); });
      maximum = rs::warp_max(maximum);
      if (greedy) {
        unsigned lowest = 0x7fffffffu;
        logits.each([&](float v, int i) {
          if (v == maximum && i < p.vocabulary) lowest = min(lowest, unsigned(i));
        });
        sum = __uint_as_float(__reduce_min_sync(0xffffffffu, lowest));
      } else {
        const float scale = factor(temperature);
        logits.each([&](float v, int) { sum += exponential(v, maximum, scale); });
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
