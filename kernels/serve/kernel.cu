// What the engine needs beside a decode step: prompts' keys and values in and out of the pages, and
// the word of the host to the device's slots.
//
// prompt_embed   token ids -> h [tokens, width]
// prompt_store   qkv [tokens, (q + 2 k heads) HEAD_DIM] -> q rotated; keys, rotated, and values to
//                their places in the pages of one layer
// prompt_bounds  least and largest key of each page that the prompts touched
// prompt_gather  keys and values of whole requests -> [keys, k heads, HEAD_DIM], without gaps
// edit_slots     a packet of the host (slots.py) -> lengths, remaining, pages, input tokens, ring
//
// How many tokens there are stands in *meta*, so that a launch never changes:
//   meta  int32   tokens | keys | pages | unused; then at the offsets given: ids and positions of the
//                 tokens, places (page * PAGE_TOKENS + offset) of tokens and of keys, and pairs (page,
//                 tokens in it)
#include "common/cache.cuh"
#include "common/cuda.cuh"
#include "small_ops/stage.cuh"

struct PromptEmbedParams {
  const ELEMENT* table;
  const int* meta;
  ELEMENT* h;
  int ids, width;
};

struct PromptStoreParams {
  const ELEMENT* qkv;
  const int* meta;
  const float2* turns;  // [HEAD_DIM / 2], as small_ops has them
  ELEMENT* q;
  unsigned char* cache;  // of the layer
  int positions, places, q_heads, k_heads;
};

struct PromptBoundsParams {
  const int* meta;
  const unsigned char* cache;
  ELEMENT* minmax;
  int pages, k_heads;
};

struct PromptGatherParams {
  const int* meta;
  const unsigned char* cache;
  ELEMENT* k;
  ELEMENT* v;
  int places, k_heads;
};

struct EditSlotsParams {
  const int* packet;  // pinned
  int* lengths;
  int* remaining;
  int* page_counts;
  int* table;
  int* text;
  int* ring;
  unsigned* free;  // head, tail
  int max_pages, text_size, ring_mask, unused;
};

namespace serve {

constexpr int kHeader = 8, kRecord = 8;
constexpr int kChunks = HEAD_DIM / 8;  // of 16 bytes, in a head

__device__ __forceinline__ ELEMENT* page_of(unsigned char* cache, int place, int head, int heads) {
  long long page = place / PAGE_TOKENS;
  return reinterpret_cast<ELEMENT*>(cache + (page * heads + head) * rs::kPageBytes);
}
__device__ __forceinline__ uint4 load(const ELEMENT* p) {
  return *reinterpret_cast<const uint4*>(p);
}

}  // namespace serve

extern "C" __global__ void __launch_bounds__(256) prompt_embed(PromptEmbedParams p) {
  int chunks = p.width / 8, items = p.meta[0] * chunks;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += gridDim.x * blockDim.x) {
    long long token = p.meta[p.ids + i / chunks];
    small_ops::store(p.h + i * 8ll, serve::load(p.table + token * p.width + i % chunks * 8));
  }
}

// A thread takes 8 pairs (d, d + HEAD_DIM / 2) of one head.
extern "C" __global__ void __launch_bounds__(128) prompt_store(PromptStoreParams p) {
  constexpr int kHalf = HEAD_DIM / 2, kParts = kHalf / 8;
  int heads = p.q_heads + 2 * p.k_heads, items = p.meta[0] * heads * kParts;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += gridDim.x * blockDim.x) {
    int at = i % kParts * 8, head = i / kParts % heads, row = i / kParts / heads;
    const ELEMENT* from = p.qkv + (static_cast<long long>(row) * heads + head) * HEAD_DIM + at;
    uint4 low = serve::load(from), high = serve::load(from + kHalf);
    int of_k = head - p.q_heads, of_v = of_k - p.k_heads;
    if (of_v < 0) {
      int position = p.meta[p.positions + row];
      small_ops::Eight a(low), b(high);
      for (int e = 0; e < 8; ++e) {
        float2 turn = p.turns[at + e];
        float whole = turn.x * position, rest = fmaf(turn.x, position, -whole), sine, cosine;
        rs::sincos_turns(whole - rintf(whole) + fmaf(turn.y, position, rest), sine, cosine);
        float turned = a.v[e] * cosine - b.v[e] * sine;
        b.v[e] = b.v[e] * cosine + a.v[e] * sine;
        a.v[e] = turned;
      }
      low = a.rounded();
      high = b.rounded();
    }
    if (of_k < 0) {
      ELEMENT* to = p.q + (static_cast<long long>(row) * p.q_heads + head) * HEAD_DIM + at;
      small_ops::store(to, low);
      small_ops::store(to + kHalf, high);
      continue;
    }
    int place = p.meta[p.places + row], token = place % PAGE_TOKENS;
    ELEMENT* page = serve::page_of(p.cache, place, of_v < 0 ? of_k : of_v, p.k_heads);
    small_ops::store(page + (of_v < 0 ? rs::k16_at(token, at) : rs::v16_at(token, at)), low);
    small_ops::store(
        page + (of_v < 0 ? rs::k16_at(token, at + kHalf) : rs::v16_at(token, at + kHalf)), high);
  }
}

