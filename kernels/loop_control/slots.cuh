// Requests enter and leave the decoder's slots, with their pages.
#pragma once
#include "loop_control/barrier.cuh"

namespace loop {

enum Kind : int { kAdmit = 1, kCancel = 2 };
// One request on its way in; `pages` of them lie at page_pool[first_page], more come from the ring.
struct Entry {
  int kind;
  unsigned request;
  int length, remaining;
  int pages, first_page;
  int unused[2];
};

// The decoder's state, as the stages see it; lengths: -1 idle, below -1 short of pages.
struct Slots {
  int* lengths;
  int* remaining;
  int* page_counts;
  int* table;
  int* free_ring;
  unsigned* free_head;
  unsigned* free_tail;
  int slots, max_pages, ring_mask, new_tokens, page_tokens;
};

// By one block: gives *slot* to a request. False, and nothing changed, if the ring has too few
// pages. Nobody else may touch the ring or the slot meanwhile.
__device__ inline bool admit(const Slots& s, const Entry& e, const int* page_pool, int slot) {
  int needed = (e.length + s.new_tokens + s.page_tokens - 1) / s.page_tokens;
  int given = min(max(e.pages, 0), needed);
  unsigned head = rs::load_acquire_gpu(s.free_head);
  unsigned available = rs::load_acquire_gpu(s.free_tail) - head;
  __syncthreads();
  if (needed > s.max_pages || needed - given > static_cast<int>(available)) return false;
  volatile int* row = s.table + static_cast<long long>(slot) * s.max_pages;
  const volatile int* ring = s.free_ring;
  const volatile int* pool = page_pool;
  for (int i = threadIdx.x; i < needed; i += blockDim.x)
    row[i] = i < given ? pool[e.first_page + i] : ring[(head + i - given) & s.ring_mask];
  if (threadIdx.x == 0) {
    rs::store_release_gpu(s.free_head, head + needed - given);
    s.remaining[slot] = e.remaining;
    s.page_counts[slot] = needed;
    s.lengths[slot] = e.length;
  }
  rs::fence_async_global();
  __syncthreads();
  return true;
}

// By one block: takes *slot* from its request; the pages go back to the ring.
__device__ inline void release(const Slots& s, int slot) {
  volatile int* row = s.table + static_cast<long long>(slot) * s.max_pages;
  volatile int* ring = s.free_ring;
  int pages = static_cast<volatile int*>(s.page_counts)[slot];
  unsigned tail = rs::load_acquire_gpu(s.free_tail);
  __syncthreads();
  for (int i = threadIdx.x; i < pages; i += blockDim.x) ring[(tail + i) & s.ring_mask] = row[i];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    rs::store_release_gpu(s.free_tail, tail + pages);
    s.page_counts[slot] = 0;
    s.lengths[slot] = -1;
  }
  __syncthreads();
}

}  // namespace loop
