// y[tokens][n] = x[tokens][k] . W[n][k]^T for 1 to 16 tokens, W in 4 or 16 bits, read once.
//
// Arrays in plan.cuh. A block takes a run of items (16 rows of W by one piece of k). Of its warps,
//   the first streams the units of the run through rings in shared memory: nothing else, because a
//     copy that finds the queue full holds its warp up;
//   the last adds up what the others leave and writes it;
//   those between, the consumers, take the run's units in turn.
// Blocks add up a strip's pieces in `partials`, where the last one to arrive sums. All sums have a
// fixed order, so that results never depend on timing.
//
// A barrier is waited on by the same warps in every round, so nobody is ever a phase ahead of it.
#pragma once
#include "w4a16_gemv/multiply.cuh"

namespace gemv {

// ---------------------------------------------------------------------------- roles
__device__ inline void produce(const W4a16GemvParams& p, const Shared& s, Run run, int consumers) {
  int left = 0;  // units not asked for yet
  for (Run r = run; r.count > 0; r.strip = 0, ++r.piece) {
    const int items = min(r.count, p.strips - r.strip);
    left += items * units_of(p, r.piece);
    r.count -= items;
  }
  int unit = 0, slot = 0, round = 0;
  const unsigned char* next = p.weights + (long long)run.strip * p.units * kUnitBytes;
  while (left > 0) {
    for (int team = 0; team * kTeam < consumers && left > 0; ++team) {
      const int members = min(kTeam, consumers - team * kTeam), taken = min(members, left);
      const int place = team * p.depth + slot;
      rs::Barrier* full = s.full + place;
      unsigned char* to = s.ring + (team * kTeam * p.depth + slot * members) * kUnitBytes;
      if (round > 0) rs::barrier_sleep(s.empty + place, (round - 1) & 1);
      rs::fill_begin(full, taken * kUnitBytes);
      if (p.pieces == 1) {  // strips follow each other in memory
        rs::fill_piece(to, next, taken * kUnitBytes, full);
        next += taken * kUnitBytes;
      }
      for (int i = 0; i < taken && p.pieces > 1;) {
        const int here = min(taken - i, units_of(p, run.piece) - unit);
        const unsigned from = run.strip * p.units + run.piece * p.piece_units + unit;
        rs::fill_piece(to + i * kUnitBytes, p.weights + (long long)from * kUnitBytes,
                       here * kUnitBytes, full);
        i += here;
        unit += here;
        while (run.piece < p.pieces && unit >= units_of(p, run.piece)) {
          unit -= units_of(p, run.piece);
          run.next(p);
        }
      }
      rs::fill_end(full);
      left -= taken;
    }
    if (++slot == p.depth) slot = 0, ++round;
  }
}

__device__ inline void consume(const W4a16GemvParams& p, const Shared& s, Run run, int consumers,
                               int block) {
  const int warp = threadIdx.x / 32 - 1, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int stride = x_stride(p.piece_units * kUnitK), team = warp / kTeam;
  const int members = min(kTeam, consumers - team * kTeam);
  const unsigned char* ring =
      s.ring + (team * kTeam * p.depth + warp % kTeam) * kUnitBytes;
  int slot = 0, round = 0, unit = warp, staged = -1, meetings = 0;
  for (int item = 0; item < run.count; ++item, run.next(p)) {
    if (run.piece != staged) {
      if (staged >= 0) {  // the first piece is on its way already
        rs::meet(s.met, ++meetings, consumers * 32);
        copy_x(p, s, run.piece, warp, consumers, block);
      }
      staged = run.piece;
      rs::copy_wait<0>();
      rs::meet(s.met, ++meetings, consumers * 32);
      if (WEIGHT_BITS == 4) {
        sum_x(p, s, warp, consumers);
        rs::meet(s.met, ++meetings, consumers * 32);
      }
    }
    const int units = units_of(p, run.piece), share = unit;
    float total[kSides][4] = {};
    for (; unit < units; unit += consumers) {
      rs::barrier_sleep(s.full + team * p.depth + slot, round & 1);
      multiply_unit(total, p, s, ring + slot * members * kUnitBytes, unit * kUnitK, stride);
      __syncwarp();
      if (lane == 0) rs::barrier_arrive(s.empty + team * p.depth + slot);
      if (++slot == p.depth) slot = 0, ++round;
    }
    unit -= units;
    const int open = item % kOpenItems, use = item / kOpenItems;
    if (use > 0) rs::barrier_sleep(s.free + open, (use - 1) & 1);
    if (share < units) {
      float* mine = s.partial + (open * consumers + share) * kWarpFloats;
#pragma unroll
      for (int i = 0; i < 4 * kSides; ++i) {
        const int token = i / 4 * 8 + 2 * t + i % 2;
        if (token < TOKENS) mine[token * kTokenStride + g + i % 4 / 2 * 8] = total[i / 4][i % 4];
      }
    }
    __syncwarp();
    if (lane == 0) rs::barrier_arrive(s.ready + open);
  }
}

// The strips of *run* whose last piece this block has brought: their sums over all of k to y. The
// tickets of 32 strips go out at once, because each takes a trip through L2.
__device__ inline void finish_pieces(const W4a16GemvParams& p, const Run& run) {
  const int lane = threadIdx.x % 32;
  __threadfence();
  __syncwarp();
  for (int item = 0; item < run.count; item += 32) {
    const int mine = (run.strip + item + lane) % p.strips;
    bool last = false;
    if (item + lane < run.count) {
      last = rs::add_acq_rel_gpu(p.tickets + mine, 1) + 1 == static_cast<unsigned>(p.pieces);
      if (last) p.tickets[mine] = 0;
    }
    unsigned done = __ballot_sync(0xffffffffu, last);
    for (; done; done &= done - 1) {
      const int strip = __shfl_sync(0xffffffffu, mine, __ffs(done) - 1);
      const float* pieces = p.partials + (long long)strip * p.pieces * 16 * TOKENS;
      for (int e = lane * 4; e < 16 * TOKENS; e += 128) {
        float v[4] = {};
#pragma unroll 4
        for (int piece = 0; piece < p.pieces; ++piece) {
          uint4 raw = rs::load_stream(pieces + piece * 16 * TOKENS + e);
          float part[4];
          memcpy(part, &raw, 16);
          for (int i = 0; i < 4; ++i) v[i] += part[i];
        }
        int token = e / 16, row = strip * 16 + e % 16;
        for (int i = 0; i < 4; ++i)
          if (token < p.tokens && row + i < p.n)
            p.y[(long long)token * p.n + row + i] = rs::from_float<ELEMENT>(v[i]);
      }
    }
  }
}

__device__ inline void finish(const W4a16GemvParams& p, const Shared& s, Run run, int consumers) {
  const int lane = threadIdx.x % 32;
  const Run whole = run;
  for (int item = 0; item < run.count; ++item, run.next(p)) {
    const int open = item % kOpenItems;
    const int shares = min(units_of(p, run.piece), consumers);
    rs::barrier_sleep(s.ready + open, item / kOpenItems & 1);
    for (int e = lane; e < 16 * TOKENS; e += 32) {
      int token = e / 16, row = run.strip * 16 + e % 16;
      const float* from =
          s.partial + open * consumers * kWarpFloats + token * kTokenStride + e % 16;
      float v = 0;
#pragma unroll
      for (int i = 0; i < kMaxConsumers; ++i)
        if (i < shares) v += from[i * kWarpFloats];
      if (p.pieces > 1)
        p.partials[((long long)run.strip * p.pieces + run.piece) * 16 * TOKENS + e] = v;
      else if (token < p.tokens && row < p.n)
        p.y[(long long)token * p.n + row] = rs::from_float<ELEMENT>(v);
    }
    __syncwarp();
    if (lane == 0) rs::barrier_arrive(s.free + open);
  }
  if (p.pieces > 1) finish_pieces(p, whole);
}

}  // namespace gemv

