// An instruction that common/cuda.cuh lacks, with its CPU twin.
#pragma once

namespace page_score {

// Gives the barrier's memory back to other uses. Nobody may wait on it any more.
__device__ __forceinline__ void barrier_forget(rs::Barrier* bar) {
#ifndef RS_CPU
  asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(rs::shared_address(bar)) : "memory");
#endif
}

}  // namespace page_score
