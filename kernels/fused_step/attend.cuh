// Paged decode attention of a step in the persistent kernel: each warp has one tile of 16 tokens in
// flight and works on its own; warps meet once for every item of the block, blocks once more.
//
// The arithmetic of a tile is paged_attention's. What differs is the way of the tiles: no rings and
// no barriers in shared memory, which here belongs to the weights, and the first tile of a warp can
// be asked for before the step's own keys exist (`begin`), while the block waits at a meeting.
#pragma once
#include "fused_step/scene.cuh"
#include "paged_attention/merge.cuh"
#include "paged_attention/tile16.cuh"

namespace fused {

using namespace attention;  // NOLINT: one vocabulary

// Tiles, later pieces, of attention's warps, of which there are WORKERS; columns of the products.
constexpr int most(int a, int b) { return a > b ? a : b; }
constexpr int kAttendBytes = most(kWarps * kColumnBytes, most(WORKERS * rs::kTileBytes,
                                                              attention::kTeams * kPieceBytes));

struct Attend {
  const FusedParams& p;
  const PagedAttentionParams& a;  // its cache is of layer 0
  Scene& s;
  unsigned char* shared;  // kAttendBytes
  int items, index, count;

  __device__ __forceinline__ Attend(const FusedParams& p, const PagedAttentionParams& a, Scene& s,
                                    unsigned char* shared, int index, int count)
      : p(p), a(a), s(s), shared(shared), items(p.requests * KV_HEADS), index(index),
        count(count) {}

  __device__ __forceinline__ PagedAttentionParams with_heads() const {
    PagedAttentionParams known = a;
    known.kv_heads = KV_HEADS;
    return known;
  }
  __device__ __forceinline__ unsigned char* slot() const {
    return shared + warp_id() * rs::kTileBytes;
  }
  __device__ __forceinline__ float* piece(int team) const {
    return reinterpret_cast<float*>(shared + team * kPieceBytes);
  }

  // ------------------------------------------------------------------------- who does what
  // Workers of *item*. There are more workers than items, so that each has units of one item alone:
  // every item has a worker, the others are shared out by length, and nobody has less than a tile for
  // each warp if that can be.
  __device__ __forceinline__ int workers_of(int item) const {
    unsigned units = s.prefix[item + 1] - s.prefix[item], all = max(s.prefix[items], 1);
    unsigned teams = attention::kTeams;
    return units ? min(1 + units * unsigned(count - items) / all, (units + teams - 1) / teams) : 0;
  }
  // Where a tile is in a layer's cache, and the token it begins with.
  struct Place {
    long long at;
    int token;
  };
  __device__ __forceinline__ Place place(int item, int unit) const {
    int request = item / KV_HEADS, head = item - request * KV_HEADS;
    int page = unit / rs::kTilesPerPage, part = unit % rs::kTilesPerPage;
    if (a.selected) page = a.selected[(long long)item * a.k_max + page];
    long long physical = a.table[(long long)request * a.max_pages + page];
    return {(physical * KV_HEADS + head) * rs::kPageBytes + part * rs::kTileBytes,
            page * PAGE_TOKENS + part * 16};
  }

  // Fills the scene's part on attention, from its prefix sums: once a step, or with selected pages
  // once a layer. By all threads.
  __device__ __forceinline__ void plan() const {
    sum_up(s.cut, items, [&](int item) { return workers_of(item); });
    if (threadIdx.x == 0) {
      int low = 0, high = items;  // cut[low] <= index < cut[high]
#pragma unroll 1
      while (high - low > 1) {
        int middle = (low + high) / 2;
        (s.cut[middle] <= index ? low : high) = middle;
      }
      unsigned units = s.prefix[low + 1] - s.prefix[low], share = index - s.cut[low];
      unsigned shares = max(s.cut[low + 1] - s.cut[low], 1);
      bool any = index < s.cut[items];
      s.item = low;
      s.begin = any ? units * share / shares : 0;
      s.end = any ? units * (share + 1) / shares : 0;
    }
    __syncthreads();
    if (threadIdx.x < kWarps) {
      int team = threadIdx.x / kTeam, unit = s.begin + team;
      bool any = team < attention::kTeams && unit < s.end;
      Place tile = any ? place(s.item, unit) : Place{-1, 0};
      s.tile[threadIdx.x] = tile.at;
      s.tile_token[threadIdx.x] = tile.token;
    }
    __syncthreads();
  }

  // ------------------------------------------------------------------------- tiles
  __device__ __forceinline__ void load(int layer, long long at) const {
    const unsigned char* from = a.cache + layer * p.cache_bytes + at + lane_id() * 16;
    unsigned char* to = slot() + lane_id() * 16;
#pragma unroll
    for (int i = 0; i < rs::kTileBytes; i += 512)
      if (i + lane_id() * 16 < rs::kTileBytes) copy16_plain(to + i, from + i);
    rs::copy_commit();
  }
  // Asks for this warp's first tile, *early* only if it holds no key of this step, which other
  // workers are still writing. Whether it did.
  __device__ __forceinline__ bool begin(int layer, bool early) const {
    if (s.end <= s.begin || s.tile[warp_id()] < 0) return false;
    if (early && s.tile_token[warp_id()] + 16 > s.length[s.item / KV_HEADS]) return false;
    load(layer, s.tile[warp_id()]);
    return true;
  }

