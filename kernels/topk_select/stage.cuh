// The `budget` best pages of every (request, KV head) row, in ascending order.
//
// scores    [batch][kv_heads][max_pages] fp32; a NaN ranks below every number, -0 equals +0
// lengths   [batch] committed tokens before this step; negative: the slot is skipped
// selected  [batch][kv_heads][k_max] logical pages, ascending; entries from counts on are untouched
// counts    [batch][kv_heads] = min(budget, pages)
//
// The first `sink` and the last `recent` pages are always in; `recent` grows to the pages of this
// step's new tokens, whose scores may not exist yet. If both exceed the budget, the recent ones win.
// Equal scores: the lower page wins.
//
// A row belongs to a group of warps: the whole block, or a half or a quarter of it when there are
// more rows than blocks. Scores become order-preserving integers in registers. The threshold is
// found by a histogram over [low, high] of the keys, not over fixed bits: `low` is the least of the
// threads' own maxima, which at least `budget` keys reach, so that one round of 2048 bins nearly
// isolates the threshold whatever the distribution; equal scores end before the first round.
#pragma once
#include "common/cuda.cuh"
#include "topk_select/group.cuh"

#ifndef PAGE_TOKENS
#define PAGE_TOKENS 16
#endif
#ifndef TOPK_CHUNKS
#define TOPK_CHUNKS 4  // keys a thread holds in registers, in fours; longer rows go to shared memory
#endif

struct TopkSelectParams {
  const float* scores;
  const int* lengths;
  int* selected;
  int* counts;
  int batch, kv_heads, new_tokens, max_pages, k_max, budget, sink, recent;
};

namespace topk {

constexpr int kBins = 2048, kBinBits = 11;
constexpr int kFew = 32;  // so many candidates are ranked by each warp on its own
constexpr int kMostGroups = 4, kSmallestGroup = 128;
constexpr int kMostChunks = TOPK_CHUNKS;
constexpr unsigned kForced = 0xffffffffu, kNaN = 1, kAbsent = 0;

struct Scratch {  // of one group
  uint4 bins[kBins / 4];
  unsigned low[16], high[16], totals[16];  // one entry a warp
  unsigned few[kFew];
  unsigned count, bin, above, inside;
};

struct Group {
  int id, threads, thread;
  Scratch* s;
  uint4* keys;  // of the row, if they do not fit registers
  __device__ int warp() const { return thread / 32; }
  __device__ int warps() const { return threads / 32; }
  __device__ void sync() const { sync_group(1 + id, threads); }  // 0: __syncthreads
};

struct Row {
  const float* scores;
  int* selected;
  int pages, sink, recent_begin, wanted;  // wanted: pages to take by score
  __device__ int middle() const { return recent_begin - sink; }
};

__host__ __device__ inline int groups(int threads, int blocks, int rows) {
  int n = 1;
  while (n < kMostGroups && n * blocks < rows && threads % (64 * n) == 0 &&
         threads / (2 * n) >= kSmallestGroup)
    n *= 2;
  return n;
}

// Lanes of a warp hold 4 neighbours each; a warp's chunks are neighbours, so page order is
// (warp, chunk, lane, element) and the output needs no sort.
__host__ __device__ inline int chunks(int pages, int threads) {
  return (pages + threads * 4 - 1) / (threads * 4);
}

__device__ __forceinline__ unsigned key_of(const Row& r, int page, unsigned bits) {
  if (page >= r.pages) return kAbsent;
  if (page < r.sink || page >= r.recent_begin) return kForced;
  float score = __uint_as_float(bits) + 0.0f;  // -0 becomes +0
  if (score != score) return kNaN;
  unsigned u = __float_as_uint(score);
  return u ^ (static_cast<unsigned>(static_cast<int>(u) >> 31) | 0x80000000u);
}

// The keys of a thread: kChunks uint4 in registers, or (kChunks 0) *count* of them in shared memory.
template <int kChunks>
struct Keys {
  uint4 held[kChunks ? kChunks : 1];
  uint4* shared;
  int count;

