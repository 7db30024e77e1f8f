// A C host that launches the nodes of a captured CUDA graph one by one, and launches that may start
// before their predecessors end.
//
// Every function returns 0, the driver's error, or one of driver.h's.
#include "graph_control/driver.h"

enum { kAttributes = 5, kTypes = 16 };

typedef struct {
  CUgraphNodeType type;
  CUlaunchConfig config;
  CUlaunchAttribute attributes[kAttributes];
  CUfunction function;
  void **params, **extra;  // the graph's own; they live as long as it does
  CUDA_MEMSET_NODE_PARAMS set;
  CUDA_MEMCPY3D copy;
} Node;

// What a graph consists of; *node* in an order in which it may run. The counts are the caller's to
// read.
typedef struct {
  int count;            // nodes to launch
  int kinds[kTypes];    // of them, by CUgraphNodeType
  int chain;            // 1 if each waits for the one before it and for nothing else
  int clusters, early;  // kernels in clusters, kernels that may start before their predecessor ends
  Node* node;
} List;

typedef struct {  // as in launch_list.c
  void* host;
  uint64_t device, bytes;
  int sync;
} CopyBack;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// ---------------------------------------------------------------------------- reading a graph
static void add_attribute(Node* n, CUlaunchAttributeID id, CUlaunchAttributeValue value) {
  n->attributes[n->config.numAttrs].id = id;
  n->attributes[n->config.numAttrs++].value = value;
  n->config.attrs = n->attributes;
}

