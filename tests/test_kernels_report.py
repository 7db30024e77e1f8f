"""The calibration report from made-up samples: what it shows, what it says when there is nothing."""

from __future__ import annotations

import importlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kernels.fit.kernel import fitted
from kernels.fit.recipes import RECIPES
from kernels.fit.samples import Samples, SamplesError, read
from kernels.report.command import run_report
from kernels.report.document import build
from kernels.report.inputs import gather
from kernels.report.public import PublicTable
from kernels.report.target_list import TARGETS
from kernels.report.targets import Found, judge
from kernels.report.words import figure_of, listed, number, size, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ = 4.6e12
DEVICE = {
    "name": "NVIDIA H200", "sms": 132, "driver": "580.0", "cuda": "13.0", "cpu": "made up",
    "cores": 16, "packages": {"numpy": "2"}, "python": "3.12",
}  # fmt: skip
FOLDERS = ("streams", "paged_attention", "page_score", "topk_select", "kv_append", "verify_commit",
           "w4a16_gemv", "gemm_library", "small_ops")  # fmt: skip


# ------------------------------------------------------------------------------ made-up samples
def moved(folder: str, a: dict[str, Any]) -> float:
    """Bytes of a call, about as the folders count them."""
    match folder:
        case "streams":
            return float(a["bytes"] * a.get("passes", 1) * (2 if a["op"] == "copy" else 1))
        case "topk_select":
            return 4.0 * a["rows"] * (a["pages"] + a["budget"])
        case "w4a16_gemv":
            weight = a["n"] * a["k"] * (a["bits"] / 8 + (2.5 / 128 if a["bits"] == 4 else 0))
            return weight + 2.0 * a["m"] * (a["n"] + a["k"])
        case "gemm_library":
            if a["op"] == "sdpa":
                return 4.0 * a["kv_heads"] * a["head_dim"] * (a["chunk"] + a["offset"])
            return (2 if a["op"] == "bf16" else 1) * float(a["n"] * a["k"] + a["m"] * a["k"])
        case "page_score":
            return 4.0 * a["batch"] * a["pages"] * a["kv_heads"] * a["head_dim"]
        case "paged_attention":
            heads, width = int(a["heads"].split("/")[1]), int(a["heads"].split("/")[2])
            tokens = a["requests"] * (a["budget"] or a["length"])
            return tokens * heads * width * a["bits"] / 4 + 4e3 * a["requests"]
        case "kv_append":
            return 8e3 * a["batch"] * a["tokens"]
        case "small_ops":
            return 2.0 * a["rows"] * (128256 if "logits" in a else 8192)
        case "verify_commit":
            wide = 4 if a["element"] == "fp32" else 2
            return float(a["batch"] * (a["drafts"] + 1) * a["vocabulary"] * wide)
    raise AssertionError(folder)


def flops(folder: str, a: dict[str, Any]) -> float:
    """Operations of a call."""
    if folder == "gemm_library" and a["op"] == "sdpa":
        return 4.0 * a["q_heads"] * a["head_dim"] * a["chunk"] * (a["offset"] + a["chunk"] / 2)
    return 2.0 * a["m"] * a["n"] * a["k"] if "m" in a else 0.0


def seconds(folder: str, a: dict[str, Any]) -> float:
    """A plausible time."""
    if folder == "streams":
        return moved(folder, a) / (6e10 if a["level"] == "one_block" else 0.99 * READ)
    memory, compute = moved(folder, a) / 4.2e12, flops(folder, a) / 7e14
    if folder == "topk_select":
        slow = {"equal": 0.7, "duplicates": 1.3}.get(a["scores"], 1.0)
        return 2e-6 + slow * max(1.0, a["rows"] / 132) * (1e-6 + 4e-10 * a["pages"])
    return 3e-6 + math.hypot(memory, compute)


def made(names: tuple[str, ...] = FOLDERS, every: int = 1) -> Iterator[dict[str, Any]]:
    """Lines of a samples file: a run, points of *names*, records of copies and of the loop."""
    yield {"kind": "run", "device": DEVICE, "date": "2026-11-21T00:00:00Z", "commit": "abc"}
    rng = np.random.default_rng(5)
    for folder in names:
        points = importlib.import_module(f"kernels.{folder}.bench").points()
        for index, axes in enumerate(points[::every]):
            typical = seconds(folder, axes)
            base = {"library": (1.2 * typical * rng.lognormal(0, 0.1, 5)).tolist()}
            for again in (False, True)[: 1 + (index % 10 == 0)]:
                times = typical * rng.lognormal(0.0, 0.03) * rng.lognormal(0.0, 0.004, 12)
                yield {
                    "kind": "point", "kernel": folder, "point": axes, "again": again,
                    "bytes": moved(folder, axes), "flops": flops(folder, axes), "error": 1e-3,
                    "calls": 3, "clock_mhz": [1980] * 3, "seconds": times.tolist(), "took": 0.1,
                    "baselines": {} if folder in ("streams", "gemm_library") else base,
                }  # fmt: skip
    yield {
        "kind": "failed", "kernel": "page_score", "point": {"batch": 7}, "again": False,
        "reason": "ValueError: no room",
    }  # fmt: skip
    yield _records("loop_control", "measure_steps", list(steps()))
    for measure, records in (("measure_copies", copies()), ("measure_files", files()),
                             ("measure_interference", interference())):  # fmt: skip
        yield _records("tier_copy", measure, list(records))


