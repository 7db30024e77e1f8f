// What a consumer does: x into shared memory, and products of a unit with it.
#pragma once
#include "w4a16_gemv/plan.cuh"

namespace gemv {

// ---------------------------------------------------------------------------- x
// The columns of *piece* of x on their way to shared memory, zeros beyond k; *warp* of *warps* asks
// for its share.
// Each block starts at another place, so that they do not all ask one part of L2 at once.
__device__ inline void copy_x(const W4a16GemvParams& p, const Shared& s, int piece, int warp,
                              int warps, int block) {
  const int row_chunks = p.piece_units * (kUnitK / 8), row_blocks = (row_chunks + 31) / 32;
  const int stride = x_stride(p.piece_units * kUnitK), blocks = p.tokens * row_blocks;
  const int start = (warp + block * 7) % blocks;
  int token = start / row_blocks, column = start - token * row_blocks;
#pragma unroll 1
  for (int i = warp; i < blocks; i += warps) {
    const int chunk = column * 32 + threadIdx.x % 32, k = piece * p.piece_units * kUnitK + chunk * 8;
    if (chunk < row_chunks) {
      unsigned char* to = s.x + token * stride + chunk * 16;
      if (k < p.k)
        rs::copy16_async(to, p.x + (long long)token * p.k + k);
      else
        *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
    }
    for (column += warps; column >= row_blocks; column -= row_blocks)
      if (++token == p.tokens) token = 0;
  }
  rs::copy_commit();
}

// B fragments of two k-steps: lane (g, t) takes x[token g][16 t + 8 half ...] of a block of 64. *x*
// points at the lane's token and column.
__device__ __forceinline__ uint4 load_x(const W4a16GemvParams& p, const unsigned char* x, int stride,
                                        int side) {
  if (static_cast<int>(threadIdx.x % 32 / 4) + 8 * side >= p.tokens) return make_uint4(0, 0, 0, 0);
  return *reinterpret_cast<const uint4*>(x + side * 8 * stride);
}

// Sums of x over each group of 128, by a product with ones.
__device__ inline void sum_x(const W4a16GemvParams& p, const Shared& s, int warp, int warps) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int stride = x_stride(p.piece_units * kUnitK);
  const unsigned one = rs::pack2<ELEMENT>(1, 1);
#pragma unroll 1
  for (int i = warp; i < p.piece_units * (kUnitK / 128) * kSides; i += warps) {
    const int group = i / kSides, side = i % kSides;
    const unsigned char* x = s.x + g * stride + group * 256 + t * 32;
    float sum[4][4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint4 b = load_x(p, x + j / 2 * 128 + j % 2 * 16, stride, side);
      rs::mma_16x8x16<ELEMENT>(sum[j], {one, one, one, one}, {b.x, b.y});
      rs::mma_16x8x16<ELEMENT>(sum[j], {one, one, one, one}, {b.z, b.w});
    }
    if (g == 0)
      *reinterpret_cast<float2*>(s.sums + group * kSums + 8 * side + 2 * t) =
          make_float2(sum[0][0] + sum[1][0] + (sum[2][0] + sum[3][0]),
                      sum[0][1] + sum[1][1] + (sum[2][1] + sum[3][1]));
  }
}

// ---------------------------------------------------------------------------- one unit
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
        unsigned a[2][4];
        rs::unpack_nibbles<ELEMENT>(a[0], word[2 * half]);
        rs::unpack_nibbles<ELEMENT>(a[1], word[2 * half + 1]);
#pragma unroll
        for (int side = 0; side < kSides; ++side) {
          uint4 b = load_x(p, x + block * 128 + half * 16, stride, side);
          rs::mma_16x8x16<ELEMENT>(acc[side], a[0], {b.x, b.y});
          rs::mma_16x8x16<ELEMENT>(acc[side], a[1], {b.z, b.w});
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
    uint4 w[2];
    for (int i = 0; i < 2; ++i)
      w[i] = *reinterpret_cast<const uint4*>(unit + (2 * half + i) * 512 + lane * 16);
#pragma unroll
    for (int side = 0; side < kSides; ++side) {
      uint4 b = load_x(p, x + half * 16, stride, side);
      rs::mma_16x8x16<ELEMENT>(total[side], {w[0].x, w[0].y, w[0].z, w[0].w}, {b.x, b.y});
      rs::mma_16x8x16<ELEMENT>(total[side], {w[1].x, w[1].y, w[1].z, w[1].w}, {b.z, b.w});
    }
  }
#endif
}

}  // namespace gemv
