// Primitives that only this folder needs, each with its CPU twin.
#pragma once
#include "common/cuda.cuh"

namespace rs {

// Sine and cosine of *turns* revolutions; exact reduction, no slow path.
__device__ __forceinline__ void sincos_turns(float turns, float& sine, float& cosine) {
#ifdef RS_CPU
  sine = static_cast<float>(sin(6.283185307179586 * turns));
  cosine = static_cast<float>(cos(6.283185307179586 * turns));
#else
  sincospif(2 * turns, &sine, &cosine);
#endif
}

// 8 bytes that another SM may have written in the same launch.
__device__ __forceinline__ uint2 load_pair(const void* p) {
#ifdef RS_CPU
  uint2 v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  uint2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
  return v;
#endif
}

}  // namespace rs
