// Every instruction that CUDA C++ has no word for, as a named inline with a CPU twin.
//
// Kernels include this file and contain no PTX of their own. Three compilers take it: nvcc and NVRTC
// for sm_80 and later, and g++ after cpu/cuda_on_cpu.h, which defines RS_CPU and runs the kernels on
// the CPU. Instructions that sm_80 lacks (bulk copies) have a slower, correct stand-in there.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// ---------------------------------------------------------------------------- shared memory
// RS_DYNAMIC_SHARED(name): the launch's dynamic shared memory as `unsigned char* name`, aligned to
// 128 bytes.
#ifdef RS_CPU
#define RS_DYNAMIC_SHARED(name) unsigned char* name = cpu::block->dynamic
#else
#define RS_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

#if defined(RS_CPU) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900)
#define RS_HAS_BULK 0
#else
#define RS_HAS_BULK 1
#endif

namespace rs {

#ifndef RS_CPU
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#endif

// ---------------------------------------------------------------------------- time
// Nanoseconds of a clock that all SMs share; it ticks coarsely, so use it for watchdogs only.
__device__ __forceinline__ unsigned long long global_ns() {
#ifdef RS_CPU
  return cpu::monotonic_ns();
#else
  unsigned long long t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
#endif
}

// ---------------------------------------------------------------------------- memory order
// `gpu` scope orders threads of the device, `sys` the host too (mailboxes in pinned memory).
template <typename T>
__device__ __forceinline__ T load_acquire_gpu(const T* p) {
  static_assert(sizeof(T) == 4, "32-bit words");
#ifdef RS_CPU
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#else
  T v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
#endif
}
template <typename T>
__device__ __forceinline__ T load_acquire_sys(const T* p) {
  static_assert(sizeof(T) == 4, "32-bit words");
#ifdef RS_CPU
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#else
  T v;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
#endif
}
template <typename T>
__device__ __forceinline__ void store_release_gpu(T* p, T v) {
  static_assert(sizeof(T) == 4, "32-bit words");
#ifdef RS_CPU
  __atomic_store_n(p, v, __ATOMIC_RELEASE);
#else
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
#endif
}
template <typename T>
__device__ __forceinline__ void store_release_sys(T* p, T v) {
  static_assert(sizeof(T) == 4, "32-bit words");
#ifdef RS_CPU
  __atomic_store_n(p, v, __ATOMIC_RELEASE);
#else
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
#endif
}
// Old value; everything before it is visible to whoever reads the new value with acquire.
__device__ __forceinline__ unsigned add_release_gpu(unsigned* p, unsigned v) {
#ifdef RS_CPU
  return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
#else
  unsigned old;
  asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;"
               : "=r"(old) : "l"(p), "r"(v) : "memory");
  return old;
#endif
}
// Old value, ordered both ways: for tickets whose last taker reads what the others wrote.
__device__ __forceinline__ unsigned add_acq_rel_gpu(unsigned* p, unsigned v) {
#ifdef RS_CPU
  return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
#else
  unsigned old;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(old) : "l"(p), "r"(v) : "memory");
  return old;
#endif
}

// ---------------------------------------------------------------------------- loads and stores
// 16 bytes that are read once: past L1, not kept there. *p* must be 16-byte aligned and read-only
// for the whole kernel (in a persistent kernel use load_stream instead).
__device__ __forceinline__ uint4 load_once(const void* p) {
#ifdef RS_CPU
  uint4 v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
#endif
}
// The same through the coherent path, for data that the same launch may have written.
__device__ __forceinline__ uint4 load_stream(const void* p) {
#ifdef RS_CPU
  uint4 v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
#endif
}
// load_stream without the wide fetch into L2, which costs a stream that all SMs share 6 to 8 %
// (kernels/streams); for data read whole, once, from start to end.
__device__ __forceinline__ uint4 load_narrow(const void* p) {
#ifdef RS_CPU
  return load_stream(p);
#else
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
#endif
}
// 16 bytes that host or device may write meanwhile, each word whole, unordered with other accesses.
__device__ __forceinline__ uint4 load_relaxed_sys(const void* p) {
  uint4 v;
#ifdef RS_CPU
  const unsigned* word = static_cast<const unsigned*>(p);
  v.x = __atomic_load_n(word, __ATOMIC_ACQUIRE);
  v.y = __atomic_load_n(word + 1, __ATOMIC_ACQUIRE);
  v.z = __atomic_load_n(word + 2, __ATOMIC_ACQUIRE);
  v.w = __atomic_load_n(word + 3, __ATOMIC_ACQUIRE);
#else
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
#endif
  return v;
}

