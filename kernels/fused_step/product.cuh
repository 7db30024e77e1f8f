// Products of a worker: its tiles of weight rows times all token rows, on tensor cores.
//
// The 16 warps share the inner dimension: each multiplies its part of every tile, and the parts meet
// in shared memory in a fixed order, so that a result depends neither on the worker nor on the
// grid. Activations come as [row][inner] elements; lane 4 g + t holds token row 8 n + g, inner
// indices 8 t .. 8 t + 7 of each block of 32, the order in which the ring brings weights.
#pragma once
#include "fused_step/ring.cuh"

namespace fused {

constexpr int kPartFloats = 16 * kRows + 2;  // of a warp and a tile: [weight row][token row], and a gap
constexpr int kPartBytes = kWarps * kPartFloats * 4;
constexpr int kMeetBytes = 2 * kPartBytes;  // two tiles in turn

__device__ __forceinline__ int warp_id() { return threadIdx.x / 32; }
__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }

// Activations of a warp's part of the inner dimension, in shared memory for the sake of short loops:
// [block][column tile] of 512 bytes. A lane reads only what it wrote, so nobody has to wait.
constexpr int kColumnBytes =
    (kHiddenBlocks > 4 ? kHiddenBlocks : 4) * COLUMN_TILES * 512;  // of a warp
struct Columns {
  unsigned char* lane;  // this lane's place

  __device__ __forceinline__ explicit Columns(unsigned char* shared)
      : lane(shared + warp_id() * kColumnBytes + lane_id() * 16) {}
  __device__ __forceinline__ uint4& at(int block, int n) const {
    return *reinterpret_cast<uint4*>(lane + (block * COLUMN_TILES + n) * 512);
  }
};
constexpr int kPass = 4;  // blocks on their way at a time

struct Blocks {
  uint4 x[kPass][COLUMN_TILES];

  // Blocks of this lane's token rows from inner index *offset* on; *row(r)* tells where row r begins.
  template <class Row>
  __device__ __forceinline__ void load(int rows, int offset, int count, Row&& row) {
    int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n) {
      const ELEMENT* from = 8 * n + g < rows ? row(8 * n + g) + offset + 8 * t : nullptr;
#pragma unroll
      for (int b = 0; b < kPass; ++b)
        x[b][n] = from && b < count ? rs::load_narrow(from + 32 * b) : make_uint4(0, 0, 0, 0);
    }
  }
  __device__ __forceinline__ void store(const Columns& c, int first) const {
#pragma unroll
    for (int b = 0; b < kPass; ++b)
#pragma unroll
      for (int n = 0; n < COLUMN_TILES; ++n) c.at(first + b, n) = x[b][n];
  }
};

__device__ __forceinline__ void unpack8(float (&v)[8], const uint4& raw) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    ELEMENT e[2];
    memcpy(e, &words[i], 4);
    v[2 * i] = rs::to_float(e[0]);
    v[2 * i + 1] = rs::to_float(e[1]);
  }
}

// Products of two pairs of elements, rounded once.
__device__ __forceinline__ unsigned product2(unsigned a, unsigned b) {
  using Pair = decltype(__floats2bfloat162_rn(0, 0));
  Pair x, y;
  memcpy(&x, &a, 4);
  memcpy(&y, &b, 4);
  x = __hmul2(x, y);
  memcpy(&a, &x, 4);
  return a;
}

// A norm's gains for this warp's part, on their way to shared memory before the rows exist.
constexpr int kGainBytes = HIDDEN * 2;
__device__ __forceinline__ void fetch_gains(unsigned char* shared, const ELEMENT* gains) {
#pragma unroll 1
  for (int i = lane_id() * 8; i < kHiddenBlocks * 32; i += 256) {
    int at = warp_id() * kHiddenBlocks * 32 + i;
    copy16_plain(shared + at * 2, reinterpret_cast<const unsigned char*>(gains + at));
  }
  rs::copy_commit();
}

