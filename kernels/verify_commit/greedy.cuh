// The arg-max of every row: each warp keeps its best and adds it to the row's word by atomicMax.
#pragma once
#include "verify_commit/stream.cuh"

namespace verify {

// A larger value is a larger word; of equal values the lower index is. Never zero.
__device__ __forceinline__ unsigned long long pack_best(float value, unsigned index) {
  unsigned u = __float_as_uint(value + 0.0f);  // -0 ties with +0
  u ^= static_cast<unsigned>(static_cast<int>(u) >> 31) | 0x80000000u;
  return (static_cast<unsigned long long>(u) << 32) | ~index;
}

struct Best {  // of one lane in one row: the first vector that holds its largest value
  float value;
  int element;  // of the vector's begin
  uint4 raw;
};

__device__ __forceinline__ void flush_best(unsigned long long* word, const Best& mine) {
  float value = rs::warp_max(mine.value);
  unsigned index = ~0u;
  if (mine.value == value) {
    float v[kVec];
    unpack(v, mine.raw);
    int j = 0;
    while (j < kVec - 1 && v[j] != value) ++j;
    index = mine.element + j;
  }
  index = __reduce_min_sync(~0u, index);
  if (lane() == 0) atomicMax(word, pack_best(value, index));
}

__device__ __forceinline__ void stream_best(const VerifyCommitParams& p, const Rows& rows,
                                            Tile& next) {
  if (rows.span.begin == rows.span.end) return;
  int held = -1;
  Best best;
  auto use = [&](int row, int tile, const Tile& t) {
    if (row != held) {
      if (held >= 0) flush_best(&p.best[rows.index(p, held)], best);
      held = row;
      // NaN and -inf never beat this; a row of nothing else ends at its first token.
      unsigned none = minus_infinity();
      best = {__uint_as_float(0xff800000u), element_of(tile, 0),
              make_uint4(none, none, none, none)};
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      float v[kVec];
      unpack(v, t.raw[i]);
      float most = v[0];
#pragma unroll
      for (int j = 1; j < kVec; ++j) most = fmaxf(most, v[j]);
      if (most > best.value) best = {most, element_of(tile, i), t.raw[i]};
    }
  };
  stream(rows.span, rows.tiles, p.vocabulary, next, [&](int row) { return rows.at(p, row); }, use);
  if (held >= 0) flush_best(&p.best[rows.index(p, held)], best);
}

}  // namespace verify
