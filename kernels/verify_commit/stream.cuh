// How rows of the vocabulary are cut into tiles, dealt to blocks and read.
#pragma once
#include "verify_commit/params.cuh"

namespace verify {

__device__ __forceinline__ int lane() { return threadIdx.x % kLanes; }
__device__ __forceinline__ int warp() { return threadIdx.x / kLanes; }
__device__ __forceinline__ int warps() { return blockDim.x / kLanes; }

// Block *block* owns items [begin, end); shares differ by one item at most.
struct Span {
  int begin, end;
};
__device__ __forceinline__ Span span(int items, int block, int blocks) {
  long long n = items;
  return {static_cast<int>(n * block / blocks), static_cast<int>(n * (block + 1) / blocks)};
}
// The block whose span holds *item*; every block must own at least one.
__device__ __forceinline__ int owner(int item, int items, int blocks) {
  return static_cast<int>(((item + 1ll) * blocks - 1) / items);
}

// Warp 0 writes the slots in use to *active* in order; all threads receive their number.
__device__ __forceinline__ int list_active(const int* lengths, int batch, int* active, int* count) {
  if (warp() == 0) {
    int n = 0;
    for (int base = 0; base < batch; base += 4 * kLanes) {
      int length[4];
      for (int i = 0; i < 4; ++i) {
        int b = base + i * kLanes + lane();
        length[i] = b < batch ? lengths[b] : -1;
      }
      for (int i = 0; i < 4; ++i) {
        unsigned votes = __ballot_sync(~0u, length[i] >= 0);
        if (length[i] >= 0)
          active[n + __popc(votes & ((1u << lane()) - 1))] = base + i * kLanes + lane();
        n += __popc(votes);
      }
    }
    if (lane() == 0) *count = n;
  }
  __syncthreads();
  return *count;
}

struct Tile {
  uint4 raw[kVectors];  // vector i of a lane starts at element (32 i + lane) kVec
};

__device__ __forceinline__ int element_of(int tile, int i) {
  return tile * kTile + (i * kLanes + lane()) * kVec;
}

__device__ __forceinline__ unsigned minus_infinity() {
  return sizeof(TARGET) == 4 ? 0xff800000u : 0xff80ff80u;
}

__device__ __forceinline__ uint4 load_vector(const TARGET* row, int element, int vocabulary) {
  unsigned pad = minus_infinity();
  return element < vocabulary ? rs::load_stream(row + element) : make_uint4(pad, pad, pad, pad);
}

__device__ __forceinline__ void load_tile(Tile& t, const TARGET* row, int tile, int vocabulary) {
#pragma unroll
  for (int i = 0; i < kVectors; ++i) t.raw[i] = load_vector(row, element_of(tile, i), vocabulary);
}

__device__ __forceinline__ void unpack(float (&value)[kVec], const uint4& raw) {
  TARGET element[kVec];
  memcpy(element, &raw, 16);
#pragma unroll
  for (int j = 0; j < kVec; ++j) value[j] = rs::to_float(element[j]);
}

// use(item, tile data) for this warp's share of *items*, the next tile always on its way;
// row_of(item) and tile_of(item) say where an item lies.
template <class Row, class Use>
__device__ __forceinline__ void stream(Span s, int tiles, int vocabulary, Row&& row_of, Use&& use) {
  Tile next;
  int item = s.begin + warp();
  if (item < s.end) load_tile(next, row_of(item / tiles), item % tiles, vocabulary);
  while (item < s.end) {
    Tile now = next;
    int after = item + warps();
    if (after < s.end) load_tile(next, row_of(after / tiles), after % tiles, vocabulary);
    use(item / tiles, item % tiles, now);
    item = after;
  }
}

// Calls finish(i, n) in the whole block for each i of [first, last] at which this block arrives
// last, n counting from 0; *arrivals(i)* blocks arrive at ticket i, which is left at zero.
template <class Arrivals, class Finish>
__device__ __forceinline__ void arrive(unsigned* tickets, int first, int last, unsigned* mask,
                                       Arrivals&& arrivals, Finish&& finish) {
  int n = 0;
  for (int base = first; base <= last; base += kLanes) {
    __syncthreads();
    if (warp() == 0) {
      int i = base + lane();
      bool mine = false;
      if (i <= last) mine = rs::add_acq_rel_gpu(&tickets[i], 1) + 1 == arrivals(i);
      if (mine) tickets[i] = 0;
      unsigned votes = __ballot_sync(~0u, mine);
      if (lane() == 0) *mask = votes;
    }
    __syncthreads();
    for (unsigned left = *mask; left; left &= left - 1) finish(base + __ffs(left) - 1, n++);
  }
}

}  // namespace verify
