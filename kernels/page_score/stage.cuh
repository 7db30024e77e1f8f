// Scores every page of every request against the step's queries, as a matrix product.
//
//   score(page, q) = sum over channels of max(q kmax, q kmin) = q- . kmin + q+ . kmax
//
// with q- = min(q, 0) and q+ = max(q, 0), exact in the queries' own type: 16 pages are the rows of an
// mma.m16n8k16, [kmin | kmax] its K = 2 HEAD_DIM, and 8 query rows of a KV head's group its columns.
//
// All pages of all requests are one list, of which each block takes an equal piece, so a batch of
// unequal requests costs what an even one does. A few warps walk the piece and keep a ring of
// bulk copies full, a slot being kUnit pages of up to kPartHeads heads; the others multiply.
//
//   q        [requests, tokens, kv_heads * GROUP, HEAD_DIM] ELEMENT, rotary embedding applied
//   minmax   [physical page, kv_heads, 2, HEAD_DIM] ELEMENT: minimum, maximum over the page's tokens
//   table    [requests, max_pages] int: logical -> physical page
//   lengths  [requests] int: tokens before this step; below 0 marks an idle slot
//   scores   [requests, kv_heads, max_pages] float: the largest score (REDUCE_SUM: the sum) over
//            the GROUP * tokens query rows that share the head
//
// Pages 0 .. ceil((length + tokens) / PAGE_TOKENS) - 1 are scored, the unfinished last one included;
// scores behind them and those of idle slots are left as they were. No atomics: the same input
// gives the same bits on any grid.
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
#ifndef PART_HEADS
#define PART_HEADS 8
#endif
#ifndef BATCH
#define BATCH 4
#endif
#ifndef PRODUCERS
#define PRODUCERS 4
#endif
#ifndef RING_KB
#define RING_KB 195
#endif

struct PageScoreParams {
  const ELEMENT* q;
  const ELEMENT* minmax;
  const int* table;
  const int* lengths;
  float* scores;
  int requests, tokens, kv_heads, max_pages;
};

namespace page_score {

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "rows of 4 or 8 times 64 bytes");
constexpr int kTiles = 128 / HEAD_DIM;  // 16-page tiles of a unit: 8 KB a head
constexpr int kUnit = 16 * kTiles;
constexpr int kLoads = HEAD_DIM / 32;  // 16-byte loads a lane makes of HEAD_DIM elements
constexpr int kBatch = BATCH;              // pages that a warp copies at a stretch
constexpr int kPartHeads = PART_HEADS;
constexpr int kHeadBytes = 4 * HEAD_DIM;  // minima and maxima of a page's head
// Rows of a slot are 64 bytes longer than their data: two rows then share no bank.
constexpr int kPad = 64;
constexpr int kRingBytes = RING_KB * 1024;
constexpr int kMostSlots = 8;
constexpr int kBarrierBytes = 128;
static_assert(2 * kMostSlots * 8 <= kBarrierBytes, "a full and an empty barrier a slot");
static_assert(kUnit * (kPartHeads * kHeadBytes + kPad) * 2 <= kRingBytes, "two slots at least");

// Dynamic shared memory of the stage: barriers, ring, first pages of the requests.
constexpr int shared_bytes(int requests) {
  return kBarrierBytes + kRingBytes + (requests + 1) * 4;
}

}  // namespace page_score

#include "page_score/walk.cuh"

