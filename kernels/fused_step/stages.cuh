// The products of a layer, each with what stands before and after it, and the head.
//
//   qkv      norm, product, rotary embedding; q to its buffer, k and v into the cache
//   out      product of the attended rows, added to the residual stream
//   gate_up  norm, product, silu(gate) * up
//   down     product, added to the residual stream
//   head     norm, product, arg-max of each token row
//
// Two functions do all of them: in the persistent kernel their code runs at every turn, and what does
// not stay in the instruction cache has to come from L2 each time.
//
// A worker's ring must stand at the stage's first unit; all of its threads call.
#pragma once
#include "fused_step/scene.cuh"
#include "verify_commit/greedy.cuh"

namespace fused {

// The products that follow a norm, and those that are added to the residual stream.
enum Product { kQkv, kGateUp, kHead, kOut, kDown, kProducts };

struct Worker {
  Ring ring;
  Meet meet;
  unsigned char* columns;  // of the products, in the place of attention's tiles
  unsigned char* gains;
  const Share* shares;  // [kProducts], this worker's tiles
  int index, count;     // among the workers
};

__device__ __forceinline__ int tiles_of(const FusedParams& p, int product) {
  return product == kQkv      ? (kQueryHeads + 2 * KV_HEADS) * HEAD_DIM / 8
         : product == kGateUp ? FFN / 8
         : product == kHead   ? p.vocabulary / 16
                              : HIDDEN / 16;
}
// Units of a tile.
__device__ __forceinline__ int units_of(int product) {
  return product == kQkv   ? kHiddenBlocks / 2
         : product == kOut ? kHeadsBlocks
         : product == kDown ? kFfnBlocks
                            : kHiddenBlocks;
}

__device__ __forceinline__ const ELEMENT* gains_of(const FusedParams& p, int layer, int product) {
  int norm = product == kHead ? 2 * p.layers : 2 * layer + product;
  return p.gains + (long long)norm * HIDDEN;
}

// ---------------------------------------------------------------------------- ends of tiles
// Extends the bounds of a request's pages in one channel by the keys of its token rows, *keys* [TOKENS].
__device__ __forceinline__ void extend_bounds(const FusedParams& p, const Scene& s, ELEMENT* minmax,
                                              int request, int head, int channel,
                                              const float* keys) {
  float low = 0, high = 0;
#pragma unroll 1
  for (int t = 0; t < TOKENS; ++t) {
    int at = s.length[request] + t;
    long long physical = s.page[request * TOKENS + t];
    ELEMENT* bounds = minmax + ((physical * KV_HEADS + head) * 2) * HEAD_DIM + channel;
    if (at % PAGE_TOKENS == 0) {
      low = high = keys[t];
    } else {
      if (t == 0) low = rs::to_float(bounds[0]), high = rs::to_float(bounds[HEAD_DIM]);
      low = fminf(low, keys[t]);
      high = fmaxf(high, keys[t]);
    }
    if (t == TOKENS - 1 || (at + 1) % PAGE_TOKENS == 0) {
      bounds[0] = rs::from_float<ELEMENT>(low);
      bounds[HEAD_DIM] = rs::from_float<ELEMENT>(high);
    }
  }
}

// Four channels of a head and their rotary partners, of up to kFlat tiles, the last of them *last*.
constexpr int kFlat = 4;
__device__ __forceinline__ void end_qkv(const FusedParams& p, Scene& s, int layer, int first,
                                        int last, float inverse, const float* parts) {
  constexpr int kTilesOfHead = HEAD_DIM / 8;
  Ending<kFlat * 4 * kRows> end;
  const int rows = p.requests * TOKENS, row = end.item % kRows, pair = end.item / kRows % 4;
  const int nth = end.item / (4 * kRows), tile = min(first + nth, last);
  int head = tile / kTilesOfHead, channel = tile % kTilesOfHead * 4 + pair;
  bool mine = end.leads && row < rows && first + nth <= last && !s.idle(row);
  const int at = nth / 2 * (kWarps * kPartFloats) + nth % 2 * 8 * kRows + pair * kRows + row;
  float low = end.add(parts, kPartFloats, at) * inverse;
  float high = end.add(parts, kPartFloats, at + 4 * kRows) * inverse;
  if (head < kQueryHeads + KV_HEADS) {
    float2 turn = s.turn[min(row, rows - 1)][channel];
    float turned = low * turn.x - high * turn.y;
    high = high * turn.x + low * turn.y;
    low = turned;
  }
  ELEMENT low_key = rs::from_float<ELEMENT>(low), high_key = rs::from_float<ELEMENT>(high);
  bool query = head < kQueryHeads, value = head >= kQueryHeads + KV_HEADS;
  ELEMENT *to = nullptr, *partner = nullptr;
  if (query) {
    to = p.q + ((long long)row * kQueryHeads + head) * HEAD_DIM + channel;
    partner = to + HEAD_DIM / 2;
  } else {
    head -= value ? kQueryHeads + KV_HEADS : kQueryHeads;
    if (mine) {
      unsigned char* page = p.cache + layer * p.cache_bytes +
                            ((long long)s.page[row] * KV_HEADS + head) * rs::kPageBytes;
      int token = s.position(row) % PAGE_TOKENS, offset = value ? 16 * HEAD_DIM : 0;
      to = reinterpret_cast<ELEMENT*>(page) + offset + rs::k16_at(token, channel);
      partner = reinterpret_cast<ELEMENT*>(page) + offset +
                rs::k16_at(token, channel + HEAD_DIM / 2);
    }
  }
  if (mine) *to = low_key, *partner = high_key;
  if (p.minmax == nullptr) return;
  if (end.leads) {
    s.keys[0][nth][pair][row] = rs::to_float(low_key);
    s.keys[1][nth][pair][row] = rs::to_float(high_key);
  }
  if (TOKENS > 1) __syncthreads();  // other rows of the request
  if (mine && !query && !value && row % TOKENS == 0)
    for (int half = 0; half < 2; ++half)
      extend_bounds(p, s, p.minmax + layer * p.minmax_count, row / TOKENS, head,
                    channel + half * HEAD_DIM / 2, &s.keys[half][nth][pair][row]);
}

// Eight gates and the ups that belong to them.
__device__ __forceinline__ void end_gate_up(const FusedParams& p, int tile, float inverse,
                                            const float* parts) {
  Ending<8 * kRows> end;
  int row = end.item % kRows, at = end.item / kRows;
  float gate = end.add(parts, kPartFloats, at * kRows + row) * inverse;
  float up = end.add(parts, kPartFloats, (at + 8) * kRows + row) * inverse;
  float silu = __fdividef(gate, 1 + rs::exp2_fast(gate * -1.44269504f));
  if (end.leads && row < p.requests * TOKENS)
    p.gated[(long long)row * FFN + tile * 8 + at] = rs::from_float<ELEMENT>(silu * up);
}

// The largest logit that a thread has seen of its token row. Its tokens ascend, so that the first of
// equal ones stays.
struct Best {
  float logit = __uint_as_float(0xff800000u);
  int token = 0x7fffffff;
};

// Of the block's threads, by token row, into the row's word.
__device__ __forceinline__ void keep_best(const FusedParams& p, const Worker& w, Best best) {
  Ending<16 * kRows> end;
  __syncthreads();  // the last tile's parts have been read
  auto* words = reinterpret_cast<unsigned long long*>(w.meet.parts);  // [16][kRows]
  if (end.leads)
    words[end.item] = best.token == 0x7fffffff ? 0 : verify::pack_best(best.logit, best.token);
  __syncthreads();
  if (threadIdx.x < p.requests * TOKENS) {
    unsigned long long most = 0;
#pragma unroll 4
    for (int i = 0; i < 16; ++i) {
      unsigned long long word = words[i * kRows + threadIdx.x];
      most = word > most ? word : most;
    }
    atomicMax(p.best + threadIdx.x, most);
  }
  __syncthreads();
}

// ---------------------------------------------------------------------------- norm and product
// *logits* [rows][vocabulary] fp32 receives the head's, unless it is null. The gains must be on their
// way.
__device__ __forceinline__ void normed_stage(const FusedParams& p, Worker& w, Scene& s, int layer,
                                             int product, float* logits) {
  const int rows = p.requests * TOKENS;
  const bool embedded = layer == 0 && product == kQkv;
  Columns x(w.columns);
#pragma unroll 1
  for (int b = 0; b < kHiddenBlocks; b += kPass) {
    Blocks some;
    some.load(rows, (warp_id() * kHiddenBlocks + b) * 32, kHiddenBlocks - b, [&](int row) {
      return embedded ? p.embedding + (long long)s.token[row] * HIDDEN
                      : p.hidden + (long long)row * HIDDEN;
    });
    some.store(x, b);
  }
  normalise(x, w.gains, s.sums);
  const int units = units_of(product);
  const Share share = w.shares[product];
  Best best;
  float inverse = 0;  // 1 / rms of the token row that this thread ends
  const int together = product == kQkv ? kFlat : 1;
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; tile += together) {
    const int last = min(tile + together, share.end) - 1;
    if (product == kQkv) {
      if (tile != share.begin) __syncthreads();  // the parts before have been read
#pragma unroll 1
      for (int i = 0; i <= last - tile; ++i) {
        Tile16 sum;
        sum.clear();
        sum.multiply(w.ring, x, units, 0, true);
        sum.leave(w.meet.parts + i / 2 * (kWarps * kPartFloats) + i % 2 * 8 * kRows, true);
      }
      __syncthreads();
    }
    const float* parts = w.meet.parts;
    if (product != kQkv) {
      Tile16 sum;
      sum.clear();
      sum.multiply(w.ring, x, units, 0, false);
      parts = w.meet.join(sum);
    }
    if (tile == share.begin) {
      int items = (product == kGateUp ? 8 : 16) * kRows;  // of qkv too: four tiles of 4 kRows
      int row = threadIdx.x / (kThreads / items) % kRows;
      float squares = 0;
#pragma unroll 4
      for (int i = 0; i < kWarps; ++i) squares += s.sums[i * kRows + row];
      inverse = rsqrtf(squares / HIDDEN + p.epsilon);
    }
    if (product == kQkv) end_qkv(p, s, layer, tile, last, inverse, parts);
    if (product == kGateUp) end_gate_up(p, tile, inverse, parts);
    if (product == kHead) {
      Ending<16 * kRows> end;
      int row = end.item % kRows, token = tile * 16 + end.item / kRows;
      float logit = end.add(parts, kPartFloats, end.item) * inverse;
      if (logits && end.leads && row < rows) logits[(long long)row * p.vocabulary + token] = logit;
      if (logit > best.logit) best.logit = logit, best.token = token;
    }
  }
  if (product == kHead) keep_best(p, w, best);
}

