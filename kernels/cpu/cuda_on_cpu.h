// Runs device-only CUDA C++ (the source of a CuPy RawKernel) on the CPU, for correctness tests.
//
// One OS thread per block, one fiber per CUDA thread; __shared__ becomes thread_local. Blocks run
// concurrently, so mailboxes and grid barriers work. PTX comes through the twins in
// common/cuda.cuh. Not covered: cooperative groups, clusters, races (x86 memory order is stronger
// than the GPU's), speed. Keep grids to a few dozen blocks. A spin that never ends is not detected:
// give tests a timeout.
#pragma once
#define RS_CPU 1
#include <cmath>
#include <cstring>
using std::memcpy;
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#undef __global__
#undef __shared__
#undef __launch_bounds__
#undef __device__
#undef __constant__
#undef __align__
#define __device__
#define __constant__ static const
#define __align__(n) alignas(n)
#define __global__
#define __shared__ static thread_local
#define __launch_bounds__(...)

#include <setjmp.h>
#include <time.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

// ---------------------------------------------------------------------------- scheduler of a block
namespace cpu {

enum class Wait : char { none, spin, warp, block, done };

// Where a fiber or its scheduler goes on. A context only starts a fiber: swapcontext asks the
// kernel for the signal mask at every switch, and _longjmp does not, so that a fused step takes a
// fifth of the time.
struct Fiber {
  ucontext_t start;
  jmp_buf resume;
  bool started = false;
  Wait wait = Wait::none;
  unsigned mask = 0;            // lanes that take part in the warp operation it waits for
  unsigned long long slot = 0;  // value published to the other lanes
  uint3 tid;
  std::unique_ptr<char[]> stack;
};

struct Block {
  std::vector<Fiber> fibers;
  jmp_buf scheduler;
  int current = 0;
  uint3 bid;
  dim3 bdim, gdim;
  unsigned char* dynamic = nullptr;  // the launch's dynamic shared memory
  void (*body)(void*);
  void* arg;

  Fiber& me() { return fibers[current]; }
  int size() const { return static_cast<int>(fibers.size()); }
  int lane() const { return current % 32; }
  int warp() const { return current - current % 32; }  // index of lane 0

  void yield(Wait reason, unsigned mask = 0) {
    me().wait = reason;
    me().mask = mask;
    if (_setjmp(me().resume) == 0) _longjmp(scheduler, 1);
  }

  void resume(Fiber& f) {  // returns when it yields
    if (_setjmp(scheduler)) return;
    if (f.started) _longjmp(f.resume, 1);
    f.started = true;
    setcontext(&f.start);
  }

  bool resume_ready() {  // run every fiber that waits for nothing
    bool ran = false, spun = false;
    for (current = 0; current < size(); ++current) {
      if (me().wait != Wait::none && me().wait != Wait::spin) continue;
      spun |= me().wait == Wait::spin;
      me().wait = Wait::none;
      resume(me());
      ran = true;
    }
    if (spun) std::this_thread::yield();
    return ran;
  }

  bool complete(int warp, unsigned mask) {  // has every live lane of the mask arrived?
    for (int i = warp; i < warp + 32 && i < size(); ++i) {
      if (!(mask >> (i - warp) & 1) || fibers[i].wait == Wait::done) continue;
      if (fibers[i].wait != Wait::warp || fibers[i].mask != mask) return false;
    }
    return true;
  }

  bool release_warps() {
    bool released = false;
    for (int i = 0; i < size(); ++i) {
      if (fibers[i].wait != Wait::warp) continue;
      int warp = i - i % 32;
      unsigned mask = fibers[i].mask;
      if (!complete(warp, mask)) continue;
      for (int j = warp; j < warp + 32 && j < size(); ++j)
        if (fibers[j].wait == Wait::warp && fibers[j].mask == mask) fibers[j].wait = Wait::none;
      released = true;
    }
    return released;
  }

  int count(Wait reason) const {
    int n = 0;
    for (const Fiber& f : fibers) n += f.wait == reason;
    return n;
  }

