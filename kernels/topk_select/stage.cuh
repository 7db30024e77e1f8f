// The `budget` best pages of every (request, KV head) row, in ascending order.
//
// scores    [batch][kv_heads][max_pages] fp32; a NaN counts as -inf
// lengths   [batch] committed tokens before this step; negative: the slot is skipped
// selected  [batch][kv_heads][k_max] logical pages, ascending; entries from counts on are untouched
// counts    [batch][kv_heads] = min(budget, pages)
//
// The first `sink` and the last `recent` pages are always in; `recent` grows to the pages of this
// step's new tokens, whose scores may not exist yet. If both exceed the budget, recent ones win.
// Equal scores: the lower page wins.
//
// A row belongs to a group of warps: the whole block, or a half or a quarter of it when there are
// more rows than blocks. The largest scores of as many disjoint sets as pages are wanted give a
// lower bound of the threshold; what reaches it is a short list in all but contrived rows, and the
// exact threshold comes from histograms over the list's own range of keys. So the time depends
// little on the distribution; rows of equal scores end before the first histogram.
#pragma once
#include "topk_select/rounds.cuh"

#ifndef PAGE_TOKENS
#define PAGE_TOKENS 16
#endif

struct TopkSelectParams {
  const float* scores;
  const int* lengths;
  int* selected;
  int* counts;
  int batch, kv_heads, new_tokens, max_pages, k_max, budget, sink, recent;
};

namespace topk {

struct Row {
  const float* scores;
  int* selected;
  int pages, sink, recent_begin, wanted;  // wanted: pages to take by score
};

// What of a chunk a lane takes: bits 0-3 above, 4-7 ties, 8-15 and 16-23 how many of either lower
// lanes take. *total* is the warp's, ties in the high half.
template <bool kTies, class Mark>
__device__ __forceinline__ unsigned scan_chunk(int lane, float4 v, Mark&& mark, unsigned& total) {
  float score[4] = {v.x, v.y, v.z, v.w};
  unsigned held = 0, lower = (1u << lane) - 1;
  total = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    unsigned kind = mark(score[j]);
    unsigned votes = __ballot_sync(~0u, kind == 1);
    total += __popc(votes);
    held += (__popc(votes & lower) << 8) + ((kind == 1) << j);
    if (kTies) {
      votes = __ballot_sync(~0u, kind == 2);
      total += __popc(votes) << 16;
      held += (__popc(votes & lower) << 16) + ((kind == 2) << (4 + j));
    }
  }
  return held;
}

// put(position, c, j, score) for score j of chunk c where mark() is 1, or 2 among the first *ties*
// such, in page order. Returns how many have mark 1.
template <bool kTies, class Scores, class Mark, class Put>
__device__ __forceinline__ unsigned compact(const Group& g, const Scores& scores, unsigned ties,
                                            Mark&& mark, Put&& put) {
  unsigned total;
  unsigned* counts = &g.s->counts[0].x;
#pragma unroll
  for (int c = 0; c < scores.size(); ++c) {
    scan_chunk<kTies>(g.lane(), scores.at(c), mark, total);
    if (g.lane() == 0) counts[c * g.warps() + g.warp()] = total;
  }
  g.sync();
  uint4 sums = g.s->counts[g.lane()];
  auto before = [&](int entry) {
    int i = entry - g.lane() * 4;
    return __reduce_add_sync(
        ~0u, (i > 0 ? sums.x : 0) + (i > 1 ? sums.y : 0) + (i > 2 ? sums.z : 0) +
                 (i > 3 ? sums.w : 0));
  };
#pragma unroll
  for (int c = 0; c < scores.size(); ++c) {
    unsigned base = before(c * g.warps() + g.warp());
    float4 v = scores.at(c);
    unsigned own = scan_chunk<kTies>(g.lane(), v, mark, total);
    float score[4] = {v.x, v.y, v.z, v.w};
    unsigned above = (base & 0xffff) + (own >> 8 & 0xff), tie = (base >> 16) + (own >> 16 & 0xff);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bool is_above = own >> j & 1, is_tie = kTies && (own >> (4 + j) & 1);
      if (is_above || (is_tie && tie < ties)) 
        put(above + (kTies ? min(tie, ties) : 0), c, j, score[j]);
      above += is_above;
      tie += is_tie;
    }
  }
  return before(scores.size() * g.warps()) & 0xffff;
}

