// The control of a step that the device runs again by itself: one block, after each step.
//
// graph_control  sends the step's tokens to the host, admits and ends requests, and decides whether
//                the step runs again: by the condition of a WHILE node, by launching its own graph
//                once more, or by a word that a host reads
//
// params         loop::Control and loop::Slots as in the resident loop, whose functions these are
//   emitted      int32 [slots]     what the step left for the host
//   tokens       int32 [slots, T]
//   words        uint32 [4]        steps at most | steps of this launch | 1 to go on | unused
//   target       condition, or graph to launch
//   first        1: nothing has run yet
//
// WAY: 0 the word alone, 1 a WHILE node, 2 a graph that launches itself.
// link: cudadevrt
#include "loop_control/control.cuh"

#ifndef WAY
#define WAY 0
#endif
#ifdef RS_CPU
#undef __grid_constant__
#define __grid_constant__
#endif

namespace again {

struct Params {
  loop::Control control;
  loop::Slots slots;
  const int* emitted;
  const int* tokens;
  unsigned* words;
  unsigned long long target;
  int first, unused;
};

enum Word { kMost = 0, kLaunched = 1, kGo = 2 };

// As loop::open_desk, but the step may have ended requests: who holds a slot is counted.
__device__ inline void resume_desk(const loop::Control& c, const loop::Slots& s, loop::Desk& desk) {
  if (threadIdx.x == 0) {
    uint4 kept = rs::load_stream(c.counters);
    desk.step = kept.x;
    desk.seen = kept.y;
    desk.taken = kept.z;
    desk.handled = kept.w;
    desk.active = desk.stalled = 0;
  }
  unsigned held = 0;
  for (int b = threadIdx.x; b < s.slots; b += blockDim.x) held += c.request[b] != loop::kNoRequest;
  __syncthreads();
  if (held) atomicAdd(&desk.active, held);
  __syncthreads();
}

// What the next control finds; close_desk does the same for the next launch.
__device__ inline void keep_desk(const loop::Control& c, const loop::Desk& desk) {
  c.counters[0] = desk.step;
  c.counters[1] = desk.seen;
  c.counters[2] = desk.taken;
  c.counters[3] = desk.handled;
}

__device__ inline void go_on(const Params& p, bool go) {
  p.words[kGo] = go;
#if defined(RS_CPU) || WAY == 0
#elif WAY == 1
  cudaGraphSetConditional(p.target, go);
#else
  if (!go) return;
  cudaGraphExec_t graph = p.first ? reinterpret_cast<cudaGraphExec_t>(p.target)
                                  : cudaGetCurrentGraphExec();
  cudaGraphLaunch(graph, cudaStreamGraphTailLaunch);
#endif
}

}  // namespace again

extern "C" __global__ void __launch_bounds__(256, 1)
    graph_control(const __grid_constant__ again::Params p) {
  using namespace again;
  __shared__ loop::Desk desk;
  loop::Control c = p.control;
  c.max_steps = p.words[kMost];
  unsigned launched = p.first ? 0 : p.words[kLaunched] + 1;
  loop::Unsent unsent{p.first ? nullptr : p.emitted, p.tokens};
  rs::Meeting nobody{nullptr, c.gates + loop::kAbort, 1, 0, c.watchdog_ns};
  resume_desk(c, p.slots, desk);
  loop::serve_host(c, p.slots, desk, unsent);
  unsigned order = loop::foresee(c, desk, launched), reason = loop::kRun;
  if (order == loop::kLeave) reason = loop::decide(c, desk, launched);
  if (order == loop::kHold) reason = loop::settle(c, p.slots, desk, nobody, launched, unsent);
  if (reason != loop::kRun) loop::close_desk(c, desk, reason);
  if (threadIdx.x) return;
  if (reason == loop::kRun) keep_desk(c, desk);
  p.words[kLaunched] = launched;
  go_on(p, reason == loop::kRun);
}

// Goes on until words[kMost] iterations are over, and does nothing else: what an iteration costs.
extern "C" __global__ void probe_repeat(const __grid_constant__ again::Params p) {
  using namespace again;
  if (threadIdx.x) return;
  unsigned launched = p.first ? 0 : p.words[kLaunched] + 1;
  p.words[kLaunched] = launched;
  go_on(p, launched < p.words[kMost]);
}
