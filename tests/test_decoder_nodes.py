"""The C host of captured graphs and the device's own repetition of a step, without a GPU.

The C host meets a driver of our own making, which holds one small graph and writes down what it is
asked for.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import PATIENCE_S, Running

from kernels import build
from kernels.backend import Cpu
from kernels.decoder import nodes
from kernels.graph_control.launch import PARAMS, WAYS, Control, Repeat
from kernels.loop_control import host_c
from kernels.loop_control.mailbox import NO_REQUEST, Mailbox, Reason

ROOT = Path(__file__).parents[1]
SOURCES = (build.HERE / "decoder/nodes.c", build.HERE / "graph_control/relaunch.c")

FAKE_DRIVER = """
#include <cuda.h>
#include <stdio.h>
#include <string.h>
// The nodes 1 to 6 of the one graph, shuffled: kernel 4, memset 2, kernel 5 in clusters of 2 that
// may start early, empty 1, copy 6, and node 3, a host callback if the graph's number is odd.
static const char order[] = {5, 1, 6, 4, 2, 3};
static const char after[][2] = {{4, 2}, {2, 5}, {5, 1}, {1, 6}, {6, 3}};
static void* params[] = {0};
#define NODE(i) ((CUgraphNode)(size_t)(i))
#define NUMBER(node) ((int)(size_t)(node))
static int odd;
__attribute__((constructor)) static void by_lines(void) { setvbuf(stdout, 0, _IOLBF, 0); }
CUresult cuGraphGetNodes(CUgraph g, CUgraphNode* nodes, size_t* n) {
  odd = (int)(size_t)g % 2;
  for (int i = 0; nodes && i < 6; ++i) nodes[i] = NODE(order[i]);
  *n = 6;
  return 0;
}
CUresult cuGraphGetEdges(CUgraph g, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data,
                         size_t* n) {
  for (int i = 0; from && i < 5; ++i) {
    from[i] = NODE(after[i][0]), to[i] = NODE(after[i][1]);
    data[i].type = after[i][1] == 5 ? CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC : 0;
  }
  *n = 5;
  return 0;
}
CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
  static const int types[] = {0, CU_GRAPH_NODE_TYPE_EMPTY, CU_GRAPH_NODE_TYPE_MEMSET, 0,
                              CU_GRAPH_NODE_TYPE_KERNEL, CU_GRAPH_NODE_TYPE_KERNEL,
                              CU_GRAPH_NODE_TYPE_MEMCPY};
  *type = NUMBER(node) == 3 ? odd ? CU_GRAPH_NODE_TYPE_HOST : CU_GRAPH_NODE_TYPE_EMPTY
                            : types[NUMBER(node)];
  return 0;
}
CUresult cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS* p) {
  int i = NUMBER(node);
  *p = (CUDA_KERNEL_NODE_PARAMS){.func = i == 4 ? (CUfunction)400 : 0, .kern = (CUkernel)500,
      .gridDimX = 10 * i, .gridDimY = 1, .gridDimZ = 2, .blockDimX = 32 * i, .blockDimY = 1,
      .blockDimZ = 1, .sharedMemBytes = i, .kernelParams = params};
  return 0;
}
CUresult cuGraphKernelNodeGetAttribute(CUgraphNode node, CUkernelNodeAttrID id,
                                       CUkernelNodeAttrValue* value) {
  if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) return 1;
  if (NUMBER(node) == 5 && id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
    value->clusterDim.x = 2, value->clusterDim.y = value->clusterDim.z = 1;
  return 0;
}
CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS* p) {
  *p = (CUDA_MEMSET_NODE_PARAMS){.dst = 77, .value = 9, .elementSize = 4, .width = 3, .height = 1};
  return 0;
}
CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D* p) {
  memset(p, 0, sizeof *p);
  p->WidthInBytes = 123;
  return 0;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** p, void** extra) {
  printf("kernel %d grid %u,%u,%u block %u shared %u stream %d params %d", (int)(size_t)f,
         c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->sharedMemBytes,
         (int)(size_t)c->hStream, p == params);
  for (unsigned i = 0; i < c->numAttrs; ++i)
    printf(" attribute %d=%u", c->attrs[i].id, c->attrs[i].value.clusterDim.x);
  printf("\\n");
  return c->gridDimX == 666 ? CUDA_ERROR_INVALID_VALUE : 0;
}
CUresult cuMemsetD32Async(CUdeviceptr dst, unsigned value, size_t n, CUstream stream) {
  printf("memset %d %u %d stream %d\\n", (int)dst, value, (int)n, (int)(size_t)stream);
  return 0;
}
CUresult cuMemcpy3DAsync(const CUDA_MEMCPY3D* p, CUstream stream) {
  printf("copy %d stream %d\\n", (int)p->WidthInBytes, (int)(size_t)stream);
  return 0;
}
CUresult cuMemcpyDtoHAsync(void* host, CUdeviceptr device, size_t bytes, CUstream stream) {
  printf("back %d bytes %d\\n", (int)device, (int)bytes);
  memset(host, 1, bytes);
  return 0;
}
CUresult cuStreamSynchronize(CUstream stream) {
  printf("wait\\n");
  return 0;
}
CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = "CUDA_ERROR_INVALID_VALUE";
  return 0;
}
"""
"""Answers to the calls whose answers matter."""

OTHER_CALLS = """
#include "graph_control/driver.h"
#define STUB(name)                                                          \
  int stub_##name(void) __asm__(TEXT_OF(name)) __attribute__((weak));       \
  int stub_##name(void) { return 0; }
