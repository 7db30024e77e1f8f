"""From the committed calibration data to a profile: constants, kernels, checks, one JSON text.

The one rule: nothing in the profile is typed in by hand. Measured and fitted values come from the
data files, estimates and texts from `recipe.json` beside them; the same files give the same bytes.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .fit import NUMBERS, Row, fit_kernel, least_squares, residuals, six
from .forms import FloatArray, LinearBytes, Roofline, SplitKv, attention_flops, gemm_bytes
from .forms import gemm_flops
from .profile import build_form

# layers, width, (heads, kv_heads, head_dim), feed-forward width; vocabulary of both.
SHAPES = {
    "llama-1b": (16, 2048, (32, 8, 64), 8192),
    "llama-8b": (32, 4096, (32, 8, 128), 14336),
}
VOCABULARY = 128_256
SMALLEST_COPY = 16_384  # bytes; below, the copy rows are mostly the timer's resolution
Floors = Sequence[Mapping[str, Any]]


def fit_profile(data: Path) -> str:
    """The profile as JSON text, from the files in the folder *data*.

    Raises `InputError` if a file is missing or not what it should be.
    """
    floors, torch = _lines(data / "floors.jsonl"), _lines(data / "torch.jsonl")
    recipe, rows = _recipe(data / "recipe.json"), _rows(data / "h200_public_refs.csv")
    try:
        return json.dumps(_document(recipe, floors, torch, rows), indent=1) + "\n"
    except (KeyError, IndexError, TypeError, statistics.StatisticsError) as error:
        raise InputError(
            f"{data}: a row or field is missing ({type(error).__name__}: {error}); "
            "restore the committed files"
        ) from None


def _document(
    recipe: Mapping[str, Any], floors: Floors, torch: Floors, rows: Sequence[Row]
) -> dict[str, Any]:
    constants = {**measured_constants(floors), **_estimated_constants(recipe)}
    kernels = {name: _fitted(entry, rows) for name, entry in recipe["kernels"].items()}
    attention = kernels["decode_attention.bf16"]["parameters"]["t0_s"]
    kernels["prefill_attention.bf16"] = prefill(recipe["prefill"], attention)
    copy = constants["hbm_copy_bytes_per_s"]["value"]
    kernels["elementwise"] = _elementwise(recipe["elementwise"], copy)
    return {
        "schema": 1,
        **{key: recipe[key] for key in ("name", "status", "date")},
        "commit": None,
        "device": recipe["device"],
        "sources": recipe["sources"],
        "constants": constants,
        "kernels": kernels,
        "checks": checks(kernels, constants["graph_launch_s"]["value"], torch),
    }


def _estimated_constants(recipe: Mapping[str, Any]) -> dict[str, Any]:
    entries = recipe["constants"].items()
    return {
        name: {
            "value": entry["value"],
            "unit": entry["unit"],
            "kind": "estimated",
            "source": entry["source"],
            "note": entry["note"],
        }
        for name, entry in entries
    }


def _fitted(recipe: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The profile's entry of a kernel that is fitted to *rows*."""
    found = fit_kernel(recipe, rows)
    return {
        "form": recipe["form"],
        "parameters": found["parameters"],
        "fixed": recipe["fixed"],
        "kind": recipe["kind"],
        "domain": found["domain"],
        "source": recipe["source"],
        "implementation": recipe["impl"],
        "includes_node_gap": True,
        "residuals": found["residuals"],
        "note": recipe["note"],
    }


def prefill(recipe: Mapping[str, Any], t0_s: float) -> dict[str, Any]:
    """The entry of prefill attention: rate and ramp through the recipe's (context, flop/s) points."""
    context = np.array([point[0] for point in recipe["points"]], dtype=np.float64)
    rate = np.array([point[1] for point in recipe["points"]], dtype=np.float64)
    heads, head_dim = recipe["heads"], recipe["head_dim"]
    flops = np.array([attention_flops(heads, head_dim, c, 0.0) for c in context.tolist()])

    def seconds(values: FloatArray) -> FloatArray:
        return t0_s + flops * (1.0 + values[1] / context) / values[0]

    found = [six(value) for value in least_squares(seconds, flops / rate, np.array([7e14, 1e3]))]
    fit = residuals(seconds(np.array(found)), flops / rate)
    return {
        "form": "ramped_flops",
        "parameters": {"t0_s": t0_s, "flops_per_s": found[0], "half_tokens": found[1]},
        "kind": "fitted",
        "domain": {"context": [float(context.min()), float(context.max())]},
        "source": recipe["source"],
        "includes_node_gap": True,
        "residuals": {"fit": fit},
        "note": recipe["note"],
    }


