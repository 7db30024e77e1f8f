// What block 0 of the resident loop does at a token boundary, while the others wait for its word.
//
// mail       uint32 [4], pinned     entries posted, asked to leave, steps the host has read, unused.
//                                   Read as a step begins; a loop that also looks for the wish to
//                                   leave as it waits for the step heeds it at that step's end
// entries    Entry [queue], pinned  the host writes entry i at i % queue, then posts i + 1
// page_pool  int32 [any], pinned    pages that the host hands over with a request
// outputs    uint64 [ring][2 + slots (2 + T)], pinned: step in the high word, value in the low one
//            row: entries taken from the queue | active slots | per slot: state, request, T tokens
// status     uint32 [4], pinned     reason + 1, steps done, entries taken, active slots; at the end
// queue      Entry [queue]          the device's copy of the entries, the waiting requests
// request    uint32 [2][slots]      who holds a slot, NO_REQUEST if nobody; 1 where the holder lacked
//                                   pages when the step began, so that it emits nothing
// counters   uint32 [4]             steps done; entries seen, taken, handled: over relaunches
// gates      uint32 [64]            words of the meetings; zero between launches
#pragma once
#include "loop_control/slots.cuh"

namespace loop {

constexpr unsigned kNoRequest = 0xffffffffu;
constexpr unsigned kFinished = 1u << 16;  // in a slot's state, above the number of tokens emitted
enum Reason : unsigned { kRun, kAsked, kSteps, kIdleLong, kUnread, kNoPages, kAborted };
// Words of `gates`, pairs and a cache line apart: arrivals inside a step; arrivals at a boundary |
// order; boundaries settled | order; steps sent.
enum Gate { kInside = 0, kBoundary = 16, kSettled = 32, kPublished = 48, kAbort = 64, kLeft = 65 };
constexpr int kGateWords = 80;
// What block 0 orders at a boundary, in the low bits; the boundary's number stands above.
enum Order : unsigned { kGo, kHold, kLeave };

struct Control {
  const unsigned* mail;
  const Entry* entries;
  const int* page_pool;
  unsigned long long* outputs;
  unsigned* status;
  Entry* queue;
  unsigned* request;
  unsigned* counters;
  unsigned* gates;
  long long* stamps;
  unsigned long long watchdog_ns, host_ns;
  int queue_size, outputs_size;
  unsigned max_steps;
  int dedicated, stamp_rows, unused;
};

// ---------------------------------------------------------------------------- block 0's memory
struct Desk {             // in shared memory
  unsigned seen, taken;   // entries copied to the queue, entries that have left it
  unsigned handled;       // entries up to here have been searched for cancellations
  unsigned asked, read;   // the host's wish to leave, steps it has read
  unsigned step, active;  // steps published, slots held after the last of them
  unsigned stalled;       // those of them that lack pages
  int alive, patient, idle;
};

__device__ inline void open_desk(const Control& c, const Slots& s, Desk& desk) {
  if (threadIdx.x == 0) {
    desk.step = c.counters[0];
    desk.seen = c.counters[1];
    desk.taken = c.counters[2];
    desk.handled = c.counters[3];
    desk.active = desk.stalled = 0;
  }
  __syncthreads();
  for (int b = threadIdx.x; b < s.slots; b += blockDim.x)
    if (s.lengths[b] != -1) atomicAdd(&desk.active, 1u);
  __syncthreads();
}

// By one warp: reads the mailbox, and copies what is new there to the queue.
__device__ inline void take_mail(const Control& c, Desk& desk) {
  int lane = threadIdx.x % 32;
  uint4 mail = rs::load_relaxed_sys(c.mail);
  unsigned posted = __shfl_sync(0xffffffffu, mail.x, 0), seen = desk.seen;
  if (posted != seen) {
    __threadfence_system();
    constexpr int kWords = sizeof(Entry) / sizeof(uint4);
    for (unsigned i = lane; i < (posted - seen) * kWords; i += 32) {
      unsigned at = (seen + i / kWords) % c.queue_size * kWords + i % kWords;
      reinterpret_cast<uint4*>(c.queue)[at] =
          rs::load_relaxed_sys(reinterpret_cast<const uint4*>(c.entries) + at);
    }
  }
  __syncwarp();
  if (lane == 0) {
    desk.seen = posted;
    desk.asked = mail.y;
    desk.read = mail.z;
  }
}

// By one thread, at any time: whether the host wishes the loop to leave. Entries stay where they are.
__device__ inline bool wishes_to_leave(const Control& c) {
  return rs::load_relaxed_sys(c.mail).y != 0;
}

__device__ inline Entry queued(const Control& c, unsigned index) {
  const uint4* at = reinterpret_cast<const uint4*>(c.queue + index % c.queue_size);
  Entry e;
  uint4 low = rs::load_stream(at), high = rs::load_stream(at + 1);
  memcpy(&e, &low, 16);
  memcpy(reinterpret_cast<char*>(&e) + 16, &high, 16);
  return e;
}

// Ends a request wherever it is; *from* is the entry that asked for it.
__device__ inline void cancel(const Control& c, const Slots& s, Desk& desk, unsigned from,
                              unsigned request) {
  for (int b = 0; b < s.slots; ++b) {
    if (static_cast<volatile unsigned*>(c.request)[b] != request) continue;
    release(s, b);
    if (threadIdx.x == 0) {
      c.request[b] = kNoRequest;
      --desk.active;
      desk.stalled = 0;  // its pages may help the others
    }
    __syncthreads();
  }
  for (unsigned i = desk.taken; i != from; ++i) {  // it may still wait
    __syncthreads();
    Entry e = queued(c, i);
    __syncthreads();
    if (e.request == request && threadIdx.x == 0) c.queue[i % c.queue_size].kind = kCancel;
  }
  __syncthreads();
}

// The lowest idle slot from *from* on, or `slots`; same in every thread.
__device__ inline int next_idle(const Slots& s, Desk& desk, int from) {
  if (threadIdx.x == 0) desk.idle = s.slots;
  __syncthreads();
  for (int b = from + threadIdx.x; b < s.slots; b += blockDim.x)
    if (static_cast<volatile int*>(s.lengths)[b] == -1) atomicMin(&desk.idle, b);
  __syncthreads();
  return desk.idle;
}

// Handles new mail, then gives idle slots to waiting requests, first come first served: a request
// that does not fit yet holds back those behind it.
__device__ inline void serve_queue(const Control& c, const Slots& s, Desk& desk) {
  for (unsigned i = desk.handled; i != desk.seen; ++i) {
    Entry e = queued(c, i);
    if (e.kind == kCancel) cancel(c, s, desk, i, e.request);
  }
  __syncthreads();
  if (threadIdx.x == 0) desk.handled = desk.seen;
  int slot = -1;
  while (desk.taken != desk.seen) {
    Entry e = queued(c, desk.taken);
    if (e.kind == kAdmit) {
      slot = next_idle(s, desk, slot + 1);
      if (slot == s.slots || !admit(s, e, c.page_pool, slot)) break;
      if (threadIdx.x == 0) {
        c.request[slot] = e.request;
        c.request[s.slots + slot] = 0;
        ++desk.active;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) ++desk.taken;
    __syncthreads();
  }
  __syncthreads();
}

// Whether to run another step, to wait for the host, or why to leave. One step is unpublished, so
// that one row of the outputs stays spare.
__device__ inline unsigned decide(const Control& c, const Desk& desk, unsigned launched) {
  if (desk.asked) return kAsked;
  if (launched == c.max_steps) return kSteps;
  if (desk.active == 0) return desk.taken == desk.seen ? kIdleLong : kNoPages;
  if (desk.stalled == desk.active) return kNoPages;
  if (desk.step + 1 - desk.read >= static_cast<unsigned>(c.outputs_size)) return kUnread;
  return kRun;
}

// ---------------------------------------------------------------------------- boundary
// What a step left for the host; *emitted* [slots] and *tokens* [slots, T] are its input set's.
struct Unsent {
  const int* emitted;  // null: nothing to send
  const int* tokens;
};

// By all of block 0: sends the step that ended to the host. Slots whose request has left are free
// from here on.
__device__ inline void publish(const Control& c, const Slots& s, Desk& desk, Unsent& unsent) {
  if (unsent.emitted == nullptr) return;
  const volatile int* lengths = s.lengths;
  const volatile int* emitted = unsent.emitted;
  const volatile int* tokens = unsent.tokens;
  const volatile unsigned* request = c.request;
  int words = 2 + s.new_tokens, row = 2 + s.slots * words;
  unsigned tag = desk.step + 1;
  unsigned long long* out =
      c.outputs + static_cast<long long>(desk.step % c.outputs_size) * row;
  unsigned left = 0, stalled = 0;
  if (threadIdx.x == 0) desk.stalled = 0;
  int threads = blockDim.x - 32;  // the last warp may be at the mailbox
  for (int i = threadIdx.x; i < s.slots * words && threadIdx.x < threads; i += threads) {
    int b = i / words, word = i % words;
    const volatile int* source = word < 2 ? emitted + b : tokens + b * s.new_tokens + word - 2;
    int length = lengths[b];  // four loads at once
    unsigned holder = request[b], stood = request[s.slots + b], value = *source;
    bool held = holder != kNoRequest;
    if (word == 0) {
      if (!held || stood) value = 0;
      if (held && length == -1) value |= kFinished;
      left += held && length == -1;
      stalled += held && length < -1;
    }
    if (word == 1) value = holder;
    rs::store_tagged_sys(out + 2 + i, value, tag);
  }
  __syncthreads();
  if (left) atomicSub(&desk.active, left);
  if (stalled) atomicAdd(&desk.stalled, stalled);
  for (int b = threadIdx.x; b < s.slots; b += blockDim.x) {
    int length = lengths[b];
    c.request[s.slots + b] = length < -1;
    if (length == -1) c.request[b] = kNoRequest;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    rs::store_tagged_sys(out, desk.taken, tag);
    rs::store_tagged_sys(out + 1, desk.active, tag);
    ++desk.step;
  }
  unsent.emitted = nullptr;
  __syncthreads();
}

// What block 0 orders for the coming boundary before anybody is there. A boundary where nothing is
// to be done then costs no more than a meeting.
__device__ inline unsigned foresee(const Control& c, const Desk& desk, unsigned launched) {
  unsigned reason = decide(c, desk, launched);
  if (reason == kAsked || reason == kSteps) return kLeave;
  return reason == kRun && desk.taken == desk.seen ? kGo : kHold;
}

// The last warp reads the mailbox while the others send what the last step left.
__device__ inline void serve_host(const Control& c, const Slots& s, Desk& desk, Unsent& unsent) {
  if (threadIdx.x / 32 == blockDim.x / 32 - 1) take_mail(c, desk);
  publish(c, s, desk, unsent);
  __syncthreads();
}

// At a boundary where the others hold: everything that needs the step's outcome. Returns the reason
// to leave, kRun for another step.
__device__ inline unsigned settle(const Control& c, const Slots& s, Desk& desk, rs::Meeting& m,
                                  unsigned launched, Unsent& unsent) {
  unsigned long long begin = 0;
  publish(c, s, desk, unsent);
  for (;;) {
    if (desk.taken != desk.seen) serve_queue(c, s, desk);
    unsigned reason = decide(c, desk, launched);  // the same in every thread
    if (reason != kIdleLong && reason != kUnread) return reason;
    __syncthreads();
    if (threadIdx.x == 0) {  // the host may need a moment
      if (begin == 0) begin = rs::global_ns();
      desk.patient = rs::global_ns() - begin < c.host_ns;
      desk.alive = !rs::load_acquire_gpu(m.abort);
    }
    __syncthreads();
    if (!desk.alive) return kAborted;
    if (!desk.patient) return reason;
    rs::spin_pause();
    serve_host(c, s, desk, unsent);
  }
}

// By all of block 0, at the end of a launch.
__device__ inline void close_desk(const Control& c, const Desk& desk, unsigned reason) {
  if (threadIdx.x) return;
  c.counters[0] = desk.step;
  c.counters[1] = desk.seen;
  c.counters[2] = desk.taken;
  c.counters[3] = desk.handled;
  volatile unsigned* status = c.status;
  status[1] = desk.step;
  status[2] = desk.taken;
  status[3] = desk.active;
  rs::store_release_sys(c.status, reason + 1);
}

}  // namespace loop
