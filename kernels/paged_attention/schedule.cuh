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
#pragma unroll 1
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
#pragma unroll 1
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
#pragma unroll 1
    while (begin(block) > unit) --block;
#pragma unroll 1
    while (begin(block + 1) <= unit) ++block;
    return block;
  }
};

// What a warp must know of a tile in its ring.
struct Tile {
  int item, unit, units;  // request * kv_heads + head; the unit's index in the item; its units
  int first;              // the first token; negative: a packed tile of 4 bits, all visible
};
static_assert(sizeof(Tile) == 16, "one load from shared memory");

// A unit of the line and where its bytes stand; each lane has its own.
struct Source {
  const unsigned char* bytes;
  Tile tile;

  __device__ void find(const PagedAttentionParams& p, const int* prefix, int place) {
    int low = 0, high = p.requests;  // prefix[low] <= place < prefix[high]
#pragma unroll 1
    while (high - low > 1) {
      int middle = (low + high) / 2;
      (prefix[middle] <= place ? low : high) = middle;
    }
    int request = low, head = 0, unit = place - prefix[low];
    Units units = units_of(p, request, 0);
    if (p.selected) {
#pragma unroll 1
      while (unit >= units.all) {
        unit -= units.all;
        units = units_of(p, request, ++head);
      }
    } else {
      head = unit / units.all;
      unit -= head * units.all;
    }
    tile.item = request * p.kv_heads + head;
    tile.unit = unit;
    tile.units = units.all;
    bool tail = KV_BITS == 4 && unit >= units.cache;
    int beyond = unit - units.cache;
    int page = tail ? units.cache / rs::kTilesPerPage + beyond / kTailUnits
                    : unit / rs::kTilesPerPage;
    int part = tail ? beyond % kTailUnits : unit % rs::kTilesPerPage;
    if (p.selected) page = p.selected[(long long)tile.item * p.k_max + page];
    if (tail) {
      bytes = p.tail + ((request * 2LL + page % 2) * p.kv_heads + head) * rs::kPageBytes16 +
              part * rs::kTileBytes16;
    } else {
      long long physical = p.table[(long long)request * p.max_pages + page];
      bytes = p.cache + (physical * p.kv_heads + head) * rs::kPageBytes + part * rs::kTileBytes;
    }
    tile.first = KV_BITS == 4 && !tail ? -1 : page * PAGE_TOKENS + part * rs::kTile;
    if (tail) tile.first = page * PAGE_TOKENS + part * 16;
  }
};

// Fills a team's ring; only the team's first warp has one. Sources are found for 32 units at once.
struct Feed {
  int next, end;    // units of the line still to be fetched
  int lane0 = -32;  // the unit of lane 0's source
  Source source;
  bool value = false;  // the next fill is V of a tail unit, whose K has been fetched
  int slot = 0, in_flight = 0;
  unsigned phase = 1;  // of the slot's last use

  __device__ Feed(int begin, int end) : next(begin), end(end) {}

  __device__ void fill(const PagedAttentionParams& p, const Shared& shared, int team) {
#pragma unroll 1
    while (in_flight < kSlots && next < end) {
      if (next - lane0 >= 32) {
        lane0 = next;
        source.find(p, shared.prefix(), min(next + lane_id(), end - 1));
      }
      if (kTeam > 1) rs::barrier_wait(shared.empty(team) + slot, phase);
      int lane = next - lane0;
      unsigned long long address = __shfl_sync(
          kAllLanes, reinterpret_cast<unsigned long long>(source.bytes), lane);
      if (lane_id() == lane) *shared.tile(team, slot) = source.tile;
      bool tail = KV_BITS == 4 && __shfl_sync(kAllLanes, source.tile.first, lane) >= 0;
      __syncwarp();
      rs::Barrier* full = shared.full(team) + slot;
      unsigned bytes = tail ? kHalfBytes : rs::kTileBytes;
      rs::fill_begin(full, bytes);
      rs::fill_piece(shared.ring(team) + slot * kSlotBytes,
                     reinterpret_cast<const unsigned char*>(address) + value * kHalfBytes, bytes,
                     full);
      rs::fill_end(full);
      value = tail && !value;
      if (!value) ++next;
      ++in_flight;
      if (++slot == kSlots) slot = 0, phase ^= 1;
    }
  }
};

}  // namespace attention