// ---------------------------------------------------------------------------- stage
// Any number of blocks, of 3 to kMaxConsumers + 2 warps.
__device__ inline void w4a16_gemv_stage(const W4a16GemvParams& p, int block, int blocks,
                                        unsigned char* shared) {
  using namespace gemv;
  const int consumers = blockDim.x / 32 - 2, warp = threadIdx.x / 32;  // 0 copies, the last adds up
  const int slots = (consumers + kTeam - 1) / kTeam * p.depth, barriers = 2 * (slots + kOpenItems);
  const Run run(p, block, blocks);
  const Shared s(p, shared, consumers);
  if (run.count == 0) return;

  // x asks first: behind a ring full of weights it would wait for all of them.
  if (0 < warp && warp <= consumers) copy_x(p, s, run.piece, warp - 1, consumers, block);
  if (warp > consumers) {
    for (int i = threadIdx.x % 32; i < barriers; i += 32) {
      const int members = min(kTeam, consumers - i % slots / p.depth * kTeam);
      const bool full = i < slots, empty = i < 2 * slots, ready = i < 2 * slots + kOpenItems;
      rs::barrier_init(s.full + i, full ? 1 : empty ? members : ready ? consumers : 1);
    }
    if (threadIdx.x % 32 == 0) *s.met = 0;
    rs::barrier_init_fence();
  }
  __syncthreads();
  if (warp == 0)
    produce(p, s, run, consumers);
  else if (warp > consumers)
    finish(p, s, run, consumers);
  else
    consume(p, s, run, consumers, block);
  __syncthreads();
  if (warp == 0)
    for (int i = threadIdx.x % 32; i < barriers; i += 32) rs::barrier_inval(s.full + i);
  __syncthreads();
}
