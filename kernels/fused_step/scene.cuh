// What a worker knows of a step before it begins: where each request stands and who attends to what.
#pragma once
#include "fused_step/product.cuh"

namespace fused {

constexpr int kMostItems = 129;  // (request, KV head) pairs, and one

// In shared memory, the same in every worker.
struct Scene {
  int length[kMostRequests];  // committed tokens; negative: an idle slot
  int token[kRows];           // input of each token row
  int prefix[kMostItems];     // tiles of 16 tokens that the items before have
  float sums[kWarps * kRows];  // squares of each token row, by warp
  int last;                   // a ticket's outcome

  __device__ __forceinline__ int position(int row) const {
    return length[row / TOKENS] + row % TOKENS;
  }
  __device__ __forceinline__ bool idle(int row) const { return length[row / TOKENS] < 0; }
};

// Exclusive prefix sums of count(item) for *items* by the first warp.
template <class Count>
__device__ __forceinline__ void sum_up(Scene& s, int items, Count&& count) {
  if (threadIdx.x < 32) {
    int sum = 0;
#pragma unroll 1
    for (int base = 0; base < items; base += 32) {
      int i = base + static_cast<int>(threadIdx.x), v = i < items ? count(i) : 0;
      for (int d = 1; d < 32; d *= 2) {
        int below = __shfl_up_sync(0xffffffffu, v, d);
        if (static_cast<int>(threadIdx.x) >= d) v += below;
      }
      if (i < items) s.prefix[i + 1] = sum + v;
      sum += __shfl_sync(0xffffffffu, v, 31);
    }
    if (threadIdx.x == 0) s.prefix[0] = 0;
  }
  __syncthreads();
}

__device__ __forceinline__ void load_scene(const FusedParams& p, const int* lengths, Scene& s) {
  if (threadIdx.x < p.requests)
    s.length[threadIdx.x] = static_cast<const volatile int*>(lengths)[threadIdx.x];
  __syncthreads();
  if (threadIdx.x < p.requests * TOKENS) {
    int row = threadIdx.x, at = min(max(s.position(row), 0), p.text_size - 1);
    s.token[row] = s.idle(row) ? 0 : static_cast<const volatile int*>(p.text)[
        (long long)(row / TOKENS) * p.text_size + at];
  }
  sum_up(s, p.requests * p.kv_heads, [&](int item) {
    int length = s.length[item / p.kv_heads];
    return length < 0 ? 0 : (length + TOKENS + 15) / 16;
  });
}

// A token row of the residual stream as *layer* finds it: the first layer reads the embedding.
__device__ __forceinline__ const ELEMENT* hidden_row(const FusedParams& p, const Scene& s,
                                                     int layer, int row) {
  return layer == 0 ? p.embedding + (long long)s.token[row] * HIDDEN
                    : p.hidden + (long long)row * HIDDEN;
}

}  // namespace fused
