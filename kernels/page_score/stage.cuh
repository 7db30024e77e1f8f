// Scores every page of every request against the step's queries, as a matrix product.
//
//   score(page, q) = sum over channels of max(q kmax, q kmin) = q- . kmin + q+ . kmax
//
// with q- = min(q, 0) and q+ = max(q, 0), exact in the queries' own type: 16 pages are the rows of
// an mma.m16n8k16, [kmin | kmax] its K = 2 HEAD_DIM, 8 query rows of a KV head's group its columns.
//
// A task is one KV head of kPages pages, 8 KB from HBM to registers: all 16 loads of 16 bytes that
// a lane needs are in flight before the first is used. The tasks of all requests are one list, of
// which blocks take equal pieces, neighbours in memory, so a batch of unequal requests costs what
// an even one does; the warps of a block take turns, so that a page's heads are read together.
//
//   q        [requests, tokens, kv_heads * GROUP, HEAD_DIM] ELEMENT, rotary embedding applied
//   minmax   [physical page, kv_heads, 2, HEAD_DIM] ELEMENT: minimum, maximum of the page's tokens
//   table    [requests, max_pages] int: logical -> physical page
//   lengths  [requests] int: tokens before this step; below 0 marks an idle slot
//   scores   [requests, kv_heads, score_pages] float: the largest score (REDUCE_SUM: the sum) over
//            the GROUP * tokens query rows that share the head
//
// Pages 0 .. ceil((length + tokens) / PAGE_TOKENS) - 1 are scored, the unfinished last one too;
// scores behind them and those of idle slots are left as they were. A score is the work of one warp
// in a fixed order, so the same input gives the same bits on any grid.
#pragma once
#include "page_score/inline.cuh"

#ifndef ELEMENT
#define ELEMENT __nv_bfloat16
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef PAGE_TOKENS
#define PAGE_TOKENS 16
#endif
#ifndef GROUP
#define GROUP 4
#endif
#ifndef REDUCE_SUM
#define REDUCE_SUM 0
#endif

struct PageScoreParams {
  const ELEMENT* q;
  const ELEMENT* minmax;
  const int* table;
  const int* lengths;
  float* scores;
  int requests, tokens, kv_heads, max_pages, score_pages;
};

#include "page_score/groups.cuh"

namespace page_score {

// Query row first + lane / 4 of the head; lanes hold a row in the order in which they hold a page.
__device__ __forceinline__ void load_query(const PageScoreParams& p, int request, int kv_head,
                                           int first, uint4 (&q)[kLoads]) {
  int lane = threadIdx.x % 32, rows = GROUP * p.tokens, row = first + lane / 4;
  int token = min(row, rows - 1) / GROUP, head = kv_head * GROUP + min(row, rows - 1) % GROUP;
  long long at = ((long long)request * p.tokens + token) * p.kv_heads * GROUP + head;
  const uint4* source = reinterpret_cast<const uint4*>(p.q + at * HEAD_DIM) + lane % 4;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    q[i] = source[4 * i];
#if REDUCE_SUM  // a repeated last row does not change a maximum, but it would change a sum
    if (row >= rows) q[i] = make_uint4(0, 0, 0, 0);
#endif
  }
}

// d[0] += rows * q- for minima, d[1] += rows * q+ for maxima; *low* and *high* are 16 bytes of rows
// lane / 4 and lane / 4 + 8. The product's K order is the lanes' order, the same in both operands.
__device__ __forceinline__ void multiply(float (&d)[2][4], const uint4 (&low)[2 * kLoads],
                                         const uint4 (&high)[2 * kLoads],
                                         const uint4 (&q)[kLoads]) {
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    unsigned pairs[4] = {q[i].x, q[i].y, q[i].z, q[i].w}, parts[2][4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      parts[0][j] = negative_part<ELEMENT>(pairs[j]);
      parts[1][j] = positive_part<ELEMENT>(pairs[j]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 &a = low[half * kLoads + i], &b = high[half * kLoads + i];
      rs::mma_16x8x16<ELEMENT>(d[half], {a.x, b.x, a.y, b.y}, {parts[half][0], parts[half][1]});
      rs::mma_16x8x16<ELEMENT>(d[half], {a.z, b.z, a.w, b.w}, {parts[half][2], parts[half][3]});
    }
  }
}

