// A decode step in five stages a layer, head and commit: each a kernel of its own, or all of them,
// step after step, in one persistent kernel.
//
// step_<stage>   one stage of one layer; grid = workers
// resident       block 0 serves the host and commits; the others are the workers, who read weights
//                ahead while they wait for one another, over stages, layers and steps. A wish to
//                leave that comes while they work is heeded when the step ends
#include "fused_step/attend.cuh"
#include "fused_step/commit.cuh"
#include "fused_step/stages.cuh"
#include "loop_control/boundary.cuh"

// Scoring and selection of pages in the persistent kernel.
#ifndef SPARSE
#define SPARSE 0
#endif
#if SPARSE
#include "page_score/stage.cuh"
#include "topk_select/stage.cuh"
#else
struct PageScoreParams {};
struct TopkSelectParams {};
__device__ void page_score_stage(const PageScoreParams&, int, int, unsigned char*) {}
__device__ void topk_select_stage(const TopkSelectParams&, int, int, unsigned char*) {}
#endif
#ifdef RS_CPU
#undef __grid_constant__
#define __grid_constant__
#endif

namespace fused {

struct Params {
  FusedParams step;
  PagedAttentionParams attend;  // cache of layer 0; a layer's lies step.cache_bytes further on
  VerifyCommitParams commit;    // output set 0
  float* logits;                // for checks, or null
};

// Shared memory: ring, tiles of attention (the commit's too), parts of products, what is known.
struct Memory {
  unsigned char* base;
  __device__ unsigned char* ring() const { return base; }
  __device__ unsigned char* tiles() const { return base + kRingBytes; }
  __device__ float* parts() const {
    return reinterpret_cast<float*>(base + kRingBytes + kAttendBytes);
  }
  __device__ unsigned char* barriers() const {
    return base + kRingBytes + kAttendBytes + kMeetBytes;
  }
  __device__ unsigned char* gains() const { return barriers() + kBarrierBytes; }
  __device__ Share* shares() const { return reinterpret_cast<Share*>(gains() + kGainBytes); }
  __device__ Scene& scene() const { return *reinterpret_cast<Scene*>(gains() + kGainBytes + 64); }
};
static_assert(kProducts * sizeof(Share) <= 64, "the shares' place");
constexpr int kSharedBytes = kRingBytes + kAttendBytes + kMeetBytes + kBarrierBytes + kGainBytes +
                             64 + (sizeof(Scene) + 127) / 128 * 128;
static_assert(kSharedBytes <= 227 * 1024, "shared memory of a block");

// Worker *index* of *count*, with its shares; all threads call.
__device__ __forceinline__ Worker hire(const FusedParams& p, const Memory& m, int index, int count) {
  if (threadIdx.x < kProducts)
    m.shares()[threadIdx.x] = Share(tiles_of(p, threadIdx.x), index, count);
  __syncthreads();
  return {{}, {m.parts(), 0}, m.tiles(), m.gains(), m.shares(), index, count};
}
// Units of the worker's tape that *product* takes in one layer, or the head in a step.
__device__ __forceinline__ int tape_units(const Worker& w, int product) {
  return (w.shares[product].end - w.shares[product].begin) * units_of(product);
}
__device__ __forceinline__ int layer_units(const Worker& w) {
  return tape_units(w, kQkv) + tape_units(w, kOut) + tape_units(w, kGateUp) + tape_units(w, kDown);
}

// A worker that runs one product of *layer*, or the head.
__device__ __forceinline__ Worker open_worker(const FusedParams& p, const Memory& m, int layer,
                                              int product) {
  Worker w = hire(p, m, blockIdx.x, gridDim.x);
  int first = (product == kHead ? p.layers : layer) * layer_units(w);
  if (product == kOut || product == kGateUp || product == kDown) first += tape_units(w, kQkv);
  if (product == kGateUp || product == kDown) first += tape_units(w, kOut);
  if (product == kDown) first += tape_units(w, kGateUp);
  const unsigned char* tape = p.tape + w.index * p.tape_bytes;
  w.ring.open(m.ring(), m.barriers(), tape + (long long)first * kUnitBytes,
              tape_units(w, product), false);
  return w;
}

}  // namespace fused

