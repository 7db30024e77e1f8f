// Barrier among the first warps of a part of a block, so that several rows share one block.
#pragma once
#include "common/cuda.cuh"

namespace topk {

// All *threads* threads (whole warps) that use barrier *id* (1 to 15) meet, shared memory included.
__device__ __forceinline__ void sync_group(int id, int threads) {
#ifdef RS_CPU
  static thread_local struct {
    int arrived;
    unsigned phase;
  } barriers[16];
  auto& b = barriers[id];
  unsigned phase = b.phase;
  if (++b.arrived == threads) {
    b.arrived = 0;
    ++b.phase;
  } else {
    while (b.phase == phase) cpu::block->yield(cpu::Wait::spin);
  }
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace topk
