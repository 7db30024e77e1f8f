// How a block finds its piece of the list of all pages, and walks it; part of page_score/stage.cuh.
#pragma once

namespace page_score {

__device__ __forceinline__ int pages_of(const PageScoreParams& p, int request) {
  int length = p.lengths[request];
  return length < 0 ? 0 : (length + p.tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

// starts[r] = pages of the requests before r, for r <= requests. By warp 0; the loads of 8 times 32
// requests are in flight together.
__device__ __forceinline__ void find_starts(const PageScoreParams& p, int* starts) {
  int lane = threadIdx.x % 32, before = 0;
  for (int base = 0; base < p.requests; base += 256) {
    int pages[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int r = base + i * 32 + lane;
      pages[i] = r < p.requests ? pages_of(p, r) : 0;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int r = base + i * 32 + lane;
      if (base + i * 32 >= p.requests) break;
      int sum = pages[i];
      for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
      }
      if (r < p.requests) starts[r + 1] = before + sum;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  if (lane == 0) starts[0] = 0;
}

// The units of a block's piece of the list, and its ring; every warp walks them alike.
struct Walk {
  const int* starts;
  int requests, kv_heads, slots;
  int at, end;                          // pages of the list, over all requests
  int request, first, count;            // the unit: pages first .. first + count - 1 of a request
  int head, heads;                      // its part: heads head .. head + heads - 1
  int slot;
  unsigned parity;

  __device__ __forceinline__ Walk(const PageScoreParams& p, const int* starts, int block,
                                  int blocks)
      : starts(starts), requests(p.requests), kv_heads(p.kv_heads), head(0), slot(0), parity(0) {
    long long total = starts[p.requests];
    at = static_cast<int>(total * block / blocks);
    end = static_cast<int>(total * (block + 1) / blocks);
    int low = 0, high = p.requests - 1;  // the request of page *at* lies in [low, high]
    while (low < high) {
      int middle = (low + high) / 2;
      if (starts[middle + 1] <= at) low = middle + 1;
      else high = middle;
    }
    request = low;
    slots = min(kMostSlots, kRingBytes / (kUnit * row_bytes()));
    find_unit();
  }
  __device__ __forceinline__ bool ended() const { return at >= end; }
  __device__ __forceinline__ int row_bytes() const {
    return min(kPartHeads, kv_heads) * kHeadBytes + kPad;
  }
  __device__ __forceinline__ void find_unit() {
    heads = min(kPartHeads, kv_heads - head);
    if (ended()) return;
    while (starts[request + 1] <= at) ++request;
    first = at - starts[request];
    count = min(kUnit, min(end, starts[request + 1]) - at);
  }
  __device__ __forceinline__ void next() {
    head += heads;
    if (head == kv_heads) {
      head = 0;
      at += count;
    }
    find_unit();
    if (++slot == slots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

}  // namespace page_score
