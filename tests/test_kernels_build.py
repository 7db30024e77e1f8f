"""Every kernel compiles for every architecture, within its budgets, and runs on the CPU.

A missing compiler is a failure, not a skip: the `dev` extra brings nvcc, the system g++.
"""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kernels import build
from kernels.backend import Cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDERS = build.folders()
PAIRS = list(itertools.product(FOLDERS, build.ARCHITECTURES))
MEASURED_ON = "sm_90"
"""The architecture of the machine that the profile is from; kernels for others take `--slow`."""

REGISTER_FILE = 65536
REGISTERS = 128
"""What a thread may hold at 512 threads a block, the block of the persistent loop."""
STATIC_SHARED = 48 * 1024
DYNAMIC_SHARED = 227 * 1024
SPILLS = 64
"""Bytes stored and loaded: a few words outside the inner loop."""
MAX_THREADS = 5
"""The kind of attribute of a cubin that holds the largest block."""

MORE_SPILLS: dict[str, tuple[int, str]] = {
    "verify_commit.verify_commit sm_90": (128, "512 threads leave 128 registers; timed as it is"),
}
"""`folder.kernel`, or `folder.kernel sm_80`, -> bytes it may spill, and why."""
MORE_REGISTERS: dict[str, tuple[int, str]] = {}
"""`folder.kernel` -> registers a thread it may use without `__launch_bounds__`, and why."""
CHECKED_ELSEWHERE: dict[str, str] = {
    "loop_control": "test_every_mode_emits_and_commits_the_same",
}
"""Folders whose smallest case takes half a minute, and their own test that runs it on the CPU."""
NOT_IN_CHECKS: dict[str, str] = {
    "loop_control.probe_barrier": "timed only; the barrier itself runs in `resident`",
    "loop_control.probe_echo": "timed only; answers a host that polls while it runs",
    "loop_control.probe_empty": "does nothing; its launch is what is timed",
    "paged_attention.paged_attention_sizes": "run by tests/test_kernel_paged_attention.py",
    "verify_commit.commit": "run by tests/test_kernel_verify_commit.py",
}
"""`folder.kernel` -> why no small check runs it on the CPU."""

Compiled = dict[tuple[str, str], Future[dict[str, build.Resources]]]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest) -> Iterator[Compiled]:
    """Each folder for each architecture, compiling on as many threads as there are cores."""
    try:
        build.toolkit()
    except build.BuildError as error:
        pytest.fail(f"kernels cannot be compiled: {error}", pytrace=False)
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    every = request.config.getoption("--slow")
    pairs = [pair for pair in PAIRS if every or pair[1] == MEASURED_ON]
    yield {pair: pool.submit(build.resources, *pair) for pair in pairs}
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def gxx() -> str:
    """The compiler of the CPU backend."""
    found = shutil.which("g++")
    if not found:
        pytest.fail("g++ is missing (Debian, Ubuntu: apt install g++)", pytrace=False)
    return found


# ---------------------------------------------------------------------------- every kernel
def test_there_are_kernels() -> None:
    assert FOLDERS
    for folder in FOLDERS:
        here = build.HERE / folder
        assert build.kernel_names(here / "kernel.cu"), f"{folder}: no kernel found"
        for name in ("__init__.py", "launch.py", "reference.py", "check.py"):
            assert (here / name).exists(), f"{folder}: no {name}"


