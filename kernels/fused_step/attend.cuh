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

constexpr int kTileArea = kWarps * rs::kTileBytes, kPieceArea = attention::kTeams * kPieceBytes;
constexpr int kAttendBytes = kTileArea > kPieceArea ? kTileArea : kPieceArea;

// Equal parts of all tiles, item by item; so few workers that each warp has a tile.
struct Portion {
  int units, workers;
  __device__ __forceinline__ Portion(const Scene& s, int items, int most)
      : units(s.prefix[items]), workers(max(1, min(most, units / attention::kTeams))) {}
  __device__ __forceinline__ int begin(int worker) const {
    return static_cast<int>(static_cast<long long>(units) * worker / workers);
  }
  __device__ __forceinline__ int worker_of(int unit) const {
    return static_cast<int>((static_cast<long long>(unit + 1) * workers - 1) / units);
  }
};

struct Attend {
  const FusedParams& p;
  const PagedAttentionParams& a;  // its cache is of layer 0
  Scene& s;
  unsigned char* shared;  // kAttendBytes
  const unsigned char* cache;
  int items, index, count;

  __device__ __forceinline__ Attend(const FusedParams& p, const PagedAttentionParams& a, Scene& s,
                                    unsigned char* shared, int layer, int index, int count)
      : p(p), a(a), s(s), shared(shared), cache(a.cache + layer * p.cache_bytes),
        items(a.requests * a.kv_heads), index(index), count(count) {}

  __device__ __forceinline__ unsigned char* slot() const {
    return shared + warp_id() * rs::kTileBytes;
  }
  __device__ __forceinline__ float* piece(int team) const {
    return reinterpret_cast<float*>(shared + team * kPieceBytes);
  }
  // The item that holds *unit*.
  __device__ __forceinline__ int item_of(int unit) const {
    int low = 0, high = items;
    while (high - low > 1) {
      int middle = (low + high) / 2;
      (s.prefix[middle] <= unit ? low : high) = middle;
    }
    return low;
  }
  // Logical page of a unit of *item*.
  __device__ __forceinline__ int page_of(int item, int unit) const {
    int page = unit / rs::kTilesPerPage;
    return a.selected ? a.selected[(long long)item * a.k_max + page] : page;
  }
  __device__ __forceinline__ void load(int item, int unit, int page) const {
    int request = item / a.kv_heads, head = item - request * a.kv_heads;
    long long physical = a.table[(long long)request * a.max_pages + page];
    const unsigned char* from = cache + (physical * a.kv_heads + head) * rs::kPageBytes +
                                unit % rs::kTilesPerPage * rs::kTileBytes;
    unsigned char* to = slot();
#pragma unroll
    for (int i = 0; i < rs::kTileBytes; i += 512)
      if (i + lane_id() * 16 < rs::kTileBytes)
        rs::copy16_async(to + i + lane_id() * 16, from + i + lane_id() * 16);
    rs::copy_commit();
  }
  __device__ __forceinline__ int first_token(int unit, int page) const {
    return page * PAGE_TOKENS + unit % rs::kTilesPerPage * 16;
  }

  // Asks for this warp's first tile if it holds no key of this step. Whether it did.
  __device__ __forceinline__ bool begin() const {
    Portion portion(s, items, count);
    int team = warp_id() / kTeam;
    if (index >= portion.workers || team >= attention::kTeams) return false;
    int at = portion.begin(index), item = item_of(at), unit = at - s.prefix[item] + team;
    int last = min(portion.begin(index + 1), s.prefix[item + 1]) - s.prefix[item];
    if (unit >= last) return false;
    int page = page_of(item, unit);
    if (first_token(unit, page) + 16 > s.length[item / a.kv_heads]) return false;
    load(item, unit, page);
    return true;
  }

  __device__ __forceinline__ void run(bool begun) const {
    Portion portion(s, items, count);
    if (index < portion.workers) {
      int begin = portion.begin(index), end = portion.begin(index + 1);
#pragma unroll 1
      for (int item = item_of(begin); begin < end; ++item) {
        int here = min(end, s.prefix[item + 1]);
        if (here > begin) {
          segment(portion, item, begin - s.prefix[item], here - s.prefix[item], begun);
          begun = false;
        }
        begin = here;
      }
    }
    __syncthreads();
  }