// ---------------------------------------------------------------------------- copies to shared
// 16 bytes, asynchronous, in groups as __pipeline_*; all sm_80.
__device__ __forceinline__ void copy16_async(void* shared, const void* global) {
#ifdef RS_CPU
  memcpy(shared, global, 16);
#else
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               ::"r"(shared_address(shared)), "l"(global) : "memory");
#endif
}
__device__ __forceinline__ void copy_commit() {
#ifndef RS_CPU
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kPending>
__device__ __forceinline__ void copy_wait() {
#ifndef RS_CPU
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// ---------------------------------------------------------------------------- mbarriers
// A phase ends when *arrivals* arrivals and all announced bytes have come.
using Barrier = unsigned long long;

__device__ __forceinline__ void barrier_init(Barrier* bar, unsigned arrivals) {
#ifdef RS_CPU
  cpu::mbarrier(bar)->init(arrivals);
#else
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals)
               : "memory");
#endif
}
// By one thread after its barrier_init calls, before the __syncthreads that publishes them.
__device__ __forceinline__ void barrier_init_fence() {
#if RS_HAS_BULK
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void barrier_arrive(Barrier* bar) {
#ifdef RS_CPU
  cpu::mbarrier(bar)->arrive();
#else
  asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }"
               ::"r"(shared_address(bar)) : "memory");
#endif
}
// Whether the phase of parity *parity* (0 first) has ended.
__device__ __forceinline__ bool barrier_try(Barrier* bar, unsigned parity) {
#ifdef RS_CPU
  return cpu::mbarrier(bar)->ended(parity);
#elif RS_HAS_BULK
  unsigned done;
  asm volatile(
      "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(done) : "r"(shared_address(bar)), "r"(parity) : "memory");
  return done != 0;
#else
  unsigned done;
  asm volatile(
      "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(done) : "r"(shared_address(bar)), "r"(parity) : "memory");
  return done != 0;
#endif
}
__device__ __forceinline__ void barrier_wait(Barrier* bar, unsigned parity) {
  while (!barrier_try(bar, parity)) {
#ifdef RS_CPU
    cpu::block->yield(cpu::Wait::spin);
#endif
  }
}

// ---------------------------------------------------------------------------- bulk copies
// A warp fills one ring slot from several pieces of global memory, all 32 lanes calling:
//   fill_begin(bar, total_bytes); fill_piece(dst, src, bytes, bar) ...; fill_end(bar);
// The barrier counts ONE arrival for a fill. Pieces are multiples of 16 bytes, 16-byte aligned.
// sm_90: one lane issues 1-D bulk copies, evict-first in L2. Elsewhere the warp copies in line.
__device__ __forceinline__ void fill_begin(Barrier* bar, unsigned total_bytes) {
#if RS_HAS_BULK
  if (threadIdx.x % 32 == 0)
    asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared.b64 t, [%0], %1; }"
                 ::"r"(shared_address(bar)), "r"(total_bytes) : "memory");
#endif
}
__device__ __forceinline__ void fill_piece(void* shared, const void* global, unsigned bytes,
                                           Barrier* bar) {
#if RS_HAS_BULK
  if (threadIdx.x % 32 == 0)
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1], %2, [%3], %4;"
        ::"r"(shared_address(shared)), "l"(global), "r"(bytes), "r"(shared_address(bar)),
        "l"(0x12F0000000000000ull) : "memory");
#else
  for (unsigned i = threadIdx.x % 32 * 16; i < bytes; i += 512)
    *reinterpret_cast<uint4*>(static_cast<char*>(shared) + i) =
        load_stream(static_cast<const char*>(global) + i);
