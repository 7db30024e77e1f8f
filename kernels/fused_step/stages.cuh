// The products of a layer, each with what stands before and after it, and the head.
//
//   qkv      norm, product, rotary embedding; q to its buffer, k and v into the cache
//   out      product of the attended rows, added to the residual stream
//   gate_up  norm, product, silu(gate) * up
//   down     product, added to the residual stream
//   head     norm, product, arg-max of each token row
//
// A worker's ring must stand at the stage's first unit; all of its threads call.
#pragma once
#include "fused_step/scene.cuh"
#include "small_ops/inline.cuh"
#include "verify_commit/greedy.cuh"

namespace fused {

struct Worker {
  Ring ring;
  Meet meet;
  int index, count;  // among the workers
};

__device__ __forceinline__ int qkv_tiles(const FusedParams& p) {
  return (p.q_heads + 2 * p.kv_heads) * HEAD_DIM / 8;
}
constexpr int kOutTiles = HIDDEN / 16, kGateTiles = FFN / 8, kDownTiles = HIDDEN / 16;
__device__ __forceinline__ int head_tiles(const FusedParams& p) { return p.vocabulary / 16; }

template <int kBlocks, bool kTall>
__device__ __forceinline__ void multiply(Ring& ring, Tile16& tile, const Columns<kBlocks>& x) {
  if constexpr (kTall) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) tile.add(ring.take(), x.x[b]);
  } else {
#pragma unroll
    for (int b = 0; b < kBlocks; b += 2) {
      Unit unit = ring.take();
      tile.add8(unit.low, x.x[b]);
      tile.add8(unit.high, x.x[b + 1]);
    }
  }
}

// ---------------------------------------------------------------------------- qkv
// Bounds of a page's keys in one channel; *value* of this lane's token row, whose request's other
// rows are the next lanes. By the lanes of a request's first row.
__device__ __forceinline__ void extend_bounds(const FusedParams& p, const PagedAttentionParams& a,
                                              ELEMENT* minmax, int request, int length, int head,
                                              int channel, float value, bool first) {
  float low = 0, high = 0;
#pragma unroll
  for (int t = 0; t < TOKENS; ++t) {
    float v = t ? __shfl_down_sync(0xffffffffu, value, t) : value;
    if (!first || length < 0) continue;
    int at = length + t, page = at / PAGE_TOKENS;
    long long physical = a.table[(long long)request * a.max_pages + page];
    ELEMENT* bounds = minmax + ((physical * p.kv_heads + head) * 2) * HEAD_DIM + channel;
    if (at % PAGE_TOKENS == 0) {
      low = high = v;
    } else {
      if (t == 0) low = rs::to_float(bounds[0]), high = rs::to_float(bounds[HEAD_DIM]);
      low = fminf(low, v);
      high = fmaxf(high, v);
    }
    if (t == TOKENS - 1 || (at + 1) % PAGE_TOKENS == 0) {
      bounds[0] = rs::from_float<ELEMENT>(low);
      bounds[HEAD_DIM] = rs::from_float<ELEMENT>(high);
    }
  }
}

__device__ __forceinline__ void rotate(const FusedParams& p, int pair, int position, float& low,
                                       float& high) {
  float2 turn = p.turns[pair];
  float whole = turn.x * position, rest = fmaf(turn.x, position, -whole), sine, cosine;
  rs::sincos_turns(whole - rintf(whole) + fmaf(turn.y, position, rest), sine, cosine);
  float turned = low * cosine - high * sine;
  high = high * cosine + low * sine;
  low = turned;
}

