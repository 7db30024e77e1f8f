// Instructions that common/cuda.cuh lacks, with their CPU twins.
#pragma once

namespace page_score {

// Gives the barrier's memory back to other uses. Nobody may wait on it any more.
__device__ __forceinline__ void barrier_forget(rs::Barrier* bar) {
#ifndef RS_CPU
  asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(rs::shared_address(bar)) : "memory");
#endif
}

// min(x, 0) of both elements of *pair*.
template <typename T>
__device__ __forceinline__ unsigned negative_part(unsigned pair);
// max(x, 0) of both elements of *pair*.
template <typename T>
__device__ __forceinline__ unsigned positive_part(unsigned pair);

#ifdef RS_CPU
inline unsigned sign_mask(unsigned pair) {
  unsigned signs = (pair & 0x80008000u) >> 15;
  return (signs << 16) - signs;
}
template <typename T>
unsigned negative_part(unsigned pair) {
  return pair & sign_mask(pair);
}
template <typename T>
unsigned positive_part(unsigned pair) {
  return pair & ~sign_mask(pair);
}
#else
template <>
__device__ __forceinline__ unsigned negative_part<__nv_bfloat16>(unsigned pair) {
  unsigned r;
  asm("min.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(pair), "r"(0u));
  return r;
}
template <>
__device__ __forceinline__ unsigned positive_part<__nv_bfloat16>(unsigned pair) {
  unsigned r;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(pair), "r"(0u));
  return r;
}
template <>
__device__ __forceinline__ unsigned negative_part<__half>(unsigned pair) {
  unsigned r;
  asm("min.f16x2 %0, %1, %2;" : "=r"(r) : "r"(pair), "r"(0u));
  return r;
}
template <>
__device__ __forceinline__ unsigned positive_part<__half>(unsigned pair) {
  unsigned r;
  asm("max.f16x2 %0, %1, %2;" : "=r"(r) : "r"(pair), "r"(0u));
  return r;
}
#endif

}  // namespace page_score
