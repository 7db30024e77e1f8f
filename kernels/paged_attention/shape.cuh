// Parameters, sizes and the use of shared memory of paged decode attention.
#pragma once
#include "common/cache.cuh"

// Query heads of a KV head, and new tokens of a request in this step.
#ifndef GROUP
#define GROUP 4
#endif
#ifndef TOKENS
#define TOKENS 1
#endif
// Warps of a block that work, and the shared memory that their rings may fill.
#ifndef WORKERS
#define WORKERS                                                     \
  (KV_BITS == 16 || (KV_BITS == 8 && GROUP * TOKENS > 8)      ? 8  \
   : KV_BITS == 4 && GROUP * TOKENS > 4 && GROUP * TOKENS <= 8 ? 12 \
                                                               : 16)
#endif
#ifndef SHARED_KB
#define SHARED_KB 220
#endif

struct PagedAttentionParams {
  const ELEMENT* q;            // [requests][TOKENS][kv_heads * GROUP][HEAD_DIM]
  const unsigned char* cache;  // see common/cache.cuh
  const unsigned char* tail;   // the same; 4 bits only
  const int* table;            // [requests][max_pages]
  const int* lengths;          // [requests], negative: an idle slot
  const int* selected;         // [requests][kv_heads][k_max] logical pages, ascending; or null
  const int* counts;           // [requests][kv_heads]
  ELEMENT* out;                // like q
  float* partial;              // [blocks][2][kPieceFloats]
  unsigned* tickets;           // [requests][kv_heads], zero before and after
  int requests, kv_heads, max_pages, k_max;
  float scale;                 // of the logits, usually HEAD_DIM ** -0.5
};

namespace attention {

constexpr int kMaxRequests = 1024;
constexpr int kRows = GROUP * TOKENS;  // query rows of a KV head; row r is token r / GROUP
static_assert(kRows <= 32, "four n-tiles of 8 query rows");
constexpr int kAllColumns = (kRows + 7) / 8;  // n-tiles
// A team of warps shares one stream of tiles, each warp with its own query rows, so that the
// accumulators stay in registers.
constexpr int kColumns = KV_BITS == 4 || kAllColumns == 1 ? 1 : 2;  // n-tiles of a warp
constexpr int kTeam = (kAllColumns + kColumns - 1) / kColumns;
constexpr int kTeams = WORKERS / kTeam;
constexpr int kSteps = HEAD_DIM / 16;  // k-steps of q k, m-tiles of p v

// A ring slot holds a tile, or K or V alone of 16 tokens of the 16-bit tail.
constexpr int kHalfBytes = 16 * HEAD_DIM * 2;
constexpr int kSlotBytes =
    KV_BITS == 4 && rs::kTileBytes < kHalfBytes ? kHalfBytes : rs::kTileBytes;

// A piece: what some tiles contribute to an item. Sums [kRows][HEAD_DIM], then pairs (reference
// exponent, sum of weights) [kRows][2]; all fp32.
constexpr int kPieceFloats = (kRows * (HEAD_DIM + 2) + 3) / 4 * 4;
constexpr int kPieceBytes = (kPieceFloats * 4 + 127) / 128 * 128;

// Whose piece it is, and the units [begin, end) that the item has in the line of all work.
struct Owner {
  int item, begin, end;  // item = request * kv_heads + head; -1: no piece
};
// An item that several blocks share.
struct Split {
  Owner owner;
  int first, last;  // blocks
  int merge;        // whether this block is the last to arrive
};
struct Tile;  // schedule.cuh

// Shared memory, in order: control words, prefix sums, first pieces, rings. A team's last piece
// takes its ring, which is empty by then.
constexpr int kMostSlots = 4;
constexpr int kControlBytes = (kTeams * (kMostSlots * 32 + 24) + 48 + 127) / 128 * 128;
constexpr int kFixedBytes =
    kControlBytes + (kMaxRequests + 1) * 4 / 128 * 128 + 128 + kTeams * kPieceBytes;
constexpr int kFit = (SHARED_KB * 1024 - kFixedBytes) / (kTeams * kSlotBytes);
constexpr int kSlots = kFit < 2 ? 2 : kFit > kMostSlots ? kMostSlots : kFit;
constexpr int kRingBytes = kSlots * kSlotBytes > kPieceBytes ? kSlots * kSlotBytes : kPieceBytes;

struct Shared {
  unsigned char* base;

  __device__ Tile* tile(int team, int slot) const {
    return reinterpret_cast<Tile*>(base + (team * kSlots + slot) * 16);
  }
  __device__ rs::Barrier* full(int team) const {
    return reinterpret_cast<rs::Barrier*>(base + kTeams * kSlots * 16) + team * kSlots;
  }
  __device__ rs::Barrier* empty(int team) const { return full(kTeams + team); }
  __device__ Owner* owners() const {  // [kTeams][2]
    return reinterpret_cast<Owner*>(base + kTeams * kSlots * 32);
  }
  __device__ Split* splits() const { return reinterpret_cast<Split*>(owners() + 2 * kTeams); }
  __device__ int* prefix() const { return reinterpret_cast<int*>(base + kControlBytes); }
  __device__ float* piece(int team, int which) const {
    unsigned char* pieces = base + kFixedBytes - kTeams * kPieceBytes;
    return reinterpret_cast<float*>(which ? ring(team) : pieces + team * kPieceBytes);
  }
  __device__ unsigned char* ring(int team) const { return base + kFixedBytes + team * kRingBytes; }
};
constexpr int kSharedBytes = kFixedBytes + kTeams * kRingBytes;
static_assert(kSharedBytes <= 227 * 1024, "shared memory of a block");

}  // namespace attention
