"""A profile from samples: constants, kernels, checks, one JSON document.

One rule: nothing in the document is typed in by hand but estimates and notes; the same samples give
the same bytes.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import estimates
from .constants import constants
from .kernel import fitted, points_of
from .recipes import RECIPES
from .samples import SamplesError
from .steps import checks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .recipe import Recipe
    from .samples import Point, Samples

SCHEMA = 1
REQUIRED = ("gemm.bf16", "decode_attention.bf16", "prefill_attention.bf16", "elementwise")
"""Kernels without which no profile is written."""


def build(
    samples: Samples, second: Samples | None = None, steps: Path | None = None
) -> dict[str, Any]:
    """The profile as a document; raises `SamplesError` if a required part has no samples."""
    if not samples.runs:
        raise SamplesError(f"{samples.place}: holds no run; measure with bench on a GPU first")
    found = constants(samples)
    kernels: dict[str, dict[str, Any]] = {}
    for recipe in RECIPES:
        entry = fitted(_lent(recipe, kernels), samples, second)
        if entry is not None:
            points = points_of(recipe, samples)
            entry["floor"] = floor(points, found["hbm_read_bytes_per_s"]["value"])
            kernels[recipe.name] = entry
    kernels |= estimates.kernels(kernels)
    missing = [name for name in REQUIRED if name not in kernels]
    if missing:
        raise SamplesError(
            f"{samples.place}: too few samples for {', '.join(missing)}; run bench without --only "
            "until none is left"
        )
    head = samples.runs[-1]
    device = dict(head["device"])
    sources = {"run": _said(samples), **estimates.SOURCES}
    if second is not None:
        sources["second_run"] = _said(second)
    if steps is not None:
        sources["steps"] = f"{steps.name}: decode steps by PyTorch's CUDA-graph replay"
    return {
        "schema": SCHEMA,
        "name": _slug(str(device.get("name", "gpu"))),
        "status": "measured",
        "date": str(head.get("date", ""))[:10],
        "commit": head.get("commit"),
        "device": _device(device, samples),
        "sources": sources,
        "constants": found,
        "kernels": dict(sorted(kernels.items())),
        "checks": checks(steps, kernels, found["graph_launch_s"]["value"]) if steps else [],
    }


def _lent(recipe: Recipe, kernels: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """*recipe* with what it borrows from *kernels* as a part of its start."""
    if recipe.borrow is None:
        return recipe
    lent = recipe.borrow({name: entry["parameters"] for name, entry in kernels.items()})
    return replace(recipe, start={**recipe.start, **lent})


def text(document: Mapping[str, Any]) -> str:
    """*document* as the file holds it."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def floor(points: list[Point], read_bytes_per_s: float) -> dict[str, Any]:
    """How near the kernel is to the time its bytes take at the measured read rate.

    `fraction` = floor/time. `score` = 1/(1 + (time - floor)/(baseline - floor)), 0.5 at the
    baseline and 1 at the floor, for each baseline that was timed beside it.
    """
    shares = [p.bytes / read_bytes_per_s / p.median for p in points]
    found: dict[str, Any] = {
        "read_bytes_per_s": read_bytes_per_s,
        "fraction_median": round(statistics.median(shares), 4),
        "fraction_best": round(max(shares), 4),
    }
    scores: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for point in points:
        least = point.bytes / read_bytes_per_s
        for name, times in point.baselines.items():
            base = statistics.median(times)
            ratios.setdefault(name, []).append(point.median / base)
            if base > least:
                over = (point.median - least) / (base - least)
                scores.setdefault(name, []).append(1.0 / (1.0 + max(over, 0.0)))
    found["baselines"] = {
        name: {
            "n": len(mine),
            "time_ratio_median": round(statistics.median(mine), 4),
            "score_median": round(statistics.median(scores.get(name, [0.0])), 4),
        }
        for name, mine in sorted(ratios.items())
    }
    return found


def _said(samples: Samples) -> str:
    """One line about a run: when, on what, how many points."""
    head = samples.runs[-1]
    device, count = head["device"], len(samples.points)
    name = samples.place.replace("\\", "/").rpartition("/")[2]
    parts = [f"{name}: own measurement, {count} points, {len(samples.repeats)} of them twice"]
    parts.append(f"one {device.get('name')}, driver {device.get('driver')}")
    parts.append(f"CUDA {device.get('cuda')}, {device.get('cpu')}, {head.get('date')}")
    failed = len(samples.failed)
    return ", ".join(parts) + (f"; {failed} points failed" if failed else "")


def _device(device: dict[str, Any], samples: Samples) -> dict[str, Any]:
    """The device as the profile describes it."""
    known = ("name", "sms", "hbm_bytes", "l2_bytes", "driver", "cuda")
    found = {key: device.get(key) for key in known}
    kinds = dict.fromkeys(("sms", "hbm_bytes", "l2_bytes"), "measured")
    note = "hbm_bytes is what the driver reports; clocks were not locked. "
    note += f"CPU {device.get('cpu')}, {device.get('cores')} cores"
    return {
        **found,
        "packages": device.get("packages", {}),
        "kinds": kinds,
        "note": note,
        "cubins": dict(sorted(samples.cubins.items())),
    }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu"
