"""What a fit to decode steps may vary, where it starts, and how far it may go.

The one rule: kernels start from their own measurement, alone and one by one, and are held there
with a spring: *width* is by how much (as a logarithm) a parameter may differ inside a step without
much being said for it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .decode_model import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .decode_model import Block
    from .decode_points import StepPoint

RATE, TIME, LOOSE = 0.05, 0.3, 1.0
"""Widths: a rate, a fixed cost, what nobody has measured before."""
ATTENTION = {"t0_s": TIME, "bytes_per_s": RATE, "ramp_s": TIME, "cta_s": LOOSE}
PRODUCTS = ("qkv", "out", "gate_up", "down", "head")
KERNELS: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
    "gemm.bf16": ({"t0_s": TIME, "bytes_per_s": RATE}, PRODUCTS),
    "gemv.bf16": ({"t0_s": TIME, "bytes_per_s": RATE, "flops_per_s": TIME}, PRODUCTS),
    "gemm.int4": (
        {"gemv_t0_s": TIME, "gemv_bytes_per_s": RATE, "gemv_ramp_s": TIME, "gemv_input_s": TIME},
        PRODUCTS,
    ),
    "elementwise.norm": ({"t0_s": TIME}, ("qkv", "gate_up", "head")),
    "elementwise.rope": ({"t0_s": TIME}, ("qkv",)),
    "elementwise.silu_mul": ({"t0_s": TIME}, ("gate_up",)),
    "kv_append.bf16": ({"t0_s": TIME}, ("qkv",)),
    "page_score": ({"t0_s": TIME, "bytes_per_s": RATE}, ("attend",)),
    "topk_select": ({"t0_s": TIME, "entry_s": TIME}, ("attend",)),
    "verify_commit.greedy": ({"t0_s": TIME}, ("commit",)),
    "decode_attention.bf16": (ATTENTION, ("attend",)),
    "decode_attention.int8": (ATTENTION, ("attend",)),
    "verify_attention.bf16": ({"ramp_s": TIME, "bytes_per_s": RATE, "cta_s": TIME}, ("attend",)),
}
"""What is free in each kernel, with its width, and the stages in which the kernel works."""
STREAM = {
    "around_s": 5e-6, "bytes_per_s": 4.5e12, "consume_bytes_per_s": 1.2e13,
    "ring_bytes": 8 * 16384 * 131.0, "meet_s": 2e-6, "row_s": 5e-8, "latency_s": 2e-6,
}  # fmt: skip
FIXED = ("ring_bytes",)
"""Known from the design."""


@dataclass(frozen=True, slots=True)
class Free:
    """One parameter that a fit varies: where it stands, where it starts, how loose it is."""

    table: dict[str, float]
    key: str
    start: float
    width: float
    low: float
    high: float
    kernel: str | None = None


def start_of(
    document: Mapping[str, Any], loops: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, float]]]:
    """Kernels by name and constants by loop, before any step has been seen."""
    kernels = {name: copy.deepcopy(dict(entry)) for name, entry in document["kernels"].items()}
    constant = {name: entry["value"] for name, entry in document["constants"].items()}
    node, latency = constant["graph_node_s"], constant["launch_latency_s"]
    found: dict[str, dict[str, float]] = {}
    for name in loops:
        mode = name.partition("/")[0]
        loop = {"around_s": 0.0, "node_s": node}
        match mode:
            case "host-python" | "host-c":
                own = "host_" if mode == "host-python" else "host_c_"
                loop["around_s"] = constant[f"{own}sync_s"] + constant[f"{own}copyback_s"] - latency
                language = mode.removeprefix("host-")
                loop |= {"submit_s": constant[f"host_{language}_submit_s"], "latency_s": latency}
            case "graph":
                loop["around_s"] = constant["host_c_graph_launch_s"] + constant["host_c_copyback_s"]
            case "control":
                loop["around_s"] = latency + constant["device_schedule_s"]
            case _:
                loop = dict(STREAM)
        found[name] = loop
    return kernels, found


def free_of(
    train: Sequence[Block],
    kernels: dict[str, dict[str, Any]],
    constants: Mapping[str, dict[str, float]],
) -> list[Free]:
    """What the training steps say something about; adds kernels' second versions to *kernels*."""
    found: list[Free] = []
    for name, place in sorted({pair for block in train for pair in _used(block)}):
        widths, stages = KERNELS[name]
        entry = copy.deepcopy(kernels[name])
        entry["stages"] = stages
        entry["note"] = f"{name} inside a decode step ({place}), from its own measurement on"
        kernels[f"{name}.{place}"] = entry
        table = entry["parameters"]
        found += [_free(table, key, width, f"{name}.{place}") for key, width in widths.items()]
    for loop in constants.values():
        for key in loop:
            if key not in FIXED:
                width = {"bytes_per_s": RATE, "latency_s": TIME}.get(key, LOOSE)
                found.append(_free(loop, key, width))
    return found


def _free(table: dict[str, float], key: str, width: float, kernel: str | None = None) -> Free:
    start = max(table[key], 1e-12)
    return Free(table, key, start, width, start * 0.02, start * 50.0, kernel)


def _used(block: Block) -> set[tuple[str, str]]:
    """Kernels that work in the steps of *block*, and where."""
    point = block.first
    names = {attention(point)}
    if point.cell["budget_tokens"]:
        names |= {"page_score", "topk_select"}
    if point.place == "library":
        names |= {PRODUCT[point.cell["weights"]], "kv_append.bf16", "verify_commit.greedy"}
        names |= {f"elementwise.{name}" for name in ("norm", "rope", "silu_mul")}
    if point.place == "fused":
        names |= {"gemv.bf16", "verify_commit.greedy"}
    return {(name, point.place) for name in names}


def attention(point: StepPoint) -> str:
    """The kernel of a step's attention."""
    several = point.cell["tokens"] > 1 and point.cell["kv"] == "bf16"
    return "verify_attention.bf16" if several else f"decode_attention.{point.cell['kv']}"
