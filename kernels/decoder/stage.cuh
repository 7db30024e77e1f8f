// Stages around a decode step's products: 16-bit elements, fp32 inside. Row r = b * tokens + t.
//
// embed       text and lengths -> h [rows, width], positions [rows], draft [requests, tokens - 1]
// split_rope  qkv [rows, (q + 2 k heads) HEAD_DIM] -> q, k rotated and v, each without gaps
// record      the committed tokens of a step -> text
//
// A request of negative length is idle: its rows of h are zero and its positions -1. Widths are
// multiples of 8, pointers 16-byte aligned; any grid, any block.
#pragma once
#include "small_ops/stage.cuh"

struct EmbedParams {
  const ELEMENT* table;  // [vocabulary, width]
  const int* text;       // [requests, text_size]
  const int* lengths;    // [requests]
  ELEMENT* h;
  int* positions;
  int* draft;
  int requests, tokens, width, text_size;
};

struct SplitRopeParams {
  const ELEMENT* qkv;
  const int* positions;
  const float2* turns;  // [HEAD_DIM / 2], as small_ops has them
  ELEMENT* q;
  ELEMENT* k;
  ELEMENT* v;
  int rows, q_heads, k_heads;
};

struct RecordParams {
  const int* tokens;     // [requests, tokens]
  const int* emitted;    // [requests]
  const int* positions;  // [requests * tokens], as embed wrote them
  int* text;
  int requests, new_tokens, text_size;
};

namespace decoder {

// Well mixed bits of a counter (splitmix64).
__device__ __forceinline__ unsigned long long mix(unsigned long long x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Two normal numbers from 64 bits, by Box and Muller.
__device__ __forceinline__ void two_normals(unsigned long long bits, float& a, float& b) {
  float u = (static_cast<unsigned>(bits >> 40) + 0.5f) * 0x1p-24f;
  float radius = sqrtf(-2 * logf(u)), sine, cosine;
  rs::sincos_turns(static_cast<unsigned>(bits & 0xffffffu) * 0x1p-24f, sine, cosine);
  a = radius * cosine;
  b = radius * sine;
}

__device__ __forceinline__ void fill_normal_all(ELEMENT* y, long long count,
                                                unsigned long long stream, float mean,
                                                float deviation, int block, int blocks) {
  unsigned long long base = mix(stream);
  long long step = static_cast<long long>(blocks) * blockDim.x;
  for (long long i = static_cast<long long>(block) * blockDim.x + threadIdx.x; i < count / 8;
       i += step) {
    float x[8];
    for (int j = 0; j < 4; ++j) {
      two_normals(mix(base + i * 4 + j), x[2 * j], x[2 * j + 1]);
      x[2 * j] = mean + deviation * x[2 * j];
      x[2 * j + 1] = mean + deviation * x[2 * j + 1];
    }
    small_ops::store(y + i * 8, make_uint4(rs::pack2<ELEMENT>(x[0], x[1]),
                                           rs::pack2<ELEMENT>(x[2], x[3]),
                                           rs::pack2<ELEMENT>(x[4], x[5]),
                                           rs::pack2<ELEMENT>(x[6], x[7])));
  }
}

}  // namespace decoder

__device__ __forceinline__ void embed_stage(const EmbedParams& p, int block, int blocks) {
  int chunks = p.width / 8, rows = p.requests * p.tokens;
  for (int item = block * blockDim.x + threadIdx.x; item < rows * chunks;
       item += blocks * blockDim.x) {
    int row = item / chunks, chunk = item % chunks, b = row / p.tokens, t = row % p.tokens;
    int length = p.lengths[b], position = length < 0 ? -1 : length + t;
    const int* text = p.text + static_cast<long long>(b) * p.text_size;
    int last = p.text_size - 1;
    uint4 value = make_uint4(0, 0, 0, 0);
    if (length >= 0) {
      long long token = text[min(position, last)];
      value = rs::load_narrow(p.table + token * p.width + chunk * 8);
    }
    small_ops::store(p.h + static_cast<long long>(row) * p.width + chunk * 8, value);
    if (chunk) continue;
    p.positions[row] = position;
    if (t < p.tokens - 1)
      p.draft[b * (p.tokens - 1) + t] = length < 0 ? -1 : text[min(position + 1, last)];
  }
}

// A thread takes 8 pairs (d, d + HEAD_DIM / 2) of one head.
__device__ __forceinline__ void split_rope_stage(const SplitRopeParams& p, int block, int blocks) {
  constexpr int kHalf = HEAD_DIM / 2, kChunks = kHalf / 8;
  int heads = p.q_heads + 2 * p.k_heads;
  for (int item = block * blockDim.x + threadIdx.x; item < p.rows * heads * kChunks;
       item += blocks * blockDim.x) {
    int chunk = item % kChunks, head = item / kChunks % heads, row = item / kChunks / heads;
    const ELEMENT* from = p.qkv + (static_cast<long long>(row) * heads + head) * HEAD_DIM + chunk * 8;
    uint4 low = rs::load_narrow(from), high = rs::load_narrow(from + kHalf);
    int position = p.positions[row], of_k = head - p.q_heads, of_v = of_k - p.k_heads;
    ELEMENT* to = of_k < 0   ? p.q + (static_cast<long long>(row) * p.q_heads + head) * HEAD_DIM
                  : of_v < 0 ? p.k + (static_cast<long long>(row) * p.k_heads + of_k) * HEAD_DIM
                             : p.v + (static_cast<long long>(row) * p.k_heads + of_v) * HEAD_DIM;
    if (of_v < 0 && position >= 0) {
      small_ops::Eight a(low), b(high);
      for (int e = 0; e < 8; ++e) {
        float2 turn = p.turns[chunk * 8 + e];
        float whole = turn.x * position, rest = fmaf(turn.x, position, -whole), sine, cosine;
        rs::sincos_turns(whole - rintf(whole) + fmaf(turn.y, position, rest), sine, cosine);
        float turned = a.v[e] * cosine - b.v[e] * sine;
        b.v[e] = b.v[e] * cosine + a.v[e] * sine;
        a.v[e] = turned;
      }
      low = a.rounded();
      high = b.rounded();
    }
    small_ops::store(to + chunk * 8, low);
    small_ops::store(to + chunk * 8 + kHalf, high);
  }
}

__device__ __forceinline__ void record_stage(const RecordParams& p, int block, int blocks) {
  for (int i = block * blockDim.x + threadIdx.x; i < p.requests * p.new_tokens;
       i += blocks * blockDim.x) {
    int b = i / p.new_tokens, t = i % p.new_tokens, length = p.positions[b * p.new_tokens];
    if (length < 0 || t >= p.emitted[b] || length + 1 + t >= p.text_size) continue;
    p.text[static_cast<long long>(b) * p.text_size + length + 1 + t] = p.tokens[i];
  }
}
