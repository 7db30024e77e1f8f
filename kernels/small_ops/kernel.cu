// The small stages, one kernel each; layouts in stage.cuh and sample.cuh.
#include "common/cuda.cuh"
#include "small_ops/sample.cuh"
#include "small_ops/stage.cuh"

extern "C" __global__ void __launch_bounds__(512, 2) rmsnorm(RmsNormParams p) {
  RS_DYNAMIC_SHARED(shared);
  rmsnorm_stage(p, blockIdx.x, gridDim.x, shared);
}

extern "C" __global__ void __launch_bounds__(256, 6) silu_mul(SiluMulParams p) {
  silu_mul_stage(p, blockIdx.x, gridDim.x, nullptr);
}

extern "C" __global__ void __launch_bounds__(256, 6) add(AddParams p) { add_stage(p, blockIdx.x, gridDim.x, nullptr); }

extern "C" __global__ void rope(RopeParams p) { rope_stage(p, blockIdx.x, gridDim.x, nullptr); }

extern "C" __global__ void __launch_bounds__(256, sample::kBlocks) sample_token(SampleParams p) {
  sample_stage(p, blockIdx.x, gridDim.x, nullptr);
}
