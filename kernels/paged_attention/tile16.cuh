// A tile of 16 tokens in 16 bits: also the tail of the 4-bit cache.
#pragma once
#include "paged_attention/softmax.cuh"

namespace attention {

// Address of this lane's row for ldmatrix_x4 over 16 swizzled rows of 16-byte chunks. Matrices 0..3:
// K rows 0-7, rows 8-15, then the next chunk; V (kTransposed) chunk, next chunk, then rows 8-15.
template <bool kTransposed>
__device__ __forceinline__ const unsigned char* lane_row(const unsigned char* block, int chunk) {
  int matrix = lane_id() / 8, low = matrix % 2, high = matrix / 2;
  int row = lane_id() % 8 + 8 * (kTransposed ? high : low);
  int column = (chunk + (kTransposed ? low : high)) ^ row % 8;
  return block + row * HEAD_DIM * 2 + column * 16;
}

// logits[token][query row] of 16 tokens, in powers of two.
template <typename T>
__device__ __forceinline__ void logits16(const unsigned char* k, const Query<T>& q,
                                         float (&logits)[kColumns][4]) {
  float odd[kColumns][4] = {}, even[kColumns][4] = {};  // two chains hide the mma's latency
  for (int s = 0; s < kSteps; s += 2) {
    unsigned a[4];
    rs::ldmatrix_x4(a, lane_row<false>(k, 2 * s));
    for (int c = 0; c < kColumns; ++c) rs::mma_16x8x16<T>(even[c], a, q.b[s][c]);
    rs::ldmatrix_x4(a, lane_row<false>(k, 2 * s + 2));
    for (int c = 0; c < kColumns; ++c) rs::mma_16x8x16<T>(odd[c], a, q.b[s + 1][c]);
  }
  for (int c = 0; c < kColumns; ++c)
    for (int i = 0; i < 4; ++i) logits[c][i] = (even[c][i] + odd[c][i]) * q.factor[c][i % 2];
}

// sum += weight * V over 16 tokens.
template <typename T>
__device__ __forceinline__ void values16(const unsigned char* v, const float (&weights)[kColumns][4],
                                         State& state) {
  unsigned b[kColumns][2];
  for (int c = 0; c < kColumns; ++c) to_operand<T>(weights[c], b[c]);
  for (int m = 0; m < kSteps; ++m) {
    unsigned a[4];
    rs::ldmatrix_x4_trans(a, lane_row<true>(v, 2 * m));
    for (int c = 0; c < kColumns; ++c) rs::mma_16x8x16<T>(state.sum[m][c], a, b[c]);
  }
}

// Zeroes the rows of V that no query sees: their memory may hold a NaN, and 0 * NaN is one.
__device__ __forceinline__ void zero_rows16(unsigned char* v, int rows) {
  constexpr int kChunks = HEAD_DIM / 8;
  for (int i = rows * kChunks + lane_id(); i < 16 * kChunks; i += 32)
    *reinterpret_cast<uint4*>(v + i * 16) = make_uint4(0, 0, 0, 0);
  __syncwarp();
  rs::fence_async_shared();  // the slot's next tile comes by a bulk copy
}

__device__ __forceinline__ void tile16(unsigned char* tile, const Query<ELEMENT>& q, State& state,
                                       const Sight& sight, int row0) {
  float logits[1][kColumns][4];
  logits16<ELEMENT>(tile, q, logits[0]);
  if (!sight.all(16)) {
    sight.hide(logits[0], 0, row0);
    zero_rows16(tile + kHalfBytes, sight.rows());
  }
  state.weigh<1>(logits, nullptr);
  values16<ELEMENT>(tile + kHalfBytes, logits[0], state);
}

}  // namespace attention
