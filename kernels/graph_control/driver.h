// The CUDA driver's functions for C hosts, found at run time: `drv.cuGraphUpload_(...)`. Only the
// toolkit's header is needed to build.
#pragma once
#include <cuda.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Errors of our own, beside the driver's positive ones; driver.py has the words.
enum { kNoDriver = -1, kNodeType = -3, kCycle = -4, kNoMemory = -5 };

// clang-format off
#define DRIVER_CALLS(X)                                                                          \
  X(cuGetErrorName) X(cuStreamSynchronize) X(cuMemcpyDtoHAsync) X(cuMemcpy3DAsync)               \
  X(cuMemsetD8Async) X(cuMemsetD16Async) X(cuMemsetD32Async)                                     \
  X(cuMemsetD2D8Async) X(cuMemsetD2D16Async) X(cuMemsetD2D32Async)                               \
  X(cuLaunchKernelEx) X(cuStreamBeginCaptureToGraph) X(cuStreamEndCapture)                       \
  X(cuGraphCreate) X(cuGraphDestroy) X(cuGraphInstantiate) X(cuGraphExecDestroy)                 \
  X(cuGraphUpload) X(cuGraphLaunch) X(cuGraphGetNodes) X(cuGraphGetEdges) X(cuGraphNodeGetType)                   \
  X(cuGraphKernelNodeGetParams) X(cuGraphKernelNodeGetAttribute)                                 \
  X(cuGraphMemsetNodeGetParams) X(cuGraphMemcpyNodeGetParams)                                    \
  X(cuGraphAddNode) X(cuGraphAddKernelNode) X(cuGraphConditionalHandleCreate) X(cuCtxGetCurrent)
// clang-format on

#define DECLARE(name) __typeof__(&name) name##_;
static struct {
  DRIVER_CALLS(DECLARE)
} drv;

// The header renames calls to their newest version; the text of that name is what the library has.
#define TEXT(name) #name
#define TEXT_OF(name) TEXT(name)
#define FIND(name) \
  if (!(*(void**)&drv.name##_ = dlsym(cuda, TEXT_OF(name)))) return kNoDriver;

static int find_driver(void) {
  void* cuda = dlopen("libcuda.so.1", RTLD_NOW);
  if (!cuda) return kNoDriver;
  DRIVER_CALLS(FIND)
  return 0;
}

// Leaves the function with the error of *call* unless it succeeds.
#define TRY(call)                         \
  do {                                    \
    int error_ = (call);                  \
    if (error_) return error_;            \
  } while (0)

// One kernel launch as `launch_list.c` takes it.
typedef struct {
  void* function;
  unsigned grid[3], block[3], shared, unused;
  void** params;
} Launch;

static inline CUDA_KERNEL_NODE_PARAMS as_node(const Launch* l) {
  CUDA_KERNEL_NODE_PARAMS node = {
      .func = (CUfunction)l->function,
      .gridDimX = l->grid[0], .gridDimY = l->grid[1], .gridDimZ = l->grid[2],
      .blockDimX = l->block[0], .blockDimY = l->block[1], .blockDimZ = l->block[2],
      .sharedMemBytes = l->shared, .kernelParams = l->params};
  return node;
}

int open_driver(void) { return find_driver(); }

const char* error_name(int error) {
  const char* name = "";
  if (drv.cuGetErrorName_) drv.cuGetErrorName_((CUresult)error, &name);
  return name;
}