def _records(folder: str, measure: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    line = {"kind": "records", "kernel": folder, "measure": measure, "again": False}
    return {**line, "records": found, "incomplete": "", "took": 1.0}


def steps() -> Iterator[dict[str, Any]]:
    """Records of whole steps of `loop_control`."""
    over = {"resident": 7e-6, "graph": 14e-6, "host-c": 20e-6, "host-python": 40e-6}
    for sparse in (False, True):
        for batch in (1, 4, 16, 64):
            for context in (1024, 4096, 16384, 65536):
                work = 6e-6 + 4096.0 * batch * (context if not sparse else context / 8) / 4.2e12
                for mode, extra in {**over, "graph-steady": 3e-6}.items():
                    slower = 1.05 if mode == "resident" else 1.0
                    record = {"slots": batch, "context": context, "mode": mode, "sparse": sparse}
                    record |= {"samples_s": [slower * work + extra] * 5, "touched_bytes": 1 << 40}
                    if mode == "resident":
                        cycles = {"attend": int(2e9 * work), "attend_wait": 2000, "verify": 4000,
                                  "verify_wait": 3000}  # fmt: skip
                        record["stage_cycles"] = {name: [n] * 3 for name, n in cycles.items()}
                    yield record


def copies() -> Iterator[dict[str, Any]]:
    """Records of `tier_copy.measure_copies`."""
    for way in ("h2d", "d2h"):
        for shift in range(12, 31, 2):
            time = 4e-6 + (1 << shift) / 55e9
            for calls in (1, 16):
                axes = {"direction": way, "calls": calls, "bytes": 1 << shift}
                yield {"name": "copy_engine", **axes, "seconds": [time] * 3}
        for page in (4096, 16384, 65536, 262144, 1048576):
            for blocks in (2, 8, 32):
                axes = {"direction": way, "page_bytes": page, "pages": (64 << 20) // page}
                rate = min(51e9, blocks * 7e9)
                yield {"name": "gather", **axes, "blocks": blocks, "bytes": 64 << 20,
                       "seconds": [(64 << 20) / rate] * 3}  # fmt: skip
            for name in ("copy_engine_pages", "copy_batch"):
                yield {"name": name, "direction": way, "page_bytes": page, "pages": 64,
                       "bytes": 64 * page, "seconds": [64 * (2e-6 + page / 55e9)] * 3}  # fmt: skip
    for shift in range(20, 31, 2):
        yield {"name": "copy_engine", "direction": "both", "bytes": 2 << shift,
               "seconds": [4e-6 + (1 << shift) / 50e9] * 3}  # fmt: skip


def files() -> Iterator[dict[str, Any]]:
    """Records of `tier_copy.measure_files`."""
    for shift in range(12, 27, 2):
        for depth in (1, 4, 16):
            for name in ("file_read", "file_write"):
                one = 1e-4 + (1 << shift) / 2e9
                yield {"name": name, "bytes": 1 << shift, "depth": depth, "direct": True,
                       "disk": "virtual disk", "device": "vda", "filesystem": "ext4",
                       "seconds": [one] * 3, "wall_seconds": 3 * one / depth**0.5,
                       "operations": 3}  # fmt: skip


def interference() -> Iterator[dict[str, Any]]:
    """Records of `tier_copy.measure_interference`."""
    for victim in ("read_bulk", "read_stream"):
        for mover, way, blocks in (("copy_engine", "h2d", 0), ("copy_engine", "both", 0),
                                   ("gather", "h2d", 8), ("gather", "d2h", 32)):  # fmt: skip
            yield {"name": "interference", "victim": victim, "bytes": 1e9, "mover": mover,
                   "direction": way, "blocks": blocks, "page_bytes": 16384,
                   "seconds": [2.4e-4 * (1.02 + blocks / 132)] * 3, "alone_seconds": [2.4e-4] * 6,
                   "mover_bytes_s": 5e10}  # fmt: skip


def made_profile(samples: Samples) -> dict[str, Any]:
    """A profile fitted to *samples*, with a few constants."""
    entries = {recipe.name: fitted(recipe, samples, None) for recipe in RECIPES}
    constant = {"unit": "s", "kind": "measured", "source": "run", "note": "made up"}
    constants = {
        name: {"value": value, **constant}
        for name, value in (("grid_barrier_s", 1e-6), ("graph_node_s", 1.1e-6),
                            ("host_sync_s", 9e-6), ("host_copyback_s", 5e-6),
                            ("host_c_submit_s", 2e-6), ("host_python_submit_s", 4e-6),
                            ("launch_latency_s", 3e-6), ("graph_launch_s", 6e-6), ("mailbox_round_trip_s", 2e-6),
                            ("h2d_latency_s", 4e-6), ("d2h_latency_s", 4e-6))
    }  # fmt: skip
    for way in ("h2d", "d2h"):
        constants[f"{way}_bytes_per_s"] = {**constant, "value": 55e9, "unit": "bytes/s"}
    return {
        "name": "nvidia-h200", "status": "measured", "date": "2026-11-21", "commit": "abc",
        "constants": constants, "kernels": {k: v for k, v in entries.items() if v is not None},
        "checks": [],
    }  # fmt: skip


def written(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    """*lines* as a samples file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
