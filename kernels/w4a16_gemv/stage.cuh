// y[tokens][n] = x[tokens][k] . W[n][k]^T for 1 to 16 tokens, W in 4 or 16 bits, read once.
//
// x         [tokens, k] ELEMENT, k a multiple of 8
// weights   [strips, units, kUnitBytes]: a strip is 16 rows of W, a unit 16 rows x kUnitK columns in
//           the order of MMA fragments (launch.py packs). 4 bits: 2048 bytes of nibbles, then for
//           each of 8 row pairs (g, g + 8) the fp16 scales of 2 groups, then their zero points
// y         [tokens, n] ELEMENT
// partials  [strips, pieces, 16 * TOKENS] float, used if pieces > 1
// tickets   [strips], zero before and after
//
// Work: an item is one strip over one of `pieces` ranges of k; a block takes a run of items. Its last
// warp streams the units of the run through a ring in shared memory and does nothing else, because a
// copy that finds the queue full holds its warp up; the other warps take the units in turn. Warps
// add up an item in shared memory, blocks add up a strip's pieces in `partials`; the last one to
// arrive sums in a fixed order, so that results never depend on timing.
#pragma once
#include "common/cuda.cuh"
#include "w4a16_gemv/inline.cuh"

#ifndef ELEMENT
#define ELEMENT __nv_bfloat16
#endif
#ifndef WEIGHT_BITS
#define WEIGHT_BITS 4
#endif
#ifndef TOKENS
#define TOKENS 1  // 1, 2, 4, 8 or 16, at least the tokens of a launch
#endif

struct W4a16GemvParams {
  const ELEMENT* x;
  const unsigned char* weights;
  ELEMENT* y;
  float* partials;
  unsigned* tickets;
  int tokens, n, k;
  int pieces;  // ranges of k; each but the last spans ceil(units / pieces) units
  int depth;   // ring slots of a consumer
};

namespace gemv {
#ifdef GEMV_TRACE
#define TRACE(i) do { if (threadIdx.x % 32 == 0 && (i) < 40) reinterpret_cast<long long*>(p.partials)[((long long)blockIdx.x * 17 + threadIdx.x / 32) * 40 + (i)] = clock64(); } while (0)
#else
#define TRACE(i)
#endif

constexpr int kUnitK = WEIGHT_BITS == 4 ? 256 : 64;
constexpr int kUnitBytes = WEIGHT_BITS == 4 ? 2128 : 2048;
constexpr int kSides = (TOKENS + 7) / 8;  // MMAs a weight fragment feeds
constexpr int kSums = 8 * kSides;         // floats of one group's sums of x
constexpr int kOpenItems = TOKENS > 4 ? 2 : 4;  // items that a block may be adding up at once
constexpr int kMaxConsumers = 16;         // warps of a block but one
constexpr int kTokenStride = 20;          // floats; 16 rows, and no bank conflict

__host__ __device__ constexpr int x_stride(int piece_k) { return piece_k * 2 + 16; }
// Bytes of dynamic shared memory for a block of *warps* consumers.
__host__ __device__ constexpr int shared_bytes(int warps, int depth, int piece_k) {
  return warps * depth * (kUnitBytes + 16) + TOKENS * x_stride(piece_k) +
         (WEIGHT_BITS == 4 ? piece_k / 128 * kSums * 4 : 0) +
         kOpenItems * (warps * TOKENS * kTokenStride * 4 + 8) + 8;
}

// Position of a warp in its block's run of items.
struct Cursor {
  int index;  // of the item within the run
  int strip, piece, unit;
};

struct Plan {
  int strips, units, piece_units, count;  // count: items of this block's run

  __device__ int units_of(int piece) const {
    return min(piece_units, units - piece * piece_units);
  }
  __device__ void advance(Cursor& c, int by) const {
    c.unit += by;
    while (c.index < count && c.unit >= units_of(c.piece)) {
      c.unit -= units_of(c.piece);
      ++c.index;
      if (++c.strip == strips) c.strip = 0, ++c.piece;
    }
  }
};

struct Shared {
  unsigned char* ring;  // [warps][depth]: a slot has one owner, who is never a phase ahead
  unsigned char* x;
  float* sums;         // [group][kSums]: sums of x over a group, in fp32
  float* partial;      // [kOpenItems][warps][TOKENS][kTokenStride]
  rs::Barrier* full;   // [warps][depth]
  rs::Barrier* empty;  // [warps][depth]
  unsigned* arrived;   // [kOpenItems]: shares of the open item that have come
  unsigned* summed;    // [kOpenItems]: items that are through with this place
  unsigned* met;       // arrivals at meetings of the consumers