  bool release_block() {
    if (count(Wait::block) == 0 || count(Wait::block) + count(Wait::done) < size()) return false;
    for (Fiber& f : fibers)
      if (f.wait == Wait::block) f.wait = Wait::none;
    return true;
  }
};

inline thread_local Block* block = nullptr;

inline void trampoline() {
  block->body(block->arg);
  block->yield(Wait::done);
}

inline void run_block(Block& b) {
  constexpr size_t kStackBytes = 64 * 1024;
  block = &b;
  b.fibers.resize(b.bdim.x * b.bdim.y * b.bdim.z);
  for (unsigned i = 0; i < b.fibers.size(); ++i) {
    Fiber& f = b.fibers[i];
    f.stack.reset(new char[kStackBytes]);
    f.tid = {i % b.bdim.x, i / b.bdim.x % b.bdim.y, i / (b.bdim.x * b.bdim.y)};
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = f.stack.get();
    f.start.uc_stack.ss_size = kStackBytes;
    f.start.uc_link = nullptr;
    makecontext(&f.start, trampoline, 0);
  }
  while (b.count(Wait::done) < b.size()) {
    bool ran = b.resume_ready();
    bool freed_warp = b.release_warps();
    bool freed_block = b.release_block();
    if (ran || freed_warp || freed_block || b.count(Wait::done) == b.size()) continue;
    std::fprintf(
        stderr,
        "deadlock in block %u: %d threads at __syncthreads, %d at a warp operation, %d returned\n",
        b.bid.x, b.count(Wait::block), b.count(Wait::warp), b.count(Wait::done));
    std::abort();
  }
}

// ------------------------------------------------------------------------------- launch
template <class F>
void launch(dim3 grid, dim3 bdim, unsigned shared, F&& body) {
  std::vector<Block> blocks(grid.x * grid.y * grid.z);
  std::vector<std::thread> threads;
  // Filled with a NaN pattern: what a kernel reads before it writes shows up.
  std::vector<std::unique_ptr<unsigned char[]>> dynamic(blocks.size());
  for (unsigned i = 0; i < blocks.size(); ++i) {
    Block& b = blocks[i];
    b.bid = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
    b.bdim = bdim;
    b.gdim = grid;
    b.body = [](void* f) { (*static_cast<std::remove_reference_t<F>*>(f))(); };
    b.arg = &body;
    dynamic[i].reset(new unsigned char[shared + 128]);
    std::memset(dynamic[i].get(), 0xff, shared + 128);
    b.dynamic = dynamic[i].get() + (128 - reinterpret_cast<size_t>(dynamic[i].get()) % 128);
    threads.emplace_back([&b] { run_block(b); });
  }
  for (std::thread& t : threads) t.join();
}

// Unpacks an array of pointers to the arguments, the convention of cuLaunchKernel.
template <class... Args, size_t... I>
void launch_packed(void (*kernel)(Args...), const unsigned* grid, const unsigned* bdim,
                   unsigned shared, void** args, std::index_sequence<I...>) {
  launch({grid[0], grid[1], grid[2]}, {bdim[0], bdim[1], bdim[2]}, shared,
         [&] { kernel(*static_cast<Args*>(args[I])...); });
}

template <class... Args>
void launch_packed(void (*kernel)(Args...), const unsigned* grid, const unsigned* bdim,
                   unsigned shared, void** args) {
  launch_packed(kernel, grid, bdim, shared, args, std::index_sequence_for<Args...>{});
}

// ------------------------------------------------------------------------------- warp exchange
template <class T>
T exchange(unsigned mask, T value, int source) {  // publish, meet, read, meet
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  Block& b = *block;
  std::memcpy(&b.me().slot, &value, sizeof value);
  b.yield(Wait::warp, mask);
  if (b.warp() + source < b.size())
    std::memcpy(&value, &b.fibers[b.warp() + source].slot, sizeof value);
  b.yield(Wait::warp, mask);
  return value;
}

template <class T, class F>
T update(T* p, F next) {  // atomic read-modify-write of any 4- or 8-byte type
  T old, desired;
  __atomic_load(p, &old, __ATOMIC_SEQ_CST);
  do desired = next(old);
  while (!__atomic_compare_exchange(p, &old, &desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return old;
}

template <class T>
using Same = std::common_type_t<T>;  // lets atomicAdd(int*, unsigned) convert as in CUDA

}  // namespace cpu

// ------------------------------------------------------------------------------- CUDA names
#define threadIdx (cpu::block->me().tid)
#define blockIdx (cpu::block->bid)
#define blockDim (cpu::block->bdim)
#define gridDim (cpu::block->gdim)
constexpr int warpSize = 32;

inline void __syncthreads() { cpu::block->yield(cpu::Wait::block); }
inline void __syncwarp(unsigned mask = ~0u) { cpu::block->yield(cpu::Wait::warp, mask); }
inline void __nanosleep(unsigned) { cpu::block->yield(cpu::Wait::spin); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }

template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  int lane = cpu::block->lane();
  return cpu::exchange(mask, v, lane / width * width + source % width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  int lane = cpu::block->lane(), from = lane % width - int(delta);
  return cpu::exchange(mask, v, from < 0 ? lane : lane - int(delta));
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  int lane = cpu::block->lane(), to = lane % width + int(delta);
  return cpu::exchange(mask, v, to < width ? lane + int(delta) : lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32) {
  int lane = cpu::block->lane(), other = lane ^ lane_mask;
  return cpu::exchange(mask, v, other < (lane / width + 1) * width ? other : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  cpu::Block& b = *cpu::block;
  b.me().slot = predicate != 0;
  b.yield(cpu::Wait::warp, mask);
  unsigned votes = 0;
  for (int i = 0; i < 32 && b.warp() + i < b.size(); ++i) {
    const cpu::Fiber& f = b.fibers[b.warp() + i];
    if ((mask >> i & 1) && f.wait != cpu::Wait::done) votes |= unsigned(f.slot) << i;
  }
  b.yield(cpu::Wait::warp, mask);
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

inline unsigned __match_any_sync(unsigned mask, unsigned value) {
  unsigned equal = 0;
  for (int i = 0; i < 32; ++i)
    equal |= unsigned(__shfl_sync(mask, value, i) == value && (mask >> i & 1)) << i;
  return equal;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
  for (int i = 16; i; i /= 2) v += __shfl_xor_sync(mask, v, i);
  return v;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v) {
  for (int i = 16; i; i /= 2) v = std::max(v, __shfl_xor_sync(mask, v, i));
  return v;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned v) {
  for (int i = 16; i; i /= 2) v = std::min(v, __shfl_xor_sync(mask, v, i));
  return v;
}
inline unsigned __activemask() { return ~0u; }

using std::max;
using std::min;
inline unsigned __float_as_uint(float f) {
  unsigned u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline int __float_as_int(float f) { return static_cast<int>(__float_as_uint(f)); }
inline float __int_as_float(int i) { return __uint_as_float(static_cast<unsigned>(i)); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  unsigned long long both = (static_cast<unsigned long long>(y) << 32) | x;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i)
    r |= static_cast<unsigned>(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return r;
}
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1) << (31 - i);
  return r;
}
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
template <class T>
T __ldg(const T* p) {
  return *p;
}

template <class T>
T atomicAdd(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T old) { return T(old + v); });
}
template <class T>
T atomicSub(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T old) { return T(old - v); });
}
template <class T>
T atomicOr(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T old) { return old | v; });
}
template <class T>
T atomicAnd(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T old) { return old & v; });
}
template <class T>
T atomicMax(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T old) { return old < v ? v : old; });
}
template <class T>
T atomicMin(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
T atomicExch(T* p, cpu::Same<T> v) {
  return cpu::update(p, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* p, cpu::Same<T> expected, cpu::Same<T> v) {
  return cpu::update(p, [=](T old) { return old == expected ? v : old; });
}

inline long long clock64() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

namespace cpu {

inline unsigned long long monotonic_ns() { return clock64(); }

// ------------------------------------------------------------------------------- twins of PTX
// An mbarrier in its 8 bytes. A block's fibers share one OS thread, so no atomics are needed.
struct MBarrier {
  unsigned count : 15, pending : 15, phase : 1;
  int tx;

  void init(unsigned arrivals) {
    count = pending = arrivals;
    phase = 0;
    tx = 0;
  }
  void arrive() {
    if (pending == 0) {
      std::fprintf(stderr, "mbarrier: more arrivals than announced\n");
      std::abort();
    }
    if (--pending == 0) {
      pending = count;
      phase ^= 1;
    }
  }
  bool ended(unsigned parity) const { return phase != (parity & 1); }
};
static_assert(sizeof(MBarrier) == 8, "fits the word that a kernel declares");
inline MBarrier* mbarrier(unsigned long long* word) { return reinterpret_cast<MBarrier*>(word); }

// Lets every lane of the warp read what every other published; *use* sees lane -> pointer.
template <class F>
void with_lanes(const void* mine, F&& use) {
  Block& b = *block;
  const void* own = mine;
  std::memcpy(&b.me().slot, &own, sizeof own);
  b.yield(Wait::warp, ~0u);
  use([&](int lane) {
    const void* p;
    std::memcpy(&p, &b.fibers[b.warp() + lane].slot, sizeof p);
    return p;
  });
  b.yield(Wait::warp, ~0u);
}

inline void ldmatrix(unsigned* r, int matrices, const void* row, bool transposed) {
  int lane = block->lane();
  with_lanes(row, [&](auto&& at) {
    for (int m = 0; m < matrices; ++m) {
      unsigned short pair[2];
      for (int i = 0; i < 2; ++i) {
        int row_index = transposed ? 2 * (lane % 4) + i : lane / 4;
        int column = transposed ? lane / 4 : 2 * (lane % 4) + i;
        pair[i] = static_cast<const unsigned short*>(at(8 * m + row_index))[column];
      }
      std::memcpy(&r[m], pair, 4);
    }
  });
}

template <class Decode>
void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Decode decode) {
  struct Operands {
    unsigned a[4], b[2];
  } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  int lane = block->lane();
  with_lanes(&mine, [&](auto&& at) {
    auto half = [&](unsigned word, int which) {
      return decode(static_cast<unsigned short>(which ? word >> 16 : word & 0xffff));
    };
    for (int i = 0; i < 4; ++i) {
      int row = lane / 4 + (i / 2) * 8, column = 2 * (lane % 4) + i % 2;
      float sum = 0;
      for (int k = 0; k < 16; ++k) {
        auto* left = static_cast<const Operands*>(at(row % 8 * 4 + k % 8 / 2));
        auto* right = static_cast<const Operands*>(at(column * 4 + k % 8 / 2));
        sum += half(left->a[row / 8 + 2 * (k / 8)], k % 2) * half(right->b[k / 8], k % 2);
      }
      d[i] += sum;
    }
  });
}

}  // namespace cpu

// Exports run_<kernel>(grid[3], block[3], shared bytes, args) from the shared library.
#define CPU_KERNEL(kernel)                                                                     \
  extern "C" void run_##kernel(const unsigned* grid, const unsigned* bdim, unsigned shared,    \
                               void** args) {                                                  \
    cpu::launch_packed(kernel, grid, bdim, shared, args);                                      \
  }
