// Moves of pages by the SMs, over PCIe where a pool is pinned host memory.
//
// move_pages   see stage.cuh
// hold         keeps a stream busy until the host sets *flag, so that what is queued behind it
//              starts at once when it ends and a timing has no submission in it
#include "common/cuda.cuh"
#include "tier_copy/stage.cuh"

extern "C" __global__ void __launch_bounds__(512) move_pages(MovePages p) {
  move_pages_stage(p, blockIdx.x, gridDim.x);
}

extern "C" __global__ void hold(const unsigned* flag, unsigned long long limit_ns) {
  unsigned long long end = rs::global_ns() + limit_ns;
  while (rs::load_acquire_sys(flag) == 0 && rs::global_ns() < end) __nanosleep(200);
}
