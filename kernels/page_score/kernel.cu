// The page-scoring stage as a kernel of its own; see stage.cuh for the arrays.
#include "common/cuda.cuh"
#include "page_score/stage.cuh"

#ifndef THREADS
#define THREADS 512
#endif

extern "C" __global__ void __launch_bounds__(THREADS) page_score_pages(PageScoreParams p) {
  RS_DYNAMIC_SHARED(shared);
  page_score_stage(p, blockIdx.x, gridDim.x, shared);
}
