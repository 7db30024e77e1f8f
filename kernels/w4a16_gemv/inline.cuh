// Two primitives that only this folder needs, each with its CPU twin.
#pragma once
#include "common/cuda.cuh"

namespace rs {

// (v & mask) | bits in one instruction.
template <unsigned kMask, unsigned kBits>
__device__ __forceinline__ unsigned mask_or(unsigned v) {
#ifdef RS_CPU
  return (v & kMask) | kBits;
#else
  unsigned r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(v), "n"(kMask), "r"(kBits));
  return r;
#endif
}

// Ends a barrier's life, so that its word may be initialised again.
__device__ __forceinline__ void barrier_inval(Barrier* bar) {
#ifndef RS_CPU
  asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(shared_address(bar)) : "memory");
#endif
}

// barrier_wait that lets the hardware put the warp to sleep for long, so that many waiting warps do
// not take the issue slots of the one that copies.
__device__ __forceinline__ void barrier_sleep(Barrier* bar, unsigned parity) {
#if RS_HAS_BULK
  asm volatile(
      "{ .reg .pred p;\n"
      "again%=: mbarrier.try_wait.parity.shared.b64 p, [%0], %1, %2;\n"
      "@!p bra again%=; }"
      ::"r"(shared_address(bar)), "r"(parity), "r"(10000000u) : "memory");
#else
  barrier_wait(bar, parity);
#endif
}

// *threads* threads, whole warps, meet; the *count*th meeting of this word of shared memory, which
// starts at zero and which only the CPU needs.
__device__ __forceinline__ void meet(unsigned* word, unsigned count, unsigned threads) {
#ifdef RS_CPU
  atomicAdd(word, 1);
  while (*static_cast<volatile unsigned*>(word) < count * threads)
    cpu::block->yield(cpu::Wait::spin);
#else
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
#endif
}

// A pair of T whose values are kMagic + nibble: the nibble stands in the lowest mantissa bits of a
// power of two, so that masking and one OR make a number.
template <typename T>
struct Magic;
template <>
struct Magic<__nv_bfloat16> {
  static constexpr unsigned kPair = 0x43004300u;
  static constexpr float kValue = 128;
};
template <>
struct Magic<__half> {
  static constexpr unsigned kPair = 0x64006400u;
  static constexpr float kValue = 1024;
};

// Eight nibbles as the A fragment of an MMA, each plus Magic<T>::kValue: register r takes bits 4 r
// (low half) and 16 + 4 r (high half).
template <typename T>
__device__ __forceinline__ void unpack_nibbles(unsigned (&a)[4], unsigned word) {
  for (int r = 0; r < 4; ++r) a[r] = mask_or<0x000f000fu, Magic<T>::kPair>(word >> 4 * r);
}

}  // namespace rs
