// The stages of a step under the loop's names, or empty ones in their place.
#pragma once

#if STAGES
#include "kv_append/stage.cuh"
#include "page_score/stage.cuh"
#include "paged_attention/stage.cuh"
#include "topk_select/stage.cuh"
#include "verify_commit/stage.cuh"

namespace loop {

using AppendParams = KvAppendParams;
using ScoreParams = PageScoreParams;
using SelectParams = TopkSelectParams;
using AttendParams = PagedAttentionParams;
using VerifyParams = VerifyCommitParams;

__device__ __forceinline__ void append_stage(const AppendParams& p, int block, int blocks,
                                             unsigned char* shared) {
  kv_append_stage(p, block, blocks, shared);
}
__device__ __forceinline__ void score_stage(const ScoreParams& p, int block, int blocks,
                                            unsigned char* shared) {
  page_score_stage(p, block, blocks, shared);
}
__device__ __forceinline__ void select_stage(const SelectParams& p, int block, int blocks,
                                             unsigned char* shared) {
  topk_select_stage(p, block, blocks, shared);
}
__device__ __forceinline__ void attend_stage(const AttendParams& p, int block, int blocks,
                                             unsigned char* shared) {
  paged_attention_stage(p, block, blocks, shared);
}
// Greedy, known when compiling: without the code for sampling, the loop is a fifth smaller.
__device__ __forceinline__ void verify_stage(const VerifyParams& p, int block, int blocks,
                                             unsigned char* shared) {
  VerifyParams greedy = p;
  greedy.mode = verify::kGreedy;
  greedy.draft_probs = nullptr;
  verify_commit_stage(greedy, block, blocks, shared);
}

}  // namespace loop
#else
namespace loop {

struct Nothing {
  int unused;
};
using AppendParams = Nothing;
using ScoreParams = Nothing;
using SelectParams = Nothing;
using AttendParams = Nothing;
using VerifyParams = Nothing;

__device__ __forceinline__ void append_stage(const Nothing&, int, int, unsigned char*) {}
__device__ __forceinline__ void score_stage(const Nothing&, int, int, unsigned char*) {}
__device__ __forceinline__ void select_stage(const Nothing&, int, int, unsigned char*) {}
__device__ __forceinline__ void attend_stage(const Nothing&, int, int, unsigned char*) {}
__device__ __forceinline__ void verify_stage(const Nothing&, int, int, unsigned char*) {}

}  // namespace loop
#endif

namespace loop {

// What each stage is given, of the first input set.
struct Step {
  AppendParams append;
  ScoreParams score;
  SelectParams select;
  AttendParams attend;
  VerifyParams verify;
};

// What differs from set to set: bytes from set 0's arrays to this one's. All else stays a kernel
// parameter at a known place, so that a stage in the loop is compiled as it is on its own: its
// parameters are constant operands, its pointers are known to be global. (Parameters from shared
// memory or a table of structs cost attention a third: registers went to the stack.)
struct alignas(16) Moving {
  long long k, v, cache, minmax, q, out, target, draft, tokens, emitted;
  const int* sent_emitted;  // the addresses themselves, for the host's copy
  const int* sent_tokens;
};

#if STAGES
template <class T>
__device__ __forceinline__ void shift(T*& p, long long bytes) {
  using Byte = const char;
  p = (T*)((Byte*)p + bytes);
}
__device__ __forceinline__ AppendParams at_set(AppendParams p, const Moving& m) {
  shift(p.k, m.k);
  shift(p.v, m.v);
  shift(p.cache, m.cache);
  shift(p.minmax, m.minmax);
  return p;
}
__device__ __forceinline__ ScoreParams at_set(ScoreParams p, const Moving& m) {
  shift(p.q, m.q);
  shift(p.minmax, m.minmax);
  return p;
}
__device__ __forceinline__ SelectParams at_set(SelectParams p, const Moving&) { return p; }
__device__ __forceinline__ AttendParams at_set(AttendParams p, const Moving& m) {
  shift(p.q, m.q);
  shift(p.cache, m.cache);
  shift(p.out, m.out);
  return p;
}
__device__ __forceinline__ VerifyParams at_set(VerifyParams p, const Moving& m) {
  shift(p.target, m.target);
  shift(p.draft, m.draft);
  shift(p.tokens, m.tokens);
  shift(p.emitted, m.emitted);
  return p;
}
#else
__device__ __forceinline__ Nothing at_set(Nothing p, const Moving&) { return p; }
#endif

// Called, not contained: what the compiler moves out of the loop for them would take registers from
// attention. For the others a call costs more than it saves.
#ifdef RS_CPU
#undef __noinline__
#define __noinline__
#endif
__device__ __noinline__ void call_score(ScoreParams p, int block, int blocks,
                                        unsigned char* shared) {
  score_stage(p, block, blocks, shared);
}
__device__ __noinline__ void call_select(SelectParams p, int block, int blocks,
                                         unsigned char* shared) {
  select_stage(p, block, blocks, shared);
}

__device__ inline void stage_sizes(const Step& step, int threads, int blocks, int* sizes) {
#if STAGES
  const SelectParams& s = step.select;
  const VerifyParams& v = step.verify;
  sizes[0] = sizes[1] = 0;  // append needs none, the score's launcher knows its own
  sizes[2] = topk::shared_bytes(threads, blocks, s.batch * s.kv_heads);
  sizes[3] = attention::kSharedBytes;
  sizes[4] = verify::shared_bytes(v.batch, v.new_tokens, v.vocabulary);
#else
  for (int i = 0; i < 5; ++i) sizes[i] = 0;
#endif
}

}  // namespace loop
