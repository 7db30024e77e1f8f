// Paged decode attention of a step in the persistent kernel: each warp has one tile of 16 tokens in
// flight and works on its own; warps meet once for every item of the block, blocks once more.
//
// The arithmetic of a tile is paged_attention's. What differs is the way of the tiles: no rings and
// no barriers in shared memory, which here belongs to the weights, and the first tile of a warp can
// be asked for before the step's own keys exist (`first`), while the block waits at a meeting.
#pragma once
#include "fused_step/scene.cuh"
#include "paged_attention/merge.cuh"
#include "paged_attention/tile16.cuh"

namespace fused {

using namespace attention;  // NOLINT: one vocabulary

constexpr int kTileArea = kWarps * rs::kTileBytes, kPieceArea = attention::kTeams * kPieceBytes;
constexpr int kAttendBytes = kTileArea > kPieceArea ? kTileArea : kPieceArea;

struct Attend {
  const FusedParams& p;
  const PagedAttentionParams& a;  // its cache is of layer 0
  Scene& s;
  unsigned char* shared;  // kAttendBytes
  int items, index, count;

  __device__ __forceinline__ Attend(const FusedParams& p, const PagedAttentionParams& a, Scene& s,
                                    unsigned char* shared, int index, int count)
      : p(p), a(a), s(s), shared(shared), items(a.requests * a.kv_heads), index(index),
        count(count) {}

  __device__ __forceinline__ unsigned char* slot() const {
    return shared + warp_id() * rs::kTileBytes;
  }
  __device__ __forceinline__ float* piece(int team) const {
    return reinterpret_cast<float*>(shared + team * kPieceBytes);
  }

  // ------------------------------------------------------------------------- who does what
  // Equal parts of all tiles, item by item; so few workers that each warp has a tile. Unsigned 32
  // bits suffice: 16 requests of 1 M tokens and 8 heads are 2^23 tiles.
  __device__ __forceinline__ int begin_of(unsigned worker) const {
    return worker * unsigned(s.units) / unsigned(s.workers);
  }
  __device__ __forceinline__ int worker_of(unsigned unit) const {
    return ((unit + 1) * unsigned(s.workers) - 1) / unsigned(s.units);
  }
  // Where a tile is in a layer's cache, and the token it begins with.
  struct Place {
    long long at;
    int token;
  };
  __device__ __forceinline__ Place place(int item, int unit) const {
    int request = item / a.kv_heads, head = item - request * a.kv_heads;
    int page = unit / rs::kTilesPerPage, part = unit % rs::kTilesPerPage;
    if (a.selected) page = a.selected[(long long)item * a.k_max + page];
    long long physical = a.table[(long long)request * a.max_pages + page];
    return {(physical * a.kv_heads + head) * rs::kPageBytes + part * rs::kTileBytes,
            page * PAGE_TOKENS + part * 16};
  }

