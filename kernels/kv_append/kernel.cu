// The append stage as a kernel of its own; see stage.cuh for the arrays. What reads the cache next is
// another kernel, so the stage's fence is left out.
#include "common/cuda.cuh"
#include "kv_append/stage.cuh"

#ifndef THREADS
#define THREADS 128
#endif

extern "C" __global__ void __launch_bounds__(THREADS) kv_append_tokens(KvAppendParams p) {
  RS_DYNAMIC_SHARED(shared);
  kv_append_all(p, blockIdx.x, gridDim.x, shared);
}