  __device__ __forceinline__ int size() const { return kChunks ? kChunks : count; }
  __device__ __forceinline__ uint4 at(int c) const {
    return kChunks ? held[kChunks ? c : 0] : shared[c * 32];
  }
  __device__ __forceinline__ void put(int c, uint4 v) {
    if (kChunks)
      held[kChunks ? c : 0] = v;
    else
      shared[c * 32] = v;
  }
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
#pragma unroll
    for (int c = 0; c < size(); ++c) {
      uint4 v = at(c);
      f(v.x), f(v.y), f(v.z), f(v.w);
    }
  }
};

// ---------------------------------------------------------------------------- threshold
struct Cutoff {
  unsigned key, ties;  // take every key above, and the first `ties` of those equal
};

// Bins of the keys in [low, low + span] from the top down: in the scratch, the bin that holds the
// wanted-th key, how many keys lie above it and how many inside. Leaves the bins at zero.
template <int kChunks>
__device__ __forceinline__ void find_bin(const Group& g, const Keys<kChunks>& keys, unsigned low,
                                         unsigned span, int shift, unsigned wanted) {
  Scratch& s = *g.s;
  unsigned* bins = &s.bins[0].x;
  keys.each([&](unsigned key) {
    if (key - low <= span) atomicAdd(&bins[(key - low) >> shift], 1u);
  });
  g.sync();
  int vectors = (kBins / 4 + g.threads - 1) / g.threads;
  int top = kBins / 4 - 1 - g.thread * vectors;  // this thread's bins: 4 * vectors below this
  unsigned own = 0;
  for (int i = 0; i < vectors && i <= top; ++i) {
    uint4 v = s.bins[top - i];
    own += v.x + v.y + v.z + v.w;
  }
  unsigned running = own;
  int lane = g.thread % 32;
  for (int d = 1; d < 32; d *= 2) {
    unsigned other = __shfl_up_sync(~0u, running, d);
    if (lane >= d) running += other;
  }
  if (lane == 31) s.totals[g.warp()] = running;
  g.sync();
  unsigned before = lane < g.warp() ? s.totals[lane] : 0;
  unsigned above = __reduce_add_sync(~0u, before) + running - own;
  if (above < wanted && wanted <= above + own) {
    int bin = top * 4 + 3;
    while (above + bins[bin] < wanted) above += bins[bin--];
    s.bin = bin;
    s.above = above;
    s.inside = bins[bin];
  }
  for (int i = 0; i < vectors && i <= top; ++i) s.bins[top - i] = make_uint4(0, 0, 0, 0);
  g.sync();
}

// The wanted-th of the few keys in [low, low + span], by counting, each warp for itself.
template <int kChunks>
__device__ __forceinline__ Cutoff rank_few(const Group& g, const Keys<kChunks>& keys, unsigned low,
                                           unsigned span, unsigned wanted, unsigned count) {
  Scratch& s = *g.s;
  keys.each([&](unsigned key) {
    if (key - low <= span) s.few[atomicAdd(&s.count, 1u)] = key;
  });
  g.sync();
  unsigned lane = g.thread % 32;
  unsigned mine = lane < count ? s.few[lane] : 0, greater = 0, equal = 0;
  for (unsigned i = 0; i < count; ++i) {
    unsigned other = s.few[i];
    greater += other > mine;
    equal += other == mine;
  }
  bool is_cutoff = lane < count && greater < wanted && wanted <= greater + equal;
  int source = __ffs(__ballot_sync(~0u, is_cutoff)) - 1;
  return {__shfl_sync(~0u, mine, source), wanted - __shfl_sync(~0u, greater, source)};
}

