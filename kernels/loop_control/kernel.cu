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

// The order for boundary *number* in the word that stood beside a counter. Block 0 may be one
// boundary ahead by now, and then this one let everybody pass.
__device__ inline unsigned order_in(unsigned word, unsigned number) {
  return word >> 2 == number ? word % 4 : kGo;
}
__device__ inline void put_order(unsigned* gate, unsigned number, unsigned order) {
  static_cast<volatile unsigned*>(gate)[1] = number << 2 | order;
}

// Where all blocks, block 0 included, agree on what comes next: kRun, or why to leave (only block 0
// knows). *order* is what block 0 foresaw.
__device__ inline unsigned boundary(const Params& p, Desk& desk, rs::Meeting& m, unsigned order,
                                    unsigned launched, Unsent& unsent) {
  __shared__ unsigned settled;
  const Control& c = p.control;
  bool serves = blockIdx.x == 0;
  if (serves && threadIdx.x == 0) put_order(c.gates + kBoundary, launched, order);
  unsigned word;
  if (!rs::meet(m, word)) return kAborted;
  order = order_in(word, launched);
  if (order == kHold && serves) {
    unsigned reason = settle(c, p.slots, desk, m, launched, unsent);
    if (threadIdx.x == 0) {
      put_order(c.gates + kSettled, launched, reason == kRun ? kGo : kLeave);
      rs::store_release_gpu(c.gates + kSettled, launched + 1);
    }
    return reason;
  }
  if (order == kHold) {
    if (threadIdx.x == 0 &&
        !rs::wait_reached(c.gates + kSettled, launched + 1, m.abort, m.limit_ns, settled))
      settled = launched << 2 | kLeave;
    __syncthreads();
    order = order_in(settled, launched);
  }
  if (order != kLeave) return kRun;
  return serves ? decide(c, desk, launched) : unsigned(kAsked);
}

// The last block to leave puts the words of the meetings back to zero.
__device__ inline void leave(unsigned* gates) {
  __syncthreads();
  if (threadIdx.x) return;
  if (rs::add_acq_rel_gpu(gates + kLeft, 1) + 1 < gridDim.x) return;
  for (int i = 0; i < kGateWords; ++i) static_cast<volatile unsigned*>(gates)[i] = 0;
}

}  // namespace loop

// Grid: all blocks must be resident at once, so at most one an SM; block 0 serves the control, and
// nothing else if `dedicated`.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    resident(const __grid_constant__ loop::Params p) {
  RS_DYNAMIC_SHARED(shared);
  __shared__ loop::Desk desk;
  const loop::Control& c = p.control;
  bool serves = blockIdx.x == 0, works = !(serves && c.dedicated);
  unsigned workers = gridDim.x - (c.dedicated != 0), *abort = c.gates + loop::kAbort;
  rs::Meeting inside{c.gates + loop::kInside, abort, workers, 0, c.watchdog_ns};
  rs::Meeting outside{c.gates + loop::kBoundary, abort, gridDim.x, 0, c.watchdog_ns};
  loop::Worker w{int(blockIdx.x - (c.dedicated != 0)), int(workers), 0, shared, nullptr};
  loop::Unsent unsent{nullptr, nullptr};
  unsigned reason = loop::kRun, order = loop::kGo, first = c.counters[0];
  if (serves) {
    loop::open_desk(c, p.slots, desk);
    loop::serve_host(c, p.slots, desk, unsent);
    order = loop::foresee(c, desk, 0);
  }
  for (;; ++w.launched) {
    reason = loop::boundary(p, desk, outside, order, w.launched, unsent);
    if (reason != loop::kRun) break;
    const loop::Step& step = p.steps[(first + w.launched) % p.sets];
    if (serves) {
      loop::serve_host(c, p.slots, desk, unsent);
      if (c.dedicated && threadIdx.x == 0)
        rs::store_release_gpu(c.gates + loop::kPublished, w.launched);
      order = loop::foresee(c, desk, w.launched + 1);
      unsent = {step.emitted, step.tokens};
    }
    if (!works) continue;
    bool traced = w.index == 0 && threadIdx.x == 0 && c.stamp_rows;
    w.row = traced ? c.stamps + w.launched % c.stamp_rows * loop::kStamps : nullptr;
    if (loop::run_step(p, step, inside, w)) continue;
    reason = loop::kAborted;
    break;
  }
  if (serves) {
    if (reason != loop::kAborted) loop::publish(c, p.slots, desk, unsent);
    loop::close_desk(c, desk, reason);
  }
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