  // Fills the scene's part on attention, from its prefix sums: once a step, or with selected pages
  // once a layer. By all threads.
  __device__ __forceinline__ void plan() const {
    if (threadIdx.x == 0) {
      s.units = s.prefix[items];
      s.workers = max(1, min(count, s.units / attention::kTeams));
      s.begin = index < s.workers ? begin_of(index) : 0;
      s.end = index < s.workers ? begin_of(index + 1) : 0;
      int low = 0, high = items;  // prefix[low] <= begin < prefix[high]
#pragma unroll 1
      while (high - low > 1) {
        int middle = (low + high) / 2;
        (s.prefix[middle] <= s.begin ? low : high) = middle;
      }
      s.item = low;
    }
    __syncthreads();
    if (threadIdx.x < kWarps) {
      int team = threadIdx.x / kTeam, unit = s.begin + team;
      bool any = team < attention::kTeams && unit < min(s.end, s.prefix[s.item + 1]);
      Place tile = any ? place(s.item, unit - s.prefix[s.item]) : Place{-1, 0};
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
    if (early && s.tile_token[warp_id()] + 16 > s.length[s.item / a.kv_heads]) return false;
    load(layer, s.tile[warp_id()]);
    return true;
  }

  __device__ __forceinline__ void run(int layer, bool begun) const {
    int item = s.item;
#pragma unroll 1
    for (int begin = s.begin; begin < s.end; ++item) {
      int end = min(s.end, s.prefix[item + 1]);
      if (end <= begin) continue;
      segment(layer, item, begin - s.prefix[item], end - s.prefix[item], begin == s.begin, begun);
      begin = end;
    }
    __syncthreads();
  }

  // Units [from, to) of *item*; *first*: the worker begins with them, and may have begun.
  __device__ __forceinline__ void segment(int layer, int item, int from, int to, bool first,
                                          bool begun) const {
    const int team = warp_id() / kTeam, row0 = warp_id() % kTeam * kColumns * 8;
    State state;
    state.clear();
    if (team < attention::kTeams) {
      const int length = s.length[item / a.kv_heads];
      Place tile = {first ? s.tile[warp_id()] : -1, s.tile_token[warp_id()]};
      Query<ELEMENT> q;
      q.template load<false>(a, item, row0);
#pragma unroll 1
      for (int unit = from + team; unit < to; unit += attention::kTeams) {
        if (!(first && begun)) {
          if (tile.at < 0) tile = place(item, unit);
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
    }
    __syncthreads();  // pieces take the tiles' place
    if (team < attention::kTeams) write_piece(piece(team), row0, state);
    __syncthreads();
    join(item, from, to);
  }

  // ------------------------------------------------------------------------- joining
  static constexpr int kPartners = 8;  // threads that share a quad, neighbours in a warp

  // *count* pieces, the first at *pieces*, the others *stride* floats apart, become the output of
  // *item*, or without one the piece *out*.
  __device__ __forceinline__ void combine(const float* pieces, int count, int stride, int first,
                                          int item, float* out) const {
#pragma unroll 1
    for (int quad = threadIdx.x / kPartners; quad < kQuads; quad += kThreads / kPartners) {
      Sum total;
      total.clear();
#pragma unroll 1
      for (int i = threadIdx.x % kPartners; i < count; i += 2 * kPartners) {
        Sum read[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          int at = min(i + j * kPartners, count - 1);
          read[j] = quad_of(pieces + (long long)at * stride + (at == 0) * first, quad, false);
        }
        if (i + kPartners >= count) read[1].clear();
        total.add(read);
      }
#pragma unroll
      for (int d = 1; d < kPartners; d *= 2) {
        Sum other[1];
        for (int i = 0; i < 4; ++i) other[0].v[i] = __shfl_xor_sync(0xffffffffu, total.v[i], d);
        other[0].top = __shfl_xor_sync(0xffffffffu, total.top, d);
        other[0].weight = __shfl_xor_sync(0xffffffffu, total.weight, d);
        total.add(other);
      }
      if (threadIdx.x % kPartners) continue;
      if (item >= 0) write_quad(a, item, quad, total);
      else write_partial(out, quad, total);
    }
  }

  // The pieces of the block's teams become the item's output, or this worker's piece of it; the last
  // worker to leave one puts all of them together.
  __device__ __forceinline__ void join(int item, int from, int to) const {
    const bool whole = from == 0 && to == s.prefix[item + 1] - s.prefix[item];
    const float* pieces = piece(0);
    int count = attention::kTeams, stride = kPieceBytes / 4, first = 0, output = whole ? item : -1;
#pragma unroll 1
    for (;;) {
      // A worker that begins inside an item leaves that piece in front, another one behind it.
      float* mine = a.partial + (2LL * index + (from == 0)) * kPieceFloats;
      combine(pieces, count, stride, first, output, mine);
      __syncthreads();
      if (output >= 0) return;
      if (threadIdx.x == 0) {
        int begin = worker_of(s.prefix[item]), last = worker_of(s.prefix[item + 1] - 1);
        unsigned* ticket = a.tickets + item;
        bool all = rs::add_acq_rel_gpu(ticket, 1u) == static_cast<unsigned>(last - begin);
        if (all) *ticket = 0;
        s.last = all ? begin : -1;
      }
      if (threadIdx.x == 32) s.joined = worker_of(s.prefix[item + 1] - 1);
      __syncthreads();
      if (s.last < 0) return;
      pieces = a.partial + 2LL * s.last * kPieceFloats;
      stride = 2 * kPieceFloats;
      first = kPieceFloats;  // the item's first worker began it
      count = s.joined - s.last + 1;
      output = item;
    }
  }
};

// The tiles of each item once the pages are selected: counts differ from head to head.
__device__ __forceinline__ void count_selected(const PagedAttentionParams& a, Scene& s) {
  sum_up(s, a.requests * a.kv_heads, [&](int item) {
    return s.length[item / a.kv_heads] < 0
               ? 0
               : static_cast<const volatile int*>(a.counts)[item] * rs::kTilesPerPage;
  });
}

}  // namespace fused
