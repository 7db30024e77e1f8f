// Graphs that run a step again and again without the host: a WHILE node around the step, or a graph
// that launches itself. In both a control kernel follows the step and decides whether to go on.
//
// Every function returns 0, the driver's error, or one of driver.h's.
#include "graph_control/driver.h"

// A new graph and the handle of the condition that its WHILE node will test; false at each launch.
int open_while(CUgraph* graph, CUgraphConditionalHandle* handle) {
  CUcontext context;
  TRY(drv.cuCtxGetCurrent_(&context));
  TRY(drv.cuGraphCreate_(graph, 0));
  return drv.cuGraphConditionalHandleCreate_(handle, *graph, context, 0,
                                             CU_GRAPH_COND_ASSIGN_DEFAULT);
}

// *graph* becomes: enter, then as long as the condition holds: step, control. A copy of *step* is
// kept.
int close_while(CUgraph graph, CUgraphConditionalHandle handle, CUgraph step, const Launch* enter,
                const Launch* control, CUstream stream, CUgraphExec* exec) {
  CUgraphNode first, loop, body;
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
  TRY(drv.cuGraphAddChildGraphNode_(&body, inside, NULL, 0, step));
  kernel = as_node(control);
  CUgraphNode last;
  TRY(drv.cuGraphAddKernelNode_(&last, inside, &body, 1, &kernel));
  TRY(drv.cuGraphInstantiate_(exec, graph, 0));
  TRY(drv.cuGraphUpload_(*exec, stream));
  return drv.cuStreamSynchronize_(stream);
}

// A graph that a kernel on the device may launch: *step* (may be null), then *control*.
int device_graph(CUgraph step, const Launch* control, CUstream stream, CUgraph* graph,
                 CUgraphExec* exec) {
  CUgraphNode body, last;
  CUDA_KERNEL_NODE_PARAMS kernel = as_node(control);
  TRY(drv.cuGraphCreate_(graph, 0));
  if (step) TRY(drv.cuGraphAddChildGraphNode_(&body, *graph, NULL, 0, step));
  TRY(drv.cuGraphAddKernelNode_(&last, *graph, step ? &body : NULL, step ? 1 : 0, &kernel));
  TRY(drv.cuGraphInstantiate_(exec, *graph, CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH));
  TRY(drv.cuGraphUpload_(*exec, stream));
  return drv.cuStreamSynchronize_(stream);
}

int start_graph(CUgraphExec exec, CUstream stream) { return drv.cuGraphLaunch_(exec, stream); }