// The pages of the scores above the cutoff and of the first ties; page_of(c, j) names them.
template <class Scores, class PageOf>
__device__ __forceinline__ void write_selected(const Group& g, const Row& r, const Scores& scores,
                                               Cutoff cut, PageOf&& page_of) {
  int* selected = r.selected + r.sink;
  compact<true>(
      g, scores, cut.ties,
      [&](float score) {
        unsigned key = key_of(score);
        return key > cut.key ? 1u : key == cut.key ? 2u : 0u;
      },
      [&](unsigned at, int c, int j, float) { selected[at] = page_of(c, j); });
}

// The wanted best of *scores*, of which at least so many reach *low* and none exceeds *high*.
template <class Scores, class PageOf>
__device__ __forceinline__ void take_best(const Group& g, const Row& r, const Scores& scores,
                                          float low, float high, PageOf&& page_of) {
  unsigned bottom = key_of(low);
  Cutoff cut = find_cutoff(g, scores, bottom, key_of(high) - bottom, r.wanted);
  write_selected(g, r, scores, cut, page_of);
}

// Scores of the pages that may be chosen; NaN elsewhere.
__device__ __forceinline__ float4 admit(const Row& r, int page, float4 v) {
  const float none = __uint_as_float(0x7fffffffu), least = __uint_as_float(0xff800000u);
  v.x = page >= r.sink && page < r.recent_begin ? fmaxf(v.x, least) : none;
  v.y = page + 1 >= r.sink && page + 1 < r.recent_begin ? fmaxf(v.y, least) : none;
  v.z = page + 2 >= r.sink && page + 2 < r.recent_begin ? fmaxf(v.z, least) : none;
  v.w = page + 3 >= r.sink && page + 3 < r.recent_begin ? fmaxf(v.w, least) : none;
  return v;
}

__device__ __forceinline__ float4 load_scores(const float* scores, int page, int pages) {
  if (page >= pages) return make_float4(0, 0, 0, 0);
  uint4 raw = rs::load_stream(scores + page);
  return make_float4(__uint_as_float(raw.x), __uint_as_float(raw.y), __uint_as_float(raw.z),
                     __uint_as_float(raw.w));
}

// Bounds of the wanted scores: *low*, which at least `wanted` scores reach, and the largest one.
template <class Scores>
__device__ __forceinline__ void bound(const Group& g, const Row& r, const Scores& scores,
                                      float& low, float& high) {
  const float least = __uint_as_float(0xff800000u);
  float most = least;
#pragma unroll
  for (int c = 0; c < scores.size(); ++c) {
    float4 v = scores.at(c);
    most = fmaxf(most, fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)));
  }
  // Sets of neighbouring lanes, as large as leaves `wanted` sets among the warps that are full.
  int full = min(g.warps(), r.recent_begin / 128), lanes = full * 32;
  float of_set = most;
  for (int width = 1; width < 32 && lanes / (2 * width) >= r.wanted; width *= 2)
    of_set = fmaxf(of_set, __shfl_xor_sync(~0u, of_set, width));
  unsigned bottom = __reduce_min_sync(~0u, key_of(of_set));
  unsigned top = __reduce_max_sync(~0u, key_of(most));
  if (g.lane() == 0) g.s->low[g.warp()] = bottom, g.s->high[g.warp()] = top;
  if (g.thread == 0) g.s->count = 0;
  if (g.thread < kFew / 4) g.s->few[g.thread] = make_uint4(0, 0, 0, 0);
  g.sync();
  bottom = __reduce_min_sync(~0u, g.lane() < full ? g.s->low[g.lane()] : ~0u);
  top = __reduce_max_sync(~0u, g.lane() < g.warps() ? g.s->high[g.lane()] : 0);
  low = lanes >= r.wanted ? score_of(bottom) : least;
  high = score_of(top);
}

// Scores that are read again each time: of rows too long for registers, or too contrived.
struct InMemory {
  const Group& g;
  const Row& r;
  __device__ __forceinline__ int size() const { return chunks(r.pages, g.threads); }
  __device__ __forceinline__ float4 at(int c) const {
    int page = (c * g.threads + g.thread) * 4;
    return admit(r, page, load_scores(r.scores, page, r.pages));
  }
};

template <int kChunks>
__device__ __forceinline__ void take_listed(const Group& g, const Row& r, int count, float low,
                                            float high) {
  Scores<kChunks> listed;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    int at = (c * g.threads + g.thread) * 4;
    const float none = __uint_as_float(0x7fffffffu);
    float4 v = *reinterpret_cast<float4*>(g.list + at);
    listed.held[c] = make_float4(at < count ? v.x : none, at + 1 < count ? v.y : none,
                                 at + 2 < count ? v.z : none, at + 3 < count ? v.w : none);
  }
  take_best(g, r, listed, low, high,
            [&](int c, int j) { return g.pages[(c * g.threads + g.thread) * 4 + j]; });
}

