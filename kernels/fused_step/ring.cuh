// The weights of a worker as one tape, read ahead through a ring in shared memory.
//
// A worker's tape holds its tiles of every product of a step in order of use, so that reading ahead
// needs no knowledge of what comes next and goes on while the block waits at a meeting. The unit is
// 1 KB a warp: two pieces of 16 bytes a lane, which are the operands of two mma. Each lane copies
// what it will itself use, so that nobody has to be told when a copy has ended.
//
// In a tile of 16 weight rows, lane 4 g + t finds row g and row g + 8, inner indices 8 t .. 8 t + 7
// of a block of 32. In a tile of 8 rows the two pieces are row g of two blocks.
#pragma once
#include "fused_step/params.cuh"

namespace fused {

#ifndef RING_UNITS
#define RING_UNITS (COLUMN_TILES == 2 && TOKENS > 4 ? 7 : 8)
#endif
constexpr int kRingBytes = RING_UNITS * kUnitBytes;
constexpr unsigned kEndless = 1u << 31;

// Asynchronous copy of 16 bytes, without a wish for L2: a cp.async with a cache hint was an illegal
// instruction on an H200, and rs::copy16_async asks L2 for 128 bytes at a time.
__device__ __forceinline__ void copy16_plain(unsigned char* shared, const unsigned char* global) {
#ifdef RS_CPU
  memcpy(shared, global, 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               ::"r"(rs::shared_address(shared)), "l"(global) : "memory");
#endif
}

struct Unit {
  uint4 low, high;
};

// A lane's view of the ring. All lanes of all warps take the same number of units.
struct Ring {
  unsigned char* base;         // this lane's place in slot 0
  const unsigned char* next;   // its place in the next unit to be fetched
  const unsigned char* end;    // behind the tape, which begins again there
  long long length;            // of the tape in bytes
  unsigned left;               // units still to be fetched
  int slot;

  // Starts reading *tape* at byte *from*: *units* of them, or kEndless, for as long as anybody takes some
  // from a tape of *bytes*.
  __device__ __forceinline__ void open(unsigned char* shared, const unsigned char* tape,
                                       long long from, long long bytes, unsigned units) {
    int offset = threadIdx.x / 32 * 1024 + threadIdx.x % 32 * 16;
    base = shared + offset;
    next = tape + from + offset;
    end = tape + bytes;
    length = bytes;
    left = units;
    slot = 0;
#pragma unroll 1
    for (int i = 0; i < RING_UNITS; ++i) fetch(base + i * kUnitBytes);
  }
  __device__ __forceinline__ void fetch(unsigned char* to) {
    if (left) {
      copy16_plain(to, next);
      copy16_plain(to + 512, next + 512);
      next += kUnitBytes;
      if (left == kEndless) {
        if (next >= end) next -= length;
      } else {
        --left;
      }
    }
    rs::copy_commit();  // an empty group keeps the count
  }
  // The next unit. Its slot is filled again at once: the copy lands hundreds of cycles after this
  // lane's own loads, and no other lane reads there.
  __device__ __forceinline__ Unit take() {
    unsigned char* at = base + slot * kUnitBytes;
    rs::copy_wait<RING_UNITS - 1>();
    Unit unit = {*reinterpret_cast<const uint4*>(at), *reinterpret_cast<const uint4*>(at + 512)};
#ifndef RS_CPU
    asm volatile("" ::"r"(unit.low.x), "r"(unit.high.w) : "memory");
#endif
    fetch(at);
    slot = slot + 1 == RING_UNITS ? 0 : slot + 1;
    return unit;
  }
  __device__ __forceinline__ void close() { rs::copy_wait<0>(); }
};

}  // namespace fused

namespace rs {

// Waits until the kernel before this one in the stream has ended, if it let this one start early.
__device__ __forceinline__ void wait_for_kernel_before() {
#if !defined(RS_CPU) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace rs
