// y[tokens][n] = x[tokens][k] . W[n][k]^T: arguments, the cut of the work, and shared memory.
//
// x         [tokens, k] ELEMENT, k a multiple of 8
// weights   [strips, units, kUnitBytes]: a strip is 16 rows of W, a unit 16 rows x kUnitK columns in
//           the order of MMA fragments (pack.py). 4 bits: 2048 bytes of nibbles, then for each of 8
//           row pairs (g, g + 8) the fp16 scales of 2 groups, then their zero points
// y         [tokens, n] ELEMENT
// partials  [strips, pieces, 16 * TOKENS] float, used if pieces > 1
// tickets   [strips], zero before and after
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
  int strips, units;        // n / 16 and k / kUnitK, rounded up
  int pieces, piece_units;  // ranges of k; each but the last spans piece_units units
  int depth;                // ring slots of a team
};

namespace gemv {

constexpr int kUnitK = WEIGHT_BITS == 4 ? 256 : 64;
constexpr int kUnitBytes = WEIGHT_BITS == 4 ? 2128 : 2048;
constexpr int kTeam = 8;                  // consumers whose next units come in one copy
constexpr int kSides = (TOKENS + 7) / 8;  // MMAs that a weight fragment feeds
constexpr int kSums = 8 * kSides;         // floats of one group's sums of x
// Items being added up at once; with 16 tokens room is short, and 16 bits need it for the ring.
constexpr int kOpenItems = TOKENS <= 4 ? 4 : TOKENS > 8 && WEIGHT_BITS == 16 ? 1 : 2;
constexpr int kMaxConsumers = 16;
constexpr int kTokenStride = 20;  // floats; 16 rows, and no bank conflict
constexpr int kWarpFloats = TOKENS * kTokenStride;

__host__ __device__ constexpr int x_stride(int piece_k) { return piece_k * 2 + 16; }
__host__ __device__ constexpr int sums_bytes(int piece_k) {
  return WEIGHT_BITS == 4 ? piece_k / 128 * kSums * 4 : 0;
}
// Bytes of dynamic shared memory for a block of *consumers* + 2 warps.
__host__ __device__ constexpr int shared_bytes(int consumers, int depth, int piece_k) {
  return consumers * depth * kUnitBytes + TOKENS * x_stride(piece_k) + sums_bytes(piece_k) +
         kOpenItems * (consumers * kWarpFloats * 4 + 16) +
         (consumers + kTeam - 1) / kTeam * depth * 16 + 8;
}

// A block's run of items: an item is one strip over one piece of k, and items go strip by strip.
struct Run {
  int count;         // items
  int strip, piece;  // of the first item, then of the current one

  __device__ Run(const W4a16GemvParams& p, int block, int blocks) {
    const unsigned items = p.strips * p.pieces;
    const unsigned first = items * block / blocks;  // below 2^32 for any plan
    count = items * (block + 1) / blocks - first;
    piece = first / p.strips;
    strip = first - piece * p.strips;
  }
  __device__ void next(const W4a16GemvParams& p) {
    if (++strip == p.strips) strip = 0, ++piece;
  }
};

__device__ __forceinline__ int units_of(const W4a16GemvParams& p, int piece) {
  return min(p.piece_units, p.units - piece * p.piece_units);
}

struct Shared {
  unsigned char* ring;  // [teams][depth] copies of up to kTeam units
  unsigned char* x;
  float* sums;          // [group][kSums]: sums of x over a group, in fp32
  float* partial;       // [kOpenItems][consumers][TOKENS][kTokenStride]
  rs::Barrier* full;    // [teams][depth]
  rs::Barrier* empty;   // [teams][depth]
  rs::Barrier* ready;   // [kOpenItems]: all consumers are through with the item
  rs::Barrier* free;    // [kOpenItems]: its partial sums have been read
  unsigned* met;        // arrivals at meetings of the consumers

  __device__ Shared(const W4a16GemvParams& p, unsigned char* base, int consumers) {
    const int piece_k = p.piece_units * kUnitK;
    const int slots = (consumers + kTeam - 1) / kTeam * p.depth;
    ring = base;
    x = base + consumers * p.depth * kUnitBytes;
    sums = reinterpret_cast<float*>(x + TOKENS * x_stride(piece_k));
    partial = sums + sums_bytes(piece_k) / 4;
    full = reinterpret_cast<rs::Barrier*>(partial + kOpenItems * consumers * kWarpFloats);
    empty = full + slots;
    ready = empty + slots;
    free = ready + kOpenItems;
    met = reinterpret_cast<unsigned*>(free + kOpenItems);
  }
};

}  // namespace gemv
