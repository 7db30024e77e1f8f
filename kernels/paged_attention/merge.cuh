// Puts pieces of an item together: teams of a block through shared memory, blocks through global
// memory, where the last block to arrive writes the output.
#pragma once
#include "paged_attention/softmax.cuh"

namespace attention {

// Four channels of a query row: sum of weight * V, and the row's reference exponent and weights.
struct Sum {
  float v[4], top, weight;

  __device__ void clear() {
    for (int i = 0; i < 4; ++i) v[i] = 0;
    top = kLowest, weight = 0;
  }
  template <int kCount>
  __device__ void add(const Sum (&others)[kCount]) {
    float high = top;
    for (const Sum& other : others) high = fmaxf(high, other.top);
    scale(rs::exp2_fast(top - high));
    top = high;
    for (const Sum& other : others) {
      float factor = rs::exp2_fast(other.top - high);
      for (int i = 0; i < 4; ++i) v[i] += other.v[i] * factor;
      weight += other.weight * factor;
    }
  }
  __device__ void scale(float factor) {
    for (int i = 0; i < 4; ++i) v[i] *= factor;
    weight *= factor;
  }
};
constexpr int kBatch = 8;                    // pieces read at once
constexpr int kQuads = kRows * HEAD_DIM / 4;  // quads of a piece
static_assert(512 * sizeof(Sum) <= kTeams * kRingBytes, "Sums of all threads fit in the rings");
static_assert(2 * kTeams <= 32, "a lane for each piece of a block");

__device__ __forceinline__ Sum quad_of(const float* piece, int quad, bool global) {
  Sum s;
  uint4 raw;
  if (global) raw = rs::load_stream(piece + quad * 4);
  else raw = *reinterpret_cast<const uint4*>(piece + quad * 4);
  memcpy(s.v, &raw, 16);
  float pair[2];
  memcpy(pair, piece + kRows * HEAD_DIM + quad / (HEAD_DIM / 4) * 2, 8);
  s.top = pair[0], s.weight = pair[1];
  return s;
}

__device__ __forceinline__ ELEMENT* out_row(const PagedAttentionParams& p, int item, int row) {
  long long token = (long long)(item / p.kv_heads) * TOKENS + row / GROUP;
  return p.out + ((token * p.kv_heads + item % p.kv_heads) * GROUP + row % GROUP) * HEAD_DIM;
}

__device__ __forceinline__ void write_quad(const PagedAttentionParams& p, int item, int quad,
                                           const Sum& s) {
  float inverse = s.weight > 0 ? 1 / s.weight : 0;
  unsigned pair[2];
  for (int i = 0; i < 2; ++i)
    pair[i] = rs::pack2<ELEMENT>(s.v[2 * i] * inverse, s.v[2 * i + 1] * inverse);
  int row = quad / (HEAD_DIM / 4), channel = quad % (HEAD_DIM / 4) * 4;
  *reinterpret_cast<uint2*>(out_row(p, item, row) + channel) = make_uint2(pair[0], pair[1]);
}

// ---------------------------------------------------------------------------- a warp's own rows
// The channel of sum[m][c][i].
__device__ __forceinline__ int channel_of(int m, int i) {
  int g = lane_id() / 4;
  return 16 * m + (KV_BITS == 8 ? 2 * g + i / 2 : 8 * (i / 2) + g);
}

__device__ __forceinline__ void write_output(const PagedAttentionParams& p, int item, int row0,
                                             const State& state) {
  for (int c = 0; c < kColumns; ++c)
    for (int i = 0; i < 2; ++i) {
      int row = row0 + c * 8 + lane_id() % 4 * 2 + i;
      if (row >= kRows) continue;
      ELEMENT* out = out_row(p, item, row);
      float inverse = state.weight[c][i] > 0 ? 1 / state.weight[c][i] : 0;
      for (int m = 0; m < kSteps; ++m) {
        float low = state.sum[m][c][i] * inverse, high = state.sum[m][c][i + 2] * inverse;
        if (KV_BITS == 8) {  // neighbours
          unsigned pair = rs::pack2<ELEMENT>(low, high);
          *reinterpret_cast<unsigned*>(out + channel_of(m, i)) = pair;
        } else {
          out[channel_of(m, i)] = rs::from_float<ELEMENT>(low);
          out[channel_of(m, i + 2)] = rs::from_float<ELEMENT>(high);
        }
      }
    }
}

__device__ __forceinline__ void write_piece(float* piece, int row0, const State& state) {
  for (int c = 0; c < kColumns; ++c)
    for (int i = 0; i < 2; ++i) {
      int row = row0 + c * 8 + lane_id() % 4 * 2 + i;
      if (row >= kRows) continue;
      for (int m = 0; m < kSteps; ++m)
        for (int j = 0; j < 4; j += 2)
          piece[row * HEAD_DIM + channel_of(m, i + j)] = state.sum[m][c][i + j];
      if (lane_id() / 4) continue;
      piece[kRows * HEAD_DIM + row * 2] = state.top[c][i];
      piece[kRows * HEAD_DIM + row * 2 + 1] = state.weight[c][i];
    }
}

// ---------------------------------------------------------------------------- blocks
// Where *block* leaves its piece of an item: a block has two at most, the item that it starts
// within or with, and the one that it ends within.
__device__ __forceinline__ float* partial_of(const PagedAttentionParams& p, const Cut& cut,
                                             int block, const Owner& owner) {
  int which = owner.begin > cut.begin(block);
  return p.partial + (long long)(2 * block + which) * kPieceFloats;
}

// The pieces of *split* that its blocks left become output. All threads.
__device__ __forceinline__ void merge_blocks(const PagedAttentionParams& p, const Shared& shared,
                                             const Cut& cut, const Split& split) {
  constexpr int kThreads = WORKERS * 32, kSpan = kQuads < kThreads ? kQuads : kThreads;
  constexpr int kGroups = kThreads / kSpan;  // share the blocks' pieces of one quad
  const int group = threadIdx.x / kSpan;
  int second = split.owner.begin > cut.begin(split.first);  // the first block's piece
  Sum* sums = reinterpret_cast<Sum*>(shared.ring(0));
#pragma unroll 1
  for (int quad = threadIdx.x % kSpan; quad < kQuads && group < kGroups; quad += kSpan) {
    Sum total;
    total.clear();
#pragma unroll 1
    for (int b = split.first + group; b <= split.last; b += kBatch * kGroups) {
      Sum read[kBatch];
      for (int i = 0; i < kBatch; ++i) {
        int from = min(b + i * kGroups, split.last);  // no branch, so that all loads go out at once
        int piece = 2 * from + (from == split.first ? second : 0);
        read[i] = quad_of(p.partial + (long long)piece * kPieceFloats, quad, true);
      }
      for (int i = 0; i < kBatch; ++i)
        if (b + i * kGroups > split.last) read[i].clear();
      total.add(read);
    }
    if (kGroups == 1) write_quad(p, split.owner.item, quad, total);
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
    write_quad(p, split.owner.item, threadIdx.x, total);
  }
  __syncthreads();
}

// One quad of the pieces in *run*, a bit a piece.
__device__ __forceinline__ Sum merged_quad(const Shared& shared, unsigned run, int quad) {
  Sum total;
  total.clear();
#pragma unroll 1
  for (int j = 0; j < 2 * kTeams; j += kBatch) {
    if (!(run >> j & ((1u << kBatch) - 1))) continue;
    Sum read[kBatch];
    for (int i = 0; i < kBatch; ++i) {
      int piece = min(j + i, 2 * kTeams - 1);
      read[i] = quad_of(shared.piece(piece / 2, piece % 2), quad, false);
    }
    for (int i = 0; i < kBatch; ++i)
      if (!(run >> (j + i) & 1)) read[i].clear();
    total.add(read);
  }
  return total;
}

__device__ __forceinline__ void write_partial(float* piece, int quad, const Sum& sum) {
  uint4 raw;
  memcpy(&raw, sum.v, 16);
  *reinterpret_cast<uint4*>(piece + quad * 4) = raw;
  if (quad % (HEAD_DIM / 4)) return;
  float pair[2] = {sum.top, sum.weight};
  memcpy(piece + kRows * HEAD_DIM + quad / (HEAD_DIM / 4) * 2, pair, 8);
}

// Pieces of the block's teams become output, or pieces of the block. All threads.
__device__ __forceinline__ void merge_teams(const PagedAttentionParams& p, const Shared& shared,
                                            const Cut& cut, int block) {
  Split* splits = shared.splits();
  int count = 0;
  const Owner* owners = shared.owners();
  int item = lane_id() < 2 * kTeams ? owners[lane_id()].item : -1;
  int begin = cut.begin(block), end = cut.begin(block + 1);
#pragma unroll 1
  for (unsigned left = __ballot_sync(kAllLanes, item >= 0); left;) {
    Owner owner = owners[__ffs(left) - 1];
    unsigned run = __ballot_sync(kAllLanes, item == owner.item);
    left &= ~run;
    bool inside = owner.begin >= begin && owner.end <= end;
    // The item that the block starts within or with goes first; another may be cut by its end.
    float* piece = p.partial + (long long)(2 * block + (owner.begin > begin)) * kPieceFloats;
#pragma unroll 1
    for (int quad = threadIdx.x; quad < kQuads; quad += blockDim.x) {
      Sum total = merged_quad(shared, run, quad);
      if (inside) write_quad(p, owner.item, quad, total);
      else write_partial(piece, quad, total);
    }
    if (inside) continue;
    if (threadIdx.x == count)
      splits[count] = {owner, cut.block_of(owner.begin), cut.block_of(owner.end - 1), 0};
    ++count;
  }
  if (count == 0) return;

  __syncthreads();
  if (threadIdx.x < count) {
    Split& mine = splits[threadIdx.x];
    unsigned* ticket = p.tickets + mine.owner.item;
    mine.merge = rs::add_acq_rel_gpu(ticket, 1u) == mine.last - mine.first;
    if (mine.merge) *ticket = 0;
  }
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < count; ++i)
    if (splits[i].merge) merge_blocks(p, shared, cut, splits[i]);
}

}  // namespace attention
