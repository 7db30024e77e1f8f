// Packs a page into the 4-bit cache once all its tokens are committed; part of kv_append/stage.cuh.
//
// The page before the one that the step writes to is packed from its 16-bit copy in the tail when
// the last step may have completed it: lengths[b] % PAGE_TOKENS < most_tokens. Packing it again
// gives the same bytes, so nothing remembers what has been done. This holds while the copy is
// there, which is so for 2 * most_tokens <= PAGE_TOKENS; whoever fills a slot must leave its last
// full page in the tail.
#pragma once

namespace kv_append {

struct Affine {  // x = nibble * scale + zero; both are rounded to fp16 before nibbles are chosen
  __half zero16;
  float zero;
  __half scale16;
  Divisor divisor;

  __device__ __forceinline__ Affine(float low, float high)
      : zero16(__float2half_rn(low)),
        zero(__half2float(zero16)),
        scale16(__float2half_rn(fmaxf(Divisor(15).divide(high - zero), 1e-6f))),
        divisor(__half2float(scale16)) {}
};

__device__ __forceinline__ unsigned char nibble(float x, const Divisor& scale) {
  return static_cast<unsigned char>(fminf(fmaxf(rintf(scale.divide(x)), 0), 15));
}

// Words of 16 tokens, from *nibbles* [16][HEAD_DIM] in shared memory to *block* in the order of
// mma fragments: the inverse of rs::k4_at (kKey) and rs::v4_at.
template <bool kKey>
__device__ __forceinline__ void write_words(const unsigned char* nibbles, unsigned char* block) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int part = 0; part < HEAD_DIM / 64; ++part) {
    unsigned words[4];
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      words[quad] = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        int token = kKey ? g + i % 2 * 8 : 2 * t + i / 4 + i % 4 / 2 * 8;
        int channel = kKey ? 4 * t + i % 4 / 2 * 2 + i / 4 : g + i % 2 * 8;
        unsigned value = nibbles[token * HEAD_DIM + part * 64 + quad * 16 + channel];
        words[quad] |= value << (4 * i);
      }
    }
    *reinterpret_cast<uint4*>(block + (part * 32 + lane) * 16) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// Rows row, row + kRows, ... of a tile, all on their way before the first is used.
using TileRows = uint4[rs::kTile / kRows];

// One tile of rs::kTile tokens, *first* its first token in the page.
__device__ __forceinline__ void pack_keys(const unsigned char* source, unsigned char* page,
                                          int first, unsigned char* nibbles) {
  int lane = threadIdx.x % 32, channel = lane % kLanes * 8, row = lane / kLanes;
  TileRows rows;
#pragma unroll
  for (int i = 0; i < rs::kTile / kRows; ++i)
    rows[i] = rs::load_stream(source + rs::k16_at(first + i * kRows + row, channel) * 2);
  Bounds bounds;
  float x[8];
#pragma unroll
  for (int i = 0; i < rs::kTile / kRows; ++i) {
    to_floats(rows[i], x);
    bounds.add(x);
  }
  bounds.join();
#pragma unroll
  for (int j = 0; j < 8; ++j) {  // from here on *low* is the rounded zero, *high* the rounded scale
    Affine affine(bounds.low[j], bounds.high[j]);
    bounds.low[j] = affine.zero;
    bounds.high[j] = affine.divisor.d;
    if (row) continue;
    __half* at = reinterpret_cast<__half*>(page + rs::k4_scale_at(first, channel + j));
    at[0] = affine.scale16;
    at[4] = affine.zero16;
  }
#pragma unroll
  for (int i = 0; i < rs::kTile / kRows; ++i) {
    int token = i * kRows + row;
    to_floats(rows[i], x);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      nibbles[token % 16 * HEAD_DIM + channel + j] =
          nibble(x[j] - bounds.low[j], Divisor(bounds.high[j]));
    if ((i + 1) * kRows % 16) continue;
    __syncwarp();
    write_words<true>(nibbles, page + rs::k4_at(first + token / 16 * 16, 0).offset);
    __syncwarp();
  }
}

__device__ __forceinline__ void pack_values(const unsigned char* source, unsigned char* page,
                                            int first, unsigned char* nibbles) {
  int lane = threadIdx.x % 32, channel = lane % kLanes * 8, row = lane / kLanes;
  TileRows rows;
#pragma unroll
  for (int i = 0; i < rs::kTile / kRows; ++i)
    rows[i] = rs::load_stream(source + rs::v16_at(first + i * kRows + row, channel) * 2);
#pragma unroll
  for (int i = 0; i < rs::kTile / kRows; ++i) {
    int token = i * kRows + row;
    float x[8];
    to_floats(rows[i], x);
    float low = x[0], high = x[0];
#pragma unroll
    for (int j = 1; j < 8; ++j) {
      low = fminf(low, x[j]);
      high = fmaxf(high, x[j]);
    }
#pragma unroll
    for (int step = 1; step < rs::kValueGroup / 8; step *= 2) {
      low = fminf(low, __shfl_xor_sync(0xffffffffu, low, step));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, step));
    }
    Affine affine(low, high);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      nibbles[token % 16 * HEAD_DIM + channel + j] = nibble(x[j] - affine.zero, affine.divisor);
    if (channel % rs::kValueGroup == 0) {
      __half* at = reinterpret_cast<__half*>(page + rs::v4_scale_at(first + token, channel));
      at[0] = affine.scale16;
      at[4] = affine.zero16;
    }
    if ((i + 1) * kRows % 16) continue;
    __syncwarp();
    write_words<false>(nibbles, page + rs::v4_at(first + token / 16 * 16, 0).offset);
    __syncwarp();
  }
}

// Keys or values of the page that the last step may have completed; *nibbles* are 16 * HEAD_DIM
// bytes of the warp.
__device__ __forceinline__ void pack_page(const KvAppendParams& p, int request, int head,
                                          bool values, unsigned char* nibbles) {
  int length = p.lengths[request], page = length / PAGE_TOKENS - 1;
  if (length < PAGE_TOKENS || length % PAGE_TOKENS >= p.most_tokens) return;
  int id = p.table[(long long)request * p.max_pages + page];
  const unsigned char* source = page_at(p, request, head, page, id);
  unsigned char* target = p.cache + ((long long)id * p.kv_heads + head) * rs::kPageBytes;
  for (int first = 0; first < PAGE_TOKENS; first += rs::kTile) {
    if (values) pack_values(source, target, first, nibbles);
    else pack_keys(source, target, first, nibbles);
  }
}

}  // namespace kv_append
