// Paged decode attention over a list of pages, dense or selected: split over all blocks, merged in
// the same launch. See schedule.cuh for who does what and softmax.cuh for the shape of the products.
//
// Each team of warps streams its own tiles through its own ring, so that a block meets once, at the
// end. Shared memory: attention::kSharedBytes. Block: WORKERS warps or more, of which WORKERS work.
#pragma once
#include "paged_attention/merge.cuh"
#include "paged_attention/tile16.cuh"
#if KV_BITS == 8
#include "paged_attention/tile8.cuh"
#elif KV_BITS == 4
#include "paged_attention/tile4.cuh"
#endif

namespace attention {

// One warp of a team over the team's part of the line.
struct Worker {
  const PagedAttentionParams& p;
  const Shared& shared;
  int team, member, row0;
  int slot = 0;
  unsigned phase = 0;

  __device__ unsigned char* wait() const {
    rs::barrier_wait(shared.full(team) + slot, phase);
    return shared.ring(team) + slot * kSlotBytes;
  }
  // Waits until the whole team has read the current slot.
  __device__ void wait_team() const {
    if (kTeam > 1) rs::barrier_wait(shared.empty(team) + slot, phase);
  }
  // The current slot has been read: fetch the next tile into it.
  __device__ void release(Feed& feed) {
    __syncwarp();
    if (kTeam > 1 && lane_id() == 0) rs::barrier_arrive(shared.empty(team) + slot);
    if (member == 0) {
      wait_team();
      feed.next(p, shared.prefix(), shared.ring(team) + slot * kSlotBytes,
                shared.full(team) + slot);
    }
    if (++slot == kSlots) slot = 0, phase ^= 1;
  }

  // The part of the unit that may be seen. Only pages at an item's end can hide anything.
  __device__ Sight sight_of(const Walk& walk, int length) const {
    constexpr int kEdge = (TOKENS - 1) / PAGE_TOKENS + 2;  // pages with tokens after the length
    constexpr int kWidth = KV_BITS == 4 ? 16 : rs::kTile;
    int ordinal = walk.ordinal(), page = ordinal;
    if (KV_BITS == 4 && !walk.in_tail()) return Sight(-(1 << 30), length);
    if (p.selected) {
      if (KV_BITS != 4 && ordinal < walk.item.all / rs::kTilesPerPage - kEdge)
        return Sight(-(1 << 30), length);
      long long row = walk.request * p.kv_heads + walk.head;
      page = p.selected[row * p.k_max + ordinal];
    }
    return Sight(page * PAGE_TOKENS + walk.part() * kWidth, length);
  }

  __device__ void run(const Cut& cut, int block) {
    int at = cut.begin(block, team), end = cut.begin(block, team + 1);
    const int begin = at;
    Owner* owners = shared.owners() + team * 2;
    if (at >= end) return;
    Walk walk(p, shared.prefix(), at);
    Feed feed(walk, end - at);
    if (member == 0)
      for (int i = 0; i < kSlots; ++i)
        feed.next(p, shared.prefix(), shared.ring(team) + i * kSlotBytes, shared.full(team) + i);

    while (true) {
      int count = min(end - at, walk.item.all - walk.unit);
      int length = p.lengths[walk.request], item = walk.request * p.kv_heads + walk.head;
      Owner owner = {item, at - walk.unit, at - walk.unit + walk.item.all};
      State state;
      attend(feed, walk, count, length, state);
      state.reduce_weights();
      at += count;
      if (count == walk.item.all) {
        write_output(p, item, row0, state);
      } else {
        int which = at - count > begin;
        if (which) wait_for_ring();
        write_piece(shared.piece(team, which), row0, state);
        if (member == 0 && lane_id() == 0) owners[which] = owner;
      }
      if (at == end) return;
      walk.next_item(p, shared.prefix());
    }
  }

  // A last piece overwrites the ring: the team must have read all of it.
  __device__ void wait_for_ring() {
    if (kTeam == 1) return;
    int last = slot ? slot - 1 : kSlots - 1;
    rs::barrier_wait(shared.empty(team) + last, slot ? phase : phase ^ 1);
  }

  // *count* units of one item from walk.unit on.
  __device__ void attend(Feed& feed, Walk& walk, int count, int length, State& state) {
#if KV_BITS == 16
    Query<ELEMENT> q;
    q.template load<false>(p, walk.request, walk.head, row0);
#else
    Query<__half> q;
    q.template load<true>(p, walk.request, walk.head, row0);
#endif
#if KV_BITS == 8
    const Offset offset(q);
#endif
    state.clear();
    for (int i = 0; i < count; ++i, ++walk.unit) {
      Sight sight = sight_of(walk, length);
      unsigned char* tile = wait();
#if KV_BITS == 16
      if (sight.rows() > 0) tile16(tile, q, state, sight, row0);
#elif KV_BITS == 8
      if (sight.rows() > 0) tile8(tile, q, offset, state, sight, row0);
#else
      if (walk.in_tail()) {
        float logits[1][1][4];
        tail_logits(p, walk, tile, sight, row0, logits);
        release(feed);
        tile = wait();
        if (sight.rows() > 0) tail_values(tile, sight, logits, state);
      } else {
        tile4(tile, q, state);
      }
#endif
      release(feed);
    }
#if KV_BITS == 4
    settle(state);
#endif
  }
};

}  // namespace attention

__device__ void paged_attention_stage(const PagedAttentionParams& p, int block, int blocks,
                                      unsigned char* base) {
  using namespace attention;
  Shared shared{base};
  int warp = threadIdx.x / 32;
  plan(p, shared.prefix(), [&] {
    for (int i = threadIdx.x - 32; i < kTeams * kSlots; i += blockDim.x - 32) {
      rs::barrier_init(shared.full(0) + i, 1);
      rs::barrier_init(shared.empty(0) + i, kTeam);
    }
    for (int i = threadIdx.x - 32; i < 2 * kTeams; i += blockDim.x - 32)
      shared.owners()[i].item = -1;
    rs::barrier_init_fence();
  });

  Cut cut(shared.prefix()[p.requests], p.requests * p.kv_heads, blocks);
  if (block < cut.blocks) {
    if (warp < kTeams * kTeam) {
      int member = warp % kTeam;
      Worker worker{p, shared, warp / kTeam, member, member * kColumns * 8};
      worker.run(cut, block);
    }
    __syncthreads();
    merge_teams(p, shared, cut, block);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTeams * kSlots * 2; i += blockDim.x)
    rs::barrier_invalidate(shared.full(0) + i);
  rs::fence_async_shared();  // pieces in the rings, before the next stage's bulk copies
  rs::fence_async_global();
  __syncthreads();
}