DRIVER_CALLS(STUB) STUB(cuLaunchKernel)
"""

TALK = """
import sys
import numpy as np
from kernels.decoder.nodes import EarlyLaunches, NodeList
from kernels.loop_control.host_c import HostError
from kernels.loop_control.record import Launch


class Graph:
    def __init__(self, number):
        self.graph = number


class Raw:
    class kernel:
        ptr = 900


class Stream:
    ptr = 42


class Slab:
    class data:
        ptr = 4242
    nbytes = 8


def say(*words):
    print(*words, flush=True)


host = np.zeros(2, np.int32)
steps = NodeList(Graph(2), Stream, Slab, host)
say(steps.nodes, steps.about)
seconds = steps.run(0, 1)
say(len(seconds), len(steps.submitted), bool(seconds[0] >= steps.submitted[0] > 0), host[0])
try:
    NodeList(Graph(1), Stream)
except HostError as error:
    say(error)
launches = [Launch(None, (n, 1, 1), 64, n, (np.int32(n),), Raw) for n in (5, 6, 666)]
EarlyLaunches(launches[:2], Stream, early=False)()
try:
    EarlyLaunches(launches, Stream)()
except HostError as error:
    say(error)
"""

HEARD = """\
4 {'kernels': 2, 'copies': 1, 'memsets': 1, 'clusters': 1, 'early': 1, 'chain': True}
kernel 400 grid 40,1,2 block 128 shared 4 stream 42 params 1
memset 77 9 3 stream 42
kernel 500 grid 50,1,2 block 160 shared 5 stream 42 params 1 attribute 4=2 attribute 6=1
copy 123 stream 42
back 4242 bytes 8
wait
wait
1 1 True 16843009
read_nodes: a node of a kind that a host cannot launch
kernel 900 grid 5,1,1 block 64 shared 5 stream 42 params 0
kernel 900 grid 6,1,1 block 64 shared 6 stream 42 params 0
kernel 900 grid 5,1,1 block 64 shared 5 stream 42 params 0
kernel 900 grid 6,1,1 block 64 shared 6 stream 42 params 0 attribute 6=1
kernel 900 grid 666,1,1 block 64 shared 666 stream 42 params 0 attribute 6=1
launch_early: CUDA_ERROR_INVALID_VALUE (1)
"""


@pytest.fixture(scope="module")
def headers() -> list[str]:
    """Where the C files look for headers."""
    return [f"-I{build.HERE}", f"-I{build.toolkit() / 'include'}"]


# ---------------------------------------------------------------------------- the C files
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_c_files_compile_without_a_warning(
    source: Path, headers: list[str], tmp_path: Path
) -> None:
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    command = ["gcc", *flags, *headers, str(source), "-o", str(tmp_path / "out.so"), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_and_c_agree_on_structs(headers: list[str], tmp_path: Path) -> None:
    lines = [f'#include "{SOURCES[0]}"', "#include <stddef.h>"]
    for name, mine in (
        ("List", nodes._List),
        ("Launch", host_c._Launch),
        ("CopyBack", host_c._CopyBack),
    ):
        lines.append(f'_Static_assert(sizeof({name}) == {ctypes.sizeof(mine)}, "{name}");')
        for field, *_ in mine._fields_:
            at = getattr(mine, field).offset
            lines.append(f'_Static_assert(offsetof({name}, {field}) == {at}, "{name}.{field}");')
    check = tmp_path / "check.c"
    check.write_text("\n".join(lines) + "\n")
    command = ["gcc", "-c", *headers, str(check), "-o", str(tmp_path / "check.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_and_the_device_agree_on_parameters(headers: list[str], tmp_path: Path) -> None:
    lines = ['#include "cpu/cuda_on_cpu.h"', '#include "graph_control/kernel.cu"']
    lines += ["#include <cstddef>", f"static_assert(sizeof(again::Params) == {PARAMS.itemsize});"]
    fields: Any = PARAMS.fields
    for field, (_, at) in fields.items():
        lines.append(f"static_assert(offsetof(again::Params, {field}) == {at});")
    check = tmp_path / "check.cpp"
    check.write_text("\n".join(lines) + "\n")
    more = [*headers, f"-I{build.toolkit() / 'include/cccl'}"]
    command = ["g++", "-std=c++17", "-w", "-fsyntax-only", *more, str(check)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def fake(headers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `libcuda.so.1` of our own."""
    folder = tmp_path_factory.mktemp("driver")
    for name, text in (("driver", FAKE_DRIVER), ("others", OTHER_CALLS)):
        (folder / f"{name}.c").write_text(text)
    sources = [str(folder / "driver.c"), str(folder / "others.c")]
    target = ["-o", str(folder / "libcuda.so.1")]
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", *headers, *sources, *target], check=True)
    return folder


