// A decode step in five stages a layer, head and commit: each a kernel of its own, or all of them,
// step after step, in one persistent kernel.
//
// step_<stage>   one stage of one layer; grid = workers
// resident       block 0 serves the host and commits; the others are the workers, who read weights
//                ahead while they wait for one another, over stages, layers and steps
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
  __device__ Scene& scene() const { return *reinterpret_cast<Scene*>(barriers() + kBarrierBytes); }
};
constexpr int kSharedBytes =
    kRingBytes + kAttendBytes + kMeetBytes + kBarrierBytes + (sizeof(Scene) + 127) / 128 * 128;
static_assert(kSharedBytes <= 227 * 1024, "shared memory of a block");

// Where a worker's tape holds what, in units.
struct Map {
  int qkv, out, gate_up, down, head;
  __device__ __forceinline__ Map(const FusedParams& p, int index, int count) {
    auto units = [&](int tiles, int each) {
      Share share(tiles, index, count);
      return (share.end - share.begin) * each;
    };
    qkv = units(qkv_tiles(p), kHiddenBlocks / 2);
    out = units(kHiddenTiles, kHeadsBlocks);
    gate_up = units(kGateTiles, kHiddenBlocks);
    down = units(kHiddenTiles, kFfnBlocks);
    head = units(head_tiles(p), kHiddenBlocks);
  }
  __device__ __forceinline__ int layer() const { return qkv + out + gate_up + down; }
};

// A worker that runs one product: *units* of its tape, from *first* on.
__device__ __forceinline__ Worker open_worker(const FusedParams& p, const Memory& m, int first,
                                              int units) {
  Worker w{{}, {m.parts(), 0}, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x)};
  const unsigned char* tape = p.tape + w.index * p.tape_bytes;
  w.ring.open(m.ring(), m.barriers(), tape + (long long)first * kUnitBytes, units, false);
  return w;
}

}  // namespace fused