  __device__ Shared(unsigned char* base, int warps, int depth, int piece_k) {
    ring = base;
    x = base + warps * depth * kUnitBytes;
    sums = reinterpret_cast<float*>(x + TOKENS * x_stride(piece_k));
    partial = sums + (WEIGHT_BITS == 4 ? piece_k / 128 * kSums : 0);
    full = reinterpret_cast<rs::Barrier*>(partial + kOpenItems * warps * TOKENS * kTokenStride);
    empty = full + warps * depth;
    arrived = reinterpret_cast<unsigned*>(empty + warps * depth);
    summed = arrived + kOpenItems;
    met = summed + kOpenItems;
  }
};

// ---------------------------------------------------------------------------- x
// Columns [k0, k0 + piece_k) of x into shared memory, zeros beyond k, and their sums by group of 128.
// Each block starts at another place, so that they do not all ask the same part of L2 at once.
__device__ inline void stage_x(const W4a16GemvParams& p, const Shared& s, int k0, int piece_k,
                               int threads, int block) {
  const int row_chunks = piece_k / 8, chunks = p.tokens * row_chunks;
  const int turn = block * 11 % max(1, chunks / 32) * 32;
  auto place = [&](int chunk, int& token, int& column) {
    chunk += chunk + turn < chunks ? turn : turn - chunks;
    token = chunk / row_chunks;
    column = chunk - token * row_chunks;
    return s.x + token * x_stride(piece_k) + column * 16;
  };
  int token, column;
  for (int chunk = threadIdx.x; chunk < chunks; chunk += threads) {  // all at once in flight
    unsigned char* to = place(chunk, token, column);
    const int k = k0 + column * 8;
    if (k < p.k)
      rs::copy16_async(to, p.x + (long long)token * p.k + k);
    else
      *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
  }
  rs::copy_commit();
  rs::copy_wait<0>();
  if (WEIGHT_BITS == 4)
    for (int chunk = threadIdx.x; chunk < chunks; chunk += threads) {  // a thread's own copies
      uint4 raw = *reinterpret_cast<const uint4*>(place(chunk, token, column));
      ELEMENT v[8];
      memcpy(v, &raw, 16);
      float sum = 0;
      for (int j = 0; j < 8; ++j) sum += rs::to_float(v[j]);
      // 16 neighbouring lanes hold one group; chunks come in whole warps.
      for (int j = 8; j; j /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, j);
      if (column % 16 == 0) s.sums[column / 16 * kSums + token] = sum;
    }
}

// ---------------------------------------------------------------------------- one unit
// B fragments of two k-steps: lane (g, t) takes x[token g][16 t + 8 half ...] of a block of 64.
__device__ __forceinline__ void load_x(uint4 (&b)[kSides], const W4a16GemvParams& p,
                                       const unsigned char* x, int stride) {
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int side = 0; side < kSides; ++side) {
    b[side] = make_uint4(0, 0, 0, 0);
    if (g + 8 * side < p.tokens)
      b[side] = *reinterpret_cast<const uint4*>(x + side * 8 * stride);
  }
}

// total += unit . x for the unit at *unit* (shared memory), whose columns start at *k* in the piece.
__device__ __forceinline__ void multiply_unit(float (&total)[kSides][4], const W4a16GemvParams& p,
                                              const Shared& s, const unsigned char* unit, int k,
                                              int stride) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const unsigned char* x = s.x + g * stride + k * 2 + t * 32;
#if WEIGHT_BITS == 4
  uint2 scales = *reinterpret_cast<const uint2*>(unit + 2048 + g * 8);
  unsigned zeros = *reinterpret_cast<const unsigned short*>(unit + 2112 + g * 2);
#pragma unroll
  for (int group = 0; group < 2; ++group) {
    float acc[kSides][4] = {};
#pragma unroll
    for (int block = 2 * group; block < 2 * group + 2; ++block) {
      uint4 words = *reinterpret_cast<const uint4*>(unit + block * 512 + lane * 16);
      const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint4 b[kSides];
        load_x(b, p, x + block * 128 + half * 16, stride);
        unsigned a[2][4];
        rs::unpack_nibbles<ELEMENT>(a[0], word[2 * half]);
        rs::unpack_nibbles<ELEMENT>(a[1], word[2 * half + 1]);
#pragma unroll
        for (int side = 0; side < kSides; ++side) {
          rs::mma_16x8x16<ELEMENT>(acc[side], a[0], {b[side].x, b[side].y});
          rs::mma_16x8x16<ELEMENT>(acc[side], a[1], {b[side].z, b[side].w});
        }
      }
    }
    unsigned pair = group ? scales.y : scales.x;
    __half scale[2];
    memcpy(scale, &pair, 4);
    float low = __half2float(scale[0]), high = __half2float(scale[1]);
    float low_zero = rs::Magic<ELEMENT>::kValue + (zeros >> 8 * group & 15);
    float high_zero = rs::Magic<ELEMENT>::kValue + (zeros >> (8 * group + 4) & 15);
