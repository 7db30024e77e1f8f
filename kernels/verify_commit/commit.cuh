// What a step changes outside the logits: tokens, lengths and pages. One block does it all, in an
// order that depends on nothing but the inputs.
//
// A request emits min(emitted, remaining) tokens. One that has all it wanted becomes idle, length
// -1, and gives back every page. Any other keeps ceil((length + new_tokens) / PAGE_TOKENS) pages:
// what is beyond goes back, what is missing is taken. Pages go back before any is taken, in order
// of (request, logical page). Pages are granted in order of request while they last: a request is
// short if the pages wanted by it and all before it exceed the free ones. A short request takes
// none, keeps what it has, and its length becomes -2 - length: every stage skips it, and each later
// commit tries again. status[0] counts the short ones.
#pragma once
#include "verify_commit/stream.cuh"

namespace verify {

struct CommitShared {
  int push_begin[kMostBatch], pop_begin[kMostBatch], from[kMostBatch], emit[kMostBatch];
  int2 totals[16];  // one a warp
  int taken, short_of;
};

// Exclusive prefix sums of *v* over the block's threads; *total* is everyone's.
__device__ __forceinline__ int2 block_prefix(int2 v, int2* totals, int2& total) {
  int2 sum = v;
  for (int d = 1; d < kLanes; d *= 2) {
    int x = __shfl_up_sync(~0u, sum.x, d), y = __shfl_up_sync(~0u, sum.y, d);
    if (lane() >= d) sum.x += x, sum.y += y;
  }
  if (lane() == kLanes - 1) totals[warp()] = sum;
  __syncthreads();
  int2 of_lane = lane() < warps() ? totals[lane()] : make_int2(0, 0);
  bool before = lane() < warp();
  total.x = __reduce_add_sync(~0u, of_lane.x);
  total.y = __reduce_add_sync(~0u, of_lane.y);
  sum.x += __reduce_add_sync(~0u, before ? of_lane.x : 0) - v.x;
  sum.y += __reduce_add_sync(~0u, before ? of_lane.y : 0) - v.y;
  __syncthreads();
  return sum;
}

// The last request whose entries begin at or before *i*.
__device__ __forceinline__ int owner_of(const int* begin, int batch, int i) {
  int low = 0, high = batch;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    (begin[middle] <= i ? low : high) = middle;
  }
  return low;
}

__device__ __forceinline__ void leave_short(const VerifyCommitParams& p, CommitShared& s, int b,
                                            int held) {
  p.page_counts[b] = held;
  p.lengths[b] = -2 - p.lengths[b];
  atomicAdd(&s.short_of, 1);
}

// *source*: emitted(b), wanted before clipping, and token(i) of [batch * new_tokens].
template <class Source>
__device__ __forceinline__ void commit(const VerifyCommitParams& p, const SlotsShared& slots,
                                       CommitShared& s, Source&& source) {
  unsigned head = slots.head, tail = slots.tail, mask = p.ring_capacity - 1;
  int2 carry = make_int2(0, 0);
  if (threadIdx.x == 0) s.taken = s.short_of = 0;
  __syncthreads();
  for (int base = 0; base < p.batch; base += blockDim.x) {
    int b = base + threadIdx.x;
    int emit = -1, from = 0;
    int2 pages = make_int2(0, 0);
    if (b < p.batch) {
      int length = slots.length[b], held = slots.held[b], remaining = slots.remaining[b];
      if (length >= 0) {
        emit = min(source.emitted(b), remaining);
        remaining -= emit;
        length += emit;
        p.emitted[b] = emit;
        p.remaining[b] = remaining;
      } else if (length < -1) {
        length = -2 - length;
      }
      if (length >= 0) {
        int needed = remaining > 0 ? (length + p.new_tokens + PAGE_TOKENS - 1) / PAGE_TOKENS : 0;
        from = min(held, needed);
        p.lengths[b] = remaining > 0 ? length : -1;
        p.page_counts[b] = needed;
        pages.x = held - from;
        if (needed <= p.max_pages)
          pages.y = needed - from;
        else
          leave_short(p, s, b, held);
      }
    }
    int2 total, begin = block_prefix(pages, s.totals, total);
    if (b < p.batch) {
      s.push_begin[b] = carry.x + begin.x;
      s.pop_begin[b] = carry.y + begin.y;
      s.from[b] = from;
      s.emit[b] = emit;
    }
    carry.x += total.x;
    carry.y += total.y;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < p.batch * p.new_tokens; i += blockDim.x) {
    int emit = s.emit[i / p.new_tokens];
    if (emit >= 0) p.tokens[i] = i % p.new_tokens < emit ? source.token(i) : -1;
  }
  if (carry.x + carry.y == 0) {  // no page changes hands
    if (threadIdx.x == 0) p.status[0] = s.short_of;
    return;
  }
  for (int i = threadIdx.x; i < carry.x; i += blockDim.x) {
    int b = owner_of(s.push_begin, p.batch, i);
    long long at = static_cast<long long>(b) * p.max_pages + s.from[b] + i - s.push_begin[b];
    p.free_ring[(tail + i) & mask] = p.table[at];
  }
  tail += carry.x;
  __syncthreads();  // a page given back may be taken at once
  int available = static_cast<int>(tail - head);
  for (int b = threadIdx.x; b < p.batch; b += blockDim.x) {
    int end = b + 1 < p.batch ? s.pop_begin[b + 1] : carry.y;
    if (end == s.pop_begin[b]) continue;
    if (end <= available)
      atomicMax(&s.taken, end);
    else
      leave_short(p, s, b, s.from[b]);
  }
  __syncthreads();
  int taken = s.taken;
  for (int i = threadIdx.x; i < taken; i += blockDim.x) {
    int b = owner_of(s.pop_begin, p.batch, i);
    long long at = static_cast<long long>(b) * p.max_pages + s.from[b] + i - s.pop_begin[b];
    p.table[at] = p.free_ring[(head + i) & mask];
  }
  if (threadIdx.x == 0) {
    *p.free_head = head + taken;
    *p.free_tail = tail;
    p.status[0] = s.short_of;
  }
}

}  // namespace verify
