// A tile of 16 tokens in 8 bits.
//
// K's byte, zero-extended to 16 bits, is an fp16 number: byte * 2 ** -24. So K needs no arithmetic;
// the offset of 128 comes out as 128 * (sum of q), and K's scale multiplies the logit. V's scale
// joins the exponent: weights are 2 ** (logit + log2 scale), their sum is divided by it again.
#pragma once
#include "paged_attention/tile16.cuh"

namespace attention {

// 128 * sum of q over the channels, for query rows 2 t and 2 t + 1.
struct Offset {
  float value[kColumns][2];

  __device__ void load(const Query<__half>& q) {
    for (int c = 0; c < kColumns; ++c) {
      float sum = 0;
      for (int s = 0; s < kSteps; ++s)
        for (int j = 0; j < 2; ++j) {
          __half pair[2];
          memcpy(pair, &q.b[s][c][j], 4);
          sum += __half2float(pair[0]) + __half2float(pair[1]);
        }
      for (int d = 1; d < 4; d *= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
      for (int i = 0; i < 2; ++i)
        value[c][i] = 128 * __shfl_sync(kAllLanes, sum, (lane_id() % 4 * 2 + i) * 4);
    }
  }
};

// As lane_row, over rows of HEAD_DIM bytes. Matrices 0..3: rows 0-7, rows 8-15, then the next chunk.
__device__ __forceinline__ const unsigned char* lane_row8(const unsigned char* block, int chunk) {
  int matrix = lane_id() / 8, row = lane_id() % 8 + 8 * (matrix % 2);
  int column = (chunk + matrix / 2) ^ row / (128 / HEAD_DIM) % (HEAD_DIM / 16);
  return block + row * HEAD_DIM + column * 16;
}

// Two bytes over 0x64 are fp16 1024 + byte; minus 1152 the signed value.
__device__ __forceinline__ unsigned signed_pair(unsigned bytes, unsigned selector) {
  return rs::half2_subtract(__byte_perm(bytes, 0x64646464u, selector), 0x64806480u);
}

__device__ __forceinline__ void tile8(const unsigned char* tile, const Query<__half>& q,
                                      const Offset& offset, State& state, const Sight& sight,
                                      int row0) {
  float even[kColumns][4] = {}, odd[kColumns][4] = {};
  for (int s = 0; s < kSteps; s += 2) {
    unsigned r[4];
    rs::ldmatrix_x4(r, lane_row8(tile, s));
    unsigned a[4] = {__byte_perm(r[0], 0, 0x4140), __byte_perm(r[1], 0, 0x4140),
                     __byte_perm(r[0], 0, 0x4342), __byte_perm(r[1], 0, 0x4342)};
    unsigned b[4] = {__byte_perm(r[2], 0, 0x4140), __byte_perm(r[3], 0, 0x4140),
                     __byte_perm(r[2], 0, 0x4342), __byte_perm(r[3], 0, 0x4342)};
    for (int c = 0; c < kColumns; ++c) {
      rs::mma_16x8x16<__half>(even[c], a, q.b[s][c]);
      rs::mma_16x8x16<__half>(odd[c], b, q.b[s + 1][c]);
    }
  }

  bool all = sight.all(16);
  float k_scale[2], exponent[2], inverse[1][2], logits[1][kColumns][4];
  const float* scales = reinterpret_cast<const float*>(tile + 2 * rs::kBlockBytes);
  for (int h = 0; h < 2; ++h) {
    int row = lane_id() / 4 + 8 * h;
    float v_scale = scales[16 + row];
    if (!all && row >= sight.rows()) v_scale = 1;  // never written: may be anything
    k_scale[h] = scales[row];
    exponent[h] = __log2f(v_scale);
    inverse[0][h] = rs::exp2_fast(-exponent[h]);
  }
  for (int c = 0; c < kColumns; ++c)
    for (int i = 0; i < 4; ++i) {
      float product = (even[c][i] + odd[c][i]) * 0x1p24f - offset.value[c][i % 2];
      logits[0][c][i] =
          product * (k_scale[i / 2] * q.factor[c][i % 2]) + exponent[i / 2];
    }
  if (!all) sight.hide(logits[0], 0, row0);
  state.weigh<1>(logits, inverse);

  unsigned b[kColumns][2];
  for (int c = 0; c < kColumns; ++c) to_operand<__half>(logits[0][c], b[c]);
  for (int m = 0; m < kSteps; m += 2) {  // rows g, g + 8 of an m-tile are channels 2 g, 2 g + 1
    unsigned r[4];
    rs::ldmatrix_x4_trans(r, lane_row8(tile + rs::kBlockBytes, m));
    for (int n = 0; n < 2; ++n) {
      unsigned a[4] = {signed_pair(r[2 * n], 0x4240), signed_pair(r[2 * n], 0x4341),
                       signed_pair(r[2 * n + 1], 0x4240), signed_pair(r[2 * n + 1], 0x4341)};
      for (int c = 0; c < kColumns; ++c) rs::mma_16x8x16<__half>(state.sum[m + n][c], a, b[c]);
    }
  }
}

}  // namespace attention