def _elementwise(recipe: Mapping[str, Any], bytes_per_s: float) -> dict[str, Any]:
    return {
        "form": "linear_bytes",
        "parameters": {"t0_s": recipe["t0_s"], "bytes_per_s": bytes_per_s},
        "kind": "estimated",
        "domain": {},
        "source": recipe["source"],
        "includes_node_gap": True,
        "residuals": {},
        "note": recipe["note"],
    }


def measured_constants(floors: Floors) -> dict[str, Any]:
    """The constants that follow from the rows of `floors.jsonl`, in SI units."""

    def us(name: str) -> float:
        return float(_values(floors, name)[0]) * 1e-6

    submit, synced, copied = (
        us("launch_host_submit"),
        us("launch_plus_sync"),
        us("launch_copyback_sync"),
    )
    sync = synced - submit
    node, launch = graph_line(floors)
    barrier = [
        row["value"] * 1e-6
        for row in floors
        if row["name"] == "cg_grid_sync" and row["blocks"] == 132 and row["threads"] <= 512
    ]
    read, copy = _values(floors, "read_kernel"), _values(floors, "d2d_memcpy")
    host = "a CuPy launch of a one-warp kernel: the time until the call returns, mean of 1,000"
    after = "launch + synchronise less the submission; contains the way to the GPU, the one-warp kernel and the notice to the host"
    back = "4-byte copy to pinned memory: launch + copy + synchronise less launch + synchronise"
    way = "part of host_sync_s, do not add both: half of what host_sync_s leaves beside the node gap; a split nobody has measured"
    fixed = "intercept of the line through 100 and 400 nodes, launch and synchronise included; the one-node row less one node gives 6.5 us"
    gap = "slope of that line: one-warp kernels in a chain"
    return {
        "host_python_submit_s": _constant(submit, "s", "measured", host),
        "host_sync_s": _constant(sync, "s", "measured", after),
        "host_copyback_s": _constant(copied - synced, "s", "measured", back),
        "launch_latency_s": _constant((sync - node) / 2.0, "s", "estimated", way),
        "graph_launch_s": _constant(launch, "s", "fitted", fixed),
        "graph_node_s": _constant(node, "s", "fitted", gap),
        "grid_barrier_s": _constant(
            statistics.median(barrier), "s", "measured",
            "cooperative-groups barrier of 132 blocks, median over 128 to 512 threads",
        ),
        "mailbox_round_trip_s": _constant(
            us("mailbox_round_trip"), "s", "measured",
            "a Python loop writes a pinned word, a resident thread answers; a C loop may be faster",
        ),
        "hbm_read_bytes_per_s": _constant(
            statistics.median(read) * 1e12, "bytes/s", "measured",
            "read-only stream of 4 GiB in 16-byte accesses, median of four rows of one setting",
        ),
        "hbm_copy_bytes_per_s": _constant(
            copy[0] * 1e12, "bytes/s", "measured", "device copy of 4 GiB, read plus written"
        ),
        **copy_constants(floors, "h2d"),
        **copy_constants(floors, "d2h"),
        "resident_exit_s": _constant(
            sync, "s", "estimated",
            "host_sync_s stands for it: the kernel ends, the host notices",
        ),
        "resident_relaunch_s": _constant(
            submit, "s", "estimated",
            "host_python_submit_s stands for it: one more launch of the resident kernel",
        ),
    }  # fmt: skip


def _constant(
    value: float, unit: str, kind: str, note: str, source: str = "floors"
) -> dict[str, Any]:
    return {"value": six(value), "unit": unit, "kind": kind, "source": source, "note": note}


def graph_line(floors: Floors) -> tuple[float, float]:
    """(seconds a node, seconds a launch) of the line through the two longest graphs."""
    rows = sorted(
        (row["nodes"], row["value"] * 1e-6) for row in floors if row["name"] == "graph_launch_sync"
    )
    (few, short), (many, long) = rows[-2:]
    node = (long - short) / (many - few)
    return node, short - node * few