#endif
}
__device__ __forceinline__ void fill_end(Barrier* bar) {
#if !RS_HAS_BULK
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(bar);
#endif
}
// Between generic stores to shared memory and a bulk copy that overwrites or reads it.
__device__ __forceinline__ void fence_async_shared() {
#if RS_HAS_BULK
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// Between generic stores to global memory and bulk copies of it later in the same launch.
__device__ __forceinline__ void fence_async_global() {
#if RS_HAS_BULK
  asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}

// ---------------------------------------------------------------------------- tensor cores
// Four 8x8 matrices of 16-bit elements from shared memory; lane i names row i % 8 of matrix i / 8.
// Register m of lane l receives row l / 4, columns 2 (l % 4) and the next, of matrix m.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
#ifdef RS_CPU
  cpu::ldmatrix(r, 4, row, false);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row))
               : "memory");
#endif
}
// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
#ifdef RS_CPU
  cpu::ldmatrix(r, 4, row, true);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row))
               : "memory");
#endif
}

// d += a b with a 16x16 (row), b 16x8 (column), d 16x8 in fp32; T is __nv_bfloat16 or __half.
// Lane l, g = l / 4, t = l % 4: a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8,
// 2t + 8); b[0] (2t, g), b[1] (2t + 8, g); d[0], d[1] (g, 2t), d[2], d[3] (g + 8, 2t).
template <typename T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[2]);
#ifdef RS_CPU
template <>
inline void mma_16x8x16<__nv_bfloat16>(float (&d)[4], const unsigned (&a)[4],
                                       const unsigned (&b)[2]) {
  cpu::mma_16x8x16(d, a, b, [](unsigned short h) {
    unsigned w = unsigned(h) << 16;
    float f;
    memcpy(&f, &w, 4);
    return f;
  });
}
template <>
inline void mma_16x8x16<__half>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  cpu::mma_16x8x16(d, a, b, [](unsigned short h) {
    __half_raw raw;
    raw.x = h;
    return __half2float(__half(raw));
  });
}
#else
template <>
__device__ __forceinline__ void mma_16x8x16<__nv_bfloat16>(float (&d)[4], const unsigned (&a)[4],
                                                           const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma_16x8x16<__half>(float (&d)[4], const unsigned (&a)[4],
                                                    const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// ---------------------------------------------------------------------------- arithmetic
// 2^x to about 2 ulp; -inf gives 0.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef RS_CPU
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// The two types of 16-bit cache, and pairs of them.
template <typename T>
__device__ __forceinline__ float to_float(T v);
template <>
__device__ __forceinline__ float to_float<__nv_bfloat16>(__nv_bfloat16 v) {
  return __bfloat162float(v);
}
template <>
__device__ __forceinline__ float to_float<__half>(__half v) {
  return __half2float(v);
}
template <>
__device__ __forceinline__ float to_float<float>(float v) {
  return v;
}
template <typename T>
__device__ __forceinline__ T from_float(float v);
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ float from_float<float>(float v) {
  return v;
}
// Two floats as a register of two T, *low* in the low half.
template <typename T>
__device__ __forceinline__ unsigned pack2(float low, float high) {
  T pair[2] = {from_float<T>(low), from_float<T>(high)};
  unsigned r;
  memcpy(&r, pair, 4);
  return r;
}

// ---------------------------------------------------------------------------- warp reductions
__device__ __forceinline__ float warp_sum(float v) {
  for (int i = 16; i; i /= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
  for (int i = 16; i; i /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, i));
  return v;
}

// ---------------------------------------------------------------------------- grid barrier
// All threads of *blocks* co-resident blocks meet. *counter* is one zeroed word that only barriers
// touch; it only grows. False, in every thread, if *deadline_ns* (global_ns) passed or *abort was
// set: the caller leaves.
__device__ __forceinline__ bool grid_barrier(unsigned* counter, unsigned blocks, unsigned* abort,
                                             unsigned long long deadline_ns) {
  __shared__ int alive;
  __syncthreads();
  if (threadIdx.x == 0) {
    int ok = 1;
    unsigned target = add_release_gpu(counter, 1) / blocks * blocks + blocks;
    unsigned polls = 0;
    while (static_cast<int>(load_acquire_gpu(counter) - target) < 0) {
#ifdef RS_CPU
      cpu::block->yield(cpu::Wait::spin);
#endif
      if (++polls % 1024 == 0) {
        if (global_ns() > deadline_ns) store_release_gpu(abort, 1u);
        if (load_acquire_gpu(abort)) {
          ok = 0;
          break;
        }
      }
    }
    alive = ok;
  }
  __syncthreads();
  return alive != 0;
}

}  // namespace rs