@pytest.mark.parametrize(
    ("folder", "arch"),
    [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] != MEASURED_ON)) for pair in PAIRS],
)
def test_it_compiles_within_its_budgets(compiled: Compiled, folder: str, arch: str) -> None:
    source = build.HERE / folder / "kernel.cu"
    found = compiled[folder, arch].result()
    assert sorted(found) == sorted(build.kernel_names(source))
    bounds = threads_at_most(build.cubin(folder, arch))
    for kernel, used in found.items():
        name = f"{folder}.{kernel}"
        assert used.registers > 0, f"{name}: the assembler's report was not understood"
        spills = max(MORE_SPILLS.get(key, (SPILLS, ""))[0] for key in (name, f"{name} {arch}"))
        assert used.spill_bytes <= spills, f"{name} spills"
        assert used.shared_bytes <= STATIC_SHARED, f"{name}: static shared memory"
        threads = bounds.get(kernel)
        if threads is None:
            limit, _ = MORE_REGISTERS.get(name, (REGISTERS, ""))
            assert used.registers <= limit, f"{name}: registers without __launch_bounds__"
        else:
            rounded = -(-used.registers // 8) * 8
            assert rounded * threads <= REGISTER_FILE, f"{name}: {threads} threads cannot start"


def threads_at_most(cubin: Path) -> dict[str, int]:
    """Threads a block that each kernel's `__launch_bounds__` allows, as the compiled file says.

    A cubin is an ELF file; section `.nv.info.<kernel>` is a list of attributes, each of a format
    byte, a kind byte and a 16-bit value, which in format 4 is the length of what follows.
    """
    raw, found = cubin.read_bytes(), {}
    (table,) = struct.unpack_from("<Q", raw, 40)
    size, count, names = struct.unpack_from("<HHH", raw, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", raw, table + i * size) for i in range(count)]
    for head in heads:
        start = heads[names][4] + head[0]
        name = raw[start : raw.index(b"\0", start)].decode()
        if not name.startswith(".nv.info."):
            continue
        at, end = head[4], head[4] + head[5]
        while at < end:
            form, kind, value = struct.unpack_from("<BBH", raw, at)
            if form == 4 and kind == MAX_THREADS:
                found[name.removeprefix(".nv.info.")] = struct.unpack_from("<I", raw, at + 4)[0]
            at += 4 + (value if form == 4 else 0)
    return found


class Recording(Cpu):
    """The CPU backend, noting each launch as (kernel, threads a block, dynamic shared bytes)."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[str, int, int]] = []

    def function(self, folder: str, kernel: str, defines: Any = ()) -> Any:
        run = super().function(folder, kernel, defines)

        def call(grid: Any, block: int, args: Any, shared: int = 0) -> None:
            self.launches.append((f"{folder}.{kernel}", block, shared))
            run(grid, block, args, shared)

        return call


TESTED_ALONE = ("fused_step", "decoder", "topk_select", "small_ops", "w4a16_gemv")


@pytest.mark.parametrize(
    "folder",
    [
        # The tests of these folders run all their kernels, too.
        pytest.param(folder, marks=[pytest.mark.slow] * (folder in TESTED_ALONE))
        for folder in sorted({*FOLDERS} - {*CHECKED_ELSEWHERE})
    ],
)
def test_its_small_checks_run_every_kernel_on_the_cpu(gxx: str, folder: str) -> None:
    check = importlib.import_module(f"kernels.{folder}.check")
    names = build.kernel_names(build.HERE / folder / "kernel.cu")
    left = {f"{folder}.{name}" for name in names} - set(NOT_IN_CHECKS)
    backend = Recording()
    for index, case in enumerate(check.cases(True)):
        if not left:  # the other cases are the business of the folder's own tests
            break
        check.check(backend, case, np.random.default_rng([1, index]))
        left -= {name for name, _, _ in backend.launches}
    assert not left, f"no small case runs {sorted(left)}"
    for name, threads, shared in backend.launches:
        assert threads % 32 == 0, f"{name}: {threads} threads are not whole warps"
        assert threads <= 1024, f"{name}: {threads} threads"
        assert shared <= DYNAMIC_SHARED, f"{name}: {shared} bytes of shared memory"


def test_exceptions_name_kernels_that_exist() -> None:
    known = {
        f"{folder}.{name}"
        for folder in FOLDERS
        for name in build.kernel_names(build.HERE / folder / "kernel.cu")
    }
    for folder, test in CHECKED_ELSEWHERE.items():
        text = (ROOT / f"tests/test_kernel_{folder}.py").read_text()
        assert f"def {test}(" in text
        assert "check.check(Cpu(" in text
    listed = {key.split()[0] for key in (*MORE_SPILLS, *MORE_REGISTERS, *NOT_IN_CHECKS)}
    assert listed <= known


# ---------------------------------------------------------------------------- the command line
def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kernels", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_list_names_every_kernel(compiled: Compiled) -> None:
    for folder in FOLDERS:
        compiled[folder, "sm_90"].result()
    done = run_module("list")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.split() == ["kernel", "registers", "shared", "stack", "spills", "sm_90"]
    found = {line.split()[0]: [int(word) for word in line.split()[1:]] for line in lines}
    for folder in FOLDERS:
        for kernel, used in compiled[folder, "sm_90"].result().items():
            figures = [used.registers, used.shared_bytes, used.stack_bytes, used.spill_bytes]
            assert found.pop(f"{folder}.{kernel}") == figures
    assert not found


def test_check_runs_on_the_cpu(gxx: str) -> None:
    done = run_module("check", "--cpu", "--seed", "7", "streams", "tier_copy")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "seed 7"
    assert [line.split()[0] for line in lines] == ["streams", "tier_copy"]


# ---------------------------------------------------------------------------- build.py itself
KERNEL = """#include "common/add.cuh"
extern "C" __global__ void one(int* x) { *x = add(*x); }
extern "C" __global__ void __launch_bounds__(64, 1) two(
    int* x) {}
static __global__ void hidden() {}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one kernel, `mine`, that includes two headers, and an empty cache."""
    for name in ("mine", "common", "cpu"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine/kernel.cu").write_text(KERNEL)
    (tmp_path / "common/add.cuh").write_text('#pragma once\n#include "common/step.cuh"\n')
    (tmp_path / "common/step.cuh").write_text("__device__ int add(int x) { return x + STEP; }\n")
    shutil.copy(build.HERE / "cpu/cuda_on_cpu.h", tmp_path / "cpu")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setenv("KERNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_bounds_are_read_from_the_compiled_file(own: Path) -> None:
    assert threads_at_most(build.cubin("mine", "sm_90", ("STEP=1",))) == {"two": 64}


def test_only_exported_kernels_count(own: Path) -> None:
    assert build.folders() == ["mine"]
    assert build.kernel_names(own / "mine/kernel.cu") == ["one", "two"]


def test_a_library_is_built_again_when_what_it_hangs_on_changes(own: Path, gxx: str) -> None:
    first = build.cpu_library("mine", ("STEP=1",))
    stamp = first.stat().st_mtime_ns
    assert build.cpu_library("mine", ("STEP=1",)) == first
    assert first.stat().st_mtime_ns == stamp
    assert build.cpu_library("mine", ("STEP=2",)) != first
    header = own / "common/step.cuh"
    header.write_text(header.read_text().replace("STEP", "(2 * STEP)"))
    changed = build.cpu_library("mine", ("STEP=1",))
    assert changed != first
    for defines, want in ((("STEP=1",), 7), (("STEP=3",), 11)):
        x = np.array([5], np.int32)
        Cpu().function("mine", "one", defines)(1, 1, (x,))
        assert x[0] == want
    kept = [path.suffix for path in (own / "cache").iterdir()]
    assert sorted(kept) == [".gch", ".h", *[".so"] * 4]  # the headers are those of all four


def test_a_source_that_does_not_compile_brings_the_compilers_words(own: Path, gxx: str) -> None:
    (own / "common/step.cuh").write_text("__device__ int add(int x) { return y; }\n")
    with pytest.raises(build.BuildError, match=r'step\.cuh\(1\): error: identifier "y"'):
        build.cubin("mine", "sm_90")
    with pytest.raises(build.BuildError, match=r"step\.cuh:1:\d+: error"):
        build.cpu_library("mine")
    left = [path.suffix for path in (own / "cache").iterdir()]
    assert sorted(left) == [".gch", ".h"], "no half-built file stays"
