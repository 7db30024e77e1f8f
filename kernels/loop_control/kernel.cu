// The resident decode loop, and the probes that tell where its time goes.
//
// resident       one block an SM: boundary, append, score, select, attend, verify and commit, again
//                and again until asked to leave, out of steps, or out of patience
// edit_slot      what the loop does at a boundary, for hosts that decide themselves
// probe_*        an empty node, a barrier and a mailbox by themselves
//
// STAGES 0 compiles the loop with empty stages: what is left is its control.
#include "loop_control/control.cuh"

#ifndef STAGES
#define STAGES 0
#endif
#ifndef THREADS
#define THREADS 256
#endif
#ifndef SETS
#define SETS 8
#endif
#if STAGES
#include "kv_append/stage.cuh"
#include "page_score/stage.cuh"
#include "paged_attention/stage.cuh"
#include "topk_select/stage.cuh"
#include "verify_commit/stage.cuh"
#endif
#ifdef RS_CPU
#undef __grid_constant__
#define __grid_constant__
#endif

namespace loop {

// One input set: what each stage is given. Steps take the sets in turn.
struct Step {
#if STAGES
  KvAppendParams append;
  PageScoreParams score;
  TopkSelectParams select;
  PagedAttentionParams attend;
  VerifyCommitParams verify;
#endif
  const int* emitted;
  const int* tokens;
};

struct Params {
  Control control;
  Slots slots;
  int sets;
  int sparse;  // 0: attention over all pages, without scoring and selection
  Step steps[SETS];
};

constexpr int kStamps = 16;  // int64 words a row of `stamps`; 2i: stage i starts, 2i + 1: it has ended

struct Worker {
  int index, count;
  unsigned launched;
  unsigned char* shared;
  long long* row;  // stamps of this step, null except in one thread of the grid

  __device__ void stamp(int at) const {
    if (row) row[at] = clock64();
  }
};

#if STAGES
#define RUN_STAGE(i, stage, params)               \
  w.stamp(2 * i);                                 \
  stage(params, w.index, w.count, w.shared);      \
  w.stamp(2 * i + 1)
#else
#define RUN_STAGE(i, stage, params) \
  w.stamp(2 * i);                   \
  w.stamp(2 * i + 1)
#endif

// One step; false if a meeting failed.
__device__ inline bool run_step(const Params& p, const Step& step, rs::Meeting& m,
                                const Worker& w) {
  RUN_STAGE(0, kv_append_stage, step.append);
  if (!rs::meet(m)) return false;
  if (p.sparse) {
    RUN_STAGE(1, page_score_stage, step.score);
    if (!rs::meet(m)) return false;
    RUN_STAGE(2, topk_select_stage, step.select);
    if (!rs::meet(m)) return false;
  }
  RUN_STAGE(3, paged_attention_stage, step.attend);
  // Block 0 may still be sending the last step's lengths, which the commit changes.
  if (p.control.dedicated && w.index == 0 && threadIdx.x == 32)
    rs::wait_reached(p.control.gates + kPublished, w.launched, m.abort, m.limit_ns);
  if (!rs::meet(m)) return false;
  RUN_STAGE(4, verify_commit_stage, step.verify);
  return true;
}

// The last block to leave puts the words of the meetings back to zero.
__device__ inline void leave(unsigned* gates) {
  __syncthreads();
  if (threadIdx.x) return;
  if (rs::add_acq_rel_gpu(gates + kLeft, 1) + 1 < gridDim.x) return;
  for (int gate : {int(kArrived), int(kDirective), int(kPublished), int(kAbort), int(kLeft)})
    rs::store_release_gpu(gates + gate, 0u);
}

}  // namespace loop

// Grid: all blocks must be resident at once, so at most one an SM; block 0 serves the control, and
// nothing else if `dedicated`.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    resident(const __grid_constant__ loop::Params p) {
  RS_DYNAMIC_SHARED(shared);
  __shared__ loop::Desk desk;
  __shared__ unsigned directive;
  const loop::Control& c = p.control;
  bool serves = blockIdx.x == 0, works = !(serves && c.dedicated);
  int workers = gridDim.x - (c.dedicated != 0);
  rs::Meeting m{c.gates + loop::kArrived, c.gates + loop::kAbort, unsigned(workers), 0,
                c.watchdog_ns};
  loop::Worker w{int(blockIdx.x) - (c.dedicated != 0), workers, 0, shared, nullptr};
  loop::Unsent unsent{nullptr, nullptr};
  unsigned reason = loop::kRun, first = c.counters[0];
  if (serves) loop::open_desk(c, p.slots, desk);
  for (;; ++w.launched) {
    m.target += workers;
    __syncthreads();
    if (works && threadIdx.x == 0) rs::arrive_release_gpu(m.arrived);
    if (serves) {
      reason = loop::boundary(c, p.slots, desk, m, w.launched, unsent);
    } else {
      if (threadIdx.x == 0) {
        unsigned seen;
        bool alive = rs::wait_reached(c.gates + loop::kDirective, (w.launched + 1) << 1, m.abort,
                                      m.limit_ns, seen);
        directive = alive ? seen & 1 : 1;
      }
      __syncthreads();
      reason = directive ? loop::kAsked : loop::kRun;
    }
    if (reason != loop::kRun) break;
    const loop::Step& step = p.steps[(first + w.launched) % p.sets];
    unsent = {step.emitted, step.tokens};
    if (works) {
      bool traced = w.index == 0 && threadIdx.x == 0 && c.stamp_rows;
      w.row = traced ? c.stamps + w.launched % c.stamp_rows * loop::kStamps : nullptr;
      if (loop::run_step(p, step, m, w)) continue;
      reason = loop::kAborted;
      break;
    }
    m.target += workers * (p.sparse ? 4 : 2);  // the meetings that a dedicated block 0 skips
  }
  if (serves) loop::close_desk(c, desk, reason);
  loop::leave(c.gates);
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

// *rounds* meetings and nothing else. words [128], zero; 0 the common barrier, 1 meet, 2 meet_spread.
extern "C" __global__ void probe_barrier(unsigned* words, int kind, int rounds,
                                         unsigned long long limit_ns) {
  unsigned* abort = words + 120;
  rs::Meeting m{words, abort, gridDim.x, 0, limit_ns};
  unsigned long long deadline = rs::global_ns() + limit_ns;
  for (int i = 1; i <= rounds; ++i) {
    bool ok = kind == 0   ? rs::grid_barrier(words, gridDim.x, abort, deadline)
              : kind == 1 ? rs::meet(m)
                          : rs::meet_spread(words, 16, i, abort, limit_ns);
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
