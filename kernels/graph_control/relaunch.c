// Graphs that run a step again and again without the host: a WHILE node around the step, or a graph
// that launches itself. In both a control kernel follows the step and decides whether to go on.
//
// Every function returns 0, the driver's error, or one of driver.h's.
#include "graph_control/driver.h"

static int instantiate(CUgraph graph, int flags, CUstream stream, CUgraphExec* exec) {
  TRY(drv.cuGraphInstantiate_(exec, graph, flags));
  TRY(drv.cuGraphUpload_(*exec, stream));
  return drv.cuStreamSynchronize_(stream);
}

// A new graph and the handle of the condition that its WHILE node will test; false at each launch.
int open_while(CUgraph* graph, CUgraphConditionalHandle* handle) {
  CUcontext context;
  TRY(drv.cuCtxGetCurrent_(&context));
  TRY(drv.cuGraphCreate_(graph, 0));
  return drv.cuGraphConditionalHandleCreate_(handle, *graph, context, 0,
                                             CU_GRAPH_COND_ASSIGN_DEFAULT);
}

// *graph* becomes: *enter*, then *inside* as long as the condition holds. What the stream is given
// until finish_while goes to *inside*: the step and its control.
int begin_while(CUgraph graph, CUgraphConditionalHandle handle, const Launch* enter,
                CUstream stream) {
  CUgraphNode first, loop;
  CUDA_KERNEL_NODE_PARAMS kernel = as_node(enter);
  TRY(drv.cuGraphAddKernelNode_(&first, graph, NULL, 0, &kernel));
  CUgraphNodeParams params;
  memset(&params, 0, sizeof params);
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.handle = handle;
  params.conditional.type = CU_GRAPH_COND_TYPE_WHILE;
  params.conditional.size = 1;
  TRY(drv.cuCtxGetCurrent_(&params.conditional.ctx));
  TRY(drv.cuGraphAddNode_(&loop, graph, &first, NULL, 1, &params));
  CUgraph inside = params.conditional.phGraph_out[0];
  return drv.cuStreamBeginCaptureToGraph_(stream, inside, NULL, NULL, 0,
                                          CU_STREAM_CAPTURE_MODE_RELAXED);
}

int finish_while(CUgraph graph, CUstream stream, CUgraphExec* exec) {
  CUgraph inside;
  TRY(drv.cuStreamEndCapture_(stream, &inside));
  return instantiate(graph, 0, stream, exec);
}

// *graph* made ready to be launched by a kernel on the device.
int device_graph(CUgraph graph, CUstream stream, CUgraphExec* exec) {
  return instantiate(graph, CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH, stream, exec);
}

int start_graph(CUgraphExec exec, CUstream stream) { return drv.cuGraphLaunch_(exec, stream); }

int close_graph(CUgraph graph, CUgraphExec exec) {
  if (exec) TRY(drv.cuGraphExecDestroy_(exec));
  return graph ? drv.cuGraphDestroy_(graph) : 0;
}
