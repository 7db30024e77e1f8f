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

// The slots as they are before the step, in shared memory.
struct SlotsShared {
  int active[kMostBatch], length[kMostBatch], held[kMostBatch], remaining[kMostBatch];
  int count;  // of the slots in use, whose indices `active` lists
  unsigned head, tail;
};

// Two halves, loads and stores: warp 0 takes the lengths, the others the rest. By the whole
// block; the caller synchronises.
constexpr int kSlotWords = kMostBatch / kLanes, kSlotEach = 3;  // 96 threads or more take 256 slots

__device__ __forceinline__ void load_slots(const VerifyCommitParams& p, int (&v)[kSlotWords]) {
  if (warp() == 0) {
#pragma unroll
    for (int i = 0; i < kSlotWords; ++i) {
      int b = i * kLanes + lane();
      v[i] = b < p.batch ? p.lengths[b] : -1;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kSlotEach; ++i) {
    int b = threadIdx.x - kLanes + i * (blockDim.x - kLanes);
    if (b < p.batch) v[i] = p.page_counts[b], v[kSlotEach + i] = p.remaining[b];
  }
  if (threadIdx.x == kLanes) v[6] = *p.free_head, v[7] = *p.free_tail;
}

__device__ __forceinline__ void keep_slots(const VerifyCommitParams& p, const int (&v)[kSlotWords],
                                           SlotsShared& s) {
  if (warp() == 0) {
    int n = 0;
#pragma unroll
    for (int i = 0; i < kSlotWords; ++i) {
      int b = i * kLanes + lane();
      if (i * kLanes >= p.batch) break;
      unsigned votes = __ballot_sync(~0u, v[i] >= 0);
      if (v[i] >= 0) s.active[n + __popc(votes & ((1u << lane()) - 1))] = b;
      s.length[b] = v[i];
      n += __popc(votes);
    }
    if (lane() == 0) s.count = n;
    return;
  }
#pragma unroll
  for (int i = 0; i < kSlotEach; ++i) {
    int b = threadIdx.x - kLanes + i * (blockDim.x - kLanes);
    if (b < p.batch) s.held[b] = v[i], s.remaining[b] = v[kSlotEach + i];
  }
  if (threadIdx.x == kLanes) s.head = v[6], s.tail = v[7];
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
  return element < vocabulary ? rs::load_narrow(row + element) : make_uint4(pad, pad, pad, pad);
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

// All rows of the target that are in use, and the tiles of them that this block reads.
struct Rows {
  const int* active;
  int tiles, items, blocks;
  Span span;

  __device__ __forceinline__ Rows(const VerifyCommitParams& p, const int* active, int count,
                                  int block, int blocks)
      : active(active), tiles(tiles_of(p.vocabulary)), items(count * p.new_tokens * tiles) {
    this->blocks = min(blocks, items);
    span = block < this->blocks ? verify::span(items, block, this->blocks) : Span{0, 0};
  }
  __device__ __forceinline__ long long index(const VerifyCommitParams& p, int row) const {
    int b = row / p.new_tokens;
    return static_cast<long long>(active[b]) * p.new_tokens + row % p.new_tokens;
  }
  __device__ __forceinline__ const TARGET* at(const VerifyCommitParams& p, int row) const {
    return p.target + index(p, row) * p.vocabulary;
  }
  // The first tile of this warp, if it has one.
  __device__ __forceinline__ void load_first(const VerifyCommitParams& p, Tile& t) const {
    int item = span.begin + warp();
    if (item < span.end) load_tile(t, at(p, item / tiles), item % tiles, p.vocabulary);
  }
};

// use(row, tile, data) for this warp's share of the span, the next tile always on its way; *next*
// holds its first one.
template <class Row, class Use>
__device__ __forceinline__ void stream(Span s, int tiles, int vocabulary, Tile& next, Row&& row_of,
                                       Use&& use) {
  int item = s.begin + warp();
  while (item < s.end) {
    Tile now = next;
    int after = item + warps();
    if (after < s.end) load_tile(next, row_of(after / tiles), after % tiles, vocabulary);
    use(item / tiles, item % tiles, now);
    item = after;
  }
}

// Calls finish(i) in the whole block for each i of [first, last] at which this block arrives last;
// *arrivals(i)* blocks arrive at ticket i, which is left at zero.
template <class Arrivals, class Finish>
__device__ __forceinline__ void arrive(unsigned* tickets, int first, int last, unsigned* mask,
                                       Arrivals&& arrivals, Finish&& finish) {
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
    for (unsigned left = *mask; left; left &= left - 1) finish(base + __ffs(left) - 1);
  }
}

}  // namespace verify
