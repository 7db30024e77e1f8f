// Who computes what: all work in one line of units, cut into equal parts on the device.
//
// An item is one (request, KV head); its units are its tiles in order. The line is the items' units
// one after the other, request by request. Block i of n takes units [W i / n, W (i + 1) / n), its
// teams equal parts of that. Nothing comes from the host, and a long request costs what its tiles
// cost.
#pragma once
#include "paged_attention/shape.cuh"

namespace attention {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kTailUnits = PAGE_TOKENS / 16;  // units of a 16-bit tail page

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }
__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Pages that stand in 4 bits; only of that variant.
__device__ __forceinline__ int packed_pages(int length) { return length / PAGE_TOKENS; }

struct Units {
  int cache, all;  // units read from the cache; with the 16-bit tail's
};

__device__ __forceinline__ Units units_of(const PagedAttentionParams& p, int request, int head) {
  int length = p.lengths[request];
  if (length < 0) return {0, 0};
  if (!p.selected) {
    if (KV_BITS != 4) {
      int n = ceil_div(length + TOKENS, rs::kTile);
      return {n, n};
    }
    int pages = packed_pages(length), n = pages * rs::kTilesPerPage;
    return {n, n + ceil_div(length + TOKENS - pages * PAGE_TOKENS, 16)};
  }
  int row = request * p.kv_heads + head, pages = p.counts[row];
  if (KV_BITS != 4) return {pages * rs::kTilesPerPage, pages * rs::kTilesPerPage};
  const int* list = p.selected + (long long)row * p.k_max;
  int tail = 0;  // ascending, so the tail's pages are the last two at most
  for (int i = 1; i <= 2; ++i)
    if (pages >= i && list[pages - i] >= packed_pages(length)) ++tail;
  int n = (pages - tail) * rs::kTilesPerPage;
  return {n, n + tail * kTailUnits};
}

// prefix[b] = units of the requests before b, for b = 0 .. requests. All threads, several warps;
// the first one has the longest way, *others* is done meanwhile by the rest. Ends in a barrier.
template <typename Others>
__device__ __forceinline__ void plan(const PagedAttentionParams& p, int* prefix,
                                     const Others& others) {
  if (p.selected) {
    for (int b = threadIdx.x; b < p.requests; b += blockDim.x) prefix[b + 1] = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < p.requests * p.kv_heads; i += blockDim.x) {
      int n = units_of(p, i / p.kv_heads, i % p.kv_heads).all;
      if (n) atomicAdd(&prefix[i / p.kv_heads + 1], n);
    }
    __syncthreads();
  }
  if (threadIdx.x >= 32) {
    others();
  } else {
    int sum = 0;
#pragma unroll 4
    for (int base = 0; base < p.requests; base += 32) {
      int b = base + threadIdx.x, v = 0;
      if (b < p.requests) v = p.selected ? prefix[b + 1] : units_of(p, b, 0).all * p.kv_heads;
      for (int d = 1; d < 32; d *= 2) {
        int below = __shfl_up_sync(kAllLanes, v, d);
        if (lane_id() >= d) v += below;
      }
      if (b < p.requests) prefix[b + 1] = sum + v;
      sum += __shfl_sync(kAllLanes, v, 31);
    }
    if (threadIdx.x == 0) prefix[0] = 0;
  }
  __syncthreads();
}

// The line's cut over blocks and, inside a block, over teams: shares differ by one unit at most.
//
// Small work takes fewer blocks, so that each team has a unit. So does work of up to kAlignedBytes
// a block whose items, or equal parts of items, are a little larger than a share: cuts that fall
// between items save their merging, which there is worth more than a few blocks.
struct Cut {
  static constexpr int kAlignedBytes = 2 << 20;
  static constexpr float kSpare = 1.04f;
  int units, blocks, share, longer;  // the first *longer* blocks take share + 1 units

  __device__ Cut(int units, int items, int most_blocks) : units(units) {
    blocks = max(1, min(most_blocks, units / kTeams));
    float even = __fdividef(units, blocks), item = __fdividef(units, items);
    if (even * rs::kTileBytes < kAlignedBytes && units > 0) {
      float ratio = item > even ? __fdividef(item, even) : __fdividef(even, item);
      float better = item > even ? __fdividef(item, floorf(ratio)) : ceilf(ratio) * item;
      if (better < even * kSpare) blocks = max(1, static_cast<int>(__fdividef(units, better) + 0.5f));
    }
    share = units / blocks;
    longer = units - share * blocks;
  }
  __device__ int begin(int block) const { return share * block + min(block, longer); }
  __device__ int begin(int block, int team) const {
    return begin(block) + (share + (block < longer)) * team / kTeams;
  }
  // The block that holds *unit*.
  __device__ int block_of(int unit) const {
    int block = static_cast<int>(__fdividef(unit, share + 1));  // near enough to mend
    block = min(block, blocks - 1);
    while (begin(block) > unit) --block;
    while (begin(block + 1) <= unit) ++block;
    return block;
  }
};