#pragma unroll
    for (int side = 0; side < kSides; ++side) {
      float2 sum = *reinterpret_cast<const float2*>(
          s.sums + (k / 128 + group) * kSums + 8 * side + 2 * t);
      total[side][0] += low * (acc[side][0] - low_zero * sum.x);
      total[side][1] += low * (acc[side][1] - low_zero * sum.y);
      total[side][2] += high * (acc[side][2] - high_zero * sum.x);
      total[side][3] += high * (acc[side][3] - high_zero * sum.y);
    }
  }
#else
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint4 b[kSides], w[2];
    load_x(b, p, x + half * 16, stride);
    for (int i = 0; i < 2; ++i)
      w[i] = *reinterpret_cast<const uint4*>(unit + (2 * half + i) * 512 + lane * 16);
#pragma unroll
    for (int side = 0; side < kSides; ++side) {
      rs::mma_16x8x16<ELEMENT>(total[side], {w[0].x, w[0].y, w[0].z, w[0].w},
                               {b[side].x, b[side].y});
      rs::mma_16x8x16<ELEMENT>(total[side], {w[1].x, w[1].y, w[1].z, w[1].w},
                               {b[side].z, b[side].w});
    }
  }
#endif
}

// ---------------------------------------------------------------------------- sums
// One warp: a strip's values of this block to y, or through `partials` if k was cut into pieces.
__device__ inline void finish_item(const W4a16GemvParams& p, const Cursor& at, const float* rows,
                                   int warps_in) {
  const int lane = threadIdx.x % 32, warp_floats = TOKENS * kTokenStride;
  float* pieces = p.partials + (long long)at.strip * p.pieces * 16 * TOKENS;
  for (int e = lane; e < 16 * TOKENS; e += 32) {
    int token = e / 16, row = at.strip * 16 + e % 16;
    const float* from = rows + token * kTokenStride + e % 16;
    float v = 0;
#pragma unroll
    for (int i = 0; i < kMaxConsumers; ++i)
      if (i < warps_in) v += from[i * warp_floats];
    if (p.pieces > 1)
      pieces[at.piece * 16 * TOKENS + e] = v;
    else if (token < p.tokens && row < p.n)
      p.y[(long long)token * p.n + row] = rs::from_float<ELEMENT>(v);
  }
  if (p.pieces == 1) return;
  __syncwarp();
  unsigned before = lane ? 0 : rs::add_acq_rel_gpu(p.tickets + at.strip, 1);
  if (__shfl_sync(0xffffffffu, before, 0) + 1 != p.pieces) return;
  if (lane == 0) p.tickets[at.strip] = 0;
  for (int e = lane * 4; e < 16 * TOKENS; e += 128) {
    float v[4] = {};
    for (int piece = 0; piece < p.pieces; ++piece) {
      uint4 raw = rs::load_stream(pieces + piece * 16 * TOKENS + e);
      float part[4];
      memcpy(part, &raw, 16);
      for (int i = 0; i < 4; ++i) v[i] += part[i];
    }
    int token = e / 16, row = at.strip * 16 + e % 16;
    for (int i = 0; i < 4; ++i)
      if (token < p.tokens && row + i < p.n)
        p.y[(long long)token * p.n + row + i] = rs::from_float<ELEMENT>(v[i]);
  }
}

// A warp's share of an item, as number *share* of *shares*; the last warp to arrive finishes it.
__device__ inline void add_share(const W4a16GemvParams& p, const Shared& s, const Cursor& at,
                                 const float (&total)[kSides][4], int share, int shares) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int open = at.index % kOpenItems, use = at.index / kOpenItems;
  const int warps = blockDim.x / 32 - 1, warp_floats = TOKENS * kTokenStride;
  rs::wait_count(s.summed + open, use);
  float* rows = s.partial + open * warps * warp_floats;
  float* mine = rows + share * warp_floats;
#pragma unroll
  for (int side = 0; side < kSides; ++side)
    for (int i = 0; i < 4; ++i) {
      int token = 8 * side + 2 * t + i % 2;
      if (token < TOKENS) mine[token * kTokenStride + g + i / 2 * 8] = total[side][i];
    }
  __threadfence_block();
  __syncwarp();
  unsigned before = lane ? 0 : atomicAdd(s.arrived + open, 1);
  if (__shfl_sync(0xffffffffu, before, 0) + 1 != shares) return;
  __threadfence_block();
  finish_item(p, at, rows, shares);
  if (lane == 0) s.arrived[open] = 0;
  __threadfence_block();
  __syncwarp();
  if (lane == 0) atomicAdd(s.summed + open, 1);
}

