// The end of a step, by one block: what is emitted, lengths and pages (verify_commit/commit.cuh), and
// the text, whose tokens beyond the committed ones are the draft.
#pragma once
#include "fused_step/params.cuh"
#include "verify_commit/stage.cuh"

namespace fused {

__device__ __forceinline__ void commit_stage(const FusedParams& p, const VerifyCommitParams& v,
                                             unsigned char* shared) {
  verify::Shared& s = *reinterpret_cast<verify::Shared*>(shared);
  int words[verify::kSlotWords];
  verify::load_slots(v, words);
  verify::keep_slots(v, words, s.slots);
  __syncthreads();
  int* text = const_cast<int*>(p.text);
  int* draft = const_cast<int*>(v.draft);
  // The token at *length* is the step's input; the draft begins behind it.
  auto behind = [&](int b, int i) {
    return (long long)b * p.text_size + min(max(s.slots.length[b], 0) + 1 + i, p.text_size - 1);
  };
  for (int i = threadIdx.x; i < p.requests * (TOKENS - 1); i += blockDim.x)
    draft[i] = text[behind(i / max(TOKENS - 1, 1), i % max(TOKENS - 1, 1))];
  __syncthreads();
  int* best = verify::best_of(s);
  verify::gather_best(v, best);
  __syncthreads();
  verify::commit(v, s.slots, s.commit, verify::Greedy{v, best});
  __syncthreads();
  for (int i = threadIdx.x; i < p.requests * TOKENS; i += blockDim.x) {
    int b = i / TOKENS, at = i % TOKENS;
    if (s.slots.length[b] >= 0 && at < s.commit.emit[b]) text[behind(b, at)] = best[i] & 0x7fffffff;
  }
  __syncthreads();
}

}  // namespace fused
