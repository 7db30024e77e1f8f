// Streams that set the ceilings: what this GPU reads and copies when nothing else is asked of it.
//
// read_stream  source [words] of 16 bytes -> sums [blocks]; register loads, any grid
// read_bulk    the same through a ring of bulk copies in shared memory, as decode kernels read
// copy_stream  source [words] -> target [words]
//
// A sum wraps at 32 bits and adds every 32-bit word *passes* times: exact in any order, and a word
// that is skipped or read twice shows.
#include "common/cuda.cuh"
#include "streams/access.cuh"

#ifndef LOADS
#define LOADS 4  // 16-byte loads in flight a thread
#endif

struct ReadStream {
  const uint4* source;
  unsigned* sums;
  long long words;
  int passes;
  int slots, slot_words;  // of the ring of read_bulk
};

struct CopyStream {
  const uint4* source;
  uint4* target;
  long long words;
};

__device__ unsigned sum_of(uint4 v) { return v.x + v.y + v.z + v.w; }

// ---------------------------------------------------------------------------- read_stream
// A block takes tiles of blockDim.x * LOADS words, grid-stride. Every pass moves each tile to
// another block, so that a repeated read finds the data in L2 and never in an L1.
extern "C" __global__ void __launch_bounds__(1024) read_stream(ReadStream p) {
  __shared__ unsigned partial[32];
  long long tile = (long long)blockDim.x * LOADS;
  unsigned sum = 0;
  for (int pass = 0; pass < p.passes; ++pass) {
    long long first = (blockIdx.x + pass) % gridDim.x;
    for (long long base = first * tile; base < p.words; base += gridDim.x * tile) {
      long long at = base + threadIdx.x;
      uint4 v[LOADS];
      if (base + tile <= p.words) {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) v[i] = streams::load(p.source + at + i * blockDim.x);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) sum += sum_of(v[i]);
      } else {
        for (; at < p.words; at += blockDim.x) sum += sum_of(streams::load(p.source + at));
      }
    }
  }
  for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (int warp = 1; warp < blockDim.x / 32; ++warp) sum += partial[warp];
  p.sums[blockIdx.x] = sum;
}

// ---------------------------------------------------------------------------- read_bulk
// Warp 0 fills the ring; each slot belongs to one of the other warps, so that small slots do not pay
// for a meeting of warps, and no warp can be two fills late at a slot (a parity has but two values).
// Shared memory: 2 * slots barriers, padded to 128 bytes, then
// slots * slot_words words.
extern "C" __global__ void __launch_bounds__(1024) read_bulk(ReadStream p) {
  RS_DYNAMIC_SHARED(shared);
  __shared__ unsigned partial[32];
  rs::Barrier* full = reinterpret_cast<rs::Barrier*>(shared);
  rs::Barrier* empty = full + p.slots;
  uint4* ring = reinterpret_cast<uint4*>(shared + (p.slots * 16 + 127) / 128 * 128);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * p.slots; ++i) rs::barrier_init(full + i, 1);
    rs::barrier_init_fence();
  }
  __syncthreads();
  long long tiles = (p.words + p.slot_words - 1) / p.slot_words;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, consumers = blockDim.x / 32 - 1;
  int slot = 0, owner = 1;
  unsigned parity = 0, sum = 0;
  for (int pass = 0; pass < p.passes; ++pass)
    for (long long tile = (blockIdx.x + pass) % gridDim.x; tile < tiles; tile += gridDim.x) {
      if (warp == 0 || warp == owner) {
        long long at = tile * p.slot_words;
        int words = static_cast<int>(min(static_cast<long long>(p.slot_words), p.words - at));
        uint4* landed = ring + (long long)slot * p.slot_words;
        if (warp == 0) {
          rs::barrier_wait(empty + slot, parity ^ 1);
          rs::fill_begin(full + slot, words * 16);
          rs::fill_piece(landed, p.source + at, words * 16, full + slot);
          rs::fill_end(full + slot);
        } else {
          rs::barrier_wait(full + slot, parity);
#pragma unroll 8
          for (int i = lane; i < words; i += 32) sum += sum_of(landed[i]);
          __syncwarp();
          if (lane == 0) rs::barrier_arrive(empty + slot);
        }
      }
      if (++owner > consumers) owner = 1;
      if (++slot == p.slots) {
        slot = 0;
        owner = 1;
        parity ^= 1;
      }
    }
  for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i <= consumers; ++i) sum += partial[i];
  p.sums[blockIdx.x] = sum;
}

// ---------------------------------------------------------------------------- copy_stream
extern "C" __global__ void __launch_bounds__(1024) copy_stream(CopyStream p) {
  long long tile = (long long)blockDim.x * LOADS;
  for (long long base = blockIdx.x * tile; base < p.words; base += gridDim.x * tile) {
    long long at = base + threadIdx.x;
    uint4 v[LOADS];
    if (base + tile <= p.words) {
#pragma unroll
      for (int i = 0; i < LOADS; ++i) v[i] = streams::load(p.source + at + i * blockDim.x);
#pragma unroll
      for (int i = 0; i < LOADS; ++i) streams::store(p.target + at + i * blockDim.x, v[i]);
    } else {
      for (; at < p.words; at += blockDim.x) streams::store(p.target + at, streams::load(p.source + at));
    }
  }
}
