// Verification of drafted tokens and commit in one pass: rows of the vocabulary are dealt to all
// blocks in tiles; the last block to arrive at a request samples it, the last of all commits.
//
// kGreedy         arg-max of each row (lowest index on ties, NaN never); the longest prefix of the
//                 draft that equals it stays; the arg-max of the next row is the bonus token
// kLogits         rejection sampling, see sample.cuh; softmax of target / temperature is taken here
// kProbabilities  the same, target holds fp32 probabilities
//
// Slots with a negative length are skipped. The commit is described in commit.cuh.
// In kLogits with draft_probs all blocks must run at the same time: they wait for one another.
#pragma once
#include "verify_commit/commit.cuh"
#include "verify_commit/greedy.cuh"
#include "verify_commit/sample.cuh"

namespace verify {

struct Shared {  // then best [batch * new_tokens] and the weights of a row's tiles [tiles]
  SampleShared sample;
  SlotsShared slots;
  CommitShared commit;
  unsigned mask, last;
};
static_assert(sizeof(Shared) == 8816, "the launcher counts these bytes too");

__host__ __device__ inline unsigned shared_bytes(int batch, int new_tokens, int vocabulary) {
  return static_cast<unsigned>(sizeof(Shared)) +
         4u * (batch * new_tokens + tiles_of(vocabulary));
}
__device__ __forceinline__ int* best_of(Shared& s) { return reinterpret_cast<int*>(&s + 1); }
__device__ __forceinline__ float* tiles_of(Shared& s, const VerifyCommitParams& p) {
  return reinterpret_cast<float*>(best_of(s) + p.batch * p.new_tokens);
}

constexpr unsigned long long kPatienceNs = 2000000000ull;

// Warp-wide wait for *flag*; false after two seconds, which status[1] then counts.
__device__ __forceinline__ bool wait_for(const unsigned* flag, unsigned* gave_up) {
  unsigned seen = 0;
  if (lane() == 0) {
    unsigned long long start = rs::global_ns();
    unsigned polls = 0;
    while (!(seen = rs::load_acquire_gpu(flag))) {
      __nanosleep(32);
      if (++polls % 256 == 0 && rs::global_ns() - start > kPatienceNs) {
        atomicAdd(gave_up, 1u);
        break;
      }
    }
  }
  __syncwarp();
  return __shfl_sync(~0u, seen, 0) != 0;
}

// Acceptance of request *b* from the tiles' statistics, by the whole block, in s.decision.
__device__ __forceinline__ void decide(const VerifyCommitParams& p, int b, SampleShared& s) {
  int tiles = tiles_of(p.vocabulary), drafts = p.new_tokens - 1;
  for (int t = warp(); t < p.new_tokens; t += warps()) {
    long long row = static_cast<long long>(b) * p.new_tokens + t;
    int token = t < drafts ? p.draft[b * drafts + t] : 0;
    float logit = rs::to_float(p.target[row * p.vocabulary + token]);
    float2 stats = merge_stats(p.tile_stats + row * tiles, tiles);
    if (lane() == 0) {
      s.scaled_max[t] = stats.x;
      s.inverse_sum[t] = 1.0f / stats.y;
      s.draft_p[t] = rs::exp2_fast(logit * p.scale - stats.x) * s.inverse_sum[t];
    }
  }
  __syncthreads();
  if (warp() == 0) {
    int a = count_accepted(p, b, [&](int t, int) { return s.draft_p[t]; });
    bool done = a == drafts || !p.draft_probs;
    if (lane() == 0) s.decision = {a, done, s.scaled_max[a], s.inverse_sum[a]};
  }
  __syncthreads();
}

// The next token of a decided request by the whole block; weight_of(tile) is asked of one thread
// or, if *by_warp* names a tile, of a warp for that tile.
template <class WeightOf>
__device__ __forceinline__ void sample(const VerifyCommitParams& p, int b, Shared& shared,
                                       const Weights& w, int by_warp, WeightOf&& weight_of) {
  SampleShared& s = shared.sample;
  float* weights = tiles_of(shared, p);
  int tiles = tiles_of(p.vocabulary);
  for (int t = threadIdx.x; t < tiles; t += blockDim.x)
    if (t != by_warp) weights[t] = weight_of(t);
  if (by_warp >= 0 && warp() == warps() - 1) {
    float sum = tile_sum(w, by_warp);
    if (lane() == 0) weights[by_warp] = sum;
  }
  __syncthreads();
  if (warp() == 0) find_tile(s, weights, tiles, p.uniforms[(b + 1) * p.new_tokens - 1]);
  __syncthreads();
  find_token(s, w);
  if (warp() == 0) write_tokens(p, b, s.decision.accepted, s.token);
  __syncthreads();
}

// First pass of kLogits: statistics of every tile, then each request's decision.
__device__ __forceinline__ void stream_stats(const VerifyCommitParams& p, const Rows& rows,
                                             Tile& next, Shared& s) {
  if (rows.span.begin == rows.span.end) return;
  int tiles = rows.tiles, of_request = p.new_tokens * tiles;
  stream(rows.span, tiles, p.vocabulary, next, [&](int row) { return rows.at(p, row); },
         [&](int row, int tile, const Tile& t) {
           write_stats(&p.tile_stats[rows.index(p, row) * tiles + tile], t, p.scale);
         });
  auto arrivals = [&](int i) {
    return static_cast<unsigned>(owner((i + 1) * of_request - 1, rows.items, rows.blocks) -
                                 owner(i * of_request, rows.items, rows.blocks) + 1);
  };
  auto finish = [&](int i) {
    int b = rows.active[i];
    decide(p, b, s.sample);
    Decision d = s.sample.decision;
    if (p.draft_probs && threadIdx.x == 0) {
      p.decisions[b] = d;
      rs::store_release_gpu(&p.tickets[1 + 2 * p.batch + i], 1u);
    }
    if (!d.done) return;
    Weights w = weights_of(p, b, d);
    const float2* stats =
        p.tile_stats + (static_cast<long long>(b) * p.new_tokens + d.accepted) * tiles;
    sample(p, b, s, w, w.masked >= 0 ? w.masked / kTile : -1, [&](int t) {
      return stats[t].y * rs::exp2_fast(stats[t].x - d.scaled_max) * d.inverse_sum;
    });
  };
  arrive(p.tickets + 1, rows.span.begin / of_request, (rows.span.end - 1) / of_request, &s.mask,
         arrivals, finish);
}

// Second pass: sums of the weights of each request's one row, then its token.
__device__ __forceinline__ void stream_residual(const VerifyCommitParams& p, int block, int blocks,
                                                Shared& s) {
  const int* active = s.slots.active;
  int tiles = tiles_of(p.vocabulary), items = s.slots.count * tiles;
  blocks = min(blocks, items);
  if (block >= blocks) return;
  unsigned* decided = p.tickets + 1 + 2 * p.batch;
  Span mine = span(items, block, blocks);
  auto decision_of = [&](int i) -> Decision {
    int b = active[i];
    if (p.mode == kLogits)
      return wait_for(&decided[i], &p.status[1]) ? p.decisions[b] : Decision{0, 1, 0, 0};
    int a = count_accepted(p, b, [&](int t, int token) {
      long long row = static_cast<long long>(b) * p.new_tokens + t;
      return rs::to_float(p.target[row * p.vocabulary + token]);
    });
    return {a, 0, 0, 0};
  };
  int held = -1;
  Decision d;
  Weights w;
  for (int item = mine.begin + warp(); item < mine.end; item += warps()) {
    int i = item / tiles, tile = item % tiles, b = active[i];
    if (i != held) {
      held = i;
      d = decision_of(i);
      w = weights_of(p, b, d);
    }
    if (d.done) continue;
    float sum = tile_sum(w, tile);
    if (lane() == 0) p.tile_sums[static_cast<long long>(b) * tiles + tile] = sum;
  }
  auto arrivals = [&](int i) {
    return static_cast<unsigned>(owner((i + 1) * tiles - 1, items, blocks) -
                                 owner(i * tiles, items, blocks) + 1);
  };
  auto finish = [&](int i) {
    int b = active[i];
    if (warp() == 0) {
      Decision d = decision_of(i);
      if (lane() == 0) s.sample.decision = d, decided[i] = 0;
    }
    __syncthreads();
    Decision d = s.sample.decision;
    if (d.done) return;
    const float* sums = p.tile_sums + static_cast<long long>(b) * tiles;
    sample(p, b, s, weights_of(p, b, d), -1, [&](int t) { return sums[t]; });
  };
  arrive(p.tickets + 1 + p.batch, mine.begin / tiles, (mine.end - 1) / tiles, &s.mask, arrivals,
         finish);
}

// ---------------------------------------------------------------------------- commit
struct Stored {  // tokens and counts as an earlier part wrote them
  const VerifyCommitParams& p;
  __device__ int emitted(int b) const { return p.emitted[b]; }
  __device__ int token(int i) const { return p.tokens[i]; }
};

struct Greedy {  // from the rows' arg-max, in shared memory
  const VerifyCommitParams& p;
  const int* best;
  __device__ int emitted(int b) const {
#ifdef SCRIPTED  // how many is told: bytes [batch][max_pages * PAGE_TOKENS], by length
    const unsigned char* script = reinterpret_cast<const unsigned char*>(p.uniforms);
    return script[static_cast<long long>(b) * p.max_pages * PAGE_TOKENS + p.lengths[b]];
#else
    const int* row = best + b * p.new_tokens;
    int t = 0;
    while (t < p.new_tokens - 1 && row[t] < 0) ++t;
    return t + 1;
#endif
  }
  __device__ int token(int i) const { return best[i] & 0x7fffffff; }
};

// The sign bit of a row's arg-max says that the draft proposed it.
__device__ __forceinline__ void gather_best(const VerifyCommitParams& p, int* best) {
  for (int i = threadIdx.x; i < p.batch * p.new_tokens; i += blockDim.x) {
    unsigned index = ~static_cast<unsigned>(p.best[i]);
    p.best[i] = 0;
    int b = i / p.new_tokens, t = i % p.new_tokens;
    bool proposed =
        t < p.new_tokens - 1 && p.draft[b * (p.new_tokens - 1) + t] == static_cast<int>(index);
    best[i] = (index & 0x7fffffffu) | (proposed ? 0x80000000u : 0);
  }
}

}  // namespace verify

