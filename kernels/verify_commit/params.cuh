// Arrays and constants of the verification; stage.cuh states what is computed.
#pragma once
#include "common/cuda.cuh"

#ifndef PAGE_TOKENS
#define PAGE_TOKENS 16
#endif
#ifndef TARGET
#define TARGET __nv_bfloat16  // or float
#endif

namespace verify {

enum Mode { kGreedy = 0, kLogits = 1, kProbabilities = 2 };

struct Decision {  // of one request
  int accepted;
  int done;  // sampled already: nothing is left for the residual pass
  float scaled_max, inverse_sum;  // p = 2^(logit * scale - scaled_max) * inverse_sum
};

constexpr int kMostTokens = 32;  // T: a warp's lanes test the drafted tokens
constexpr int kMostBatch = 256;
constexpr int kLanes = 32;

// A tile is what a warp reads at once: 8 vectors of 16 bytes a lane. Sums of a row are always taken
// tile by tile in the same order, so that results depend neither on the grid nor on the block.
constexpr int kVectors = 8;
constexpr int kVec = 16 / sizeof(TARGET);
constexpr int kTile = kVectors * kLanes * kVec;

__host__ __device__ inline int tiles_of(int vocabulary) {
  return (vocabulary + kTile - 1) / kTile;
}

}  // namespace verify

struct VerifyCommitParams {
  const TARGET* target;      // [batch][new_tokens][vocabulary] logits, or fp32 probabilities
  const int* draft;          // [batch][new_tokens - 1]
  const float* draft_probs;  // [batch][new_tokens - 1][vocabulary], or null: 1 at the draft token
  const float* uniforms;     // [batch][new_tokens] in [0, 1): the acceptance tests, then the sample
  int* tokens;               // [batch][new_tokens]
  int* emitted;              // [batch]
  int* lengths;              // [batch]
  int* remaining;            // [batch] tokens still wanted
  int* page_counts;          // [batch]
  int* table;                // [batch][max_pages]
  int* free_ring;            // [ring_capacity], a power of two
  unsigned* free_head;       // pops; only grows
  unsigned* free_tail;       // pushes; only grows
  unsigned* status;          // [2]: requests short of pages after this step; blocks that gave up
  unsigned long long* best;  // [batch * new_tokens] zero before and after
  float2* tile_stats;        // [batch * new_tokens][tiles]
  float* tile_sums;          // [batch][tiles]
  verify::Decision* decisions;  // [batch]
  unsigned* tickets;            // [1 + 3 * batch] zero before and after
  int batch, new_tokens, vocabulary, max_pages, ring_capacity, mode;
  float scale;  // log2(e) / temperature
};
