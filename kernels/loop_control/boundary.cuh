// Where the resident loop's blocks stop between two steps, and how they learn what comes next.
#pragma once
#include "loop_control/control.cuh"

namespace loop {

// The order for boundary *number* in the word that stood beside a counter. Block 0 may be one
// boundary ahead by now, and then this one let everybody pass.
__device__ inline unsigned order_in(unsigned word, unsigned number) {
  return word >> 2 == number ? word % 4 : kGo;
}
__device__ inline void put_order(unsigned* gate, unsigned number, unsigned order) {
  static_cast<volatile unsigned*>(gate)[1] = number << 2 | order;
}

// Where all blocks, block 0 included, agree on what comes next: kRun, or why to leave (only block 0
// knows). *launched* boundaries lie behind; *order* is what block 0 foresaw.
__device__ __forceinline__ unsigned boundary(const Control& c, const Slots& s, Desk& desk,
                                             rs::Meeting& outside, unsigned launched,
                                             unsigned order, Unsent& unsent) {
  __shared__ unsigned settled;
  bool serves = blockIdx.x == 0;
  if (serves && threadIdx.x == 0) put_order(c.gates + kBoundary, launched, order);
  unsigned word;
  if (!rs::meet(outside, word)) return kAborted;
  order = order_in(word, launched);
  if (order == kHold && serves) {
    unsigned reason = settle(c, s, desk, outside, launched, unsent);
    if (threadIdx.x == 0) {
      put_order(c.gates + kSettled, launched, reason == kRun ? kGo : kLeave);
      rs::store_release_gpu(c.gates + kSettled, launched + 1);
    }
    return reason;
  }
  if (order == kHold) {
    if (threadIdx.x == 0 && !rs::wait_reached(c.gates + kSettled, launched + 1, outside.abort,
                                              outside.limit_ns, settled))
      settled = launched << 2 | kLeave;
    __syncthreads();
    order = order_in(settled, launched);
  }
  if (order != kLeave) return kRun;
  return serves ? decide(c, desk, launched) : unsigned(kAsked);
}

// The last block to leave puts the words of the meetings back to zero.
__device__ inline void leave(unsigned* gates) {
  __syncthreads();
  if (threadIdx.x) return;
  if (rs::add_acq_rel_gpu(gates + kLeft, 1) + 1 < gridDim.x) return;
  for (int i = 0; i < kGateWords; ++i) static_cast<volatile unsigned*>(gates)[i] = 0;
}

}  // namespace loop
