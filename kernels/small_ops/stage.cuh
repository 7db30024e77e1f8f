// Small stages between the products of a decoder layer: 16-bit elements, fp32 inside.
//
// rmsnorm   x [rows, width] (+ residual, updated in place), weight [width] -> y [rows, width]
// silu_mul  gate_up [rows, 2 width] -> y [rows, width] = silu(gate) * up
// add       y [count] = a + b
// rope      q [rows, q_heads, HEAD_DIM], k [rows, k_heads, HEAD_DIM] rotated in place
//
// Every width is a multiple of 8, every pointer 16-byte aligned, and an array has less than 2^33
// elements; any grid, blocks of 128 to 512.
#pragma once
#include "common/cuda.cuh"
#include "small_ops/inline.cuh"

#ifndef ELEMENT
#define ELEMENT __nv_bfloat16
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif

struct RmsNormParams {
  const ELEMENT* x;
  ELEMENT* residual;  // null, or the normalised sum: residual += x, rounded, then normalised
  const ELEMENT* weight;
  ELEMENT* y;
  int rows, width;
  float epsilon;
};

struct SiluMulParams {
  const ELEMENT* gate_up;
  ELEMENT* y;
  int rows, width;
};

struct AddParams {
  const ELEMENT* a;
  const ELEMENT* b;
  ELEMENT* y;
  long long count;
};

struct RopeParams {
  ELEMENT* q;
  ELEMENT* k;
  const int* positions;  // [rows]; a row of negative position is left alone
  const float2* turns;   // [HEAD_DIM / 2]: revolutions a position, as a float and its remainder
  int rows, q_heads, k_heads;
  int q_stride, k_stride;  // elements from one row to the next
};

namespace small_ops {

constexpr int kBatch = 4;     // 16-byte chunks of a row, or heads, that a thread takes at a time
constexpr int kPairs = 2;     // chunks of each of two arrays
constexpr int kShared = 128;  // bytes of shared memory that rmsnorm takes; the others take none

struct Eight {  // eight elements as floats
  float v[8];
  __device__ __forceinline__ explicit Eight(uint4 raw) {
    ELEMENT e[8];
    memcpy(e, &raw, 16);
    for (int i = 0; i < 8; ++i) v[i] = rs::to_float(e[i]);
  }
  __device__ __forceinline__ uint4 rounded() const {
    return make_uint4(
        rs::pack2<ELEMENT>(v[0], v[1]), rs::pack2<ELEMENT>(v[2], v[3]),
        rs::pack2<ELEMENT>(v[4], v[5]), rs::pack2<ELEMENT>(v[6], v[7]));
  }
};

__device__ __forceinline__ void store(ELEMENT* p, uint4 raw) {
  *reinterpret_cast<uint4*>(p) = raw;
}

}  // namespace small_ops

// ---------------------------------------------------------------------------- rmsnorm
// One block a row at a time. A thread keeps its first kBatch chunks of the row in registers; chunks
// beyond are read twice.
__device__ inline void rmsnorm_stage(const RmsNormParams& p, int block, int blocks,
                                     unsigned char* shared) {
  using namespace small_ops;
  float* partial = reinterpret_cast<float*>(shared);  // [2][16]
  const int warps = blockDim.x / 32, chunks = p.width / 8, kept = blockDim.x * kBatch;
  int parity = 0;
  for (int row = block; row < p.rows; row += blocks, parity ^= 1) {
    const long long start = (long long)row * p.width;
    uint4 x[kBatch], other[kBatch];
    float sum = 0;
    // A chunk of what is normalised: x, or x + residual as rounded and written back.
    auto take = [&](uint4 mine, uint4 theirs, int i) {
      Eight a(mine);
      if (p.residual) {
        Eight b(theirs);
        for (int j = 0; j < 8; ++j) a.v[j] += b.v[j];
        mine = a.rounded();
        a = Eight(mine);
        store(p.residual + start + i * 8, mine);
      }
      for (int j = 0; j < 8; ++j) sum += a.v[j] * a.v[j];
      return mine;
    };
    auto write = [&](int i, uint4 raw, uint4 weight, float scale) {
      Eight a(raw), g(weight);
      for (int j = 0; j < 8; ++j) a.v[j] *= scale * g.v[j];
      store(p.y + start + i * 8, a.rounded());
    };
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      int i = threadIdx.x + j * blockDim.x;
      if (i >= chunks) continue;
      x[j] = rs::load_narrow(p.x + start + i * 8);
      if (p.residual) other[j] = rs::load_narrow(p.residual + start + i * 8);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      int i = threadIdx.x + j * blockDim.x;
      if (i < chunks) x[j] = take(x[j], other[j], i);
    }
    for (int i = threadIdx.x + kept; i < chunks; i += blockDim.x)
      take(rs::load_narrow(p.x + start + i * 8),
           p.residual ? rs::load_narrow(p.residual + start + i * 8) : uint4(), i);
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {  // the gains, on their way while the block adds up
      int i = threadIdx.x + j * blockDim.x;
      if (i < chunks) other[j] = rs::load_once(p.weight + i * 8);
    }
    sum = rs::warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[parity * 16 + threadIdx.x / 32] = sum;
    __syncthreads();  // one a row is enough: the other half of `partial` is free by now
    float total = 0;
    for (int i = 0; i < warps; ++i) total += partial[parity * 16 + i];
    const float scale = rsqrtf(total / p.width + p.epsilon);
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      int i = threadIdx.x + j * blockDim.x;
      if (i < chunks) write(i, x[j], other[j], scale);
    }
    for (int i = threadIdx.x + kept; i < chunks; i += blockDim.x)
      write(i, rs::load_narrow((p.residual ? p.residual : p.x) + start + i * 8),
            rs::load_once(p.weight + i * 8), scale);
  }
  __syncthreads();
}

