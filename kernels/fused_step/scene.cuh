// What a worker knows of a step before it begins: where each request stands and who attends to what.
#pragma once
#include <stddef.h>

#include "fused_step/product.cuh"
#include "small_ops/inline.cuh"

namespace fused {

constexpr int kMostItems = kMostRequests * KV_HEADS + 1;  // (request, KV head) pairs, and one

// In shared memory, the same in every worker.
struct Scene {
  float2 turn[kRows][HEAD_DIM / 2];  // cosine and sine of each token row's rotation
  int length[kMostRequests];         // committed tokens; negative: an idle slot
  int token[kRows];                  // input of each token row
  int page[kRows];                   // physical page that receives the row's key
  int prefix[kMostItems];            // tiles of 16 tokens that the items before have
  // Not part of what `step_begin` keeps:
  float sums[kWarps * kRows];  // squares of each token row, by warp
  float keys[2][4][4][kRows];  // of tiles, for the bounds of their pages
  int last;                    // whether this worker is the last of its item
  // A worker's part of attention (attend.cuh): its units, their item, and where each warp's
  // first tile is, in bytes of a layer's cache (negative: none), with its first token.
  int cut[kMostItems];  // workers that the items before have
  int begin, end, item;
  long long tile[kWarps];
  int tile_token[kWarps];
  float tops[kWarps][attention::kRows];  // reference exponents of its teams

  __device__ __forceinline__ int position(int row) const {
    return length[row / TOKENS] + row % TOKENS;
  }
  __device__ __forceinline__ bool idle(int row) const { return length[row / TOKENS] < 0; }
};

// Exclusive prefix sums of count(item) for *items* by the first warp, in *sums* [items + 1].
template <class Count>
__device__ __forceinline__ void sum_up(int* sums, int items, Count&& count) {
  if (threadIdx.x < 32) {
    int sum = 0;
#pragma unroll 1
    for (int base = 0; base < items; base += 32) {
      int i = base + static_cast<int>(threadIdx.x), v = i < items ? count(i) : 0;
      for (int d = 1; d < 32; d *= 2) {
        int below = __shfl_up_sync(0xffffffffu, v, d);
        if (static_cast<int>(threadIdx.x) >= d) v += below;
      }
      if (i < items) sums[i + 1] = sum + v;
      sum += __shfl_sync(0xffffffffu, v, 31);
    }
    if (threadIdx.x == 0) sums[0] = 0;
  }
  __syncthreads();
}

constexpr int kSceneWords = offsetof(Scene, sums) / 4;

// From the state, by a whole block.
__device__ __forceinline__ void load_scene(const FusedParams& p, const PagedAttentionParams& a,
                                           Scene& s) {
  if (threadIdx.x < p.requests)
    s.length[threadIdx.x] = static_cast<const volatile int*>(a.lengths)[threadIdx.x];
  __syncthreads();
  const int rows = p.requests * TOKENS;
  if (threadIdx.x < rows) {
    int row = threadIdx.x, at = min(max(s.position(row), 0), p.text_size - 1);
    long long request = row / TOKENS;
    int token = static_cast<const volatile int*>(p.text)[request * p.text_size + at];
    int page = static_cast<const volatile int*>(a.table)[request * a.max_pages + at / PAGE_TOKENS];
    s.token[row] = s.idle(row) ? 0 : token;
    s.page[row] = s.idle(row) ? 0 : page;
  }
  // Angles in revolutions: the whole ones drop out exactly, however late the position.
  for (int i = static_cast<int>(threadIdx.x); i < rows * HEAD_DIM / 2; i += kThreads) {
    int row = i / (HEAD_DIM / 2), pair = i % (HEAD_DIM / 2), position = max(s.position(row), 0);
    float2 turn = p.turns[pair];
    float whole = turn.x * position, rest = fmaf(turn.x, position, -whole), sine, cosine;
    rs::sincos_turns(whole - rintf(whole) + fmaf(turn.y, position, rest), sine, cosine);
    s.turn[row][pair] = make_float2(cosine, sine);
  }
  sum_up(s.prefix, p.requests * KV_HEADS, [&](int item) {
    int length = s.length[item / KV_HEADS];
    return length < 0 ? 0 : (length + TOKENS + 15) / 16;
  });
}

// As `step_begin` left it in global memory.
__device__ __forceinline__ void copy_scene(const unsigned* from, Scene& s) {
  unsigned* to = reinterpret_cast<unsigned*>(&s);
  for (int i = static_cast<int>(threadIdx.x); i < kSceneWords; i += kThreads)
    to[i] = static_cast<const volatile unsigned*>(from)[i];
  __syncthreads();
}

}  // namespace fused