// A place in the line; the same in all lanes of a warp, but for the lanes' own heads.
struct Walk {
  int request, head, unit;
  Units item;  // of this request and head
  Units lane;  // of head head / 32 * 32 + lane

  __device__ Walk(const PagedAttentionParams& p, const int* prefix, int place) : head(0) {
    int low = 0, high = p.requests;  // prefix[low] <= place < prefix[high]
    while (high - low > 1) {
      int middle = (low + high) / 2;
      (prefix[middle] <= place ? low : high) = middle;
    }
    request = low;
    unit = place - prefix[low];
    load_heads(p);
    while (unit >= item.all) {
      unit -= item.all;
      step_head(p);
    }
  }
  __device__ void load_heads(const PagedAttentionParams& p) {
    int h = head + lane_id();
    lane = h < p.kv_heads ? units_of(p, request, h) : Units{0, 0};
    pick();
  }
  __device__ void pick() {
    item.all = __shfl_sync(kAllLanes, lane.all, head % 32);
    item.cache = KV_BITS == 4 ? __shfl_sync(kAllLanes, lane.cache, head % 32) : item.all;
  }
  __device__ void step_head(const PagedAttentionParams& p) {
    if (++head % 32 == 0) return load_heads(p);
    pick();
  }
  // To the first unit of the next item that has any; there must be one.
  __device__ void next_item(const PagedAttentionParams& p, const int* prefix) {
    unit = 0;
    do {
      if (head + 1 < p.kv_heads) {
        step_head(p);
      } else {
        head = 0;
        do ++request;
        while (prefix[request + 1] == prefix[request]);
        load_heads(p);
      }
    } while (item.all == 0);
  }
  // Index of the unit's page in the item's list of pages, and the unit's index in that page.
  __device__ bool in_tail() const { return KV_BITS == 4 && unit >= item.cache; }
  __device__ int ordinal() const {
    if (!in_tail()) return unit / rs::kTilesPerPage;
    return item.cache / rs::kTilesPerPage + (unit - item.cache) / kTailUnits;
  }
  __device__ int part() const {
    return in_tail() ? (unit - item.cache) % kTailUnits : unit % rs::kTilesPerPage;
  }
};

// Fills a team's ring, kSlots tiles ahead of the reader; only the team's first warp.
struct Feed {
  Walk walk;
  int left;             // units still to be fetched
  int base;             // ordinal of lane 0's page
  int logical, physical;  // pages of ordinals base + lane
  bool value;           // the next half of a tail unit is V

  __device__ Feed(const Walk& walk, int left)
      : walk(walk), left(left), base(-64), logical(0), physical(0), value(false) {}

  __device__ void load_pages(const PagedAttentionParams& p, int ordinal) {
    base = ordinal;
    int i = ordinal + lane_id();
    logical = i;
    if (p.selected) {
      long long row = walk.request * p.kv_heads + walk.head;
      logical = i < p.counts[row] ? p.selected[row * p.k_max + i] : 0;
    }
    const int* row = p.table + (long long)walk.request * p.max_pages;
    physical = logical < p.max_pages ? row[logical] : 0;
  }
  __device__ void next(const PagedAttentionParams& p, const int* prefix, unsigned char* slot,
                       rs::Barrier* full) {
    if (left == 0) return;
    int ordinal = walk.ordinal();
    if (ordinal - base >= 32 || ordinal < base) load_pages(p, ordinal);
    if (walk.in_tail()) {
      int page = __shfl_sync(kAllLanes, logical, ordinal - base);
      const unsigned char* source =
          p.tail +
          (((long long)walk.request * 2 + page % 2) * p.kv_heads + walk.head) * rs::kPageBytes16 +
          walk.part() * rs::kTileBytes16 + value * kHalfBytes;
      rs::fill_begin(full, kHalfBytes);
      rs::fill_piece(slot, source, kHalfBytes, full);
      value = !value;
      if (value) return rs::fill_end(full);
    } else {
      long long page = __shfl_sync(kAllLanes, physical, ordinal - base);
      const unsigned char* source = p.cache + (page * p.kv_heads + walk.head) * rs::kPageBytes +
                                    walk.part() * rs::kTileBytes;
      rs::fill_begin(full, rs::kTileBytes);
      rs::fill_piece(slot, source, rs::kTileBytes, full);
    }
    rs::fill_end(full);
    if (--left == 0) return;
    if (++walk.unit < walk.item.all) return;
    walk.next_item(p, prefix);
    base = -64;
  }
};

}  // namespace attention
