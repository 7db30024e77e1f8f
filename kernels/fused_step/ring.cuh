// The weights of a worker as one tape, read ahead through a ring in shared memory.
//
// A worker's tape holds its tiles of every product of a step in order of use, so that reading ahead
// needs no knowledge of what comes next and goes on while the block waits at a meeting. Each warp has
// a ring of its own, filled by bulk copies of one chunk, so that no warp waits for another; and bulk
// copies do not stand in the way of the loads that the stages wait for (through cp.async they did:
// a load behind a full ring took as long as the ring took to fill).
//
// A chunk is kChunkUnits units of 1 KB; a unit is two pieces of 16 bytes a lane, the operands of two
// mma. In a tile of 16 weight rows, lane 4 g + t finds row g and row g + 8, inner indices 8 t ..
// 8 t + 7 of a block of 32. In a tile of 8 rows the two pieces are row g of two blocks.
#pragma once
#include "fused_step/params.cuh"

namespace fused {

#ifndef RING_UNITS
#define RING_UNITS (HIDDEN > 2048 || COLUMN_TILES == 2 ? 6 : WORKERS == 8 ? 10 : 8)
#endif
constexpr int kChunkUnits = kHiddenBlocks % 4 == 0 ? 2 : 1;
constexpr int kChunkBytes = 1024 * kChunkUnits;  // of a warp
constexpr int kSlots = RING_UNITS / kChunkUnits;
static_assert(kHeadsBlocks % kChunkUnits == 0 && kFfnBlocks % kChunkUnits == 0, "whole chunks");
constexpr int kRingBytes = kSlots * kChunkBytes * kWarps;
constexpr int kBarrierBytes = kSlots * kWarps * 8;

// Asynchronous copy of 16 bytes, without a wish for L2 (rs::copy16_async asks for 128 at a time).
__device__ __forceinline__ void copy16_plain(unsigned char* shared, const unsigned char* global) {
#ifdef RS_CPU
  memcpy(shared, global, 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               ::"r"(rs::shared_address(shared)), "l"(global) : "memory");
#endif
}

// A warp's ring; all lanes call everything together.
struct Ring {
  unsigned char* base;        // slot 0, this lane's place
  rs::Barrier* full;          // [kSlots]
  const unsigned char* next;  // the warp's part of the next chunk to be fetched
  int left, period;           // chunks until the end; those from where it begins again then, or 0
  int slot;                   // of the next chunk to be taken
  unsigned phase;

  // Starts reading *units* units of every warp from *tape*, once or, *endless*, again and again.
  __device__ __forceinline__ void open(unsigned char* shared, unsigned char* barriers,
                                       const unsigned char* tape, int units, bool endless) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    base = shared + warp * kSlots * kChunkBytes + lane * 16;
    full = reinterpret_cast<rs::Barrier*>(barriers) + warp * kSlots;
    next = tape + warp * kChunkBytes;
    left = units / kChunkUnits;
    period = endless ? left : 0;
    slot = 0;
    phase = 0;
    if (lane == 0) {
#pragma unroll 1
      for (int i = 0; i < kSlots; ++i) rs::barrier_init(full + i, 1);
      rs::barrier_init_fence();
    }
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < kSlots; ++i) fetch(i);
  }
  __device__ __forceinline__ void fetch(int to) {
    if (left == 0) return;
    rs::fill_begin(full + to, kChunkBytes);
    rs::fill_piece(base - threadIdx.x % 32 * 16 + to * kChunkBytes, next, kChunkBytes, full + to);
    rs::fill_end(full + to);
    next += kChunkBytes * kWarps;
    if (--left == 0) {
      left = period;
      next -= (long long)period * kChunkBytes * kWarps;
    }
  }
  // This lane's part of the next chunk: two uint4 a unit, 512 bytes apart.
  __device__ __forceinline__ const unsigned char* take() const {
    rs::barrier_wait(full + slot, phase);
    return base + slot * kChunkBytes;
  }
  // Fills the slot again. Only once its units have been multiplied: a lane's own loads from shared
  // memory may wait behind others for longer than a copy takes.
  __device__ __forceinline__ void release() {
    __syncwarp();
    fetch(slot);
    if (++slot == kSlots) slot = 0, phase ^= 1;
  }
  // Waits for what is still on its way, before the shared memory goes.
  __device__ __forceinline__ void close() {
#pragma unroll 1
    for (int i = 0; i < kSlots && period; ++i) {
      rs::barrier_wait(full + slot, phase);
      if (++slot == kSlots) slot = 0, phase ^= 1;
    }
  }
};

}  // namespace fused

namespace rs {

// Lets the next kernel in the stream start as soon as there is room for its blocks.
__device__ __forceinline__ void let_next_start() {
#if !defined(RS_CPU) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits until the kernel before this one in the stream has ended, if it let this one start early.
__device__ __forceinline__ void wait_for_kernel_before() {
#if !defined(RS_CPU) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace rs
