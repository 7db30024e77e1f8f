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

#if KV_BITS == 16
using Operand = ELEMENT;
#else
using Operand = __half;
#endif

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
  // This warp has read the current slot.
  __device__ void release(Feed& feed) {
    __syncwarp();
    if (kTeam > 1 && lane_id() == 0) rs::barrier_arrive(shared.empty(team) + slot);
    --feed.in_flight;
    if (++slot == kSlots) slot = 0, phase ^= 1;
  }

  __device__ void run(const Cut& cut, int block) {
    const int begin = cut.begin(block, team), end = cut.begin(block, team + 1);
    Feed feed(begin, end);
    Query<Operand> q;
#if KV_BITS == 8
    Offset offset;
#endif
    State state;
    Tile current = {-1, 0, 0, 0};  // the first of the item's tiles in this part, at place *start*
    int start = begin, length = 0;
#pragma unroll 1
    for (int at = begin; begin < end; ++at) {
      if (member == 0) feed.fill(p, shared, team);
      Tile tile = {-1, 0, 0, 0};
      if (at < end) {
        if (member) wait();  // for the first warp's word on the tile
        tile = *shared.tile(team, slot);
      }
      if (tile.item != current.item) {
        if (current.item >= 0) finish(state, current, start, at, begin);
        if (tile.item < 0) break;
        current = tile, start = at;
        length = p.lengths[tile.item / p.kv_heads];
        q.template load<KV_BITS != 16>(p, tile.item, row0);
#if KV_BITS == 8
        offset.load(q);
#endif
        state.clear();
      }
      Sight sight(tile.first, length);
      unsigned char* bytes = wait();
#if KV_BITS == 16
      if (sight.rows() > 0) tile16(bytes, q, state, sight, row0);
#elif KV_BITS == 8
      if (sight.rows() > 0) tile8(bytes, q, offset, state, sight, row0);
#else
      if (tile.first >= 0) {
        float logits[1][1][4];
        tail_logits(p, tile.item, bytes, sight, row0, logits);
        release(feed);
        bytes = wait();
        if (sight.rows() > 0) tail_values(bytes, sight, logits, state);
      } else {
        tile4(bytes, q, state);
      }
#endif
      release(feed);
    }
  }

  // The sums over places [start, at) of the line, all or some of the item's, go out or to *piece*.
  __device__ void finish(State& state, const Tile& tile, int start, int at, int begin) {
#if KV_BITS == 4
    settle(state);
#endif
    state.reduce_weights();
    if (at - start == tile.units) return write_output(p, tile.item, row0, state);
    int which = start > begin;
    if (which && kTeam > 1) {  // a last piece takes the ring: the team must have read all of it
      int last = slot ? slot - 1 : kSlots - 1;
      rs::barrier_wait(shared.empty(team) + last, slot ? phase : phase ^ 1);
    }
    write_piece(shared.piece(team, which), row0, state);
    int first = start - tile.unit;
    if (member == 0 && lane_id() == 0)
      shared.owners()[team * 2 + which] = {tile.item, first, first + tile.units};
  }
};

}  // namespace attention

__device__ void paged_attention_stage(const PagedAttentionParams& p, int block, int blocks,
                                      unsigned char* base) {
  using namespace attention;
  Shared shared{base};
  int warp = threadIdx.x / 32;
  plan(p, shared.prefix(), [&] {
#pragma unroll 1
    for (int i = threadIdx.x - 32; i < kTeams * kSlots; i += blockDim.x - 32) {
      rs::barrier_init(shared.full(0) + i, 1);
      rs::barrier_init(shared.empty(0) + i, kTeam);
    }
#pragma unroll 1
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
#pragma unroll 1
  for (int i = threadIdx.x; i < kTeams * kSlots * 2; i += blockDim.x)
    rs::barrier_invalidate(shared.full(0) + i);
  rs::fence_async_shared();  // pieces in the rings, before the next stage's bulk copies
  rs::fence_async_global();
  __syncthreads();
}
