// Small stages between the products of a decoder layer.
//
// rmsnorm   x [rows, width], weight [width] -> y [rows, width], 16-bit elements, fp32 inside
#include "common/cuda.cuh"

#ifndef ELEMENT
#define ELEMENT __nv_bfloat16
#endif

struct RmsNorm {
  const ELEMENT* x;
  const ELEMENT* weight;
  ELEMENT* y;
  int rows, width;
  float epsilon;
};

// ---------------------------------------------------------------------------- rmsnorm
// One block a row at a time; any grid, any block of whole warps; width a multiple of 8.
__device__ void rmsnorm_stage(const RmsNorm& p, int block, int blocks) {
  __shared__ float partial[32];
  for (int row = block; row < p.rows; row += blocks) {
    const ELEMENT* x = p.x + (long long)row * p.width;
    float sum = 0;
    for (int i = threadIdx.x * 8; i < p.width; i += blockDim.x * 8) {
      uint4 raw = rs::load_stream(x + i);
      ELEMENT v[8];
      memcpy(v, &raw, 16);
      for (int j = 0; j < 8; ++j) sum += rs::to_float(v[j]) * rs::to_float(v[j]);
    }
    sum = rs::warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < blockDim.x / 32; ++i) total += partial[i];
    float scale = rsqrtf(total / p.width + p.epsilon);
    for (int i = threadIdx.x * 8; i < p.width; i += blockDim.x * 8) {
      uint4 raw = rs::load_stream(x + i), gain = rs::load_once(p.weight + i);
      ELEMENT v[8], g[8];
      memcpy(v, &raw, 16);
      memcpy(g, &gain, 16);
      for (int j = 0; j < 8; ++j)
        v[j] = rs::from_float<ELEMENT>(rs::to_float(v[j]) * scale * rs::to_float(g[j]));
      memcpy(&raw, v, 16);
      *reinterpret_cast<uint4*>(p.y + (long long)row * p.width + i) = raw;
    }
    __syncthreads();
  }
}

extern "C" __global__ void rmsnorm(RmsNorm p) { rmsnorm_stage(p, blockIdx.x, gridDim.x); }