  // Units [from, to) of *item*.
  __device__ __forceinline__ void segment(const Portion& portion, int item, int from, int to,
                                          bool begun) const {
    const int team = warp_id() / kTeam, row0 = warp_id() % kTeam * kColumns * 8;
    const int length = s.length[item / a.kv_heads], units = s.prefix[item + 1] - s.prefix[item];
    State state;
    state.clear();
    if (team < attention::kTeams) {
      Query<ELEMENT> q;
      q.template load<false>(a, item, row0);
#pragma unroll 1
      for (int unit = from + team; unit < to; unit += attention::kTeams) {
        int page = page_of(item, unit);
        if (!begun) load(item, unit, page);
        begun = false;
        rs::copy_wait<0>();
        __syncwarp();
        Sight sight(first_token(unit, page), length);
        if (sight.rows() > 0) tile16(slot(), q, state, sight, row0);
        __syncwarp();
      }
      state.reduce_weights();
    }
    __syncthreads();  // pieces take the tiles' place
    if (team < attention::kTeams) write_piece(piece(team), row0, state);
    __syncthreads();
    bool whole = from == 0 && to == units;
    int which = from == 0;  // a block that begins inside an item leaves that piece first
    float* out = a.partial + (2LL * index + which) * kPieceFloats;
#pragma unroll 1
    for (int quad = threadIdx.x; quad < kQuads; quad += kThreads) {
      Sum total;
      total.clear();
#pragma unroll 1
      for (int first = 0; first < attention::kTeams; first += 8) {
        Sum read[8];
        for (int i = 0; i < 8; ++i) read[i] = quad_of(piece(first + i), quad, false);
        total.add(read);
      }
      if (whole) write_quad(a, item, quad, total);
      else write_partial(out, quad, total);
    }
    if (whole) {
      __syncthreads();
      return;
    }
    int first = portion.worker_of(s.prefix[item]), last = portion.worker_of(s.prefix[item + 1] - 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned* ticket = a.tickets + item;
      s.last = rs::add_acq_rel_gpu(ticket, 1u) == static_cast<unsigned>(last - first);
      if (s.last) *ticket = 0;
    }
    __syncthreads();
    if (s.last) join(portion, item, first, last);
    __syncthreads();
  }

  // The pieces of workers first .. last become the item's output.
  __device__ __forceinline__ void join(const Portion& portion, int item, int first,
                                       int last) const {
    constexpr int kSpan = kQuads < kThreads ? kQuads : kThreads, kGroups = kThreads / kSpan;
    const int group = threadIdx.x / kSpan;
    const bool second = s.prefix[item] >= portion.begin(first);  // the first piece begins the item
    Sum* sums = reinterpret_cast<Sum*>(shared);
#pragma unroll 1
    for (int quad = threadIdx.x % kSpan; quad < kQuads && group < kGroups; quad += kSpan) {
      Sum total;
      total.clear();
#pragma unroll 1
      for (int b = first + group; b <= last; b += 4 * kGroups) {
        Sum read[4];
        for (int i = 0; i < 4; ++i) {
          int from = min(b + i * kGroups, last);
          int piece = 2 * from + (from == first && second);
          read[i] = quad_of(a.partial + (long long)piece * kPieceFloats, quad, true);
        }
        for (int i = 0; i < 4; ++i)
          if (b + i * kGroups > last) read[i].clear();
        total.add(read);
      }
      if (kGroups == 1) write_quad(a, item, quad, total);
      else sums[threadIdx.x] = total;
    }
    if (kGroups == 1) return;
    __syncthreads();
    if (threadIdx.x < kSpan) {
      Sum total = sums[threadIdx.x];
#pragma unroll 1
      for (int i = 1; i < kGroups; ++i) {
        Sum other[1] = {sums[threadIdx.x + i * kSpan]};
        total.add(other);
      }
      write_quad(a, item, threadIdx.x, total);
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