static int read_kernel(CUgraphNode node, int early, Node* n, List* list) {
  static const CUlaunchAttributeID kept[] = {
      CU_LAUNCH_ATTRIBUTE_COOPERATIVE, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
      CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE,
      CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION};
  CUDA_KERNEL_NODE_PARAMS p;
  memset(&p, 0, sizeof p);
  TRY(drv.cuGraphKernelNodeGetParams_(node, &p));
  n->function = p.func ? p.func : (CUfunction)p.kern;
  n->params = p.kernelParams;
  n->extra = p.extra;
  CUlaunchConfig* c = &n->config;
  c->gridDimX = p.gridDimX, c->gridDimY = p.gridDimY, c->gridDimZ = p.gridDimZ;
  c->blockDimX = p.blockDimX, c->blockDimY = p.blockDimY, c->blockDimZ = p.blockDimZ;
  c->sharedMemBytes = p.sharedMemBytes;
  static const CUlaunchAttributeValue none;
  for (unsigned i = 0; i < sizeof kept / sizeof *kept; ++i) {
    CUlaunchAttributeValue value = none;
    if (drv.cuGraphKernelNodeGetAttribute_(node, kept[i], &value)) continue;  // unknown to this one
    if (!memcmp(&value, &none, sizeof none)) continue;
    add_attribute(n, kept[i], value);
    if (kept[i] == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
      list->clusters += value.clusterDim.x * value.clusterDim.y * value.clusterDim.z > 1;
  }
  if (early) {
    CUlaunchAttributeValue value = none;
    value.programmaticStreamSerializationAllowed = 1;
    add_attribute(n, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value);
    ++list->early;
  }
  return 0;
}

static int read_node(CUgraphNode node, int early, CUstream stream, List* list) {
  Node* n = &list->node[list->count];
  TRY(drv.cuGraphNodeGetType_(node, &n->type));
  switch (n->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      TRY(read_kernel(node, early, n, list));
      n->config.hStream = stream;
      break;
    case CU_GRAPH_NODE_TYPE_MEMSET:
      TRY(drv.cuGraphMemsetNodeGetParams_(node, &n->set));
      break;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      TRY(drv.cuGraphMemcpyNodeGetParams_(node, &n->copy));
      break;
    case CU_GRAPH_NODE_TYPE_EMPTY:
      return 0;
    default:
      return kNodeType;
  }
  ++list->kinds[n->type];
  ++list->count;
  return 0;
}

static size_t place(const CUgraphNode* nodes, size_t count, CUgraphNode node) {
  size_t i = 0;
  while (i < count && nodes[i] != node) ++i;
  return i;
}

typedef struct {
  size_t count, edges;
  CUgraphNode *nodes, *from, *to;
  CUgraphEdgeData* data;
  int* waits;  // for how many others a node waits still
} Shape;

// Takes the nodes in an order that respects the edges.
static int walk(const Shape* s, CUstream stream, List* list) {
  for (size_t e = 0; e < s->edges; ++e) ++s->waits[place(s->nodes, s->count, s->to[e])];
  list->chain = s->edges + 1 == s->count;
  for (size_t i = 0; i < s->count; ++i) list->chain &= s->waits[i] < 2;
  for (size_t done = 0; done < s->count; ++done) {
    size_t i = 0;
    while (i < s->count && s->waits[i]) ++i;
    if (i == s->count) return kCycle;
    s->waits[i] = -1;
    int early = 0, after = 0;
    for (size_t e = 0; e < s->edges; ++e) {
      if (s->from[e] == s->nodes[i]) {
        --s->waits[place(s->nodes, s->count, s->to[e])];
        list->chain &= ++after < 2;
      }
      if (s->to[e] == s->nodes[i]) early |= s->data[e].type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
    }
    TRY(read_node(s->nodes[i], early, stream, list));
  }
  return 0;
}

static int read_shape(CUgraph graph, Shape* s) {
  TRY(drv.cuGraphGetNodes_(graph, NULL, &s->count));
  TRY(drv.cuGraphGetEdges_(graph, NULL, NULL, NULL, &s->edges));
  s->nodes = calloc(s->count + 1, sizeof *s->nodes);
  s->from = calloc(s->edges + 1, sizeof *s->from);
  s->to = calloc(s->edges + 1, sizeof *s->to);
  s->data = calloc(s->edges + 1, sizeof *s->data);
  s->waits = calloc(s->count + 1, sizeof *s->waits);
  if (!s->nodes || !s->from || !s->to || !s->data || !s->waits) return kNoMemory;
  TRY(drv.cuGraphGetNodes_(graph, s->nodes, &s->count));
  return s->edges ? drv.cuGraphGetEdges_(graph, s->from, s->to, s->data, &s->edges) : 0;
}

// Fills *list* with the nodes of *graph*, to be launched on *stream*. After kNodeType the last node
// read is of the type that no host can launch.
int read_nodes(CUgraph graph, CUstream stream, List* list) {
  Shape s;
  memset(&s, 0, sizeof s);
  memset(list, 0, sizeof *list);
  int error = read_shape(graph, &s);
  if (!error && !(list->node = calloc(s.count + 1, sizeof(Node)))) error = kNoMemory;
  if (!error) error = walk(&s, stream, list);
  free(s.nodes), free(s.from), free(s.to), free(s.data), free(s.waits);
  return error;
}

void free_nodes(List* list) {
  free(list->node);
  list->node = NULL;
}

// ---------------------------------------------------------------------------- launching
static int fill(const CUDA_MEMSET_NODE_PARAMS* p, CUstream stream) {
  if (p->height <= 1) switch (p->elementSize) {
      case 1:
        return drv.cuMemsetD8Async_(p->dst, (unsigned char)p->value, p->width, stream);
      case 2:
        return drv.cuMemsetD16Async_(p->dst, (unsigned short)p->value, p->width, stream);
      default:
        return drv.cuMemsetD32Async_(p->dst, p->value, p->width, stream);
    }
  switch (p->elementSize) {
    case 1:
      return drv.cuMemsetD2D8Async_(p->dst, p->pitch, (unsigned char)p->value, p->width, p->height,
                                    stream);
    case 2:
      return drv.cuMemsetD2D16Async_(p->dst, p->pitch, (unsigned short)p->value, p->width,
                                     p->height, stream);
    default:
      return drv.cuMemsetD2D32Async_(p->dst, p->pitch, p->value, p->width, p->height, stream);
  }
}

static int launch_all(const List* list, CUstream stream) {
  for (int i = 0; i < list->count; ++i) {
    Node* n = &list->node[i];
    switch (n->type) {
      case CU_GRAPH_NODE_TYPE_KERNEL:
        TRY(drv.cuLaunchKernelEx_(&n->config, n->function, n->params, n->extra));
        break;
      case CU_GRAPH_NODE_TYPE_MEMSET:
        TRY(fill(&n->set, stream));
        break;
      default:
        TRY(drv.cuMemcpy3DAsync_(&n->copy, stream));
    }
  }
  return 0;
}

// Step i runs lists[i % sets], copies back and waits. *submitted* receives the seconds of a step's
// launches alone, *seconds* those of the whole step, *results* every step's copy, unless null.
int run_nodes(List* const* lists, int sets, int from, int steps, const CopyBack* back,
              char* results, CUstream stream, double* submitted, double* seconds) {
  for (int i = 0; i < steps; ++i) {
    double begin = now();
    TRY(launch_all(lists[(from + i) % sets], stream));
    submitted[i] = now() - begin;
    if (back->bytes)
      TRY(drv.cuMemcpyDtoHAsync_(back->host, back->device, back->bytes, stream));
    if (back->sync) TRY(drv.cuStreamSynchronize_(stream));
    if (results) memcpy(results + (size_t)i * back->bytes, back->host, back->bytes);
    seconds[i] = now() - begin;
  }
  return drv.cuStreamSynchronize_(stream);
}

// The launches of one step, and nothing else: for a stream that something holds meanwhile.
int submit_nodes(const List* list, CUstream stream, double* seconds) {
  double begin = now();
  TRY(launch_all(list, stream));
  *seconds = now() - begin;
  return 0;
}

// ---------------------------------------------------------------------------- early starts
// Launches *count* kernels, or captures them if the stream is being captured. Where *early* is 1, one
// may start as soon as every block of the one before it has said launch_dependents or ended.
int launch_early(const Launch* list, int count, const int* early, CUstream stream) {
  CUlaunchAttribute attribute;
  memset(&attribute, 0, sizeof attribute);
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attribute.value.programmaticStreamSerializationAllowed = 1;
  for (int i = 0; i < count; ++i) {
    const Launch* l = &list[i];
    CUlaunchConfig config = {
        .gridDimX = l->grid[0], .gridDimY = l->grid[1], .gridDimZ = l->grid[2],
        .blockDimX = l->block[0], .blockDimY = l->block[1], .blockDimZ = l->block[2],
        .sharedMemBytes = l->shared, .hStream = stream,
        .attrs = &attribute, .numAttrs = early[i] && i > 0};
    TRY(drv.cuLaunchKernelEx_(&config, (CUfunction)l->function, l->params, NULL));
  }
  return 0;
}