// By one block, before the others: what they would all have to find out.
extern "C" __global__ void __launch_bounds__(512, 1)
    step_begin(const __grid_constant__ fused::Params p, int) {
  RS_DYNAMIC_SHARED(shared);
  fused::Scene& s = *reinterpret_cast<fused::Scene*>(shared);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::load_scene(p.step, p.attend, s);
  for (int i = static_cast<int>(threadIdx.x); i < fused::kSceneWords; i += fused::kThreads)
    p.step.scene[i] = reinterpret_cast<unsigned*>(&s)[i];
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_qkv(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::fetch_gains(m.gains(), fused::gains_of(p.step, layer, fused::kQkv));
  fused::Worker w = fused::open_worker(p.step, m, layer, fused::kQkv);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::copy_scene(p.step.scene, m.scene());
  fused::normed_stage(p.step, w, m.scene(), layer, fused::kQkv, nullptr);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_attend(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::copy_scene(p.step.scene, m.scene());
  if (p.attend.selected) fused::count_selected(p.attend, m.scene());
  fused::Attend attend(p.step, p.attend, m.scene(), m.tiles(), blockIdx.x, gridDim.x);
  attend.plan();
  attend.run(layer, attend.begin(layer, false));
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_out(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::Worker w = fused::open_worker(p.step, m, layer, fused::kOut);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  if (layer == 0) fused::copy_scene(p.step.scene, m.scene());
  fused::added_stage(p.step, w, m.scene(), layer, fused::kOut);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_gate_up(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::fetch_gains(m.gains(), fused::gains_of(p.step, layer, fused::kGateUp));
  fused::Worker w = fused::open_worker(p.step, m, layer, fused::kGateUp);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::normed_stage(p.step, w, m.scene(), layer, fused::kGateUp, nullptr);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_down(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::Worker w = fused::open_worker(p.step, m, layer, fused::kDown);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::added_stage(p.step, w, m.scene(), layer, fused::kDown);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_head(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::fetch_gains(m.gains(), fused::gains_of(p.step, layer, fused::kHead));
  fused::Worker w = fused::open_worker(p.step, m, layer, fused::kHead);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::normed_stage(p.step, w, m.scene(), layer, fused::kHead, p.logits);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_commit(const __grid_constant__ fused::Params p, int) {
  RS_DYNAMIC_SHARED(shared);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  fused::commit_stage(p.step, p.commit, shared);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_score(const __grid_constant__ PageScoreParams p, int) {
  RS_DYNAMIC_SHARED(shared);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  page_score_stage(p, blockIdx.x, gridDim.x, shared);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_select(const __grid_constant__ TopkSelectParams p, int) {
  RS_DYNAMIC_SHARED(shared);
  rs::let_next_start();
  rs::wait_for_kernel_before();
  topk_select_stage(p, blockIdx.x, gridDim.x, shared);
}
// sizes [3]: dynamic shared memory of the products and of the commit; bytes of a scene.
extern "C" __global__ void shared_sizes(int* sizes) {
  if (threadIdx.x) return;
  sizes[0] = fused::kSharedBytes;
  sizes[1] = sizeof(verify::Shared) + 4 * fused::kMostRequests * TOKENS;
  sizes[2] = sizeof(fused::Scene);
}

// ---------------------------------------------------------------------------- resident
namespace fused {

struct ResidentParams {
  Params common;
  loop::Control control;
  loop::Slots slots;
#if SPARSE
  PageScoreParams score;  // of layer 0
  TopkSelectParams select;
#endif
  long long* stamps;  // [workers][kStampWords] of the last step, or null
  int sets, stamp_words;
};

// Arrivals of workers that have done their part of a step; the loop's own word for steps sent.
constexpr int kDone = loop::kPublished;

struct Office {  // in shared memory
  rs::Meeting inside, outside;
  unsigned launched;
  unsigned done;  // steps that the workers have done, or given up
  int alive;
  int asked;  // the host wished to leave while they worked
};
constexpr int kPauses = 40, kPauseNs = 100;  // between two looks at the mailbox, some 4 us in all

__device__ __forceinline__ void stamp(long long* stamps, int at) {
  if (stamps && threadIdx.x == 0) stamps[at] = clock64();
}

// By all of block 0: waits until the workers have done step *launched*, and looks out for a wish to
// leave. The looks go over PCIe, so the thread that takes them is none that the step waits for, and
// rests between them where it sees the end of the step. False if the step will never end.
__device__ __forceinline__ bool await_workers(const loop::Control& c, Office& o) {
  const unsigned target = o.launched + 1;  // steps done when this one is
  if (threadIdx.x == 0) {
    o.alive = rs::wait_reached(c.gates + kDone, target * (gridDim.x - 1), o.inside.abort,
                               o.inside.limit_ns);
    static_cast<volatile unsigned&>(o.done) = target;
  }
  if (threadIdx.x == kThreads - 1) {
    const volatile unsigned& done = o.done;
    do {
      o.asked = loop::wishes_to_leave(c);
      for (int i = 0; i < kPauses && done != target; ++i) __nanosleep(kPauseNs);
    } while (!o.asked && done != target);
  }
  __syncthreads();
  return o.alive != 0;
}

// What block 0 does: boundaries, the host, commits.
__device__ __forceinline__ void serve(const ResidentParams& p, Office& o, unsigned char* shared) {
  __shared__ loop::Desk desk;
  const loop::Control& c = p.control;
  loop::Unsent unsent{nullptr, nullptr};
  unsigned reason, set = c.counters[0] % p.sets;
  loop::open_desk(c, p.slots, desk);
  loop::serve_host(c, p.slots, desk, unsent);
  unsigned order = loop::foresee(c, desk, 0);
  for (;;) {
    reason = loop::boundary(c, p.slots, desk, o.outside, o.launched, order, unsent);
    if (reason != loop::kRun) break;
    loop::serve_host(c, p.slots, desk, unsent);
    order = loop::foresee(c, desk, o.launched + 1);
    if (!await_workers(c, o)) {
      reason = loop::kAborted;
      break;
    }
    VerifyCommitParams commit = p.common.commit;
    const int slots = p.slots.slots, step = slots * (1 + TOKENS);
    commit.emitted += set * step;
    commit.tokens += set * step;
    commit_stage(p.common.step, commit, shared);
    unsent = {commit.emitted, commit.tokens};
    set = set + 1 == unsigned(p.sets) ? 0 : set + 1;
    if (threadIdx.x == 0) {
      ++o.launched;
      if (o.asked) desk.asked = 1;  // decide() goes by the desk
    }
    __syncthreads();
    if (desk.asked) order = loop::kLeave;
  }
  if (reason != loop::kAborted) loop::publish(c, p.slots, desk, unsent);
  loop::close_desk(c, desk, reason);
}

// One step of a worker, stage after stage; false if a meeting failed. What the next stage needs that
// is no work of others is fetched before the meeting.
__device__ __forceinline__ bool work(const ResidentParams& p, Worker& w, Office& o,
                                     const Memory& m, long long* stamps) {
  const FusedParams& step = p.common.step;
  enum Stage { kStageQkv, kStageScore, kStageSelect, kStageAttend, kStageOut, kStageGateUp,
               kStageDown, kStages };
  Scene& s = m.scene();
  Attend attend(step, p.common.attend, s, m.tiles(), w.index, w.count);
  fetch_gains(w.gains, gains_of(step, 0, kQkv));
  load_scene(step, p.common.attend, s);
  if (!SPARSE) attend.plan();
  int stage = kStageQkv, event = 0;
  bool begun = false;
#pragma unroll 1
  for (int layer = 0;;) {
    const bool head = layer == step.layers;
    if (event && !rs::meet(o.inside)) return false;
    stamp(stamps, event++);
    if (stage == kStageQkv || stage == kStageGateUp) {
      int product = head ? kHead : stage == kStageQkv ? kQkv : kGateUp;
      normed_stage(step, w, s, layer, product, p.common.logits);
    }
#if SPARSE
    if (stage == kStageScore) {
      PageScoreParams score = p.score;
      score.minmax += layer * step.minmax_count;
      page_score_stage(score, w.index, w.count, m.tiles());
    }
    if (stage == kStageSelect) topk_select_stage(p.select, w.index, w.count, m.tiles());
#endif
    if (stage == kStageAttend) {
      if (SPARSE) {
        count_selected(p.common.attend, s);
        attend.plan();
        begun = attend.begin(layer, false);
      }
      attend.run(layer, begun);
    }
    if (stage == kStageOut || stage == kStageDown)
      added_stage(step, w, s, layer, stage == kStageOut ? kOut : kDown);
    stamp(stamps, event++);
    if (head) break;
    if (++stage == kStages) stage = kStageQkv, ++layer;
    if (stage == kStageScore && !SPARSE) stage = kStageAttend;
    if (stage == kStageAttend && !SPARSE) begun = attend.begin(layer, true);
    if (stage == kStageQkv || stage == kStageGateUp) {
      int product = layer == step.layers ? kHead : stage == kStageQkv ? kQkv : kGateUp;
      fetch_gains(w.gains, gains_of(step, layer, product));
    }
  }
  if (threadIdx.x == 0) rs::arrive_release_gpu(p.control.gates + kDone);
  return true;
}

}  // namespace fused

// Grid: 1 + workers, all resident at once.
extern "C" __global__ void __launch_bounds__(512, 1)
    resident(const __grid_constant__ fused::ResidentParams p) {
  RS_DYNAMIC_SHARED(shared);
  __shared__ fused::Office o;
  if (threadIdx.x == 0) {
    unsigned *gates = p.control.gates, *abort = gates + loop::kAbort;
    o.inside = {gates + loop::kInside, abort, gridDim.x - 1, 0, p.control.watchdog_ns};
    o.outside = {gates + loop::kBoundary, abort, gridDim.x, 0, p.control.watchdog_ns};
    o.launched = o.done = 0;
  }
  __syncthreads();
  if (blockIdx.x == 0) {
    fused::serve(p, o, shared);
  } else {
    fused::Memory m{shared};
    const FusedParams& step = p.common.step;
    fused::Worker w =
        fused::hire(step, m, static_cast<int>(blockIdx.x) - 1, static_cast<int>(gridDim.x) - 1);
    int units = step.layers * fused::layer_units(w) + fused::tape_units(w, fused::kHead);
    w.ring.open(m.ring(), m.barriers(), step.tape + w.index * step.tape_bytes, units, true);
    long long* stamps = p.stamps ? p.stamps + (long long)w.index * p.stamp_words : nullptr;
    loop::Desk* none = nullptr;
    loop::Unsent unsent{nullptr, nullptr};
    for (;;) {
      if (loop::boundary(p.control, p.slots, *none, o.outside, o.launched, loop::kGo, unsent) !=
          loop::kRun)
        break;
      if (!fused::work(p, w, o, m, stamps)) break;
      if (threadIdx.x == 0) ++o.launched;
      __syncthreads();
    }
    w.ring.close();
  }
  loop::leave(p.control.gates);
}
