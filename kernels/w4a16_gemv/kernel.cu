// Product of a few tokens with packed weights; layouts and method in stage.cuh.
#include "common/cuda.cuh"
#include "w4a16_gemv/stage.cuh"

#ifndef THREADS
#define THREADS 576
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 1) w4a16_gemv(W4a16GemvParams p) {
  RS_DYNAMIC_SHARED(shared);
  w4a16_gemv_stage(p, blockIdx.x, gridDim.x, shared);
}
