// The append stage as a kernel of its own; see stage.cuh for the arrays.
#include "common/cuda.cuh"
#include "kv_append/stage.cuh"

#ifndef FENCE
#define FENCE 0
#endif
#ifndef THREADS
#define THREADS 128
#endif

extern "C" __global__ void __launch_bounds__(THREADS) kv_append_tokens(KvAppendParams p) {
  RS_DYNAMIC_SHARED(shared);
#if FENCE
  kv_append_stage(p, blockIdx.x, gridDim.x, shared);
#else
  kv_append_all(p, blockIdx.x, gridDim.x, shared);
#endif
}
