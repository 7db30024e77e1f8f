// Where a token's K and V stand inside the cache, for 16, 8 and 4 bits; kernels/cache_layout.py is
// the NumPy twin.
//
// cache [physical page][KV head] of kPageBytes each. A page is cut into tiles of kTile tokens, one
// contiguous piece each, so that one bulk copy brings K, V and scales together:
//   tile: K block, V block, then (8 and 4 bits) the scales
// 16 bits: a block is [kTile][HEAD_DIM] elements. Row r keeps its 16-byte chunk c at c ^ (r % 8):
//   eight rows of one chunk then lie in eight different bank groups of shared memory.
// 8 bits: a block is [kTile][HEAD_DIM] bytes, value + 128, chunks swizzled likewise; then
//   k_scale f32 [kTile], v_scale f32 [kTile]. x = (byte - 128) * scale.
// 4 bits: a block is words of 8 nibbles in the order of mma fragments (k4_at, v4_at); then K's scale
//   and zero per channel of the tile, V's per token and 32 channels, fp16. x = nibble * scale +
//   zero. Pages that are not full of committed tokens stand in `tail` instead, in the 16-bit layout:
//   tail [slot][2][KV head] of kPageBytes16, logical page p at index p % 2. A page is read from
//   the 4-bit cache when p < lengths[b] / PAGE_TOKENS, from the tail otherwise.
#pragma once

#ifndef ELEMENT
#define ELEMENT __nv_bfloat16
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef PAGE_TOKENS
#define PAGE_TOKENS 16
#endif
#ifndef KV_BITS
#define KV_BITS 16
#endif

namespace rs {

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "rows of 8 or 16 chunks");
static_assert(PAGE_TOKENS % 16 == 0, "tiles of 16 tokens");
static_assert(KV_BITS == 16 || KV_BITS == 8 || KV_BITS == 4, "see the header");

// Tokens of a tile; for 4 bits also the group that shares K's scales.
constexpr int kTile = KV_BITS == 4 && PAGE_TOKENS % 32 == 0 ? 32 : 16;
constexpr int kTilesPerPage = PAGE_TOKENS / kTile;
constexpr int kBlockBytes = kTile * HEAD_DIM * KV_BITS / 8;  // K or V of a tile
// Channels that share a token's scale of V; 4 bits only.
constexpr int kValueGroup = 32;
constexpr int kKeyScaleBytes = KV_BITS == 8 ? kTile * 4 : KV_BITS == 4 ? HEAD_DIM * 4 : 0;
constexpr int kValueScaleBytes =
    KV_BITS == 8 ? kTile * 4 : KV_BITS == 4 ? kTile * HEAD_DIM / kValueGroup * 4 : 0;
constexpr int kTileBytes = 2 * kBlockBytes + kKeyScaleBytes + kValueScaleBytes;
constexpr int kPageBytes = kTilesPerPage * kTileBytes;          // of one KV head
constexpr int kTileBytes16 = 16 * HEAD_DIM * 2 * 2;             // a tile of the 16-bit layout
constexpr int kPageBytes16 = PAGE_TOKENS / 16 * kTileBytes16;   // a tail page of one KV head

// ---------------------------------------------------------------------------- 16 bits
// Element offset in a page of the 16-bit layout; 8 channels from a multiple of 8 are contiguous.
__device__ __forceinline__ int k16_at(int token, int channel) {
  int row = token % 16, chunk = channel / 8 ^ row % 8;
  return token / 16 * (kTileBytes16 / 2) + row * HEAD_DIM + chunk * 8 + channel % 8;
}
__device__ __forceinline__ int v16_at(int token, int channel) {
  return 16 * HEAD_DIM + k16_at(token, channel);
}

// ---------------------------------------------------------------------------- 8 bits
// Byte offset in a page; 16 channels from a multiple of 16 are contiguous.
__device__ __forceinline__ int k8_at(int token, int channel) {
  constexpr int kRows = 128 / HEAD_DIM;  // rows in 128 bytes
  int row = token % 16, chunk = channel / 16 ^ row / kRows % (HEAD_DIM / 16);
  return token / 16 * (16 * HEAD_DIM * 2 + 128) + row * HEAD_DIM + chunk * 16 + channel % 16;
}
__device__ __forceinline__ int v8_at(int token, int channel) {
  return 16 * HEAD_DIM + k8_at(token, channel);
}
// Byte offset of the token's fp32 scale.
__device__ __forceinline__ int k8_scale_at(int token) {
  return token / 16 * (16 * HEAD_DIM * 2 + 128) + 2 * 16 * HEAD_DIM + token % 16 * 4;
}
__device__ __forceinline__ int v8_scale_at(int token) { return k8_scale_at(token) + 64; }

// ---------------------------------------------------------------------------- 4 bits
// A nibble's place: bits *shift* to *shift* + 3 of the word at byte *offset* of a page.
struct Nibble {
  int offset, shift;
};
// Words stand as [16 tokens][64 channels][lane][4]: lane 4 g + t holds, of the word's 16 channels,
// 4 t .. 4 t + 3 of tokens g and g + 8. Nibbles i and i + 4 are a fragment's low and high half.
__device__ __forceinline__ Nibble k4_at(int token, int channel) {
  int row = token % 16, at = channel % 16;
  int lane = row % 8 * 4 + at / 4, register_ = at % 4 / 2 * 2 + row / 8;
  int word = ((token % kTile / 16 * (HEAD_DIM / 64) + channel / 64) * 32 + lane) * 4 +
             channel % 64 / 16;
  return {token / kTile * kTileBytes + word * 4, (register_ + at % 2 * 4) * 4};
}
// Lane 4 g + t holds, of the word's 16 channels, g and g + 8 of tokens 2 t, 2 t + 1, 2 t + 8,
// 2 t + 9.
__device__ __forceinline__ Nibble v4_at(int token, int channel) {
  int row = token % 16, at = channel % 16;
  int lane = at % 8 * 4 + row % 8 / 2, register_ = row / 8 * 2 + at / 8;
  int word = ((token % kTile / 16 * (HEAD_DIM / 64) + channel / 64) * 32 + lane) * 4 +
             channel % 64 / 16;
  return {token / kTile * kTileBytes + kBlockBytes + word * 4, (register_ + row % 2 * 4) * 4};
}
// Byte offset of the fp16 scale of a channel in the token's tile; the zero stands 8 bytes on.
__device__ __forceinline__ int k4_scale_at(int token, int channel) {
  return token / kTile * kTileBytes + 2 * kBlockBytes + channel / 4 * 16 + channel % 4 * 2;
}
// Byte offset of the fp16 scale of a token's 32 channels; the zero stands 8 bytes on.
__device__ __forceinline__ int v4_scale_at(int token, int channel) {
  int row = token % 16;
  int group = token % kTile / 16 * (HEAD_DIM / kValueGroup) + channel / kValueGroup;
  return token / kTile * kTileBytes + 2 * kBlockBytes + kKeyScaleBytes + group * 64 +
         row % 8 / 2 * 16 + row / 8 * 4 + row % 2 * 2;
}

}  // namespace rs
