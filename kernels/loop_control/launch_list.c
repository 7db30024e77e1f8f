// A host that launches decode steps from C: launch lists, graph replay, and the resident loop's
// mailbox. Compiled on the spot by the C compiler; the CUDA driver is found at run time, so that
// neither headers nor a library are needed to build it.
//
// Every function returns 0 or the driver's error (negative: -1 no driver, -2 out of time), writes
// seconds a step to *seconds*, and copies *bytes* at *device* to *host* at the end of each step.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef struct {
  void* function;
  unsigned grid[3], block[3], shared, unused;
  void** params;
} Launch;

typedef struct {
  void* host;
  uint64_t device;
  uint64_t bytes;  // 0: no copy
  int sync;        // 0: wait for the stream after the last step only
} CopyBack;

static int (*launch_kernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                            unsigned, void*, void**, void**);
static int (*launch_graph)(void*, void*);
static int (*copy_to_host)(void*, uint64_t, size_t, void*);
static int (*wait_stream)(void*);

int open_driver(void) {
  void* cuda = dlopen("libcuda.so.1", RTLD_NOW);
  if (!cuda) return -1;
  launch_kernel = dlsym(cuda, "cuLaunchKernel");
  launch_graph = dlsym(cuda, "cuGraphLaunch");
  copy_to_host = dlsym(cuda, "cuMemcpyDtoHAsync_v2");
  wait_stream = dlsym(cuda, "cuStreamSynchronize");
  return launch_kernel && launch_graph && copy_to_host && wait_stream ? 0 : -1;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int finish(const CopyBack* back, void* stream) {
  int error = 0;
  if (back->bytes) error = copy_to_host(back->host, back->device, back->bytes, stream);
  return error || !back->sync ? error : wait_stream(stream);
}

// Step i runs list[first[i % sets]] .. list[first[i % sets + 1] - 1]. *results* keeps every step's
// copy-back one after the other, unless it is null.
int run_list(const Launch* list, const int* first, int sets, int from, int steps,
             const CopyBack* back, char* results, void* stream, double* seconds) {
  int error = 0;
  for (int i = from; i < from + steps && !error; ++i) {
    double begin = now();
    for (int j = first[i % sets]; j < first[i % sets + 1] && !error; ++j) {
      const Launch* l = &list[j];
      error = launch_kernel(l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0],
                            l->block[1], l->block[2], l->shared, stream, l->params, 0);
    }
    if (!error) error = finish(back, stream);
    if (results) memcpy(results + (size_t)(i - from) * back->bytes, back->host, back->bytes);
    seconds[i - from] = now() - begin;
  }
  return error ? error : wait_stream(stream);
}

// The same with one graph a set.
int run_graphs(void* const* graphs, int sets, int from, int steps, const CopyBack* back,
               char* results, void* stream, double* seconds) {
  int error = 0;
  for (int i = from; i < from + steps && !error; ++i) {
    double begin = now();
    error = launch_graph(graphs[i % sets], stream);
    if (!error) error = finish(back, stream);
    if (results) memcpy(results + (size_t)(i - from) * back->bytes, back->host, back->bytes);
    seconds[i - from] = now() - begin;
  }
  return error ? error : wait_stream(stream);
}

// ---------------------------------------------------------------------------- resident loop
// Reads *steps* output rows of *words* 64-bit words from a ring of *rows*, beginning with the step
// *from*; seconds[i] lies between the arrival of row i and of the row before it. *results* keeps the
// low words of each row, unless it is null. The mail's word 2 tells the device what was read.
int read_outputs(volatile uint64_t* ring, int rows, int words, volatile uint32_t* mail,
                 unsigned from, int steps, double patience, uint32_t* results, double* seconds) {
  double last = now();
  for (int i = 0; i < steps; ++i) {
    uint32_t tag = from + i + 1;
    volatile uint64_t* row = ring + (uint64_t)(from + i) % rows * words;
    for (int j = 0; j < words; ++j)
      for (unsigned polls = 1; (uint32_t)(row[j] >> 32) != tag; ++polls)
        if (polls % 65536 == 0 && now() - last > patience) return -2;
    double t = now();
    seconds[i] = t - last;
    last = t;
    if (results)
      for (int j = 0; j < words; ++j) results[(size_t)i * words + j] = (uint32_t)row[j];
    mail[2] = tag;
  }
  return 0;
}

// Launches the loop and waits for the row with *tag*: seconds[0] until the launch call returns,
// seconds[1] until the row is there.
int launch_and_read(const Launch* l, void* stream, volatile uint64_t* row, int words, uint32_t tag,
                    double patience, double* seconds) {
  double begin = now();
  int error = launch_kernel(l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0],
                            l->block[1], l->block[2], l->shared, stream, l->params, 0);
  seconds[0] = now() - begin;
  for (int j = 0; j < words && !error; ++j)
    for (unsigned polls = 1; (uint32_t)(row[j] >> 32) != tag; ++polls)
      if (polls % 65536 == 0 && now() - begin > patience) return -2;
  seconds[1] = now() - begin;
  return error;
}

// Sends 1, 2, .. *rounds* and waits for each answer.
int echo(volatile uint32_t* mail, volatile uint64_t* reply, int rounds, double patience,
         double* seconds) {
  for (int i = 1; i <= rounds; ++i) {
    double begin = now();
    mail[0] = i;
    for (unsigned polls = 1; (uint32_t)*reply != (uint32_t)i; ++polls)
      if (polls % 65536 == 0 && now() - begin > patience) return -2;
    seconds[i - 1] = now() - begin;
  }
  return 0;
}

// Asks the loop to leave and waits for its status word.
int ask_to_leave(volatile uint32_t* mail, volatile uint32_t* status, double patience,
                 double* seconds) {
  double begin = now();
  mail[1] = 1;
  for (unsigned polls = 1; !status[0]; ++polls)
    if (polls % 65536 == 0 && now() - begin > patience) return -2;
  seconds[0] = now() - begin;
  return 0;
}
