// Meeting points of co-resident blocks, and words shared with the host.
//
// A meeting costs two trips to L2: an arrival that returns nothing, and the poll that sees the last
// one. Each waiter knows the count to wait for, so nobody needs the old value of the counter.
#pragma once
#include "common/cuda.cuh"

namespace rs {

// One more on *p*; everything before it is visible to whoever reads the new value with acquire.
__device__ __forceinline__ void arrive_release_gpu(unsigned* p) {
#ifdef RS_CPU
  __atomic_fetch_add(p, 1u, __ATOMIC_ACQ_REL);
#else
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory");
#endif
}
// Two words at once, the lower address in the low half.
__device__ __forceinline__ unsigned long long load_pair_acquire_gpu(const unsigned* p) {
#ifdef RS_CPU
  return __atomic_load_n(reinterpret_cast<const unsigned long long*>(p), __ATOMIC_ACQUIRE);
#else
  unsigned long long v;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
  return v;
#endif
}
// Eight bytes that reach the host whole and carry their own sequence number: no fence is needed.
__device__ __forceinline__ void store_tagged_sys(unsigned long long* p, unsigned value,
                                                 unsigned tag) {
  *static_cast<volatile unsigned long long*>(p) = static_cast<unsigned long long>(tag) << 32 | value;
}
// Lets the other fibers of a block run on the CPU; nothing on a GPU.
__device__ __forceinline__ void spin_pause() {
#ifdef RS_CPU
  cpu::block->yield(cpu::Wait::spin);
#endif
}

// ---------------------------------------------------------------------------- waiting
// Waits until *word has reached *target* (modulo 2^32), and leaves the word behind it in *next*:
// what an arrival announced in the same pair. False if *abort was set or *limit_ns* went by, which
// sets *abort for everybody else.
__device__ __forceinline__ bool wait_reached(const unsigned* word, unsigned target, unsigned* abort,
                                             unsigned long long limit_ns, unsigned& next) {
  unsigned long long begin = 0;
  for (unsigned polls = 1;; ++polls) {
    unsigned long long pair = load_pair_acquire_gpu(word);
    next = static_cast<unsigned>(pair >> 32);
    if (static_cast<int>(static_cast<unsigned>(pair) - target) >= 0) return true;
    spin_pause();
    if (polls % 1024) continue;
    unsigned long long now = global_ns();
    if (begin == 0) begin = now;
    if (now - begin > limit_ns) store_release_gpu(abort, 1u);
    if (load_acquire_gpu(abort)) return false;
  }
}
__device__ __forceinline__ bool wait_reached(const unsigned* word, unsigned target, unsigned* abort,
                                             unsigned long long limit_ns) {
  unsigned next;
  return wait_reached(word, target, abort, limit_ns, next);
}

// What thread 0 of a block keeps of a series of meetings: how many arrivals the next one ends with.
struct Meeting {
  unsigned* arrived;  // one word that starts at zero and only grows, and one that goes with it
  unsigned* abort;
  unsigned blocks;
  unsigned target;
  unsigned long long limit_ns;
};

// All threads of all blocks meet; *next* receives the word beside the counter. False, in every
// thread, if one waited longer than the limit.
__device__ __forceinline__ bool meet(Meeting& m, unsigned& next) {
  __shared__ int alive;
  __shared__ unsigned beside;
  __syncthreads();
  if (threadIdx.x == 0) {
    m.target += m.blocks;
    arrive_release_gpu(m.arrived);
    __nanosleep(100);  // polls that must fail would only hold up the arrivals
    alive = wait_reached(m.arrived, m.target, m.abort, m.limit_ns, beside);
  }
  __syncthreads();
  next = beside;
  return alive != 0;
}
__device__ __forceinline__ bool meet(Meeting& m) {
  unsigned next;
  return meet(m, next);
}

}  // namespace rs
