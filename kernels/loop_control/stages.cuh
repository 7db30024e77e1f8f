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

// One input set: what each stage is given. Steps take the sets in turn.
struct alignas(16) Step {
  AppendParams append;
  ScoreParams score;
  SelectParams select;
  AttendParams attend;
  VerifyParams verify;
  const int* emitted;
  const int* tokens;
};

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