__device__ __forceinline__ void qkv_stage(const FusedParams& p, const PagedAttentionParams& a,
                                          Worker& w, Scene& s, int layer) {
  const int rows = p.requests * TOKENS;
  Columns<kHiddenBlocks> x;
  load_columns(x, rows, warp_id() * kHiddenBlocks * 32,
               [&](int row) { return hidden_row(p, s, layer, row); });
  normalise(x, p.gains + 2LL * layer * HIDDEN, s.sums);
  unsigned char* cache = p.cache + layer * p.cache_bytes;
  Share share(qkv_tiles(p), w.index, w.count);
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    Tile16 sum;
    sum.clear();
    multiply<kHiddenBlocks, false>(w.ring, sum, x);
    w.meet.end_tile<4 * kRows>(sum, [&](int i, const float* parts) {
      constexpr int kTilesOfHead = HEAD_DIM / 8;
      int pair = i / kRows, row = i % kRows, head = tile / kTilesOfHead;
      int channel = tile % kTilesOfHead * 4 + pair;  // and HEAD_DIM / 2 further on
      bool mine = row < rows && !s.idle(row);
      float inverse = inverse_rms(s.sums, row, p.epsilon);
      float low = joined(parts, pair, row) * inverse, high = joined(parts, pair + 4, row) * inverse;
      int position = mine ? s.position(row) : 0;
      if (head < p.q_heads + p.kv_heads) rotate(p, channel, position, low, high);
      ELEMENT first = rs::from_float<ELEMENT>(low), second = rs::from_float<ELEMENT>(high);
      if (head < p.q_heads) {
        if (!mine) return;
        ELEMENT* to = p.q + ((long long)row * p.q_heads + head) * HEAD_DIM + channel;
        to[0] = first;
        to[HEAD_DIM / 2] = second;
        return;
      }
      head -= p.q_heads;
      bool value = head >= p.kv_heads;
      if (value) head -= p.kv_heads;
      int request = row / TOKENS;
      if (mine) {
        long long physical = a.table[(long long)request * a.max_pages + position / PAGE_TOKENS];
        ELEMENT* page = reinterpret_cast<ELEMENT*>(
            cache + (physical * p.kv_heads + head) * rs::kPageBytes);
        int token = position % PAGE_TOKENS;
        page[value ? rs::v16_at(token, channel) : rs::k16_at(token, channel)] = first;
        channel += HEAD_DIM / 2;
        page[value ? rs::v16_at(token, channel) : rs::k16_at(token, channel)] = second;
        channel -= HEAD_DIM / 2;
      }
      if (value || p.minmax == nullptr) return;
      ELEMENT* minmax = p.minmax + layer * p.minmax_count;
      int length = mine ? s.length[request] : -1;
      bool leads = row % TOKENS == 0;
      extend_bounds(p, a, minmax, request, length, head, channel, rs::to_float(first), leads);
      extend_bounds(p, a, minmax, request, length, head, channel + HEAD_DIM / 2,
                    rs::to_float(second), leads);
    });
  }
}

// ---------------------------------------------------------------------------- out, down
// What a thread adds its element of a tile to, asked for before the product.
template <int kCount>
__device__ __forceinline__ int place_in(const Meet& meet) {
  int i = static_cast<int>(threadIdx.x) - meet.turn % (kThreads / kCount) * kCount;
  return i < kCount ? i : -1;
}
__device__ __forceinline__ float residual_at(const ELEMENT* from) {
#ifdef RS_CPU
  return rs::to_float(*from);
#else
  unsigned short raw;
  asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(raw) : "l"(from) : "memory");
  ELEMENT e;
  memcpy(&e, &raw, 2);
  return rs::to_float(e);
#endif
}

// Blocks of the inner dimension that are in registers at a time.
constexpr int kPassBlocks = 4;

template <int kBlocks>
__device__ __forceinline__ void add_to_hidden(const FusedParams& p, Worker& w, Scene& s,
                                              const ELEMENT* from, int width, int layer) {
  static_assert(kBlocks <= kPassBlocks || kBlocks % kPassBlocks == 0, "whole passes");
  constexpr int kPass = kBlocks < kPassBlocks ? kBlocks : kPassBlocks, kPasses = kBlocks / kPass;
  const int rows = p.requests * TOKENS;
  auto at = [&](int row) { return from + (long long)row * width; };
  Share share(HIDDEN / 16, w.index, w.count);
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    int offset = warp_id() * kBlocks * 32, i = place_in<16 * kRows>(w.meet), row = i % kRows;
    Columns<kPass> x;
    load_columns(x, rows, offset, at);
    float before = 0;
    if (i >= 0 && row < rows)
      before = residual_at(hidden_row(p, s, layer, row) + tile * 16 + i / kRows);
    Tile16 sum;
    sum.clear();
#pragma unroll 1
    for (int pass = 0; pass < kPasses - 1; ++pass) {
      Columns<kPass> next;
      load_columns(next, rows, offset + (pass + 1) * kPass * 32, at);
      multiply<kPass, true>(w.ring, sum, x);
      x = next;
    }
    multiply<kPass, true>(w.ring, sum, x);
    w.meet.end_tile<16 * kRows>(sum, [&](int i, const float* parts) {
      int row = i % kRows, channel = tile * 16 + i / kRows;
      if (row < rows)
        p.hidden[(long long)row * HIDDEN + channel] =
            rs::from_float<ELEMENT>(before + joined(parts, i / kRows, row));
    });
  }
}

