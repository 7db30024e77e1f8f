// Instructions and small arithmetic that common/cuda.cuh lacks, with their CPU twins.
#pragma once

namespace kv_append {

// Coherent loads that the compiler leaves where they are, so that several stay in flight.
__device__ __forceinline__ uint2 load8(const void* p) {
#ifdef RS_CPU
  return *static_cast<const uint2*>(p);
#else
  uint2 v;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
  return v;
#endif
}
__device__ __forceinline__ float load4(const void* p) {
#ifdef RS_CPU
  return *static_cast<const float*>(p);
#else
  float v;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
  return v;
#endif
}

// x / d, rounded to nearest, for many x and one d: a correctly rounded reciprocal and one step of
// Newton give the rounded quotient unless it is denormal.
struct Divisor {
  float d, inverse;

  __device__ __forceinline__ explicit Divisor(float d) : d(d), inverse(1.0f / d) {}
  __device__ __forceinline__ float divide(float x) const {
    float guess = x * inverse;
    return fmaf(fmaf(-guess, d, x), inverse, guess);
  }
};

}  // namespace kv_append
