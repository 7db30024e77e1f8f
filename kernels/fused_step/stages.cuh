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

using HiddenGains = Gains<kHiddenBlocks>;

struct Worker {
  Ring ring;
  Meet meet;
  int index, count;  // among the workers
};

__device__ __forceinline__ int qkv_tiles(const FusedParams& p) {
  return (p.q_heads + 2 * p.kv_heads) * HEAD_DIM / 8;
}
constexpr int kGateTiles = FFN / 8, kHiddenTiles = HIDDEN / 16;
__device__ __forceinline__ int head_tiles(const FusedParams& p) { return p.vocabulary / 16; }

// The products that follow a norm.
enum Normed { kQkv, kGateUp, kHead };
// The products that are added to the residual stream.
enum Added { kOut, kDown };

__device__ __forceinline__ int tiles_of(const FusedParams& p, Normed what) {
  return what == kQkv ? qkv_tiles(p) : what == kGateUp ? kGateTiles : head_tiles(p);
}
__device__ __forceinline__ HiddenGains gains_of(const FusedParams& p, int layer, Normed what) {
  int norm = what == kHead ? 2 * p.layers : 2 * layer + what;
  return HiddenGains(p.gains + (long long)norm * HIDDEN);
}

// ---------------------------------------------------------------------------- ends of tiles
// Bounds of a page's keys in one channel; *value* of this lane's token row, whose request's other
// rows are the next lanes. By the lanes of a request's first row.
__device__ __forceinline__ void extend_bounds(const FusedParams& p, const Scene& s, ELEMENT* minmax,
                                              int row, int head, int channel, float value) {
  bool first = row % TOKENS == 0;
  int length = row < p.requests * TOKENS ? s.length[row / TOKENS] : -1;
  float low = 0, high = 0;
#pragma unroll
  for (int t = 0; t < TOKENS; ++t) {
    float v = t ? __shfl_down_sync(0xffffffffu, value, t) : value;
    if (!first || length < 0) continue;
    int at = length + t;
    long long physical = s.page[row + t];
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

// Four channels of a head and their rotary partners, by 4 * kRows threads.
__device__ __forceinline__ void end_qkv(const FusedParams& p, const Scene& s, int layer, int tile,
                                        int i, const float* parts) {
  constexpr int kTilesOfHead = HEAD_DIM / 8;
  const int rows = p.requests * TOKENS, pair = i / kRows, row = i % kRows;
  int head = tile / kTilesOfHead, channel = tile % kTilesOfHead * 4 + pair;
  bool mine = row < rows && !s.idle(row);
  float inverse = inverse_rms(s.sums, row, p.epsilon);
  float low = joined(parts, pair, row) * inverse, high = joined(parts, pair + 4, row) * inverse;
  if (head < p.q_heads + p.kv_heads) {
    float2 turn = s.turn[min(row, rows - 1)][channel];
    float turned = low * turn.x - high * turn.y;
    high = high * turn.x + low * turn.y;
    low = turned;
  }
  ELEMENT first = rs::from_float<ELEMENT>(low), second = rs::from_float<ELEMENT>(high);
  bool query = head < p.q_heads, value = head >= p.q_heads + p.kv_heads;
  ELEMENT *to = nullptr, *partner = nullptr;
  if (query) {
    to = p.q + ((long long)row * p.q_heads + head) * HEAD_DIM + channel;
    partner = to + HEAD_DIM / 2;
  } else {
    head -= value ? p.q_heads + p.kv_heads : p.q_heads;
    if (mine) {
      unsigned char* page = p.cache + layer * p.cache_bytes +
                            ((long long)s.page[row] * p.kv_heads + head) * rs::kPageBytes;
      int token = s.position(row) % PAGE_TOKENS, offset = value ? 16 * HEAD_DIM : 0;
      to = reinterpret_cast<ELEMENT*>(page) + offset + rs::k16_at(token, channel);
      partner = reinterpret_cast<ELEMENT*>(page) + offset +
                rs::k16_at(token, channel + HEAD_DIM / 2);
    }
  }
  if (mine) *to = first, *partner = second;
  if (query || value || p.minmax == nullptr) return;
  ELEMENT* minmax = p.minmax + layer * p.minmax_count;
  extend_bounds(p, s, minmax, row, head, channel, rs::to_float(first));
  extend_bounds(p, s, minmax, row, head, channel + HEAD_DIM / 2, rs::to_float(second));
}

// Eight gates and the ups that belong to them, by 8 * kRows threads.
__device__ __forceinline__ void end_gate_up(const FusedParams& p, const Scene& s, int tile, int i,
                                            const float* parts) {
  int row = i % kRows, at = i / kRows;
  float inverse = inverse_rms(s.sums, row, p.epsilon);
  float gate = joined(parts, at, row) * inverse, up = joined(parts, at + 8, row) * inverse;
  float silu = __fdividef(gate, 1 + rs::exp2_fast(gate * -1.44269504f));
  if (row < p.requests * TOKENS)
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
  // Lanes of one token row differ by multiples of kRows.
#pragma unroll 1
  for (int d = kRows; d < 32; d *= 2) {
    float logit = __shfl_xor_sync(0xffffffffu, best.logit, d);
    int token = __shfl_xor_sync(0xffffffffu, best.token, d);
    if (logit > best.logit || (logit == best.logit && token < best.token))
      best.logit = logit, best.token = token;
  }
  __syncthreads();  // the last tile's parts have been read
  auto* words = reinterpret_cast<unsigned long long*>(w.meet.parts);  // [kWarps][kRows]
  if (lane_id() < kRows)
    words[warp_id() * kRows + lane_id()] =
        best.token == 0x7fffffff ? 0 : verify::pack_best(best.logit, best.token);
  __syncthreads();
  if (threadIdx.x < p.requests * TOKENS) {
    unsigned long long most = 0;
#pragma unroll 4
    for (int i = 0; i < kWarps; ++i) {
      unsigned long long word = words[i * kRows + threadIdx.x];
      most = word > most ? word : most;
    }
    atomicMax(p.best + threadIdx.x, most);
  }
  __syncthreads();
}

// ---------------------------------------------------------------------------- norm and product
// *logits* [rows][vocabulary] fp32 receives the head's, unless it is null.
__device__ __forceinline__ void normed_stage(const FusedParams& p, Worker& w, Scene& s, int layer,
                                             Normed what, const HiddenGains& gains,
                                             float* logits) {
  const int rows = p.requests * TOKENS;
  const bool embedded = layer == 0 && what == kQkv;
  Columns<kHiddenBlocks> x;
  load_columns(x, rows, warp_id() * kHiddenBlocks * 32, [&](int row) {
    return embedded ? p.embedding + (long long)s.token[row] * HIDDEN
                    : p.hidden + (long long)row * HIDDEN;
  });
  normalise(x, gains, s.sums);
  Share share(tiles_of(p, what), w.index, w.count);
  Best best;
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    Tile16 sum;
    sum.clear();
    if (what == kQkv) {
#pragma unroll
      for (int b = 0; b < kHiddenBlocks; b += 2) {
        Unit unit = w.ring.take();
        sum.add8(unit.low, x.x[b]);
        sum.add8(unit.high, x.x[b + 1]);
      }
    } else {
#pragma unroll
      for (int b = 0; b < kHiddenBlocks; ++b) sum.add(w.ring.take(), x.x[b]);
    }
    const int threads = what == kQkv ? 4 * kRows : what == kGateUp ? 8 * kRows : 16 * kRows;
    float* parts = w.meet.join(sum);
    w.ring.release();
    const int i = w.meet.place(threads);
    if (i >= 0) {
      if (what == kQkv) end_qkv(p, s, layer, tile, i, parts);
      if (what == kGateUp) end_gate_up(p, s, tile, i, parts);
      if (what == kHead) {
        int row = i % kRows, token = tile * 16 + i / kRows;
        float logit = joined(parts, i / kRows, row) * inverse_rms(s.sums, row, p.epsilon);
        if (logits && row < rows) logits[(long long)row * p.vocabulary + token] = logit;
        if (logit > best.logit) best.logit = logit, best.token = token;
      }
    }
    w.meet.next();
  }
  if (what == kHead) keep_best(p, w, best);
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

// Blocks of the inner dimension that are in registers at a time.
constexpr int blocks_of_pass(int blocks) { return blocks % 4 == 0 ? 4 : blocks % 2 == 0 ? 2 : 1; }
constexpr int kPass = blocks_of_pass(kHeadsBlocks) < blocks_of_pass(kFfnBlocks)
                          ? blocks_of_pass(kHeadsBlocks)
                          : blocks_of_pass(kFfnBlocks);

__device__ __forceinline__ void added_stage(const FusedParams& p, Worker& w, Scene& s, int layer,
                                            Added what) {
  const int rows = p.requests * TOKENS, width = what == kOut ? HEADS_WIDTH : FFN;
  const int passes = (what == kOut ? kHeadsBlocks : kFfnBlocks) / kPass;
  const ELEMENT* from = what == kOut ? p.attended : p.gated;
  const bool embedded = layer == 0 && what == kOut;
  auto at = [&](int row) { return from + (long long)row * width; };
  Share share(kHiddenTiles, w.index, w.count);
#pragma unroll 1
  for (int tile = share.begin; tile < share.end; ++tile) {
    const int offset = warp_id() * passes * kPass * 32;
    const int i = w.meet.place(16 * kRows), row = i % kRows, channel = tile * 16 + i / kRows;
    const bool mine = i >= 0 && row < rows;
    Columns<kPass> x, next;
    load_columns(x, rows, offset, at);
    float before = 0;
    if (mine)
      before = load_element((embedded ? p.embedding + (long long)s.token[row] * HIDDEN
                                      : p.hidden + (long long)row * HIDDEN) + channel);
    Tile16 sum;
    sum.clear();
#pragma unroll 1
    for (int pass = 1;; ++pass) {
      if (pass < passes) load_columns(next, rows, offset + pass * kPass * 32, at);
#pragma unroll
      for (int b = 0; b < kPass; ++b) sum.add(w.ring.take(), x.x[b]);
      if (pass >= passes) break;
      x = next;
    }
    const float* parts = w.meet.join(sum);
    w.ring.release();
    if (mine)
      p.hidden[(long long)row * HIDDEN + channel] =
          rs::from_float<ELEMENT>(before + joined(parts, i / kRows, row));
    w.meet.next();
  }
}

}  // namespace fused
