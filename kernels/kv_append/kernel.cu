// The append stage as a kernel of its own; see stage.cuh for the arrays. Another kernel reads the
// cache next, so the fence of the stage is left out.
#include "common/cuda.cuh"
#include "kv_append/stage.cuh"

#ifndef THREADS
#define THREADS 128
#endif

extern "C" __global__ void __launch_bounds__(THREADS) kv_append_tokens(KvAppendParams p) {
  RS_DYNAMIC_SHARED(shared);
  kv_append_all(p, blockIdx.x, gridDim.x, shared);
}