// By way of the list of those above the bound; if they are too few, the bound is the cutoff.
template <class Scores>
__device__ __forceinline__ void filter_row(const Group& g, const Row& r, const Scores& scores) {
  float low, high;
  bound(g, r, scores, low, high);
  auto page_of = [&](int c, int j) { return (c * g.threads + g.thread) * 4 + j; };
  int most = g.threads * kListEach;
  int count = compact<false>(
      g, scores, 0, [&](float score) { return score > low ? 1u : 0u; },
      [&](int at, int c, int j, float score) {
        if (at < most) g.list[at] = score, g.pages[at] = page_of(c, j);
      });
  g.sync();
  if (count < r.wanted)
    write_selected(g, r, scores, {key_of(low), static_cast<unsigned>(r.wanted - count)}, page_of);
  else if (count <= g.threads * 4)
    take_listed<1>(g, r, count, low, high);
  else if (count <= most)
    take_listed<kListEach / 4>(g, r, count, low, high);
  else
    take_best(g, r, InMemory{g, r}, low, high, page_of);
}

// *first*: the scores of chunk 0.
template <int kChunks>
__device__ __forceinline__ void select_row(const Group& g, const Row& r, float4 first) {
  Scores<kChunks> scores;
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    scores.held[c] =
        c == 0 ? first : load_scores(r.scores, (c * g.threads + g.thread) * 4, r.pages);
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    scores.held[c] = admit(r, (c * g.threads + g.thread) * 4, scores.held[c]);
  if (kChunks > 1) return filter_row(g, r, scores);
  float low, high;
  bound(g, r, scores, low, high);
  take_best(g, r, scores, low, high, [&](int, int j) { return g.thread * 4 + j; });
}

__host__ __device__ inline unsigned shared_bytes(int threads, int blocks, int rows) {
  return groups(threads, blocks, rows) * static_cast<unsigned>(sizeof(Scratch)) +
         threads * kListEach * 6;
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
  shared += groups * sizeof(topk::Scratch);
  g.list = reinterpret_cast<float*>(shared) + g.id * g.threads * topk::kListEach;
  shared += blockDim.x * topk::kListEach * 4;
  g.pages = reinterpret_cast<unsigned short*>(shared) + g.id * g.threads * topk::kListEach;
  for (int i = g.thread; i < 32 * topk::kLaneBins / 4; i += g.threads)
    g.s->bins[i] = make_uint4(0, 0, 0, 0);
  for (int row = g.id * blocks + block; row < rows; row += groups * blocks) {
    topk::Row r;
    r.scores = p.scores + static_cast<long long>(row) * p.max_pages;
    // The first scores are on their way before the length says how many there are.
    float4 first = topk::load_scores(r.scores, g.thread * 4, p.max_pages);
    int length = p.lengths[row / p.kv_heads];
    if (length < 0) continue;
    r.selected = p.selected + static_cast<long long>(row) * p.k_max;
    r.pages = (length + p.new_tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
    int recent = min(max(p.recent, r.pages - length / PAGE_TOKENS), p.budget);
    r.sink = min(p.sink, p.budget - recent);
    r.recent_begin = r.pages - recent;
    r.wanted = p.budget - recent - r.sink;
    int taken = min(r.pages, p.budget);
    if (g.thread == 0) p.counts[row] = taken;
    if (r.pages <= p.budget) {
      for (int i = g.thread; i < taken; i += g.threads) r.selected[i] = i;
      continue;
    }
    for (int i = g.thread; i < r.sink; i += g.threads) r.selected[i] = i;
    for (int i = g.thread; i < recent; i += g.threads)
      r.selected[p.budget - recent + i] = r.recent_begin + i;
    if (r.wanted == 0) continue;
    int chunks = topk::chunks(r.pages, g.threads);
    if (chunks <= 1)
      topk::select_row<1>(g, r, first);
    else if (chunks <= 2)
      topk::select_row<2>(g, r, first);
    else if (chunks <= 4)
      topk::select_row<4>(g, r, first);
    else if (chunks <= 8)
      topk::select_row<8>(g, r, first);
    else
      topk::filter_row(g, r, topk::InMemory{g, r});
    g.sync();  // the next row reuses the scratch
  }
  __syncthreads();
}
