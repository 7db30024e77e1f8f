// Kernels around a decode step's products that no other folder has; layouts in stage.cuh.
#include "common/cuda.cuh"
#include "decoder/stage.cuh"

extern "C" __global__ void __launch_bounds__(256) fill_normal(ELEMENT* y, long long count,
                                                              unsigned long long stream, float mean,
                                                              float deviation) {
  decoder::fill_normal_all(y, count, stream, mean, deviation, blockIdx.x, gridDim.x);
}

extern "C" __global__ void __launch_bounds__(256) embed(EmbedParams p) {
  embed_stage(p, blockIdx.x, gridDim.x);
}

extern "C" __global__ void __launch_bounds__(128) split_rope(SplitRopeParams p) {
  split_rope_stage(p, blockIdx.x, gridDim.x);
}

extern "C" __global__ void __launch_bounds__(256) record(RecordParams p) {
  record_stage(p, blockIdx.x, gridDim.x);
}
