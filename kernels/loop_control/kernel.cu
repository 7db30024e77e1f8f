// The resident decode loop, and the probes that tell where its time goes.
//
// resident       one block an SM: boundary, append, score, select, attend, verify and commit, again
//                and again until asked to leave, out of steps, or out of patience
// stage_*        the same stages as kernels of their own
// edit_slot      what the loop does at a boundary, for hosts that decide themselves
// probe_*        an empty node, a barrier and a mailbox by themselves
//
// STAGES 0 compiles everything with empty stages: what is left is control.
#include "loop_control/boundary.cuh"

#ifndef STAGES
#define STAGES 0
#endif
#ifndef THREADS
#define THREADS 256
#endif
#include "loop_control/stages.cuh"
#ifdef RS_CPU
#undef __grid_constant__
#define __grid_constant__
#endif

namespace loop {

struct Params {
  Control control;
  Slots slots;
  Step step;            // of set 0
  const Moving* moving;  // [sets]
  int sets;
  int sparse;  // 0: attention over all pages, without scoring and selection
};

constexpr int kStamps = 16;  // int64 words a row of `stamps`; 2i: stage i starts, 2i + 1: it has ended

// What a block keeps between stages. It lies in shared memory so that the stages, which need nearly
// all registers, need not save it.
struct Desktop {
  Moving moving;  // of the current set
  rs::Meeting inside, outside;
  long long* row;  // stamps of this step, null except in one block of the grid
  int worker, workers;
  unsigned launched;
};

__device__ inline void stamp(const Desktop& d, int at) {
  if (threadIdx.x == 0 && d.row) d.row[at] = clock64();
}

#define RUN_STAGE(i, stage, params)             \
  stamp(d, 2 * i);                              \
  stage(params, d.worker, d.workers, shared);   \
  stamp(d, 2 * i + 1)

// One step; false if a meeting failed.
__device__ __forceinline__ bool run_step(const Params& p, Desktop& d, unsigned char* shared) {
  RUN_STAGE(0, append_stage, at_set(p.step.append, d.moving));
  if (!rs::meet(d.inside)) return false;
  if (p.sparse) {
    RUN_STAGE(1, call_score, at_set(p.step.score, d.moving));
    if (!rs::meet(d.inside)) return false;
    RUN_STAGE(2, call_select, at_set(p.step.select, d.moving));
    if (!rs::meet(d.inside)) return false;
  }
  RUN_STAGE(3, attend_stage, at_set(p.step.attend, d.moving));
  // Block 0 may still be sending the last step's lengths, which the commit changes.
  if (p.control.dedicated && d.worker == 0 && threadIdx.x == 32)
    rs::wait_reached(p.control.gates + kPublished, d.launched, d.inside.abort, d.inside.limit_ns);
  if (!rs::meet(d.inside)) return false;
  RUN_STAGE(4, verify_stage, at_set(p.step.verify, d.moving));
  return true;
}

// The parameters of the coming step on their way to shared memory, 16 bytes a thread: they are
// asked for before a meeting and put down after it.
struct Parcel {
  static constexpr unsigned kPieces = sizeof(Moving) / 16;
  static_assert(sizeof(Moving) % 16 == 0 && kPieces + 32 <= 128, "one piece a thread, not in warp 0");
  uint4 piece;

  __device__ bool mine() const { return threadIdx.x - 32 < kPieces; }
  __device__ void fetch(const Moving* step) {
    if (mine()) piece = rs::load_stream(reinterpret_cast<const uint4*>(step) + threadIdx.x - 32);
  }
  __device__ void put(Moving* step) const {
    if (mine()) reinterpret_cast<uint4*>(step)[threadIdx.x - 32] = piece;
    __syncthreads();
  }
};

}  // namespace loop

