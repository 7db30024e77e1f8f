// Loads and stores of data that is touched once.
#pragma once
#include "common/cuda.cuh"

#ifndef FETCH
#define FETCH 0  // 256: ask L2 to fetch 256 bytes for each load that misses
#endif

namespace streams {

__device__ __forceinline__ uint4 load(const uint4* p) {
#ifdef RS_CPU
  return *p;
#else
  uint4 v;
#if FETCH == 256
  asm volatile("ld.global.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
#else
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
#endif
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
#endif
}

__device__ __forceinline__ void store(uint4* p, uint4 v) {
#ifdef RS_CPU
  *p = v;
#else
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};"
               ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}

}  // namespace streams
