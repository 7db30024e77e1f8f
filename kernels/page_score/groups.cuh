// The list of tasks, and where a warp stands in it; part of page_score/stage.cuh.
#pragma once

namespace page_score {

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "16 loads of 16 bytes a lane");
constexpr int kTiles = 128 / HEAD_DIM;  // 16-page tiles of a group: 8 KB of one head
constexpr int kPages = 16 * kTiles;
constexpr int kLoads = HEAD_DIM / 32;  // 16-byte loads a lane makes of HEAD_DIM elements

struct Group {  // one head of kPages pages
  int request, head, first, pages;  // the task's first page, the pages of the request
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

// The task numbered *index*, heads first; *group* holds one that does not come later, or request 0.
__device__ __forceinline__ void find_group(const PageScoreParams& p, const int* starts, int task,
                                           Group& group) {
  int index = task / p.kv_heads;
  group.head = task - index * p.kv_heads;
  if (starts[group.request + 1] <= index) {
    int low = group.request + 1, high = p.requests - 1;  // the answer lies in [low, high]
    while (low < high) {
      int middle = (low + high) / 2;
      if (starts[middle + 1] <= index) low = middle + 1;
      else high = middle;
    }
    group.request = low;
    group.pages = pages_of(p, low);
  }
  group.first = (index - starts[group.request]) * kPages;
}

// Physical pages of the rows that this lane holds: lane / 4 and lane / 4 + 8 of each tile. Rows
// behind the last page repeat it; their scores are dropped.
__device__ __forceinline__ void find_pages(const PageScoreParams& p, const Group& group,
                                           int (&ids)[2 * kTiles]) {
  const int* row = p.table + (long long)group.request * p.max_pages;
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    int page = group.first + static_cast<int>(threadIdx.x % 32 / 4) + 8 * i;
    ids[i] = row[min(page, group.pages - 1)];
  }
}

}  // namespace page_score
