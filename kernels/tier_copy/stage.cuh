// Moves pages between two pools, either of which may lie in pinned host memory.
//
// source [pages][page_bytes], source_pages [count] -> target [pages][page_bytes], target_pages
// [count]: target page target_pages[i] becomes source page source_pages[i]; a list that names a
// target page twice leaves either content.
#pragma once
#include "common/cuda.cuh"

#ifndef MOVE_LOADS
#define MOVE_LOADS 8  // 16-byte loads in flight a lane
#endif

struct MovePages {
  const unsigned char* source;
  unsigned char* target;
  const int* source_pages;
  const int* target_pages;
  long long page_bytes;  // a multiple of 16
  int count;
};

namespace tier {

// Copies one piece of at most 512 * MOVE_LOADS bytes by one warp, every load before the first store.
__device__ __forceinline__ void move_piece(unsigned char* target, const unsigned char* source,
                                           int bytes) {
  int at = threadIdx.x % 32 * 16;
  uint4 v[MOVE_LOADS];
#pragma unroll
  for (int i = 0; i < MOVE_LOADS; ++i)
    if (at + i * 512 < bytes) v[i] = rs::load_relaxed_sys(source + at + i * 512);
#pragma unroll
  for (int i = 0; i < MOVE_LOADS; ++i)
    if (at + i * 512 < bytes) *reinterpret_cast<uint4*>(target + at + i * 512) = v[i];
}

}  // namespace tier

// ---------------------------------------------------------------------------- stage
// Warps take pieces in turn, so that neighbours read neighbouring addresses whatever the page size.
// Any grid, any block of whole warps, no shared memory: it fits beside other kernels on an SM. What
// it has in flight, blocks * warps * 4 KiB, should be about 128 KiB: less does not fill the link,
// more waits inside the SMs, where the loads of a kernel beside it queue behind.
__device__ void move_pages_stage(const MovePages& p, int block, int blocks) {
  constexpr int kPiece = 512 * MOVE_LOADS;
  int warps = blockDim.x / 32;
  long long pieces = (p.page_bytes + kPiece - 1) / kPiece;
  long long stride = (long long)blocks * warps;
  // Divisions are slow; the page and the piece within it advance by a constant step instead.
  long long first = (long long)block * warps + threadIdx.x / 32;
  long long page = first / pieces, piece = first % pieces;
  long long page_step = stride / pieces, piece_step = stride % pieces;
  while (page < p.count) {
    long long offset = piece * kPiece, left = p.page_bytes - offset;
    const unsigned char* from = p.source + p.source_pages[page] * p.page_bytes + offset;
    unsigned char* to = p.target + p.target_pages[page] * p.page_bytes + offset;
    tier::move_piece(to, from, left < kPiece ? static_cast<int>(left) : kPiece);
    page += page_step;
    piece += piece_step;
    if (piece >= pieces) {
      piece -= pieces;
      ++page;
    }
  }
}
