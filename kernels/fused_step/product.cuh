// Products of a worker: its tiles of weight rows times all token rows, on tensor cores.
//
// The 16 warps share the inner dimension: each multiplies its part of every tile, and the parts meet
// in shared memory in a fixed order, so that a result depends neither on the worker nor on the
// grid. Activations come as [row][inner] elements; lane 4 g + t holds token row 8 n + g, inner
// indices 8 t .. 8 t + 7 of each block of 32, the order in which the ring brings weights.
#pragma once
#include "fused_step/ring.cuh"

namespace fused {

constexpr int kPartFloats = 16 * kRows;  // of a warp and a tile: [weight row][token row]
constexpr int kPartBytes = kWarps * kPartFloats * 4;
constexpr int kMeetBytes = 2 * kPartBytes;  // two tiles in turn

// Activations of a warp's part of the inner dimension.
template <int kBlocks>
struct Columns {
  uint4 x[kBlocks][COLUMN_TILES];
};

__device__ __forceinline__ int warp_id() { return threadIdx.x / 32; }
__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }

// Blocks [first, first + kBlocks) of this warp's part; *at(row)* tells where a row's elements begin.
template <int kBlocks, class At>
__device__ __forceinline__ void load_columns(Columns<kBlocks>& c, int rows, int offset, At&& at) {
  int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int n = 0; n < COLUMN_TILES; ++n) {
    int row = 8 * n + g;
    const ELEMENT* from = row < rows ? at(row) + offset + 8 * t : nullptr;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b)
      c.x[b][n] = from ? rs::load_narrow(from + 32 * b) : make_uint4(0, 0, 0, 0);
  }
}

__device__ __forceinline__ void unpack8(float (&v)[8], const uint4& raw) {
  ELEMENT e[8];
  memcpy(e, &raw, 16);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = rs::to_float(e[i]);
}

// A norm's gains for this warp's part: constants, which can be asked for before the rows exist.
template <int kBlocks>
struct Gains {
  uint4 x[kBlocks];
  __device__ __forceinline__ explicit Gains(const ELEMENT* gains) {
    const ELEMENT* from = gains + warp_id() * kBlocks * 32 + 8 * (lane_id() % 4);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) x[b] = rs::load_once(from + 32 * b);
  }
};

// Multiplies by the norm's gains and adds up squares: this warp's part of each token row's sum, in
// *sums* [kWarps][kRows]. The factor 1 / rms follows after the product, where it is exact.
template <int kBlocks>
__device__ __forceinline__ void normalise(Columns<kBlocks>& c, const Gains<kBlocks>& gains,
                                          float* sums) {
  int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int n = 0; n < COLUMN_TILES; ++n) {
    float sum = 0;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      float x[8], w[8];
      unpack8(x, c.x[b][n]);
      unpack8(w, gains.x[b]);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += x[i] * x[i];
      c.x[b][n] = make_uint4(
          rs::pack2<ELEMENT>(x[0] * w[0], x[1] * w[1]), rs::pack2<ELEMENT>(x[2] * w[2], x[3] * w[3]),
          rs::pack2<ELEMENT>(x[4] * w[4], x[5] * w[5]), rs::pack2<ELEMENT>(x[6] * w[6], x[7] * w[7]));
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (t == 0) sums[warp_id() * kRows + 8 * n + g] = sum;
  }
}

// 1 / rms of a token row, from all warps' parts; after a meeting of the block.
__device__ __forceinline__ float inverse_rms(const float* sums, int row, float epsilon) {
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += sums[w * kRows + row];
  return rsqrtf(sum / HIDDEN + epsilon);
}

struct Tile16 {
  float d[COLUMN_TILES][4];
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n)
      for (int i = 0; i < 4; ++i) d[n][i] = 0;
  }
  // One block of 32 of a tile of 16 weight rows.
  __device__ __forceinline__ void add(const Unit& u, const uint4 (&x)[COLUMN_TILES]) {
    const unsigned a0[4] = {u.low.x, u.high.x, u.low.y, u.high.y};
    const unsigned a1[4] = {u.low.z, u.high.z, u.low.w, u.high.w};
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n) {
      const unsigned b0[2] = {x[n].x, x[n].y}, b1[2] = {x[n].z, x[n].w};
      rs::mma_16x8x16<ELEMENT>(d[n], a0, b0);
      rs::mma_16x8x16<ELEMENT>(d[n], a1, b1);
    }
  }
  // One block of 32 of a tile of 8 weight rows.
  __device__ __forceinline__ void add8(const uint4& w, const uint4 (&x)[COLUMN_TILES]) {
    const unsigned a0[4] = {w.x, 0, w.y, 0}, a1[4] = {w.z, 0, w.w, 0};
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n) {
      const unsigned b0[2] = {x[n].x, x[n].y}, b1[2] = {x[n].z, x[n].w};
      rs::mma_16x8x16<ELEMENT>(d[n], a0, b0);
      rs::mma_16x8x16<ELEMENT>(d[n], a1, b1);
    }
  }
  // This warp's part to *parts* [kWarps][16][kRows].
  __device__ __forceinline__ void leave(float* parts) const {
    int g = lane_id() / 4, t = lane_id() % 4;
    float* mine = parts + warp_id() * kPartFloats;
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n) {
      *reinterpret_cast<float2*>(mine + g * kRows + 8 * n + 2 * t) = make_float2(d[n][0], d[n][1]);
      *reinterpret_cast<float2*>(mine + (g + 8) * kRows + 8 * n + 2 * t) =
          make_float2(d[n][2], d[n][3]);
    }
  }
};

// The product's element (weight row of the tile, token row), the warps' parts added in order.
__device__ __forceinline__ float joined(const float* parts, int weight_row, int row) {
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += parts[w * kPartFloats + weight_row * kRows + row];
  return sum;
}

// Tiles of a product with *tiles* of them that fall to *worker*.
struct Share {
  int begin, end;
  __device__ __forceinline__ Share(unsigned tiles, unsigned worker, unsigned workers)
      : begin(worker * tiles / workers), end((worker + 1) * tiles / workers) {}
};

// Where the block's parts meet: two tiles in turn, so that one meeting a tile suffices. The threads
// that end a tile are other ones in turn too.
struct Meet {
  float* parts;
  int turn;

  // Leaves this warp's part; all parts of the tile, once everybody has.
  __device__ __forceinline__ float* join(const Tile16& tile) const {
    float* here = parts + turn % 2 * (kWarps * kPartFloats);
    tile.leave(here);
    __syncthreads();
    return here;
  }
  // This thread's place among the *threads* that end the tile, a power of two; negative: none.
  __device__ __forceinline__ int place(int threads) const {
    int i = static_cast<int>(threadIdx.x) - turn * threads % kThreads;
    return i < threads ? i : -1;
  }
  __device__ __forceinline__ void next() { ++turn; }
};

}  // namespace fused