  __device__ __forceinline__ void run(int layer, bool begun) const {
    if (s.begin < s.end) attend(layer, begun);
    __syncthreads();
  }

  __device__ __forceinline__ void attend(int layer, bool begun) const {
    const int team = warp_id() / kTeam, row0 = warp_id() % kTeam * kColumns * 8;
    State state;
    state.clear();
    if (team < attention::kTeams) {
      const int length = s.length[s.item / KV_HEADS];
      Place tile = {s.tile[warp_id()], s.tile_token[warp_id()]};
      Query<ELEMENT> q;
      q.template load<false>(with_heads(), s.item, row0);
#pragma unroll 1
      for (int unit = s.begin + team; unit < s.end; unit += attention::kTeams) {
        if (!begun) {
          if (tile.at < 0) tile = place(s.item, unit);
          load(layer, tile.at);
        }
        rs::copy_wait<0>();
        __syncwarp();
        Sight sight(tile.token, length);
        if (sight.rows() > 0) tile16(slot(), q, state, sight, row0);
        __syncwarp();
        tile.at = -1;
        begun = false;
      }
      state.reduce_weights();
      share_tops(state, team, row0);
    }
    __syncthreads();  // pieces take the tiles' place
    if (team < attention::kTeams) {
      level(state, row0);
      write_piece(piece(team), row0, state);
    }
    __syncthreads();
    join();
  }

  // ------------------------------------------------------------------------- joining
  // All teams' sums refer to the largest of their exponents, so that joining them is adding.
  __device__ __forceinline__ void share_tops(const State& state, int team, int row0) const {
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < 2; ++i) {
        int row = row0 + c * 8 + lane_id() % 4 * 2 + i;
        if (lane_id() < 4 && row < attention::kRows) s.tops[team][row] = state.top[c][i];
      }
  }
  __device__ __forceinline__ void level(State& state, int row0) const {
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < 2; ++i) {
        int row = min(row0 + c * 8 + lane_id() % 4 * 2 + i, attention::kRows - 1);
        float top = kLowest;
#pragma unroll 4
        for (int j = 0; j < attention::kTeams; ++j) top = fmaxf(top, s.tops[j][row]);
        state.multiply(c, i, rs::exp2_fast(state.top[c][i] - top));
        state.top[c][i] = top;
      }
  }

  // The pieces of the block's teams become the item's output, or this worker's piece of it; the last
  // worker to leave one puts all of them together.
  __device__ __forceinline__ void join() const {
    const int first = s.cut[s.item], workers = s.cut[s.item + 1] - first;
    constexpr int kElements = attention::kRows * HEAD_DIM;
#pragma unroll 1
    for (int i = threadIdx.x; i < kElements; i += kThreads) {
      const int row = i / HEAD_DIM, pair = kElements + row * 2;
      const float* from = piece(0);
      float sum = 0, weight = 0;
#pragma unroll 8
      for (int j = 0; j < attention::kTeams; ++j, from += kPieceBytes / 4)
        sum += from[i], weight += from[pair + 1];
      if (workers == 1) {
        put(i, sum, weight);
      } else {
        float* mine = a.partial + (long long)index * kPieceFloats;
        mine[i] = sum;
        if (i % HEAD_DIM == 0) mine[pair] = piece(0)[pair], mine[pair + 1] = weight;
      }
    }
    if (workers == 1) return;
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned* ticket = a.tickets + s.item;
      s.last = rs::add_acq_rel_gpu(ticket, 1u) + 1 == static_cast<unsigned>(workers);
      if (s.last) *ticket = 0;
    }
    __syncthreads();
    if (!s.last) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < kElements; i += kThreads) {
      const int pair = kElements + i / HEAD_DIM * 2;
      float top = kLowest, weight = 0, sum = 0;
      const float* from = a.partial + (long long)first * kPieceFloats;
#pragma unroll 8
      for (int j = 0; j < workers; ++j, from += kPieceFloats) {
        float other = from[pair], share = from[pair + 1], value = from[i];
        float high = fmaxf(top, other);
        float mine = rs::exp2_fast(top - high), theirs = rs::exp2_fast(other - high);
        sum = sum * mine + value * theirs;
        weight = weight * mine + share * theirs;
        top = high;
      }
      put(i, sum, weight);
    }
  }
  __device__ __forceinline__ void put(int i, float sum, float weight) const {
    out_row(with_heads(), s.item, i / HEAD_DIM)[i % HEAD_DIM] =
        rs::from_float<ELEMENT>(weight > 0 ? sum / weight : 0);
  }
};

// The tiles of each item once the pages are selected: counts differ from head to head.
__device__ __forceinline__ void count_selected(const PagedAttentionParams& a, Scene& s) {
  sum_up(s.prefix, a.requests * KV_HEADS, [&](int item) {
    return s.length[item / KV_HEADS] < 0
               ? 0
               : static_cast<const volatile int*>(a.counts)[item] * rs::kTilesPerPage;
  });
}

}  // namespace fused
