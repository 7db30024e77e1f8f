// The selection of pages as a kernel of its own; stage.cuh states the arrays and the rule.
#include "common/cuda.cuh"
#include "topk_select/stage.cuh"

extern "C" __global__ void __launch_bounds__(512) topk_select(TopkSelectParams p) {
  RS_DYNAMIC_SHARED(shared);
  topk_select_stage(p, blockIdx.x, gridDim.x, shared);
}