// ---------------------------------------------------------------------------- product and sum
// An element that other blocks may have written in this launch.
__device__ __forceinline__ float load_element(const ELEMENT* from) {
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

__device__ __forceinline__ void added_stage(const FusedParams& p, Worker& w, Scene& s, int layer,
                                            int which) {
  const int rows = p.requests * TOKENS, width = which == kOut ? HEADS_WIDTH : FFN;
  const int blocks = units_of(which), offset = warp_id() * blocks * 32;
  const ELEMENT* from = which == kOut ? p.attended : p.gated;
  const bool embedded = layer == 0 && which == kOut;
  auto at = [&](int row) { return from + (long long)row * width; };
  Columns x(w.columns);
  const Share share = w.shares[which];
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    Ending<16 * kRows> end;
    const int row = end.item % kRows, channel = tile * 16 + end.item / kRows;
    const bool mine = end.leads && row < rows;
    Blocks some;
    some.load(rows, offset, blocks, at);
    float before = 0;
    if (mine)
      before = load_element((embedded ? p.embedding + (long long)s.token[row] * HIDDEN
                                      : p.hidden + (long long)row * HIDDEN) + channel);
    Tile16 sum;
    sum.clear();
#pragma unroll 1
    for (int b = 0; b < blocks; b += kPass) {
      some.store(x, 0);
      if (b + kPass < blocks) some.load(rows, offset + (b + kPass) * 32, blocks - b - kPass, at);
      sum.multiply(w.ring, x, min(kPass, blocks - b), 0, false);
    }
    const float* parts = w.meet.join(sum);
    float product = end.add(parts, kPartFloats, end.item);
    if (mine) p.hidden[(long long)row * HIDDEN + channel] = rs::from_float<ELEMENT>(before + product);
  }
}

}  // namespace fused
