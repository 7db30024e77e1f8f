// Warps of a block that work on one row together: their barrier and their shared memory.
#pragma once
#include "common/cuda.cuh"

namespace topk {

constexpr int kBins = 512, kBinBits = 9;
constexpr int kLaneBins = 20;  // words of the 16 bins that a lane sums: the stride avoids conflicts
constexpr int kFew = 16;       // so many candidates are ranked by counting
constexpr unsigned kNoBin = ~0u;
constexpr int kMostGroups = 2, kSmallestGroup = 256;
constexpr int kListEach = 8;  // entries of the list of candidates a thread
constexpr int kMostPages = 16384;

// All *threads* threads (whole warps) that use barrier *id* (1 to 15) meet, shared memory included.
__device__ __forceinline__ void sync_group(int id, int threads) {
#ifdef RS_CPU
  static thread_local struct {
    int arrived;
    unsigned phase;
  } barriers[16];
  auto& b = barriers[id];
  unsigned phase = b.phase;
  if (++b.arrived == threads) {
    b.arrived = 0;
    ++b.phase;
  } else {
    while (b.phase == phase) cpu::block->yield(cpu::Wait::spin);
  }
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

struct Scratch {                           // of one group
  uint4 bins[32 * kLaneBins / 4];          // zero between rows
  uint4 counts[kMostPages / 128 / 4];      // of a compaction: one word a chunk and warp
  uint4 few[kFew / 4];
  unsigned low[16], high[16];              // one a warp
  unsigned count, bin, above, inside;
};

struct Group {
  int id, threads, thread;
  Scratch* s;
  float* list;            // [kListEach * threads] candidates in page order
  unsigned short* pages;  // [kListEach * threads] and their pages
  __device__ __forceinline__ int lane() const { return thread % 32; }
  __device__ __forceinline__ int warp() const { return thread / 32; }
  __device__ __forceinline__ int warps() const { return threads / 32; }
  __device__ __forceinline__ void sync() const { sync_group(1 + id, threads); }
};

__host__ __device__ inline int groups(int threads, int blocks, int rows) {
  int n = 1;
  while (n < kMostGroups && n * blocks < rows && threads % (64 * n) == 0 &&
         threads / (2 * n) >= kSmallestGroup)
    n *= 2;
  return n;
}

// Chunk c of a row is the 4 * threads pages from c * 4 * threads on; a thread holds 4 neighbours.
__host__ __device__ inline int chunks(int pages, int threads) {
  return (pages + threads * 4 - 1) / (threads * 4);
}

}  // namespace topk
