// Verification and commit as kernels of their own; stage.cuh states the arrays and the rules.
//
// verify_greedy  one launch, any grid
// verify_commit  the same in any mode, a grid that fits the device at once
// commit         one block: lengths, tokens and pages from given counts
#include "common/cuda.cuh"
#include "verify_commit/stage.cuh"

extern "C" __global__ void __launch_bounds__(512) verify_greedy(VerifyCommitParams p) {
  RS_DYNAMIC_SHARED(shared);
  p.mode = verify::kGreedy;  // lets the compiler drop the other modes and their registers
  verify_commit_stage(p, blockIdx.x, gridDim.x, shared);
}

extern "C" __global__ void __launch_bounds__(512) verify_commit(VerifyCommitParams p) {
  RS_DYNAMIC_SHARED(shared);
  verify_commit_stage(p, blockIdx.x, gridDim.x, shared);
}

extern "C" __global__ void __launch_bounds__(512) commit(VerifyCommitParams p) {
  RS_DYNAMIC_SHARED(shared);
  commit_stage(p, blockIdx.x, shared);
}
