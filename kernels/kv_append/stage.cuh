// Appends the step's keys and values to the paged cache and recomputes the touched pages' bounds.
//
//   k, v     [requests, tokens, kv_heads, HEAD_DIM] ELEMENT, rotary embedding applied
//   cache    [physical page, kv_heads] of rs::kPageBytes, layout in common/cache.cuh
//   minmax   [physical page, kv_heads, 2, HEAD_DIM] ELEMENT: least and largest key of each channel
//   tail     4 bits only: [requests, 2, kv_heads] of rs::kPageBytes16
//   table    [requests, max_pages] int: logical -> physical page
//   lengths  [requests] int: committed tokens; below 0 marks an idle slot, which is left alone
//
// Token t of request b goes to position lengths[b] + t. Rejected drafts are overwritten by the
// next step, so bounds that were only widened would keep keys that are gone. The bounds of a
// touched page are therefore taken anew over positions page start .. lengths[b] + tokens - 1, the
// committed ones read back from the cache: at most a page of keys a head. A page whose drafts were
// all rejected is stale until a step touches it again, and no step scores it before.
//
// 8 bits: one scale a token and head, the largest magnitude / 127; the bounds hold the dequantised
// keys, rounded to ELEMENT, because those are what attention multiplies.
// 4 bits: K's scales span a tile of tokens, so tokens wait in the 16-bit tail, and pack4.cuh packs
// a page once all its tokens are committed.
//
// A task is one page of one (request, KV head), done by one warp. No atomics, no workspace.
#pragma once
#include "common/cache.cuh"
#include "kv_append/inline.cuh"

struct KvAppendParams {
  const ELEMENT* k;
  const ELEMENT* v;
  unsigned char* cache;
  ELEMENT* minmax;
  unsigned char* tail;
  const int* table;
  const int* lengths;
  int requests, tokens, kv_heads, max_pages;
  int most_tokens;  // the largest `tokens` of any step; 4 bits only
};

namespace kv_append {

constexpr int kLanes = HEAD_DIM / 8;  // lanes that share a token's row, 8 channels each
constexpr int kRows = 32 / kLanes;    // tokens that a warp handles side by side
constexpr int kInFlight = 8;          // rows of committed keys that a lane waits for at once
constexpr int kNew = 4;               // new rows likewise

// Dynamic shared memory of the stage.
constexpr int shared_bytes(int threads) { return KV_BITS == 4 ? threads / 32 * 16 * HEAD_DIM : 0; }

struct Bounds {
  float low[8], high[8];  // of the lane's channels

  __device__ __forceinline__ Bounds() {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      low[i] = __int_as_float(0x7f800000);
      high[i] = -low[i];
    }
  }
  __device__ __forceinline__ void add(const float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      low[i] = fminf(low[i], x[i]);
      high[i] = fmaxf(high[i], x[i]);
    }
  }
  // Over the lanes that hold the same channels of other tokens.
  __device__ __forceinline__ void join() {
#pragma unroll
    for (int step = kLanes; step < 32; step *= 2)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        low[i] = fminf(low[i], __shfl_xor_sync(0xffffffffu, low[i], step));
        high[i] = fmaxf(high[i], __shfl_xor_sync(0xffffffffu, high[i], step));
      }
  }
};

__device__ __forceinline__ void to_floats(const uint4& raw, float (&x)[8]) {
  ELEMENT v[8];
  memcpy(v, &raw, 16);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = rs::to_float(v[i]);
}

__device__ __forceinline__ uint4 to_elements(const float (&x)[8]) {
  return make_uint4(rs::pack2<ELEMENT>(x[0], x[1]), rs::pack2<ELEMENT>(x[2], x[3]),
                    rs::pack2<ELEMENT>(x[4], x[5]), rs::pack2<ELEMENT>(x[6], x[7]));
}

// Where the page of one head is written: the cache, or for 4 bits the tail.
__device__ __forceinline__ unsigned char* page_at(const KvAppendParams& p, int request, int head,
                                                  int page, int id) {
#if KV_BITS == 4
  return p.tail + (((long long)request * 2 + page % 2) * p.kv_heads + head) * rs::kPageBytes16;
#else
  return p.cache + ((long long)id * p.kv_heads + head) * rs::kPageBytes;
#endif
}

#if KV_BITS == 8
struct Row {  // a lane's 8 channels of a cached key
  uint2 bytes;
  float scale;
};
__device__ __forceinline__ Row load_key(const unsigned char* page, int token, int channel) {
  return {load8(page + rs::k8_at(token, channel)), load4(page + rs::k8_scale_at(token))};
}
__device__ __forceinline__ void to_floats(const Row& row, float (&x)[8]) {
  unsigned char bytes[8];
  memcpy(bytes, &row.bytes, 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = (static_cast<int>(bytes[i]) - 128) * row.scale;
}
// The lanes of a token's row agree on its scale; all lanes of the warp must call.
__device__ __forceinline__ Row quantised(const uint4& raw) {
  float x[8], most = 0;
  to_floats(raw, x);
#pragma unroll
  for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(x[i]));
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2)
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  Row row;
  row.scale = fmaxf(Divisor(127).divide(most), 1e-20f);
  Divisor scale(row.scale);
  unsigned char bytes[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float level = fminf(fmaxf(rintf(scale.divide(x[i])), -127), 127);
    bytes[i] = static_cast<unsigned char>(static_cast<int>(level) + 128);
  }
  memcpy(&row.bytes, bytes, 8);
  return row;
}
#else
using Row = uint4;
__device__ __forceinline__ Row load_key(const unsigned char* page, int token, int channel) {
  return rs::load_stream(page + rs::k16_at(token, channel) * 2);
}
#endif