// A thread takes 8 channels of one head of a page.
extern "C" __global__ void __launch_bounds__(128) prompt_bounds(PromptBoundsParams p) {
  int items = p.meta[2] * p.k_heads * serve::kChunks;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += gridDim.x * blockDim.x) {
    int at = i % serve::kChunks * 8, head = i / serve::kChunks % p.k_heads;
    const int* pair = p.meta + p.pages + i / serve::kChunks / p.k_heads * 2;
    long long which = static_cast<long long>(pair[0]) * p.k_heads + head;
    const ELEMENT* page = reinterpret_cast<const ELEMENT*>(p.cache + which * rs::kPageBytes);
    small_ops::Eight low(serve::load(page + rs::k16_at(0, at))), high = low;
    for (int token = 1; token < pair[1]; ++token) {
      small_ops::Eight key(serve::load(page + rs::k16_at(token, at)));
      for (int e = 0; e < 8; ++e) {
        low.v[e] = fminf(low.v[e], key.v[e]);
        high.v[e] = fmaxf(high.v[e], key.v[e]);
      }
    }
    small_ops::store(p.minmax + which * 2 * HEAD_DIM + at, low.rounded());
    small_ops::store(p.minmax + (which * 2 + 1) * HEAD_DIM + at, high.rounded());
  }
}

extern "C" __global__ void __launch_bounds__(256) prompt_gather(PromptGatherParams p) {
  int items = p.meta[1] * p.k_heads * serve::kChunks;
  unsigned char* cache = const_cast<unsigned char*>(p.cache);
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += gridDim.x * blockDim.x) {
    int at = i % serve::kChunks * 8, head = i / serve::kChunks % p.k_heads;
    int place = p.meta[p.places + i / serve::kChunks / p.k_heads], token = place % PAGE_TOKENS;
    const ELEMENT* page = serve::page_of(cache, place, head, p.k_heads);
    uint4 key = serve::load(page + rs::k16_at(token, at));
    uint4 value = serve::load(page + rs::v16_at(token, at));
    small_ops::store(p.k + i * 8ll, key);
    small_ops::store(p.v + i * 8ll, value);
  }
}

// Block by block one slot's record; the first block also tends the ring.
extern "C" __global__ void __launch_bounds__(128) edit_slots(EditSlotsParams p) {
  using namespace serve;
  const volatile int* packet = p.packet;
  int changed = packet[0], pushed = packet[3];
  if (blockIdx.x == 0) {
    int first = packet[4];
    for (int i = threadIdx.x; i < pushed; i += blockDim.x)
      p.ring[(first + i) & p.ring_mask] = packet[kHeader + i];
    if (threadIdx.x < 2) p.free[threadIdx.x] = static_cast<unsigned>(packet[1 + threadIdx.x]);
  }
  for (int n = blockIdx.x; n < changed; n += gridDim.x) {
    const volatile int* record = packet + packet[kHeader + pushed + n];
    int slot = record[0], length = record[1], pages = record[3];
    for (int i = threadIdx.x; i < pages; i += blockDim.x)
      p.table[static_cast<long long>(slot) * p.max_pages + i] = record[kRecord + i];
    if (threadIdx.x) continue;
    p.lengths[slot] = length;
    p.remaining[slot] = record[2];
    p.page_counts[slot] = pages;
    if (length >= 0) p.text[static_cast<long long>(slot) * p.text_size + length] = record[4];
  }
}
