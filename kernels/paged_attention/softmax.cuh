// A warp's running state over the tiles of an item: online softmax with a lazy reference exponent.
//
// All products are transposed, so that up to 8 query rows fill the narrow side of an mma: logits are
// [16 tokens][8 query rows], sums are [16 channels][8 query rows]. Lane 4 g + t holds, of every
// fragment d: d[0], d[1] row g of query rows 2 t, 2 t + 1; d[2], d[3] row g + 8 of the same.
#pragma once
#include "paged_attention/fragment.cuh"
#include "paged_attention/schedule.cuh"

namespace attention {

// The type of p and V inside the products; quantised values are exact in fp16.
#if KV_BITS == 16
using Product = ELEMENT;
#else
using Product = __half;
#endif

// Weights may exceed 1 by 2 ** kSlack before the reference exponent is raised: raising it touches
// all sums, and after a few tiles it hardly happens.
constexpr float kSlack = KV_BITS == 16 ? 8.0f : 4.0f;
constexpr float kLowest = -1e30f;  // the reference before the first token; finite, so no NaN
constexpr float kLog2E = 1.4426950408889634f;

struct State {
  float sum[kSteps][kColumns][4];  // sum of weight * V; 4 bits: see tile4.cuh for the units
#if KV_BITS == 4
  float zero[HEAD_DIM / 64][kColumns][4];  // sum of weight * zero of V's channel groups
#endif
  float top[kColumns][2];     // reference exponent of query rows 2 t and 2 t + 1
  float weight[kColumns][2];  // sum of weights over the lane's own tokens

  __device__ void clear() {
    for (int c = 0; c < kColumns; ++c) {
      for (int m = 0; m < kSteps; ++m)
        for (int i = 0; i < 4; ++i) sum[m][c][i] = 0;
#if KV_BITS == 4
      for (int m = 0; m < HEAD_DIM / 64; ++m)
        for (int i = 0; i < 4; ++i) zero[m][c][i] = 0;
#endif
      for (int i = 0; i < 2; ++i) top[c][i] = kLowest, weight[c][i] = 0;
    }
  }

  __device__ void multiply(int c, int i, float factor) {  // query row 2 t + i of n-tile c
    weight[c][i] *= factor;
    for (int m = 0; m < kSteps; ++m) {
      sum[m][c][i] *= factor;
      sum[m][c][i + 2] *= factor;
    }
#if KV_BITS == 4
    for (int m = 0; m < HEAD_DIM / 64; ++m) {
      zero[m][c][i] *= factor;
      zero[m][c][i + 2] *= factor;
    }
#endif
  }

  // *logits* in powers of two become weights; *inverse* takes V's scale out of the sum of weights.
  template <int kHalves>
  __device__ void weigh(float (&logits)[kHalves][kColumns][4], const float (*inverse)[2]) {
    float over = kLowest;
    for (int h = 0; h < kHalves; ++h)
      for (int c = 0; c < kColumns; ++c)
        for (int i = 0; i < 4; ++i) over = fmaxf(over, logits[h][c][i] - top[c][i % 2]);
    if (__any_sync(kAllLanes, over > kSlack)) {
      for (int c = 0; c < kColumns; ++c)
        for (int i = 0; i < 2; ++i) {
          float high = top[c][i];
          for (int h = 0; h < kHalves; ++h)
            high = fmaxf(high, fmaxf(logits[h][c][i], logits[h][c][i + 2]));
          for (int d = 4; d < 32; d *= 2)
            high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, d));
          multiply(c, i, rs::exp2_fast(top[c][i] - high));
          top[c][i] = high;
        }
    }
    for (int h = 0; h < kHalves; ++h)
      for (int c = 0; c < kColumns; ++c)
        for (int i = 0; i < 4; ++i) {
          float w = rs::exp2_fast(logits[h][c][i] - top[c][i % 2]);
          weight[c][i % 2] += inverse ? w * inverse[h][i / 2] : w;
          logits[h][c][i] = w;
        }
  }

  __device__ void reduce_weights() {  // afterwards every lane has its query rows' whole sums
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < 2; ++i)
        for (int d = 4; d < 32; d *= 2)
          weight[c][i] += __shfl_xor_sync(kAllLanes, weight[c][i], d);
  }
};