// ---------------------------------------------------------------------------- silu_mul, add
// Chunks a thread takes at a time: kPairs where there are enough for all.
__device__ __forceinline__ int batch_of(int chunks, int blocks) {
  int threads = blocks * blockDim.x;
  return min(small_ops::kPairs, (chunks + threads - 1) / threads);
}

__device__ inline void silu_mul_stage(const SiluMulParams& p, int block, int blocks,
                                      unsigned char*) {
  using namespace small_ops;
  const int row_chunks = p.width / 8, chunks = p.rows * row_chunks;
  const int batch = batch_of(chunks, blocks), tile = blockDim.x * batch;
  for (int first = block * tile + threadIdx.x; first < chunks; first += blocks * tile) {
    uint4 gate[kPairs], up[kPairs];
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      int at = first + j * blockDim.x;
      if (j >= batch || at >= chunks) continue;
      // chunk `at` of y lies as many rows of gates further on in gate_up
      const ELEMENT* from = p.gate_up + (long long)(at + at / row_chunks * row_chunks) * 8;
      gate[j] = rs::load_narrow(from);
      up[j] = rs::load_narrow(from + p.width);
    }
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      int at = first + j * blockDim.x;
      if (j >= batch || at >= chunks) continue;
      Eight g(gate[j]), u(up[j]);
      for (int e = 0; e < 8; ++e)
        g.v[e] = __fdividef(g.v[e], 1 + rs::exp2_fast(g.v[e] * -1.44269504f)) * u.v[e];
      store(p.y + (long long)at * 8, g.rounded());
    }
  }
}

__device__ inline void add_stage(const AddParams& p, int block, int blocks, unsigned char*) {
  using namespace small_ops;
  const int chunks = p.count / 8, batch = batch_of(chunks, blocks), tile = blockDim.x * batch;
  for (int first = block * tile + threadIdx.x; first < chunks; first += blocks * tile) {
    uint4 a[kPairs], b[kPairs];
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      int at = first + j * blockDim.x;
      if (j >= batch || at >= chunks) continue;
      a[j] = rs::load_narrow(p.a + (long long)at * 8);
      b[j] = rs::load_narrow(p.b + (long long)at * 8);
    }
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      int at = first + j * blockDim.x;
      if (j >= batch || at >= chunks) continue;
      Eight sum(a[j]), other(b[j]);
      for (int e = 0; e < 8; ++e) sum.v[e] += other.v[e];
      store(p.y + (long long)at * 8, sum.rounded());
    }
  }
}

// ---------------------------------------------------------------------------- rope
// A thread rotates 8 pairs (d, d + HEAD_DIM / 2) of up to kBatch heads, so that one angle serves
// all of them. Angles in revolutions: the whole ones drop out exactly, however late the position.
__device__ inline void rope_stage(const RopeParams& p, int block, int blocks, unsigned char*) {
  using namespace small_ops;
  constexpr int kHalf = HEAD_DIM / 2, kChunks = kHalf / 8;
  const int heads = p.q_heads + p.k_heads, groups = (heads + kBatch - 1) / kBatch;
  const int items = p.rows * groups * kChunks;
  for (int item = block * blockDim.x + threadIdx.x; item < items;
       item += blocks * blockDim.x) {
    const int chunk = item % kChunks, group = item / kChunks % groups;
    const int row = item / kChunks / groups, position = p.positions[row];
    auto place = [&](int head) {
      ELEMENT* base = head < p.q_heads ? p.q + (long long)row * p.q_stride + head * HEAD_DIM
                                       : p.k + (long long)row * p.k_stride +
                                             (head - p.q_heads) * HEAD_DIM;
      return base + chunk * 8;
    };
    uint4 low[kBatch], high[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      int head = group * kBatch + j;
      if (head >= heads) continue;
      low[j] = rs::load_narrow(place(head));
      high[j] = rs::load_narrow(place(head) + kHalf);
    }
    if (position < 0) continue;
    float sine[8], cosine[8];
    for (int e = 0; e < 8; ++e) {
      float2 turn = p.turns[chunk * 8 + e];
      float whole = turn.x * position, rest = fmaf(turn.x, position, -whole);
      rs::sincos_turns(whole - rintf(whole) + fmaf(turn.y, position, rest), sine[e], cosine[e]);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      int head = group * kBatch + j;
      if (head >= heads) continue;
      Eight a(low[j]), b(high[j]);
      for (int e = 0; e < 8; ++e) {
        float turned = a.v[e] * cosine[e] - b.v[e] * sine[e];
        b.v[e] = b.v[e] * cosine[e] + a.v[e] * sine[e];
        a.v[e] = turned;
      }
      store(place(head), a.rounded());
      store(place(head) + kHalf, b.rounded());
    }
  }
}