namespace page_score {

// Query row first + lane / 4 of the head; lanes hold a row in the order in which they hold a page's.
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

// Fills the ring with the units of *w*, kBatch pages at a time: several warps take turns, because
// one alone issues a copy in some 0.1 us, and an SM could take 4 KB in that time.
__device__ __forceinline__ void produce(const PageScoreParams& p, Walk w, unsigned char* ring,
                                        rs::Barrier* full, rs::Barrier* empty, int producer,
                                        int producers) {
  int lane = threadIdx.x % 32, row_bytes = w.row_bytes();
  long long page_bytes = (long long)p.kv_heads * kHeadBytes;
  auto page_of_lane = [&] {
    if (w.ended()) return 0;
    int page = w.first + min(lane, w.count - 1);
    return p.table[(long long)w.request * p.max_pages + page];
  };
  int next = page_of_lane();
  while (!w.ended()) {
    int id = next, count = w.count, slot = w.slot;
    unsigned bytes = w.heads * kHeadBytes, parity = w.parity;
    const char* source = reinterpret_cast<const char*>(p.minmax) + w.head * kHeadBytes;
    unsigned char* target = ring + slot * kUnit * row_bytes;
    w.next();
    next = page_of_lane();
    int mine = 0;
    for (int i = producer * kBatch; i < count; i += producers * kBatch) mine += min(kBatch, count - i);
    rs::barrier_wait(empty + slot, parity ^ 1);
    rs::fill_begin(full + slot, mine * bytes);
    for (int first = producer * kBatch; first < count; first += producers * kBatch) {
      const char* from[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        from[i] = source + __shfl_sync(0xffffffffu, id, first + i) * page_bytes;
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        if (first + i < count)
          rs::fill_piece(target + (first + i) * row_bytes, from[i], bytes, full + slot);
    }
    rs::fill_end(full + slot);
  }
}

// Queries stay in registers from unit to unit as long as eight rows hold all of them.
struct Queries {
  uint4 rows[kLoads];
  int held = -1;  // request and head

  __device__ __forceinline__ void hold(const PageScoreParams& p, int request, int head) {
    if (GROUP * p.tokens > 8 || held == request * p.kv_heads + head) return;
    held = request * p.kv_heads + head;
    load_query(p, request, head, 0, rows);
  }
};

// Scores of one head of the unit in *rows*.
__device__ __forceinline__ void score(const PageScoreParams& p, const Walk& w, int head,
                                      const unsigned char* rows, Queries& q) {
  int lane = threadIdx.x % 32, queries = GROUP * p.tokens, row_bytes = w.row_bytes();
  q.hold(p, w.request, head);
  const unsigned char* at =
      rows + lane / 4 * row_bytes + (head - w.head) * kHeadBytes + lane % 4 * 16;
  uint4 v[2 * kTiles][2 * kLoads];
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i)
#pragma unroll
    for (int j = 0; j < 2 * kLoads; ++j)
      v[i][j] = *reinterpret_cast<const uint4*>(at + 8 * i * row_bytes + 64 * j);
  float best[2 * kTiles];
  for (int first = 0; first < queries; first += 8) {
    if (queries > 8) load_query(p, w.request, head, first, q.rows);
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
  int row = lane / 4 + lane % 4 * 8;
  if (lane % 4 < 2 * kTiles && row < w.count)
    p.scores[((long long)w.request * p.kv_heads + head) * p.max_pages + w.first + row] = mine;
}

// Multiplies the units of *w*; *consumer* of *consumers* warps, which take the heads in turn.
__device__ __forceinline__ void consume(const PageScoreParams& p, Walk w, unsigned char* ring,
                                        rs::Barrier* full, rs::Barrier* empty, int consumer,
                                        int consumers) {
  Queries q;
  int turn = consumer;  // heads until it is this warp's turn
  for (; !w.ended(); w.next()) {
    const unsigned char* rows = ring + w.slot * kUnit * w.row_bytes();
    if (turn < w.heads) q.hold(p, w.request, w.head + turn);  // while the pages are under way
    rs::barrier_wait(full + w.slot, w.parity);
    for (; turn < w.heads; turn += consumers) score(p, w, w.head + turn, rows, q);
    turn -= w.heads;
    __syncwarp();
    if (threadIdx.x % 32 == 0) rs::barrier_arrive(empty + w.slot);
  }
}

}  // namespace page_score

// Any grid, any block of two whole warps or more; shared memory page_score::shared_bytes(requests).
__device__ __forceinline__ void page_score_stage(const PageScoreParams& p, int block, int blocks,
                                                 unsigned char* shared) {
  using namespace page_score;
  rs::Barrier* full = reinterpret_cast<rs::Barrier*>(shared);
  rs::Barrier* empty = full + kMostSlots;
  unsigned char* ring = shared + kBarrierBytes;
  int* starts = reinterpret_cast<int*>(ring + kRingBytes);
  int warps = blockDim.x / 32, warp = threadIdx.x / 32;
  int producers = PRODUCERS, consumers = warps - producers;
  if (warp == 0) find_starts(p, starts);
  if (threadIdx.x == 32) {
    for (int i = 0; i < kMostSlots; ++i) {
      rs::barrier_init(full + i, producers);
      rs::barrier_init(empty + i, consumers);
    }
    rs::barrier_init_fence();
  }
  __syncthreads();
  Walk walk(p, starts, block, blocks);
  if (warp < consumers) consume(p, walk, ring, full, empty, warp, consumers);
  else produce(p, walk, ring, full, empty, warp - consumers, producers);
  __syncthreads();  // the next stage may reuse the shared memory
  if (threadIdx.x < 2 * kMostSlots) page_score::barrier_forget(full + threadIdx.x);
}