def copy_constants(floors: Floors, direction: str) -> dict[str, Any]:
    """Latency and bandwidth of copies between host and device, least squares on log time."""
    rows = [
        (row["bytes"], row["value"] * 1e-6)
        for row in floors
        if row["name"] == f"{direction}_pinned" and row["bytes"] >= SMALLEST_COPY
    ]
    size, seconds = np.array(rows, dtype=np.float64).T

    def model(values: FloatArray) -> FloatArray:
        return np.asarray(LinearBytes(1.0, 1.0).t0_s * values[0] + size / values[1])

    found = least_squares(model, seconds, np.array([4e-6, 5.5e10]))
    judged = residuals(model(found), seconds)
    note = (
        f"pinned memory, {len(rows)} sizes from {SMALLEST_COPY} bytes: median error "
        f"{judged['median']:.1%}, largest {judged['max']:.1%}, none held out"
    )
    return {
        f"{direction}_latency_s": _constant(float(found[0]), "s", "fitted", note),
        f"{direction}_bytes_per_s": _constant(float(found[1]), "bytes/s", "fitted", note),
    }


def checks(kernels: Mapping[str, Any], graph_launch_s: float, torch: Floors) -> list[Any]:
    """Predicted decode steps beside the measured ones: the kernels against a whole model."""
    forms = {
        name: build_form(entry["form"], entry["parameters"]) for name, entry in kernels.items()
    }
    gemm, attention = forms["gemm.bf16"], forms["decode_attention.bf16"]
    small = forms["elementwise"]
    assert isinstance(gemm, Roofline)
    assert isinstance(attention, SplitKv)
    assert isinstance(small, LinearBytes)
    found = []
    for row in torch:
        if row["name"] != "decode_step":
            continue
        step = step_seconds(gemm, attention, small, row["model"], row["B"], row["S"])
        measured, predicted = six(row["value"] * 1e-6), six(graph_launch_s + step)
        found.append(
            {
                "name": f"decode step {row['model']} batch {row['B']} context {row['S']}",
                "measured_s": measured,
                "predicted_s": predicted,
                "relative_error": round(predicted / measured - 1.0, 4),
                "source": "torch",
            }
        )
    return found


def step_seconds(
    gemm: Roofline, attention: SplitKv, small: LinearBytes, model: str, batch: int, context: int
) -> float:
    """Kernel time of one bf16 decode step: sums over layers, no overlap, node gaps included."""
    layers, width, (heads, kv_heads, head_dim), wide = SHAPES[model]
    query, key = heads * head_dim, kv_heads * head_dim

    def product(n: int, k: int) -> float:
        return gemm.seconds(gemm_bytes(batch, n, k, "bf16"), gemm_flops(batch, n, k))

    matrices = product(query + 2 * key, width) + product(width, query)
    matrices += product(2 * wide, width) + product(width, wide)
    # norm, split, rotary q and k, append, add, norm, activation, add: elements read and written.
    sizes = (
        2 * width, 2 * (query + 2 * key), 2 * query, 2 * key, 4 * key,
        3 * width, 2 * width, 3 * wide, 3 * width,
    )  # fmt: skip
    nodes = sum(small.seconds(2.0 * batch * size) for size in sizes)
    attended = attention.seconds(batch, float(batch * context), heads, kv_heads, head_dim)
    # LM head, then arg-max in two nodes; the measured step has no embedding and no final norm.
    tail = product(VOCABULARY, width) + small.seconds(2.0 * batch * VOCABULARY) + small.seconds(0.0)
    return layers * (matrices + attended + nodes) + tail


def _values(floors: Floors, name: str) -> list[float]:
    return [float(row["value"]) for row in floors if row["name"] == name]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{path}: {reason}; --data names the folder with it") from None


def _lines(path: Path) -> list[dict[str, Any]]:
    return [_json(path, number, line) for number, line in enumerate(_text(path).splitlines(), 1)]


def _json(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}:{number}: not a JSON object; restore the committed file")
    return loaded


def _recipe(path: Path) -> dict[str, Any]:
    return _json(path, 1, _text(path))


def _rows(path: Path) -> list[Row]:
    """Rows of the public extract, numbers as floats (absent ones as 0)."""
    rows: list[Row] = []
    for number, row in enumerate(csv.DictReader(_text(path).splitlines()), 2):
        try:
            rows.append({**row, **{key: float(row[key] or 0.0) for key in NUMBERS}})
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}:{number}: not a row; restore the committed file") from None
    return rows