// Grid: all blocks must be resident at once, so at most one an SM; block 0 serves the control, and
// nothing else if `dedicated`.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    resident(const __grid_constant__ loop::Params p) {
  RS_DYNAMIC_SHARED(shared);
  __shared__ loop::Desk desk;
  __shared__ loop::Desktop d;
  const loop::Control& c = p.control;
  bool serves = blockIdx.x == 0, works = !(serves && c.dedicated);
  if (threadIdx.x == 0) {
    unsigned *gates = c.gates, *abort = gates + loop::kAbort;
    unsigned workers = gridDim.x - (c.dedicated != 0);
    d.inside = {gates + loop::kInside, abort, workers, 0, c.watchdog_ns};
    d.outside = {gates + loop::kBoundary, abort, gridDim.x, 0, c.watchdog_ns};
    d.worker = int(blockIdx.x) - (c.dedicated != 0);
    d.workers = workers;
    d.launched = 0;
  }
  loop::Unsent unsent{nullptr, nullptr};
  unsigned reason = loop::kRun, order = loop::kGo, set = c.counters[0] % p.sets;
  __syncthreads();
  if (serves) {
    loop::open_desk(c, p.slots, desk);
    loop::serve_host(c, p.slots, desk, unsent);
    order = loop::foresee(c, desk, 0);
  }
  for (;;) {
    loop::Parcel parcel;
    parcel.fetch(p.moving + set);
    reason = loop::boundary(c, p.slots, desk, d.outside, d.launched, order, unsent);
    if (reason != loop::kRun) break;
    parcel.put(&d.moving);
    if (serves) {
      loop::serve_host(c, p.slots, desk, unsent);
      if (c.dedicated && threadIdx.x == 0)
        rs::store_release_gpu(c.gates + loop::kPublished, d.launched);
      order = loop::foresee(c, desk, d.launched + 1);
      unsent = {d.moving.sent_emitted, d.moving.sent_tokens};
    }
    if (works) {
      if (threadIdx.x == 0)
        d.row = d.worker == 0 && c.stamp_rows
                    ? c.stamps + d.launched % c.stamp_rows * loop::kStamps
                    : nullptr;
      if (!loop::run_step(p, d, shared)) {
        reason = loop::kAborted;
        break;
      }
    }
    set = set + 1 == unsigned(p.sets) ? 0 : set + 1;
    __syncthreads();
    if (threadIdx.x == 0) ++d.launched;
    __syncthreads();
  }
  if (serves) {
    if (reason != loop::kAborted) loop::publish(c, p.slots, desk, unsent);
    loop::close_desk(c, desk, reason);
  }
  loop::leave(c.gates);
}

// ---------------------------------------------------------------------------- stages on their own
// The loop's stages as kernels, for hosts that launch them: same code, same block, same grid.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    stage_append(const __grid_constant__ loop::AppendParams p) {
  RS_DYNAMIC_SHARED(shared);
  loop::append_stage(p, blockIdx.x, gridDim.x, shared);
}
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    stage_score(const __grid_constant__ loop::ScoreParams p) {
  RS_DYNAMIC_SHARED(shared);
  loop::score_stage(p, blockIdx.x, gridDim.x, shared);
}
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    stage_select(const __grid_constant__ loop::SelectParams p) {
  RS_DYNAMIC_SHARED(shared);
  loop::select_stage(p, blockIdx.x, gridDim.x, shared);
}
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    stage_attend(const __grid_constant__ loop::AttendParams p) {
  RS_DYNAMIC_SHARED(shared);
  loop::attend_stage(p, blockIdx.x, gridDim.x, shared);
}
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    stage_verify(const __grid_constant__ loop::VerifyParams p) {
  RS_DYNAMIC_SHARED(shared);
  loop::verify_stage(p, blockIdx.x, gridDim.x, shared);
}

// Dynamic shared memory of each stage, sizes [5], for blocks of *threads* in a grid of *blocks*.
extern "C" __global__ void stage_sizes(const __grid_constant__ loop::Step step, int threads,
                                       int blocks, int* sizes) {
  if (threadIdx.x == 0) loop::stage_sizes(step, threads, blocks, sizes);
}

// ---------------------------------------------------------------------------- the host's own way
// One block: admits *e* to *slot*, or ends the request there; *done* [1] tells whether it worked.
extern "C" __global__ void edit_slot(loop::Slots s, const int* page_pool, loop::Entry e, int slot,
                                     int* done) {
  bool ok = true;
  if (e.kind == loop::kAdmit)
    ok = loop::admit(s, e, page_pool, slot);
  else
    loop::release(s, slot);
  if (threadIdx.x == 0) *done = ok;
}

// ---------------------------------------------------------------------------- probes
extern "C" __global__ void probe_empty(int* unused) {}

// *rounds* meetings and nothing else. words [128], zero; kind 0 the common barrier, 1 meet.
extern "C" __global__ void probe_barrier(unsigned* words, int kind, int rounds,
                                         unsigned long long limit_ns) {
  unsigned* abort = words + 120;
  rs::Meeting m{words, abort, gridDim.x, 0, limit_ns};
  unsigned long long deadline = rs::global_ns() + limit_ns;
  for (int i = 1; i <= rounds; ++i) {
    bool ok = kind == 0 ? rs::grid_barrier(words, gridDim.x, abort, deadline)
                        : rs::meet(m);
    if (!ok) return;
  }
}

// Answers *rounds* messages: waits until mail[0] is i, stores i to reply[0]. Both in pinned memory.
extern "C" __global__ void probe_echo(const unsigned* mail, unsigned long long* reply,
                                      unsigned rounds, unsigned long long limit_ns) {
  if (threadIdx.x) return;
  unsigned long long begin = rs::global_ns();
  for (unsigned i = 1; i <= rounds; ++i) {
    for (unsigned polls = 1; rs::load_relaxed_sys(mail).x != i; ++polls) {
      rs::spin_pause();
      if (polls % 256 == 0 && rs::global_ns() - begin > limit_ns) return;
    }
    rs::store_tagged_sys(reply, i, i);
  }
}
