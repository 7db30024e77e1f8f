// Scores every page of every request against the step's queries, as a matrix product.
//
//   score(page, q) = sum over channels of max(q kmax, q kmin) = q- . kmin + q+ . kmax
//
// with q- = min(q, 0) and q+ = max(q, 0), exact in the queries' own type. A task is one KV head of
// kPages pages: 16 pages are the rows of an mma.m16n8k16, [kmin | kmax] its K = 2 HEAD_DIM, and 8
// query rows of the head's group its columns. Pages go from HBM to registers: all 16 loads of 16
// bytes that a lane needs are in flight before the first is used.
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

#ifndef LOADER
#define LOADER rs::load_stream
#endif
#include "page_score/inline.cuh"
struct PageScoreParams {
  const ELEMENT* q;
  const ELEMENT* minmax;
  const int* table;
  const int* lengths;
  float* scores;
  unsigned* ticket;
  int requests, tokens, kv_heads, max_pages, score_pages;
};

namespace page_score {

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "16 loads of 16 bytes a lane");
constexpr int kTiles = 128 / HEAD_DIM;  // 16-page tiles of a task: a task is always 8 KB
constexpr int kPages = 16 * kTiles;
constexpr int kLoads = HEAD_DIM / 32;  // 16-byte loads a lane makes of HEAD_DIM elements

// Where a warp stands in the list of tasks.
struct Task {
  int request, head, first, pages;  // first page of the task, pages of the request
};

__device__ __forceinline__ int pages_of(const PageScoreParams& p, int request) {
  int length = p.lengths[request];
  return length < 0 ? 0 : (length + p.tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

// starts[r] = page groups of the requests before r, for r <= requests. By warp 0; the loads of 8
// times 32 requests are in flight together.
__device__ __forceinline__ void find_starts(const PageScoreParams& p, int* starts) {
  int lane = threadIdx.x % 32, before = 0;
  for (int base = 0; base < p.requests; base += 256) {
    int groups[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int r = base + i * 32 + lane;
      groups[i] = r < p.requests ? (pages_of(p, r) + kPages - 1) / kPages : 0;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int r = base + i * 32 + lane;
      if (base + i * 32 >= p.requests) break;
      int sum = groups[i];
      for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
      }
      if (r < p.requests) starts[r + 1] = before + sum;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  if (lane == 0) starts[0] = 0;
}

// The task numbered *index*; *task* holds one that does not come later, or request 0.
__device__ __forceinline__ void go_to(const PageScoreParams& p, const int* starts, int index,
                                      Task& task) {
  int group = index / p.kv_heads;
  task.head = index - group * p.kv_heads;
  if (starts[task.request + 1] <= group) {
    int low = task.request + 1, high = p.requests - 1;  // the answer lies in [low, high]
    while (low < high) {
      int middle = (low + high) / 2;
      if (starts[middle + 1] <= group) low = middle + 1;
      else high = middle;
    }
    task.request = low;
    task.pages = pages_of(p, low);
  }
  task.first = (group - starts[task.request]) * kPages;
}

// Physical pages of the rows that this lane holds: lane / 4 and lane / 4 + 8 of each tile. Rows
// behind the last page repeat it; their scores are dropped.
__device__ __forceinline__ void find_pages(const PageScoreParams& p, const Task& task,
                                           int (&ids)[2 * kTiles]) {
  const int* row = p.table + (long long)task.request * p.max_pages;
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i)
    ids[i] = row[min(task.first + static_cast<int>(threadIdx.x % 32 / 4) + 8 * i, task.pages - 1)];
}

// Query row first + lane / 4 of the head, in the order in which the lanes hold a page's row.
__device__ __forceinline__ void load_query(const PageScoreParams& p, const Task& task, int first,
                                           uint4 (&q)[kLoads]) {
  int lane = threadIdx.x % 32, rows = GROUP * p.tokens, row = first + lane / 4;
  int token = min(row, rows - 1) / GROUP, head = task.head * GROUP + min(row, rows - 1) % GROUP;
  long long at = ((long long)task.request * p.tokens + token) * p.kv_heads * GROUP + head;
  const uint4* source = reinterpret_cast<const uint4*>(p.q + at * HEAD_DIM) + lane % 4;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    q[i] = source[4 * i];
#if REDUCE_SUM  // a repeated last row does not change a maximum, but it would change a sum
    if (row >= rows) q[i] = make_uint4(0, 0, 0, 0);
#endif
  }
}

// Both elements of *pair* that are negative, the others zero; pair & ~negative is the rest.
__device__ __forceinline__ unsigned negative_mask(unsigned pair) {
  unsigned signs = (pair & 0x80008000u) >> 15;
  return (signs << 16) - signs;
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
      unsigned mask = negative_mask(pairs[j]);
      parts[0][j] = pairs[j] & mask;
      parts[1][j] = pairs[j] & ~mask;
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

constexpr int shared_bytes(int requests) { return (requests + 1) * 4; }

}  // namespace page_score

// Any grid, any block of whole warps; shared memory page_score::shared_bytes(requests). Blocks take
// equal shares of all tasks, neighbours in memory, and the warps of a block take turns.
__device__ __forceinline__ void page_score_stage(const PageScoreParams& p, int block, int blocks,
                                                 unsigned char* shared) {
  using namespace page_score;
  int* starts = reinterpret_cast<int*>(shared);
  if (threadIdx.x < 32) find_starts(p, starts);
  __syncthreads();
  int lane = threadIdx.x % 32, warps = blockDim.x / 32, rows = GROUP * p.tokens;
  long long total = (long long)starts[p.requests] * p.kv_heads;
  int end = static_cast<int>(total * (block + 1) / blocks);
  int index = static_cast<int>(total * block / blocks) + threadIdx.x / 32;
  Task task = {0, 0, 0, pages_of(p, 0)};
  int ids[2 * kTiles];
  if (index < end) {
    go_to(p, starts, index, task);
    find_pages(p, task, ids);
  }
  uint4 q[kLoads];
  int held = -1;  // request and head that q belongs to
  while (index < end) {
    uint4 v[2 * kTiles][2 * kLoads];
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      const ELEMENT* row =
          p.minmax + ((long long)ids[i] * p.kv_heads + task.head) * (2 * HEAD_DIM) + lane % 4 * 8;
#pragma unroll
      for (int j = 0; j < 2 * kLoads; ++j) v[i][j] = LOADER(row + 32 * j);
    }
    Task now = task;
    index += warps;
    if (index < end) {
      go_to(p, starts, index, task);
      find_pages(p, task, ids);
    }
    float best[2 * kTiles];
    for (int first = 0; first < rows; first += 8) {
      if (rows > 8 || held != now.request * p.kv_heads + now.head) {
        load_query(p, now, first, q);
        held = now.request * p.kv_heads + now.head;
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float d[2][4] = {};
        multiply(d, v[2 * tile], v[2 * tile + 1], q);
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
    int page = now.first + lane / 4 + lane % 4 * 8;
    if (lane % 4 < 2 * kTiles && page < now.pages)
      p.scores[((long long)now.request * p.kv_heads + now.head) * p.max_pages + page] = mine;
  }
  __syncthreads();  // the next stage may reuse the shared memory
}
