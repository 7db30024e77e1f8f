// What the stages of a fused step are given, and the sizes of their build.
//
// A step computes `rows` = requests * TOKENS token rows at once, row r = request * TOKENS + token.
// Weights lie as one tape a worker (see ring.cuh); a worker is a block of 16 warps.
#pragma once
#ifndef HEAD_DIM  // with the sizes below, a model of 1 billion parameters
#define HEAD_DIM 64
#endif
#ifndef WORKERS  // warps of a block that attend
#define WORKERS 8
#endif
#include "common/cache.cuh"
#include "common/cuda.cuh"
#include "paged_attention/shape.cuh"
#include "verify_commit/params.cuh"

// Sizes of the model that the products need at compile time.
#ifndef HIDDEN
#define HIDDEN 2048
#endif
#ifndef HEADS_WIDTH  // query heads * HEAD_DIM
#define HEADS_WIDTH 2048
#endif
#ifndef FFN
#define FFN 8192
#endif
#ifndef KV_HEADS
#define KV_HEADS 8
#endif
// Token rows in units of eight, the narrow side of an mma: 1 or 2.
#ifndef COLUMN_TILES
#define COLUMN_TILES 1
#endif

namespace fused {

constexpr int kWarps = 16, kThreads = 512;
constexpr int kRows = 8 * COLUMN_TILES;  // token rows at most
constexpr int kMostRequests = 16;
constexpr int kQueryHeads = KV_HEADS * GROUP;

// Units of a weight tape: one is 1 KB a warp, 16 KB a worker (see ring.cuh).
constexpr int kUnitBytes = 1024 * kWarps;
// 32-wide blocks of the inner dimension that a warp multiplies.
constexpr int kHiddenBlocks = HIDDEN / kWarps / 32;
constexpr int kHeadsBlocks = HEADS_WIDTH / kWarps / 32;
constexpr int kFfnBlocks = FFN / kWarps / 32;
static_assert(HIDDEN % 1024 == 0 && HEADS_WIDTH % 512 == 0 && FFN % 512 == 0, "whole blocks");

}  // namespace fused

struct FusedParams {
  // the model
  const unsigned char* tape;       // [workers][tape_bytes]
  const ELEMENT* embedding;        // [vocabulary][HIDDEN]
  const ELEMENT* gains;            // [layers][2][HIDDEN] of attention and of the mlp, then [HIDDEN]
  const float2* turns;             // [HEAD_DIM / 2] revolutions a position: float and remainder
  // the state
  const int* text;                 // [requests][text_size]
  unsigned char* cache;            // [layers][pages][kv_heads][kPageBytes]
  ELEMENT* minmax;                 // [layers][pages][kv_heads][2][HEAD_DIM]
  // between stages
  ELEMENT* hidden;                 // [rows][HIDDEN] the residual stream
  ELEMENT* q;                      // [rows][query heads][HEAD_DIM]
  ELEMENT* attended;               // like q
  ELEMENT* gated;                  // [rows][FFN]
  unsigned long long* best;        // [rows] packed arg-max, zero between steps
  int* draft;                      // [requests][TOKENS - 1]
  unsigned* scene;                 // what `step_begin` found (scene.cuh)
  long long tape_bytes;            // of a worker; a multiple of kUnitBytes
  long long cache_bytes, minmax_count;  // of a layer
  int layers, requests, vocabulary, text_size;
  float epsilon;
};
