// A tile of 16 or 32 tokens in 4 bits, and a unit of its 16-bit tail.
//
// A nibble at bits 0-3 or 4-7 of a half is an fp16 number: nibble * 2 ** -24 or * 2 ** -20. Rows g of
// a fragment take the first, rows g + 8 the second place, so one factor a row undoes it. K's scales
// multiply q once a tile, V's multiply the weights; zeros enter as products of their own, whose
// operand has the same zeros in all rows.
#pragma once
#include "paged_attention/tile16.cuh"

namespace attention {

constexpr int kHalves = rs::kTile / 16;

__device__ __forceinline__ void nibbles(unsigned word, unsigned (&a)[4]) {
  a[0] = word & 0x000f000fu;
  a[1] = word & 0x00f000f0u;
  a[2] = word >> 8 & 0x000f000fu;
  a[3] = word >> 8 & 0x00f000f0u;
}
__device__ __forceinline__ uint4 shared16(const unsigned char* p) {
  return *reinterpret_cast<const uint4*>(p);
}
__device__ __forceinline__ float row_factor(int i) { return i < 2 ? 0x1p24f : 0x1p20f; }

__device__ __forceinline__ void logits4(const unsigned char* tile, const Query<__half>& q,
                                        float (&logits)[kHalves][1][4]) {
  const unsigned char* words = tile + lane_id() * 16;
  const unsigned char* scales = tile + 2 * rs::kBlockBytes + lane_id() % 4 * 16;
  float product[kHalves][4] = {}, zero[4] = {};
  for (int wide = 0; wide < HEAD_DIM / 64; ++wide) {
    uint4 word[kHalves];
    for (int h = 0; h < kHalves; ++h)
      word[h] = shared16(words + (h * (HEAD_DIM / 64) + wide) * 512);
    for (int j = 0; j < 4; ++j) {
      int s = wide * 4 + j;
      uint4 scale = shared16(scales + s * 64);  // scales of channels 4 t .. 4 t + 3, then zeros
      unsigned zeros[4] = {scale.z, scale.z, scale.w, scale.w};
      unsigned b[2] = {rs::half2_multiply(q.b[s][0][0], scale.x),
                       rs::half2_multiply(q.b[s][0][1], scale.y)};
      rs::mma_16x8x16<__half>(zero, zeros, q.b[s][0]);
      for (int h = 0; h < kHalves; ++h) {
        unsigned a[4];
        nibbles(j == 0 ? word[h].x : j == 1 ? word[h].y : j == 2 ? word[h].z : word[h].w, a);
        rs::mma_16x8x16<__half>(product[h], a, b);
      }
    }
  }
  for (int h = 0; h < kHalves; ++h)
    for (int i = 0; i < 4; ++i)
      logits[h][0][i] = (product[h][i] * row_factor(i) + zero[i]) * q.factor[0][i % 2];
}

// sum counts nibbles in units of 1 / row_factor; zero[w] holds channel group 2 w in rows g and
// group 2 w + 1 in rows g + 8.
__device__ __forceinline__ void values4(const unsigned char* tile,
                                        const float (&weights)[kHalves][1][4], State& state) {
  constexpr int kGroups = HEAD_DIM / rs::kValueGroup;
  const unsigned char* words = tile + rs::kBlockBytes + lane_id() * 16;
  const unsigned char* scales =
      tile + 2 * rs::kBlockBytes + rs::kKeyScaleBytes + lane_id() % 4 * 16;
  for (int h = 0; h < kHalves; ++h) {
    unsigned b[2];
    to_operand<__half>(weights[h][0], b);
    for (int wide = 0; wide < HEAD_DIM / 64; ++wide) {
      uint4 word = shared16(words + (h * (HEAD_DIM / 64) + wide) * 512);
      uint4 scale[2];  // of tokens 2 t, 2 t + 1 | 2 t + 8, 2 t + 9, then zeros; a group of channels
      for (int n = 0; n < 2; ++n)
        scale[n] = shared16(scales + (h * kGroups + wide * 2 + n) * 64);
      unsigned zeros[4] = {scale[0].z, scale[1].z, scale[0].w, scale[1].w};
      rs::mma_16x8x16<__half>(state.zero[wide][0], zeros, b);
      for (int n = 0; n < 2; ++n) {
        unsigned scaled[2] = {rs::half2_multiply(b[0], scale[n].x),
                              rs::half2_multiply(b[1], scale[n].y)};
        unsigned a[4];
        nibbles(n ? word.z : word.x, a);
        rs::mma_16x8x16<__half>(state.sum[wide * 4 + n * 2][0], a, scaled);
        nibbles(n ? word.w : word.y, a);
        rs::mma_16x8x16<__half>(state.sum[wide * 4 + n * 2 + 1][0], a, scaled);
      }
    }
  }
}

__device__ __forceinline__ void tile4(const unsigned char* tile, const Query<__half>& q,
                                      State& state) {
  float logits[kHalves][1][4];
  logits4(tile, q, logits);
  state.weigh<kHalves>(logits, nullptr);
  values4(tile, logits, state);
}

// The sums in plain units, for the tail and for the output.
__device__ __forceinline__ void rescale(State& state, bool plain) {
  for (int m = 0; m < kSteps; ++m)
    for (int i = 0; i < 4; ++i)
      state.sum[m][0][i] *= plain ? row_factor(i) : 1 / row_factor(i);
}
__device__ __forceinline__ void settle(State& state) {
  rescale(state, true);
  for (int m = 0; m < kSteps; ++m)
    for (int i = 0; i < 4; ++i)
      state.sum[m][0][i] += state.zero[m / 4][0][i % 2 + m % 4 / 2 * 2];
}

// The tail comes as two fills: K first (tail_logits), then V (tail_values). Rare: the query is read
// again, in its own type.
__device__ __forceinline__ void tail_logits(const PagedAttentionParams& p, int item,
                                            const unsigned char* k, const Sight& sight, int row0,
                                            float (&logits)[1][1][4]) {
  Query<ELEMENT> q;
  q.template load<false>(p, item, row0);
  logits16<ELEMENT>(k, q, logits[0]);
  if (!sight.all(16)) sight.hide(logits[0], 0, row0);
}
__device__ __forceinline__ void tail_values(unsigned char* v, const Sight& sight,
                                            float (&logits)[1][1][4], State& state) {
  if (!sight.all(16)) zero_rows16(v, sight.rows());
  state.weigh<1>(logits, nullptr);
  rescale(state, true);
  values16<ELEMENT>(v, logits[0], state);
  rescale(state, false);
}

}  // namespace attention