// Multiplies by the gains and adds up squares: this warp's part of each token row's sum, in *sums*
// [kWarps][kRows]. The factor 1 / rms follows after the product, where it is exact.
__device__ __forceinline__ void normalise(const Columns& c, const unsigned char* gains,
                                          float* sums) {
  int g = lane_id() / 4, t = lane_id() % 4;
  rs::copy_wait<0>();
  __syncwarp();
#pragma unroll 1
  for (int n = 0; n < COLUMN_TILES; ++n) {
    float sum = 0;
#pragma unroll 1
    for (int b = 0; b < kHiddenBlocks; ++b) {
      float x[8];
      uint4 raw = c.at(b, n), gain = *reinterpret_cast<const uint4*>(
                                  gains + (warp_id() * kHiddenBlocks * 32 + b * 32 + 8 * t) * 2);
      unpack8(x, raw);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += x[i] * x[i];
      c.at(b, n) = make_uint4(product2(raw.x, gain.x), product2(raw.y, gain.y),
                              product2(raw.z, gain.z), product2(raw.w, gain.w));
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (t == 0) sums[warp_id() * kRows + 8 * n + g] = sum;
  }
}

struct Tile16 {
  float d[COLUMN_TILES][4], odd[COLUMN_TILES][4];  // two chains hide the mma's latency
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n)
      for (int i = 0; i < 4; ++i) d[n][i] = odd[n][i] = 0;
  }
  // One block of 32: weight rows g in *low*, g + 8 in *high*.
  __device__ __forceinline__ void add(const uint4& low, const uint4& high, const Columns& c,
                                      int block) {
    const unsigned a0[4] = {low.x, high.x, low.y, high.y};
    const unsigned a1[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n) {
      const uint4 x = c.at(block, n);
      const unsigned b0[2] = {x.x, x.y}, b1[2] = {x.z, x.w};
      rs::mma_16x8x16<ELEMENT>(d[n], a0, b0);
      rs::mma_16x8x16<ELEMENT>(odd[n], a1, b1);
    }
  }
  // *units* of the ring times blocks from *block* on. Of a *flat* tile, of 8 weight rows, a unit has
  // two blocks.
  __device__ __forceinline__ void multiply(Ring& ring, const Columns& c, int units, int block,
                                           bool flat) {
    const uint4 none = make_uint4(0, 0, 0, 0);
#pragma unroll 1
    for (int i = 0; i < units; i += kChunkUnits) {
      const unsigned char* from = ring.take();
#pragma unroll
      for (int u = 0; u < kChunkUnits; ++u) {
        uint4 low = *reinterpret_cast<const uint4*>(from + u * 1024);
        uint4 high = *reinterpret_cast<const uint4*>(from + u * 1024 + 512);
        if (flat) {
          add(low, none, c, block++);
          add(high, none, c, block++);
        } else {
          add(low, high, c, block++);
        }
      }
      ring.release();
    }
  }
  // This warp's part to *parts* [kWarps][16][kRows]; of a flat tile, [8][kRows] at *parts*.
  __device__ __forceinline__ void leave(float* parts, bool flat = false) const {
    int g = lane_id() / 4, t = lane_id() % 4;
    float* mine = parts + warp_id() * kPartFloats + g * kRows + 2 * t;
#pragma unroll
    for (int n = 0; n < COLUMN_TILES; ++n) {
      *reinterpret_cast<float2*>(mine + 8 * n) =
          make_float2(d[n][0] + odd[n][0], d[n][1] + odd[n][1]);
      if (!flat)
        *reinterpret_cast<float2*>(mine + 8 * kRows + 8 * n) =
            make_float2(d[n][2] + odd[n][2], d[n][3] + odd[n][3]);
    }
  }
};

// How a block ends a tile of *kItems* results, a power of two: kThreads / kItems neighbouring threads
// share one, each adds some warps' parts, and a tree adds theirs. Always in the same order.
template <int kItems>
struct Ending {
  static constexpr int kHelpers = kThreads / kItems < kWarps ? kThreads / kItems : kWarps;
  int item;    // the result that this thread helps with; at or beyond kItems: none
  bool leads;  // and has in the end

  __device__ __forceinline__ Ending()
      : item(threadIdx.x / kHelpers), leads(threadIdx.x % kHelpers == 0 && item < kItems) {}

  // Adds *kCount* elements: part w has the first at parts[w * stride + at].
  __device__ __forceinline__ float add(const float* parts, int stride, int at) const {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w += kHelpers)
      sum += parts[(w + threadIdx.x % kHelpers) * stride + at];
#pragma unroll
    for (int d = 1; d < kHelpers; d *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    return sum;
  }
};

// Tiles of a product with *tiles* of them that fall to *worker*.
struct Share {
  int begin, end;
  Share() = default;
  __device__ __forceinline__ Share(unsigned tiles, unsigned worker, unsigned workers)
      : begin(worker * tiles / workers), end((worker + 1) * tiles / workers) {}
};

// Where the block's parts meet: two tiles in turn, so that one meeting a tile suffices.
struct Meet {
  float* parts;
  int turn;

  // Where the next tile's parts go; a flat tile takes half of it.
  __device__ __forceinline__ float* here() const {
    return parts + turn % 2 * (kWarps * kPartFloats);
  }
  // Leaves this warp's part; all parts of the tile, once everybody has.
  __device__ __forceinline__ float* join(const Tile16& tile) {
    float* all = here();
    ++turn;
    tile.leave(all);
    __syncthreads();
    return all;
  }
};

}  // namespace fused