template <int kChunks>
__device__ __forceinline__ Cutoff find_cutoff(const Group& g, const Row& r,
                                              const Keys<kChunks>& keys) {
  Scratch& s = *g.s;
  unsigned wanted = r.wanted;
  if (wanted == 0) return {kForced - 1, 0};
  // `low`: the least of the maxima of disjoint sets of keys, if there are `wanted` sets or more.
  int middle = r.middle(), per_thread = 4 * keys.size();
  bool by_thread = r.wanted <= (middle + per_thread - 1) / per_thread;
  bool by_vector = r.wanted <= (middle + 3) / 4;
  unsigned least = ~0u, most = 0;
#pragma unroll
  for (int c = 0; c < keys.size(); ++c) {
    uint4 v = keys.at(c);
    unsigned key[4] = {v.x, v.y, v.z, v.w}, best = 0;
    for (int j = 0; j < 4; ++j) {
      unsigned k = key[j] == kForced ? kAbsent : key[j];
      best = max(best, k);
      if (!by_vector && k != kAbsent) least = min(least, k);
    }
    if (by_vector && best != kAbsent) least = min(least, best);
    most = max(most, best);
  }
  if (by_thread) least = most == kAbsent ? ~0u : most;
  least = __reduce_min_sync(~0u, least);
  most = __reduce_max_sync(~0u, most);
  int lane = g.thread % 32;
  if (lane == 0) s.low[g.warp()] = least, s.high[g.warp()] = most;
  if (g.thread == 0) s.count = 0;
  g.sync();
  unsigned low = __reduce_min_sync(~0u, lane < g.warps() ? s.low[lane] : ~0u);
  unsigned span = __reduce_max_sync(~0u, lane < g.warps() ? s.high[lane] : 0) - low;
  if (span == 0) return {low, wanted};
  int shift = max(0, 32 - __clz(span) - kBinBits);
  while (true) {
    find_bin(g, keys, low, span, shift, wanted);
    unsigned inside = s.inside;
    low += s.bin << shift;
    span = (1u << shift) - 1;
    wanted -= s.above;
    if (inside == wanted) return {low - 1, 0};
    if (shift == 0) return {low, wanted};
    if (inside <= kFew) return rank_few(g, keys, low, span, wanted, inside);
    shift = max(0, shift - kBinBits);
  }
}

// ---------------------------------------------------------------------------- a row
__device__ __forceinline__ unsigned marks(unsigned key, const Cutoff& cut) {
  return key > cut.key ? 1u : key == cut.key ? 0x10000u : 0u;  // taken, or a tie
}

// Writes the pages of the keys above the cutoff and of the first ties. Counts travel in pairs:
// taken in the low half, ties in the high half; both stay below 2^15.
template <int kChunks>
__device__ __forceinline__ void write_selected(const Group& g, const Row& r,
                                               const Keys<kChunks>& keys, const Cutoff& cut) {
  int lane = g.thread % 32;
  unsigned total = 0;
  keys.each([&](unsigned key) { total += marks(key, cut); });
  total = __reduce_add_sync(~0u, total);
  if (lane == 0) g.s->totals[g.warp()] = total;
  g.sync();
  unsigned before = __reduce_add_sync(~0u, lane < g.warp() ? g.s->totals[lane] : 0);
  if (total == 0) return;
  int first = g.warp() * keys.size() * 128 + lane * 4;
#pragma unroll
  for (int c = 0; c < keys.size(); ++c) {
    uint4 v = keys.at(c);
    unsigned own[4] = {marks(v.x, cut), marks(v.y, cut), marks(v.z, cut), marks(v.w, cut)};
    unsigned sum = own[0] + own[1] + own[2] + own[3], running = sum;
    if (!__any_sync(~0u, sum != 0)) continue;
    for (int d = 1; d < 32; d *= 2) {
      unsigned other = __shfl_up_sync(~0u, running, d);
      if (lane >= d) running += other;
    }
    unsigned at = before + running - sum;
    before += __shfl_sync(~0u, running, 31);
    for (int j = 0; j < 4; ++j) {
      unsigned taken = at & 0xffffu, ties = at >> 16;
      if (own[j] == 1 || (own[j] && ties < cut.ties))
        r.selected[taken + min(ties, cut.ties)] = first + c * 128 + j;
      at += own[j];
    }
  }
}