// By one block, before the others: what they would all have to find out.
extern "C" __global__ void __launch_bounds__(512, 1)
    step_begin(const __grid_constant__ fused::Params p, int) {
  RS_DYNAMIC_SHARED(shared);
  fused::Scene& s = *reinterpret_cast<fused::Scene*>(shared);
  rs::wait_for_kernel_before();
  fused::load_scene(p.step, p.attend, s);
  for (int i = static_cast<int>(threadIdx.x); i < fused::kSceneWords; i += fused::kThreads)
    p.step.scene[i] = reinterpret_cast<unsigned*>(&s)[i];
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_qkv(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::Map map(p.step, blockIdx.x, gridDim.x);
  fused::Worker w = fused::open_worker(p.step, m, layer * map.layer(), map.qkv);
  fused::HiddenGains gains = fused::gains_of(p.step, layer, fused::kQkv);
  rs::wait_for_kernel_before();
  fused::copy_scene(p.step.scene, m.scene());
  fused::normed_stage(p.step, w, m.scene(), layer, fused::kQkv, gains, nullptr);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_attend(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
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
  fused::Map map(p.step, blockIdx.x, gridDim.x);
  fused::Worker w = fused::open_worker(p.step, m, layer * map.layer() + map.qkv, map.out);
  rs::wait_for_kernel_before();
  if (layer == 0) fused::copy_scene(p.step.scene, m.scene());
  fused::added_stage(p.step, w, m.scene(), layer, fused::kOut);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_gate_up(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::Map map(p.step, blockIdx.x, gridDim.x);
  fused::Worker w =
      fused::open_worker(p.step, m, layer * map.layer() + map.qkv + map.out, map.gate_up);
  fused::HiddenGains gains = fused::gains_of(p.step, layer, fused::kGateUp);
  rs::wait_for_kernel_before();
  fused::normed_stage(p.step, w, m.scene(), layer, fused::kGateUp, gains, nullptr);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_down(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::Map map(p.step, blockIdx.x, gridDim.x);
  int first = layer * map.layer() + map.qkv + map.out + map.gate_up;
  fused::Worker w = fused::open_worker(p.step, m, first, map.down);
  rs::wait_for_kernel_before();
  fused::added_stage(p.step, w, m.scene(), layer, fused::kDown);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_head(const __grid_constant__ fused::Params p, int layer) {
  RS_DYNAMIC_SHARED(shared);
  fused::Memory m{shared};
  fused::Map map(p.step, blockIdx.x, gridDim.x);
  fused::Worker w = fused::open_worker(p.step, m, p.step.layers * map.layer(), map.head);
  fused::HiddenGains gains = fused::gains_of(p.step, layer, fused::kHead);
  rs::wait_for_kernel_before();
  fused::normed_stage(p.step, w, m.scene(), layer, fused::kHead, gains, p.logits);
}
extern "C" __global__ void __launch_bounds__(512, 1)
    step_commit(const __grid_constant__ fused::Params p, int) {
  RS_DYNAMIC_SHARED(shared);
  rs::wait_for_kernel_before();
  fused::commit_stage(p.step, p.commit, shared);
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
  int alive;
};

__device__ __forceinline__ void stamp(long long* stamps, int at) {
  if (stamps && threadIdx.x == 0) stamps[at] = clock64();
}

// What block 0 does: boundaries, the host, commits.
__device__ __forceinline__ void serve(const ResidentParams& p, Office& o, unsigned char* shared) {
  __shared__ loop::Desk desk;
  const loop::Control& c = p.control;
  loop::Unsent unsent{nullptr, nullptr};
  unsigned reason, set = c.counters[0] % p.sets;
  const unsigned workers = gridDim.x - 1;
  loop::open_desk(c, p.slots, desk);
  loop::serve_host(c, p.slots, desk, unsent);
  unsigned order = loop::foresee(c, desk, 0);
  for (;;) {
    reason = loop::boundary(c, p.slots, desk, o.outside, o.launched, order, unsent);
    if (reason != loop::kRun) break;
    loop::serve_host(c, p.slots, desk, unsent);
    order = loop::foresee(c, desk, o.launched + 1);
    if (threadIdx.x == 0)
      o.alive = rs::wait_reached(c.gates + kDone, (o.launched + 1) * workers, o.inside.abort,
                                 o.inside.limit_ns);
    __syncthreads();
    if (!o.alive) {
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
    if (threadIdx.x == 0) ++o.launched;
    __syncthreads();
  }
  if (reason != loop::kAborted) loop::publish(c, p.slots, desk, unsent);
  loop::close_desk(c, desk, reason);
}

#define RUN(stage)             \
  stamp(stamps, event++);      \
  stage;                       \
  stamp(stamps, event++)

// One step of a worker; false if a meeting failed. Half a layer at a time: a product after a norm,
// attention in the first half, a product that is added.
__device__ __forceinline__ bool work(const ResidentParams& p, Worker& w, Office& o,
                                     const Memory& m, long long* stamps) {
  const FusedParams& step = p.common.step;
  Scene& s = m.scene();
  int event = 0;
  HiddenGains gains = gains_of(step, 0, kQkv);
  load_scene(step, p.common.attend, s);
  Attend attend(step, p.common.attend, s, m.tiles(), w.index, w.count);
  if (!SPARSE) attend.plan();
#pragma unroll 1
  for (int half = 0;; ++half) {
    const int layer = half / 2;
    const Normed what = half == 2 * step.layers ? kHead : half % 2 ? kGateUp : kQkv;
    if (half && !rs::meet(o.inside)) return false;
    RUN(normed_stage(step, w, s, layer, what, gains, p.common.logits));
    if (what == kHead) break;
    if (what == kQkv) {
#if SPARSE
      if (!rs::meet(o.inside)) return false;
      PageScoreParams score = p.score;
      score.minmax += layer * step.minmax_count;
      RUN(page_score_stage(score, w.index, w.count, m.tiles()));
      if (!rs::meet(o.inside)) return false;
      RUN(topk_select_stage(p.select, w.index, w.count, m.tiles()));
      if (!rs::meet(o.inside)) return false;
      count_selected(p.common.attend, s);
      attend.plan();
      bool begun = attend.begin(layer, false);
#else
      bool begun = attend.begin(layer, true);
      if (!rs::meet(o.inside)) return false;
#endif
      RUN(attend.run(layer, begun));
    }
    if (!rs::meet(o.inside)) return false;
    RUN(added_stage(step, w, s, layer, what == kQkv ? kOut : kDown));
    gains = what == kQkv ? gains_of(step, layer, kGateUp)
                         : gains_of(step, layer + 1, layer + 1 < step.layers ? kQkv : kHead);
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
    o.launched = 0;
  }
  __syncthreads();
  if (blockIdx.x == 0) {
    fused::serve(p, o, shared);
  } else {
    fused::Memory m{shared};
    const FusedParams& step = p.common.step;
    fused::Worker w{{}, {m.parts(), 0}, static_cast<int>(blockIdx.x) - 1,
                    static_cast<int>(gridDim.x) - 1};
    fused::Map map(step, w.index, w.count);
    w.ring.open(m.ring(), m.barriers(), step.tape + w.index * step.tape_bytes,
                step.layers * map.layer() + map.head, true);
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