// The producer's warp: the units of this block's run in order, as slots become free.
__device__ inline void produce(const W4a16GemvParams& p, const Shared& s, const Plan& plan,
                               Cursor at, int consumers) {
  const unsigned char* unit = p.weights;
  int owner = 0, slot = 0, round = 0;
  for (; at.index < plan.count; plan.advance(at, 1)) {
    if (at.unit == 0)
      unit = p.weights + ((long long)at.strip * plan.units + at.piece * plan.piece_units) *
                             kUnitBytes;
    const int place = owner * p.depth + slot;
    if (round > 0) rs::barrier_wait(s.empty + place, (round - 1) & 1);
    rs::fill_begin(s.full + place, kUnitBytes);
    rs::fill_piece(s.ring + place * kUnitBytes, unit, kUnitBytes, s.full + place);
    rs::fill_end(s.full + place);
    unit += kUnitBytes;
    if (++owner < consumers) continue;
    owner = 0;
    if (++slot == p.depth) slot = 0, ++round;
  }
}

// All consumers meet; the *count*th meeting of the stage.
__device__ __forceinline__ void meet(const Shared& s, int consumers, int count) {
  __threadfence_block();
  __syncwarp();
  if (threadIdx.x % 32 == 0) atomicAdd(s.met, 1);
  rs::wait_count(s.met, count * consumers);
}

// One of the *consumers* warps: every so manieth unit of the run, from *warp* on.
__device__ inline void consume(const W4a16GemvParams& p, const Shared& s, const Plan& plan,
                               Cursor at, int consumers, int block) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int piece_k = plan.piece_units * kUnitK, stride = x_stride(piece_k);
  const int first_piece = at.piece, last_item = at.piece * plan.strips + at.strip + plan.count - 1;
  const int last_piece = last_item / plan.strips;
  int place = warp * p.depth, slot = 0, round = 0, meetings = 0;
  plan.advance(at, warp);
  for (int piece = first_piece; piece <= last_piece; ++piece) {
    if (piece > first_piece) meet(s, consumers, ++meetings);  // nobody reads the x before any more
    int tr = 5;
    stage_x(p, s, piece * piece_k, piece_k, consumers * 32, block);
    TRACE(2);
    meet(s, consumers, ++meetings);
    TRACE(3);
    const int shares = min(plan.units_of(piece), consumers);
    while (at.index < plan.count && at.piece == piece) {
      const Cursor item = at;  // item.unit < shares: the warp's first unit names its share
      float total[kSides][4] = {};
      do {
        rs::barrier_wait(s.full + place + slot, round & 1);
        TRACE(tr); ++tr;
        multiply_unit(total, p, s, s.ring + (place + slot) * kUnitBytes, at.unit * kUnitK,
                      stride);
        TRACE(tr); ++tr;
        __syncwarp();
        if (lane == 0) rs::barrier_arrive(s.empty + place + slot);
        if (++slot == p.depth) slot = 0, ++round;
        plan.advance(at, consumers);
      } while (at.index == item.index);
      add_share(p, s, item, total, item.unit, shares);
      TRACE(tr); ++tr;
    }
  }
}

}  // namespace gemv

// ---------------------------------------------------------------------------- stage
__device__ inline void w4a16_gemv_stage(const W4a16GemvParams& p, int block, int blocks,
                                        unsigned char* shared) {
  using namespace gemv;
  TRACE(0);
  const int consumers = blockDim.x / 32 - 1;
  Plan plan;
  plan.strips = (p.n + 15) / 16;
  plan.units = (p.k + kUnitK - 1) / kUnitK;
  plan.piece_units = (plan.units + p.pieces - 1) / p.pieces;
  const long long items = (long long)plan.strips * p.pieces;
  const int first = items * block / blocks;
  plan.count = items * (block + 1) / blocks - first;
  const Shared s(shared, consumers, p.depth, plan.piece_units * kUnitK);

  if (plan.count > 0) {
    const int barriers = 2 * consumers * p.depth;
    for (int i = threadIdx.x; i < barriers; i += blockDim.x) rs::barrier_init(s.full + i, 1);
    if (threadIdx.x < 2 * kOpenItems + 1) s.arrived[threadIdx.x] = 0;
    rs::barrier_init_fence();
    __syncthreads();
    const Cursor start = {0, first % plan.strips, first / plan.strips, 0};
    TRACE(1);
    if (threadIdx.x / 32 == consumers)
      produce(p, s, plan, start, consumers);
    else
      consume(p, s, plan, start, consumers, block);
    TRACE(38);
    __syncthreads();
    TRACE(39);
    for (int i = threadIdx.x; i < barriers; i += blockDim.x) rs::barrier_inval(s.full + i);
    __syncthreads();
  }
}