__device__ __forceinline__ void out_stage(const FusedParams& p, Worker& w, Scene& s, int layer) {
  add_to_hidden<kHeadsBlocks>(p, w, s, p.attended, HEADS_WIDTH, layer);
}
__device__ __forceinline__ void down_stage(const FusedParams& p, Worker& w, Scene& s) {
  add_to_hidden<kFfnBlocks>(p, w, s, p.gated, FFN, 1);
}

// ---------------------------------------------------------------------------- gate_up
// A tile holds 8 gates and the 8 ups that belong to them.
__device__ __forceinline__ void gate_up_stage(const FusedParams& p, Worker& w, Scene& s,
                                              int layer) {
  const int rows = p.requests * TOKENS;
  Columns<kHiddenBlocks> x;
  load_columns(x, rows, warp_id() * kHiddenBlocks * 32,
               [&](int row) { return p.hidden + (long long)row * HIDDEN; });
  normalise(x, p.gains + (2LL * layer + 1) * HIDDEN, s.sums);
  Share share(kGateTiles, w.index, w.count);
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    Tile16 sum;
    sum.clear();
    multiply<kHiddenBlocks, true>(w.ring, sum, x);
    w.meet.end_tile<8 * kRows>(sum, [&](int i, const float* parts) {
      int row = i % kRows, at = i / kRows;
      if (row >= rows) return;
      float inverse = inverse_rms(s.sums, row, p.epsilon);
      float gate = joined(parts, at, row) * inverse, up = joined(parts, at + 8, row) * inverse;
      float silu = __fdividef(gate, 1 + rs::exp2_fast(gate * -1.44269504f));
      p.gated[(long long)row * FFN + tile * 8 + at] = rs::from_float<ELEMENT>(silu * up);
    });
  }
}

// ---------------------------------------------------------------------------- head
// *logits* [rows][vocabulary] fp32 receives the logits, unless it is null.
__device__ __forceinline__ void head_stage(const FusedParams& p, Worker& w, Scene& s,
                                           float* logits) {
  const int rows = p.requests * TOKENS;
  Columns<kHiddenBlocks> x;
  load_columns(x, rows, warp_id() * kHiddenBlocks * 32,
               [&](int row) { return p.hidden + (long long)row * HIDDEN; });
  normalise(x, p.gains + 2LL * p.layers * HIDDEN, s.sums);
  Share share(head_tiles(p), w.index, w.count);
  float best = __uint_as_float(0xff800000u);
  int index = 0x7fffffff;
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    Tile16 sum;
    sum.clear();
    multiply<kHiddenBlocks, true>(w.ring, sum, x);
    w.meet.end_tile<16 * kRows>(sum, [&](int i, const float* parts) {
      int row = i % kRows, token = tile * 16 + i / kRows;
      float logit = joined(parts, i / kRows, row) * inverse_rms(s.sums, row, p.epsilon);
      if (logits && row < rows) logits[(long long)row * p.vocabulary + token] = logit;
      if (logit > best) best = logit, index = token;
    });
  }
  if (share.begin == share.end) return;
  // A thread's tokens ascend, so that the first of equal logits stays. Lanes of one token row differ
  // by multiples of kRows.
#pragma unroll
  for (int d = kRows; d < 32; d *= 2) {
    float value = __shfl_xor_sync(0xffffffffu, best, d);
    int at = __shfl_xor_sync(0xffffffffu, index, d);
    if (value > best || (value == best && at < index)) best = value, index = at;
  }
  __syncthreads();  // the last tile's parts have been read
  auto* words = reinterpret_cast<unsigned long long*>(w.meet.parts);  // [kWarps][kRows]
  if (lane_id() < kRows)
    words[warp_id() * kRows + lane_id()] =
        index == 0x7fffffff ? 0 : verify::pack_best(best, index);
  __syncthreads();
  if (threadIdx.x < rows) {
    unsigned long long most = 0;
    for (int i = 0; i < kWarps; ++i) {
      unsigned long long word = words[i * kRows + threadIdx.x];
      most = word > most ? word : most;
    }
    atomicMax(p.best + threadIdx.x, most);
  }
  __syncthreads();
}

}  // namespace fused
