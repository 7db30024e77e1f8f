"""From the committed calibration data to a profile: constants, kernels, checks, one JSON text.

The one rule: nothing in the profile is typed in by hand. Measured and fitted values come from the
data files, estimates and texts from `recipe.json` beside them; the same files give the same bytes.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .fit import NUMBERS, Row, fit_kernel, least_squares, residuals, six
from .fit_checks import checks
from .forms import FloatArray, attention_flops

if TYPE_CHECKING:
    from pathlib import Path

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
    constants = _constants(recipe, floors)
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


def _constants(recipe: Mapping[str, Any], floors: Floors) -> dict[str, Any]:
    """All constants as the profile writes them: those of the data first, then the estimates."""
    found = {
        name: {
            "value": six(value),
            "unit": unit,
            "kind": kind,
            "source": "floors",
            "note": recipe["notes"][name],
        }
        for name, (value, unit, kind) in measured_constants(floors).items()
    }
    for name, entry in recipe["constants"].items():
        value, unit = entry["value"], entry["unit"]
        text = {"source": entry["source"], "note": entry["note"]}
        found[name] = {"value": value, "unit": unit, "kind": "estimated", **text}
    return found


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
    """The entry of prefill attention: rate and ramp through the recipe's (tokens, flop/s)."""
    context = np.array([point[0] for point in recipe["points"]], dtype=np.float64)
    rate = np.array([point[1] for point in recipe["points"]], dtype=np.float64)
    heads, head_dim = recipe["heads"], recipe["head_dim"]
    flops = np.array([attention_flops(heads, head_dim, c, 0.0) for c in context.tolist()])

    def seconds(values: FloatArray) -> FloatArray:
        time: FloatArray = t0_s + flops * (1.0 + values[1] / context) / values[0]
        return time

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


def measured_constants(floors: Floors) -> dict[str, tuple[float, str, str]]:
    """(value, unit, kind) of the constants that follow from the rows of `floors.jsonl`, in SI."""
    submit, synced, copied, mailbox = (
        _values(floors, name)[0] * 1e-6
        for name in (
            "launch_host_submit",
            "launch_plus_sync",
            "launch_copyback_sync",
            "mailbox_round_trip",
        )
    )
    sync = synced - submit
    node, launch = graph_line(floors)
    read, copy = _values(floors, "read_kernel"), _values(floors, "d2d_memcpy")
    return {
        "host_python_submit_s": (submit, "s", "measured"),
        "host_sync_s": (sync, "s", "measured"),
        "host_copyback_s": (copied - synced, "s", "measured"),
        # Model: the way to the GPU and the notice to the host take equal shares of what the
        # measured synchronisation leaves beside the kernel itself.
        "launch_latency_s": ((sync - node) / 2.0, "s", "estimated"),
        "graph_launch_s": (launch, "s", "fitted"),
        "graph_node_s": (node, "s", "fitted"),
        "grid_barrier_s": (barrier(floors), "s", "measured"),
        "mailbox_round_trip_s": (mailbox, "s", "measured"),
        "hbm_read_bytes_per_s": (statistics.median(read) * 1e12, "bytes/s", "measured"),
        "hbm_copy_bytes_per_s": (copy[0] * 1e12, "bytes/s", "measured"),
        **copy_constants(floors, "h2d"),
        **copy_constants(floors, "d2h"),
        # Model: a resident kernel leaves and starts like any other kernel of a Python host.
        "resident_exit_s": (sync, "s", "estimated"),
        "resident_relaunch_s": (submit, "s", "estimated"),
    }


def barrier(floors: Floors) -> float:
    """Seconds of one grid barrier: median of the cooperative-groups rows up to 512 threads."""
    rows = (row for row in floors if row["name"] == "cg_grid_sync" and row["blocks"] == 132)
    return statistics.median(float(row["value"]) * 1e-6 for row in rows if row["threads"] <= 512)


def graph_line(floors: Floors) -> tuple[float, float]:
    """(seconds a node, seconds a launch) of the line through the two longest graphs."""
    rows = sorted(
        (row["nodes"], row["value"] * 1e-6) for row in floors if row["name"] == "graph_launch_sync"
    )
    (few, short), (many, long) = rows[-2:]
    node = (long - short) / (many - few)
    return node, short - node * few


def copy_constants(floors: Floors, direction: str) -> dict[str, tuple[float, str, str]]:
    """Latency and bandwidth of copies between host and device, least squares on log time."""
    rows = [
        (row["bytes"], row["value"] * 1e-6)
        for row in floors
        if row["name"] == f"{direction}_pinned" and row["bytes"] >= SMALLEST_COPY
    ]
    size, seconds = np.array(rows, dtype=np.float64).T

    def line(values: FloatArray) -> FloatArray:
        return np.asarray(values[0] + size / values[1])

    latency, rate = least_squares(line, seconds, np.array([4e-6, 5.5e10])).tolist()
    return {
        f"{direction}_latency_s": (latency, "s", "fitted"),
        f"{direction}_bytes_per_s": (rate, "bytes/s", "fitted"),
    }


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