// Any grid, any block of 128 to 512 threads in whole warps. *shared*: verify::shared_bytes.
__device__ __forceinline__ void verify_commit_stage(const VerifyCommitParams& p, int block,
                                                    int blocks, unsigned char* shared) {
  using namespace verify;
  Shared& s = *reinterpret_cast<Shared*>(shared);
  int words[kSlotWords];
  load_slots(p, words);
  keep_slots(p, words, s.slots);
  __syncthreads();
  int count = s.slots.count;
  if (count > 0) {
    Rows rows(p, s.slots.active, count, block, blocks);
    // Not before the slots: their wait would hold up the second tile's loads behind the first's.
    Tile next;
    if (p.mode != kProbabilities) rows.load_first(p, next);
    if (p.mode == kGreedy) stream_best(p, rows, next);
    if (p.mode == kLogits) stream_stats(p, rows, next, s);
    if (p.mode != kGreedy && (p.mode == kProbabilities || p.draft_probs))
      stream_residual(p, block, blocks, s);
  }
  // Every block takes this ticket after its last read of the slots, which the commit changes.
  __syncthreads();
  if (threadIdx.x == 0) {
    s.last = rs::add_acq_rel_gpu(&p.tickets[0], 1) + 1 == static_cast<unsigned>(blocks);
    if (s.last) p.tickets[0] = 0;
  }
  __syncthreads();
  if (!s.last) return;
  if (p.mode == kGreedy) {
    gather_best(p, best_of(s));
    commit(p, s.slots, s.commit, Greedy{p, best_of(s)});
  } else {
    commit(p, s.slots, s.commit, Stored{p});
  }
  __syncthreads();
}

// Commit alone, by block 0: `emitted` holds the wanted counts and `tokens` the tokens.
__device__ __forceinline__ void commit_stage(const VerifyCommitParams& p, int block,
                                             unsigned char* shared) {
  if (block != 0) return;
  verify::Shared& s = *reinterpret_cast<verify::Shared*>(shared);
  int words[verify::kSlotWords];
  verify::load_slots(p, words);
  verify::keep_slots(p, words, s.slots);
  verify::commit(p, s.slots, s.commit, verify::Stored{p});
  __syncthreads();
}
