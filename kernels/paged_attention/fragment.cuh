// Instructions on fragments that common/cuda.cuh lacks, with CPU twins.
#pragma once
#include "common/cuda.cuh"

namespace rs {

// The 8x8 matrix of 16-bit elements that the warp holds, transposed: lane 4 g + t gives row g,
// columns 2 t and 2 t + 1, and receives column g of rows 2 t and 2 t + 1.
__device__ __forceinline__ unsigned transpose8(unsigned v) {
#ifdef RS_CPU
  unsigned r = 0;
  int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 2; ++i) {
    unsigned pair = __shfl_sync(0xffffffffu, v, (2 * t + i) * 4 + g / 2);
    r |= (g % 2 ? pair >> 16 : pair & 0xffffu) << (16 * i);
  }
  return r;
#else
  unsigned r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
#endif
}

// Ends a barrier's life, so that its memory may serve something else.
__device__ __forceinline__ void barrier_invalidate(Barrier* bar) {
#ifndef RS_CPU
  asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(shared_address(bar)) : "memory");
#endif
}

// Pairs of fp16 in a register.
__device__ __forceinline__ unsigned half2_multiply(unsigned a, unsigned b) {
  __half2 x, y;
  memcpy(&x, &a, 4);
  memcpy(&y, &b, 4);
  x = __hmul2(x, y);
  memcpy(&a, &x, 4);
  return a;
}
__device__ __forceinline__ unsigned half2_subtract(unsigned a, unsigned b) {
  __half2 x, y;
  memcpy(&x, &a, 4);
  memcpy(&y, &b, 4);
  x = __hsub2(x, y);
  memcpy(&a, &x, 4);
  return a;
}

}  // namespace rs