__device__ __forceinline__ float reduced(float a, float b) {
#if REDUCE_SUM
  return a + b;
#else
  return fmaxf(a, b);
#endif
}

// Queries stay in registers from group to group as long as eight rows hold all of them.
struct Queries {
  uint4 rows[kLoads];
  int held = -1;  // request and head

  __device__ __forceinline__ void hold(const PageScoreParams& p, const Group& group) {
    int wanted = group.request * p.kv_heads + group.head;
    if (GROUP * p.tokens > 8 || held == wanted) return;
    held = wanted;
    load_query(p, group.request, group.head, 0, rows);
  }
};

// Rows lane / 4 and lane / 4 + 8 of each tile, minima and then maxima.
using Rows = uint4[2 * kTiles][2 * kLoads];

__device__ __forceinline__ void load_rows(const PageScoreParams& p, const int (&ids)[2 * kTiles],
                                          int head, Rows& v) {
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    const ELEMENT* row = p.minmax + ((long long)ids[i] * p.kv_heads + head) * (2 * HEAD_DIM) +
                         threadIdx.x % 4 * 8;
#pragma unroll
    for (int j = 0; j < 2 * kLoads; ++j) v[i][j] = load_page(row + 32 * j);
  }
}

__device__ __forceinline__ void score_rows(const PageScoreParams& p, const Group& group,
                                           const Rows& v, Queries& q) {
  int lane = threadIdx.x % 32, head = group.head, queries = GROUP * p.tokens;
  float best[2 * kTiles];
  for (int first = 0; first < queries; first += 8) {
    if (queries > 8) load_query(p, group.request, head, first, q.rows);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float d[2][4] = {};
      multiply(d, v[2 * tile], v[2 * tile + 1], q.rows);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float found = reduced(d[0][2 * i] + d[1][2 * i], d[0][2 * i + 1] + d[1][2 * i + 1]);
        float& kept = best[2 * tile + i];
        kept = first ? reduced(kept, found) : found;
      }
    }
  }
  // All four lanes of a row learn its result; lane i of the four writes row i * 8 + lane / 4.
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    best[i] = reduced(best[i], __shfl_xor_sync(0xffffffffu, best[i], 1));
    best[i] = reduced(best[i], __shfl_xor_sync(0xffffffffu, best[i], 2));
  }
  float mine = lane % 2 ? best[1] : best[0];
  if (lane % 4 > 1) mine = lane % 2 ? best[2 * kTiles - 1] : best[2 * kTiles - 2];
  int page = group.first + lane / 4 + lane % 4 * 8;
  if (lane % 4 < 2 * kTiles && page < group.pages)
    p.scores[((long long)group.request * p.kv_heads + head) * p.score_pages + page] = mine;
}

// Dynamic shared memory of the stage.
constexpr int shared_bytes(int requests) { return (requests + 1) * 4; }

}  // namespace page_score

// Any grid, any block of whole warps; shared memory page_score::shared_bytes(requests).
__device__ __forceinline__ void page_score_stage(const PageScoreParams& p, int block, int blocks,
                                                 unsigned char* shared) {
  using namespace page_score;
  int* starts = reinterpret_cast<int*>(shared);
  if (threadIdx.x < 32) find_starts(p, starts);
  __syncthreads();
  long long total = (long long)starts[p.requests] * p.kv_heads;
  int index = static_cast<int>(total * block / blocks) + threadIdx.x / 32;
  int end = static_cast<int>(total * (block + 1) / blocks);
  Group group = {0, 0, 0, pages_of(p, 0)};
  int ids[2 * kTiles];
  if (index < end) {
    find_group(p, starts, index, group);
    find_pages(p, group, ids);
  }
  Queries q;
  while (index < end) {
    Rows v;
    load_rows(p, ids, group.head, v);
    q.hold(p, group);
    Group now = group;
    index += blockDim.x / 32;
    if (index < end) {
      find_group(p, starts, index, group);
      find_pages(p, group, ids);
    }
    score_rows(p, now, v, q);
  }
  __syncthreads();  // the next stage may reuse the shared memory
}