// Writes 8 channels of a token; *x* receives the key as it will be read.
__device__ __forceinline__ void put(unsigned char* page, int token, int channel, const uint4& k,
                                    const uint4& v, bool mine, float (&x)[8]) {
#if KV_BITS == 8
  Row key = quantised(k), value = quantised(v);
  to_floats(key, x);
  if (!mine) return;
  *reinterpret_cast<uint2*>(page + rs::k8_at(token, channel)) = key.bytes;
  *reinterpret_cast<uint2*>(page + rs::v8_at(token, channel)) = value.bytes;
  if (channel == 0) *reinterpret_cast<float*>(page + rs::k8_scale_at(token)) = key.scale;
  if (channel == 8) *reinterpret_cast<float*>(page + rs::v8_scale_at(token)) = value.scale;
#else
  to_floats(k, x);
  if (!mine) return;
  *reinterpret_cast<uint4*>(page + rs::k16_at(token, channel) * 2) = k;
  *reinterpret_cast<uint4*>(page + rs::v16_at(token, channel) * 2) = v;
#endif
}

// New keys and values of tokens t, t + kRows, ..., the first of them at *at*; then zeros.
__device__ __forceinline__ void load_new(const KvAppendParams& p, long long at, int t,
                                         uint4 (&k)[kNew], uint4 (&v)[kNew]) {
  long long step = (long long)p.kv_heads * HEAD_DIM * kRows;
#pragma unroll
  for (int i = 0; i < kNew; ++i) {
    k[i] = v[i] = make_uint4(0, 0, 0, 0);
    if (t + i * kRows >= p.tokens) continue;
    k[i] = rs::load_stream(p.k + at + i * step);
    v[i] = rs::load_stream(p.v + at + i * step);
  }
}

// Page number *slot* of those that this step touches, of one request and head.
__device__ __forceinline__ void append_page(const KvAppendParams& p, int request, int head,
                                            int slot) {
  int lane = threadIdx.x % 32, channel = lane % kLanes * 8, row = lane / kLanes;
  long long token_stride = (long long)p.kv_heads * HEAD_DIM;
  long long at = (long long)request * p.tokens * token_stride + head * HEAD_DIM + channel;
  uint4 k[kNew], v[kNew];
  load_new(p, at + row * token_stride, row, k, v);  // travels beside the length
  int length = p.lengths[request];
  int page = length / PAGE_TOKENS + slot, first = page * PAGE_TOKENS;
  if (length < 0 || first >= length + p.tokens) return;
  int id = p.table[(long long)request * p.max_pages + page];
  unsigned char* tile = page_at(p, request, head, page, id);
  Bounds bounds;
  int committed = length - first;  // below 1 on all pages but the first
  for (int base = 0; base < committed; base += kInFlight * kRows) {
    Row rows[kInFlight];
    float x[8];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      int token = base + i * kRows + row;
      if (token < committed) rows[i] = load_key(tile, token, channel);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (base + i * kRows + row >= committed) continue;
      to_floats(rows[i], x);
      bounds.add(x);
    }
  }
  for (int base = 0; base < p.tokens; base += kNew * kRows) {
    if (base) load_new(p, at + (base + row) * token_stride, base + row, k, v);
#pragma unroll
    for (int i = 0; i < kNew; ++i) {
      if (base + i * kRows >= p.tokens) break;
      int t = base + i * kRows + row, token = length + t - first;
      bool mine = t < p.tokens && token >= 0 && token < PAGE_TOKENS;
      float x[8];
      put(tile, token, channel, k[i], v[i], mine, x);
      if (mine) bounds.add(x);
    }
  }
  bounds.join();
  ELEMENT* out = p.minmax + ((long long)id * p.kv_heads + head) * (2 * HEAD_DIM) + channel;
  if (row == 0) *reinterpret_cast<uint4*>(out) = to_elements(bounds.low);
  if (row == 1) *reinterpret_cast<uint4*>(out + HEAD_DIM) = to_elements(bounds.high);
}

}  // namespace kv_append

#if KV_BITS == 4
#include "kv_append/pack4.cuh"
#endif

// The stage without its fence, which a kernel of its own does not need. Any grid, any block of
// whole warps. Shared memory: kv_append::shared_bytes(blockDim.x).
__device__ __forceinline__ void kv_append_all(const KvAppendParams& p, int block, int blocks,
                                              unsigned char* shared) {
  int touched = (p.tokens + PAGE_TOKENS - 2) / PAGE_TOKENS + 1;  // pages at most
  int parts = touched + (KV_BITS == 4 ? 2 : 0);  // 4 bits: keys and values to pack
  int pairs = p.requests * p.kv_heads;
  // Neighbours in the list go to different SMs, so that few tasks spread over all of them.
  for (int task = threadIdx.x / 32 * blocks + block; task < pairs * parts;
       task += blockDim.x / 32 * blocks) {
    int part = task / pairs, pair = task - part * pairs;
    int request = pair / p.kv_heads, head = pair - request * p.kv_heads;
    if (part < touched) {
      kv_append::append_page(p, request, head, part);
    } else {
#if KV_BITS == 4
      unsigned char* nibbles = shared + threadIdx.x / 32 * (16 * HEAD_DIM);
      kv_append::pack_page(p, request, head, part > touched, nibbles);
#endif
    }
  }
}

__device__ __forceinline__ void kv_append_stage(const KvAppendParams& p, int block, int blocks,
                                                unsigned char* shared) {
  kv_append_all(p, block, blocks, shared);
  rs::fence_async_global();  // attention and scoring read by bulk copy
  __syncthreads();           // and the next stage may reuse the shared memory
}
