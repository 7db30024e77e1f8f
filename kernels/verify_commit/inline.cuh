// The load of the vocabulary's rows, as a named inline with a CPU twin.
#pragma once
#include "common/cuda.cuh"

namespace verify {

// 16 bytes past L1 through the coherent path. Unlike rs::load_stream it fetches no more into L2
// than it reads: on a stream that all warps share, the wider fetch costs several percent.
__device__ __forceinline__ uint4 load_vocabulary(const void* p) {
#ifdef RS_CPU
  uint4 v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
#endif
}

}  // namespace verify