def talk(fake: Path, script: str) -> list[str]:
    """What *script* says and the driver writes down."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(fake)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_graph_is_launched_node_by_node_in_order(fake: Path) -> None:
    assert talk(fake, TALK) == HEARD.splitlines()


@pytest.mark.skipif(host_c.library().open_driver() == 0, reason="there is a CUDA driver here")
def test_without_a_driver_the_error_says_so() -> None:
    with pytest.raises(host_c.HostError, match=r"open_driver: no CUDA driver"):
        nodes.driver(SOURCES[0])


# ---------------------------------------------------------------------------- the device's turns
@pytest.mark.parametrize("way", [0, *WAYS.values()])
def test_the_control_is_linked_with_the_device_runtime(way: int) -> None:
    image = build.cubin("graph_control", "sm_90", (f"WAY={way}",)).read_bytes()
    assert b"graph_control" in image
    calls = {1: b"cudaGraphSetConditional", 2: b"cudaGraphLaunch"}
    for number, call in calls.items():
        assert (call in image) == (number == way), "resolved, and in no other way"


class Controlled(Running):
    """A control over a step that does nothing but count."""

    def __init__(self, lengths: list[int], outputs: int = 64, **options: Any) -> None:
        super().__init__(lengths, blocks=1, sets=1, outputs=outputs)
        self.steps = 0
        options = {"host_s": PATIENCE_S} | options
        self.control = Control(self.state.backend, self._step, self.state, self.box, **options)

    def _step(self) -> None:
        self.steps += 1

    def launch(self, steps: int) -> None:
        self.control.launch(steps)


def test_requests_come_and_go_and_it_leaves_at_a_token_boundary() -> None:
    run = Controlled([20, 5, -1]).start()
    run.read_until(lambda row: row.step == 2)
    run.box.admit(70, length=33, remaining=5)
    assert list(run.read_until(lambda row: 70 in row.request).request) == [0, 1, 70]
    run.box.admit(71, length=3, remaining=5)  # no slot is free: it waits
    run.box.cancel(1)
    assert list(run.read_until(lambda row: 71 in row.request).request) == [0, 71, 70]
    run.box.ask_to_leave()
    assert run.end() is Reason.ASKED
    assert [row.step for row in run.rows] == list(range(run.steps)), "a row for every step that ran"
    assert list(run.state.all_pages()) == list(range(12))


def test_it_ends_after_its_steps_and_the_next_launch_goes_on() -> None:
    run = Controlled([20, -1])
    for steps in (3, 4):
        assert run.start(steps).end() is Reason.STEPS
    assert [row.step for row in run.rows] == list(range(7))
    assert [list(row.request) for row in run.rows] == [[0, NO_REQUEST]] * 7
    run.control.restart()
    assert run.start(2).end() is Reason.STEPS
    assert [row.step for row in run.rows[7:]] == [0, 1]


def test_a_wish_to_leave_that_is_there_already_lets_nothing_run() -> None:
    run = Controlled([20])
    run.box.ask_to_leave()
    assert run.start().end() is Reason.ASKED
    assert run.steps == 0


def test_without_requests_it_waits_as_long_as_it_may() -> None:
    run = Controlled([-1, -1], host_s=0.05)
    assert run.start().end() is Reason.IDLE
    run.box.admit(9, length=1, remaining=5)
    run.start()
    run.read_until(lambda row: 9 in row.request)
    run.box.cancel(9)
    assert run.end() is Reason.IDLE


def test_it_leaves_when_nobody_reads() -> None:
    run = Controlled([20], outputs=4, host_s=0.05)
    run.start()
    run.thread.join(PATIENCE_S)
    assert run.box.reason() is Reason.UNREAD
    assert run.steps == 3, "one row stays spare"


def test_wrong_arguments_are_named() -> None:
    state = Controlled([20]).state
    with pytest.raises(ValueError, match="mailbox for 2 slots, 1 here"):
        Control(Cpu(1), lambda: None, state, Mailbox(Cpu(1), 2, 2))
    with pytest.raises(ValueError, match="way 'for', expected one of while, tail"):
        Repeat(Cpu(1), lambda: None, np.zeros(1, PARAMS), way="for")