template <int kChunks>
__device__ __forceinline__ void select_row(const Group& g, const Row& r) {
  Keys<kChunks> keys;
  int count = kChunks ? kChunks : chunks(r.pages, g.threads);
  int lane = g.thread % 32, first = g.warp() * count * 128 + lane * 4;
  keys.count = count;
  keys.shared = g.keys + g.warp() * count * 32 + lane;
  uint4 raw[kChunks ? kChunks : 1];
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (first + c * 128 < r.pages) raw[c] = rs::load_stream(r.scores + first + c * 128);
#pragma unroll
  for (int c = 0; c < count; ++c) {
    int page = first + c * 128;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (kChunks)
      v = raw[kChunks ? c : 0];
    else if (page < r.pages)
      v = rs::load_stream(r.scores + page);
    v.x = key_of(r, page, v.x);
    v.y = key_of(r, page + 1, v.y);
    v.z = key_of(r, page + 2, v.z);
    v.w = key_of(r, page + 3, v.w);
    keys.put(c, v);
  }
  write_selected(g, r, keys, find_cutoff(g, r, keys));
}

__host__ __device__ inline unsigned shared_bytes(int threads, int blocks, int rows,
                                                 int max_pages) {
  int n = groups(threads, blocks, rows), count = chunks(max_pages, threads / n);
  unsigned keys = count > kMostChunks ? count * (threads / n) * 16 : 0;
  return n * (static_cast<unsigned>(sizeof(Scratch)) + keys);
}

}  // namespace topk

// Any grid, any block of 128 to 512 threads in whole warps; rows dealt over groups of warps.
// *shared*: topk::shared_bytes.
__device__ __forceinline__ void topk_select_stage(const TopkSelectParams& p, int block, int blocks,
                                                  unsigned char* shared) {
  int rows = p.batch * p.kv_heads;
  int groups = topk::groups(blockDim.x, blocks, rows);
  topk::Group g;
  g.threads = blockDim.x / groups;
  g.id = threadIdx.x / g.threads;
  g.thread = threadIdx.x % g.threads;
  g.s = reinterpret_cast<topk::Scratch*>(shared) + g.id;
  int most = topk::chunks(p.max_pages, g.threads);
  g.keys = reinterpret_cast<uint4*>(shared + groups * sizeof(topk::Scratch)) +
           g.id * most * g.threads;
  for (int i = g.thread; i < topk::kBins / 4; i += g.threads) g.s->bins[i] = make_uint4(0, 0, 0, 0);
  for (int row = g.id * blocks + block; row < rows; row += groups * blocks) {
    int length = p.lengths[row / p.kv_heads];
    if (length < 0) continue;
    topk::Row r;
    r.scores = p.scores + static_cast<long long>(row) * p.max_pages;
    r.selected = p.selected + static_cast<long long>(row) * p.k_max;
    r.pages = (length + p.new_tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
    if (g.thread == 0) p.counts[row] = min(r.pages, p.budget);
    if (r.pages <= p.budget) {
      for (int i = g.thread; i < r.pages; i += g.threads) r.selected[i] = i;
      continue;
    }
    int recent = min(max(p.recent, r.pages - length / PAGE_TOKENS), p.budget);
    r.sink = min(p.sink, p.budget - recent);
    r.recent_begin = r.pages - recent;
    r.wanted = p.budget - recent - r.sink;
    int chunks = topk::chunks(r.pages, g.threads);
    if (topk::kMostChunks >= 1 && chunks <= 1)
      topk::select_row<topk::kMostChunks >= 1 ? 1 : 0>(g, r);
    else if (topk::kMostChunks >= 2 && chunks <= 2)
      topk::select_row<topk::kMostChunks >= 2 ? 2 : 0>(g, r);
    else if (topk::kMostChunks >= 4 && chunks <= 4)
      topk::select_row<topk::kMostChunks >= 4 ? 4 : 0>(g, r);
    else if (topk::kMostChunks >= 8 && chunks <= 8)
      topk::select_row<topk::kMostChunks >= 8 ? 8 : 0>(g, r);
    else
      topk::select_row<0>(g, r);
    g.sync();  // the next row reuses the scratch
  }
  __syncthreads();
}
