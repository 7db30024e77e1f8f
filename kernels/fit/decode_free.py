"""What a fit to decode steps may vary, where it starts, and how far it may go.

The one rule: kernels start from their own measurement, alone and one by one, and are held there
with a spring: *width* is by how much (as a logarithm) a parameter may differ inside a step without
much being said for it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..decoder.shape import SHAPES
from .decode_blocks import attention_kind
from .decode_model import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .decode_blocks import Block

RATE, TIME, LOOSE = 0.05, 0.3, 1.0
"""Widths: a rate, a fixed cost, what nobody has measured before."""
ATTENTION = {
    "t0_s": LOOSE, "bytes_per_s": 0.1, "ramp_s": LOOSE, "cta_s": LOOSE, "column_s": LOOSE,
}  # fmt: skip
COLUMN_S = 2e-6
"""Of eight more query rows of a KV head, as a start."""
KERNELS: dict[str, dict[str, float]] = {
    "gemm.bf16": {"t0_s": TIME, "bytes_per_s": RATE},
    "gemv.bf16": {"t0_s": LOOSE, "bytes_per_s": RATE, "flops_per_s": LOOSE},
    "gemm.int4": {"gemv_t0_s": TIME, "gemv_bytes_per_s": RATE, "gemv_input_s": TIME},
    "elementwise.norm": {"t0_s": TIME},
    "elementwise.rope": {"t0_s": TIME},
    "elementwise.silu_mul": {"t0_s": TIME},
    "kv_append.bf16": {"t0_s": TIME},
    "page_score": {"t0_s": LOOSE, "bytes_per_s": TIME, "row_s": LOOSE},
    "topk_select": {"t0_s": LOOSE, "row_s": LOOSE, "entry_s": TIME},
    "verify_commit.greedy": {"t0_s": TIME},
    "decode_attention.bf16": ATTENTION,
    "decode_attention.int8": ATTENTION,
}
"""What is free in each kernel, with its width."""
STREAM = {
    "around_s": 5e-6, "bytes_per_s": 4.5e12, "consume_bytes_per_s": 1.2e13,
    "ring_bytes": 8 * 16384 * 131.0, "meet_s": 2e-6, "row_s": 5e-8, "tile_s": 2e-7,
    "latency_s": 2e-6,
}  # fmt: skip
FIXED: tuple[str, ...] = ()
"""Known from the design."""
TIMER_S = 3e-6
"""What timing a stage alone adds, as a start: the way from one event over a graph to the other."""


LEAST = {"cta_s": 2e-8, "row_s": 3e-8}
"""What some parameters start from at least, in seconds."""


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
    entries = {**document["kernels"], **document.get("in_step", {})}
    kernels = {
        name: copy.deepcopy(dict(entry))
        for name, entry in entries.items()
        if entry["source"] != "decode"
    }
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
    """What the training steps tell about; adds kernels' versions in a step to *kernels*."""
    found: list[Free] = []
    for base, matrix, place in sorted({use for block in train for use in _used(block)}):
        name = f"{base}.{matrix}" if f"{base}.{matrix}" in kernels else base
        entry = copy.deepcopy(kernels[name])
        entry["note"] = f"{name} inside a decode step ({place}), from its own measurement on"
        if "column_s" in KERNELS[base]:
            entry["form"] = "split_kv_columns"
            entry["parameters"]["column_s"] = COLUMN_S
        own = _own(base, matrix, place)
        kernels[own] = entry
        table = entry["parameters"]
        found += [_free(table, key, width, own) for key, width in KERNELS[base].items()]
    for loop in constants.values():
        for key in loop:
            if key not in FIXED:
                width = {"bytes_per_s": RATE, "latency_s": TIME}.get(key, LOOSE)
                found.append(_free(loop, key, width))
    return found


def kernels_of(block: Block) -> set[str]:
    """Names of the kernels in a step that *block* feels."""
    return {_own(*use) for use in _used(block)}


def _own(base: str, matrix: str, place: str) -> str:
    return ".".join(filter(None, (base, matrix, place)))


def _free(table: dict[str, float], key: str, width: float, kernel: str | None = None) -> Free:
    # In a sum of squares a small part has no slope: from nothing, a search would not get away.
    start = max(table[key], LEAST.get(key, 1e-12))
    return Free(table, key, start, width, start * 0.02, start * 50.0, kernel)


def _used(block: Block) -> Iterator[tuple[str, str, str]]:
    """(kernel, matrix, place) of what works in the steps of *block*."""
    point = block.first
    sparse = bool(point.cell["budget_tokens"])
    names = {"page_score", "topk_select"} if sparse else set()
    yield f"decode_attention.{point.cell['kv']}", attention_kind(point), point.place
    if point.place == "library":
        names |= {"kv_append.bf16", "verify_commit.greedy"}
        names |= {f"elementwise.{name}" for name in ("norm", "rope", "silu_mul")}
    if point.place == "fused":
        names |= {"verify_commit.greedy"}
    for name in names:
        yield name, "", point.place
    if point.place != "resident":
        shape = SHAPES[point.cell["model"]]
        library = point.place == "library"
        product = PRODUCT[point.cell["weights"]] if library else "gemv.bf16"
        for n, k in (*shape.products.values(), (shape.vocabulary, shape.hidden)):
            yield product, f"{n}x{k}", point.place
