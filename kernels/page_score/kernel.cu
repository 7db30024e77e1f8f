// The page-scoring stage as a kernel of its own; see stage.cuh for the arrays.
#include "common/cuda.cuh"
#ifdef STAMPS
extern "C" { __device__ unsigned long long stamps[1024]; }
#endif
#ifdef REG
#include "page_score/stage_reg.cuh"
#else
#include "page_score/stage.cuh"
#endif

#ifndef THREADS
#define THREADS 512
#endif

extern "C" __global__ void __launch_bounds__(THREADS) page_score_pages(PageScoreParams p) {
  RS_DYNAMIC_SHARED(shared);
#ifdef STAMPS
  unsigned long long t0 = rs::global_ns();
#endif
  page_score_stage(p, blockIdx.x, gridDim.x, shared);
#ifdef STAMPS
  if (threadIdx.x == 0) { stamps[2 * blockIdx.x] = t0; stamps[2 * blockIdx.x + 1] = rs::global_ns(); }
#endif
}
