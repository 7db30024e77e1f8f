// Paged decode attention: dense over all pages, or over the selected ones.
//
// Arrays: see PagedAttentionParams in shape.cuh; the cache's layout: common/cache.cuh.
// nvcc -arch=sm_90 -cubin -I kernels kernel.cu
#include "common/cuda.cuh"
#include "paged_attention/stage.cuh"

#ifndef THREADS
#define THREADS (WORKERS * 32)
#endif
#ifndef BLOCKS_PER_SM
#define BLOCKS_PER_SM 1
#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
paged_attention(PagedAttentionParams p) {
  RS_DYNAMIC_SHARED(shared);
  paged_attention_stage(p, blockIdx.x, gridDim.x, shared);
}

// Bytes of dynamic shared memory, and floats of a piece, of this build.
extern "C" __global__ void paged_attention_sizes(int* sizes) {
  sizes[0] = attention::kSharedBytes;
  sizes[1] = attention::kPieceFloats;
}