// Weights of 16 tokens as the k side of the second product.
template <typename T>
__device__ __forceinline__ void to_operand(const float (&w)[4], unsigned (&b)[2]) {
  b[0] = rs::transpose8(rs::pack2<T>(w[0], w[1]));
  b[1] = rs::transpose8(rs::pack2<T>(w[2], w[3]));
}

// Query rows of an item as the narrow operand. *row0* is the warp's first row.
template <typename T>
struct Query {
  unsigned b[kSteps][kColumns][2];
  float factor[kColumns][2];  // logits of query rows 2 t, 2 t + 1 per unit of product; with log2 e

  // k index 2 t + i (+ 8 j) of step s is channel 16 s + 2 t + i + 8 j, or 16 s + 4 t + i + 2 j.
  template <bool kPaired>
  __device__ void load(const PagedAttentionParams& p, int item, int row0) {
    int g = lane_id() / 4, t = lane_id() % 4, request = item / p.kv_heads;
    int head = item - request * p.kv_heads;
    for (int c = 0; c < kColumns; ++c) {
      int row = row0 + c * 8 + g, heads = p.kv_heads * GROUP;
      const ELEMENT* q = p.q + (((long long)request * TOKENS + row / GROUP) * heads +
                                head * GROUP + row % GROUP) * HEAD_DIM;
      for (int s = 0; s < kSteps; ++s)
        for (int j = 0; j < 2; ++j) {
          int channel = 16 * s + (kPaired ? 4 * t + 2 * j : 2 * t + 8 * j);
          b[s][c][j] = 0;
          // Channels are even, so pairs lie on 4-byte boundaries; memcpy would load byte by byte.
          if (row < kRows) b[s][c][j] = *reinterpret_cast<const unsigned*>(q + channel);
        }
      for (int i = 0; i < 2; ++i) factor[c][i] = p.scale * kLog2E;
      if (KV_BITS != 16 && kPaired) narrow(c);
    }
  }

  // To fp16 near 1, whatever the range of bf16: divided by a power of two, which *factor* keeps.
  __device__ void narrow(int c) {
    float high = 0;
    for (int s = 0; s < kSteps; ++s)
      for (int j = 0; j < 2; ++j) high = fmaxf(high, fmaxf(fabsf(value(s, c, j, 0)),
                                                           fabsf(value(s, c, j, 1))));
    for (int d = 1; d < 4; d *= 2) high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, d));
    float unit = __uint_as_float(__float_as_uint(fmaxf(high, 1e-30f)) & 0x7f800000u);
    float inverse = __uint_as_float(0x7f000000u - __float_as_uint(unit));
    for (int s = 0; s < kSteps; ++s)
      for (int j = 0; j < 2; ++j)
        b[s][c][j] =
            rs::pack2<__half>(value(s, c, j, 0) * inverse, value(s, c, j, 1) * inverse);
    for (int i = 0; i < 2; ++i)
      factor[c][i] *= __shfl_sync(kAllLanes, unit, (lane_id() % 4 * 2 + i) * 4);
  }
  __device__ float value(int s, int c, int j, int i) const {
    ELEMENT pair[2];
    memcpy(pair, &b[s][c][j], 4);
    return rs::to_float(pair[i]);
  }
};

// What a tile may show: token *first* of the tile up to *last* for query token 0, one more each.
struct Sight {
  int first, last;

  __device__ Sight(int first, int length) : first(first), last(length) {}
  __device__ bool all(int tokens) const { return first + tokens - 1 <= last; }
  __device__ int rows() const { return last + TOKENS - first; }  // of the tile, seen by any query
  // Hides the logits of 16 tokens from *token* of the tile.
  __device__ void hide(float (&logits)[kColumns][4], int token, int row0) const {
    int g = lane_id() / 4, t = lane_id() % 4;
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < 4; ++i) {
        int query = (row0 + c * 8 + 2 * t + i % 2) / GROUP;
        if (first + token + g + i / 2 * 8 > last + query) logits[c][i] = -INFINITY;
      }
  }
};

}  // namespace attention
