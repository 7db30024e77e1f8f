"""Measured decode steps into a profile: kernels as they run inside a step, and loops' constants.

    python -m kernels.fit.decoder --steps FILE --samples FILE --profile IN.json --out OUT.json

The one rule: a fit sees the steps of the training cells and nothing else; every figure that the
profile states beside it is of cells that it has not seen. What the profile predicts without any
fit to steps is stated too (`blind`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .decode_blocks import blocks
from .decode_free import start_of
from .decode_model import seconds
from .decode_points import SETS, read_steps
from .decode_solve import Fit
from .judge import residuals
from .matrices import products
from .profile import text
from .samples import Samples, SamplesError, read
from .solve import six

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .decode_points import StepPoint, Steps
    from .forms import FloatArray

Document = dict[str, Any]
LEAVING = ("relaunch", "exit", "exit_to_idle")
"""What `bench/decode_constants.py` measures of loops on the device."""
Pair = tuple["FloatArray", "FloatArray"]


def add_decoder(
    document: Document, steps: Steps, samples: Samples, sets: Sequence[str] = SETS
) -> Document:
    """*document* with the loops of *steps* over *sets*; `SamplesError` if there are too few."""
    base = {**document, "in_step": products(samples, document["kernels"])}
    in_step = dict(base["in_step"])
    loops: dict[str, Any] = {}
    for name in sets:
        fit = Fit(base, [point for point in steps.points if point.kernels == name])
        fit.solve()
        in_step |= _kernels(fit)
        for loop in fit.loops:
            loops[loop] = _loop(fit, loop, base) | leaving(steps, loop)
    if not loops:
        raise SamplesError(f"{steps.place}: too few decode steps; measure more cells")
    head = steps.headers[-1] if steps.headers else {}
    return {
        **document,
        "sources": {**document["sources"], "decode": _said(steps, head)},
        "in_step": dict(sorted(in_step.items())),
        "loops": dict(sorted(loops.items())),
    }


def _kernels(fit: Fit) -> dict[str, Any]:
    """The kernels that the fit changed, as the profile has them."""
    made = {}
    for name in sorted({free.kernel for free in fit.free if free.kernel}):
        entry = fit.kernels[name]
        made[name] = {
            "form": entry["form"],
            "parameters": {key: six(value) for key, value in entry["parameters"].items()},
            "fixed": {},
            "kind": "fitted",
            "domain": entry.get("domain", {}),
            "source": "decode",
            "includes_node_gap": True,
            "residuals": {},
            "note": entry["note"],
        }
    return made


def _loop(fit: Fit, name: str, base: Document) -> Document:
    """The profile's entry of the loop *name*, with its residuals."""
    mine = [point for point in fit.points if point.loop == name]
    held = [point for point in mine if not point.train]

    def judged(points: Sequence[StepPoint]) -> dict[str, float]:
        return _judged((fit.predict(block), block.measured) for block in blocks(points))

    groups: dict[str, list[StepPoint]] = {}
    for point in held:
        kind = "sparse" if point.cell["budget_tokens"] else "dense"
        label = f"{point.cell['model']} {point.cell['weights']} {point.cell['kv']}"
        for group in (kind, label):
            groups.setdefault(group, []).append(point)
    stages: dict[str, list[Pair]] = {}
    for block in blocks(held):
        for stage, predicted, measured in fit.stages(block):
            stages.setdefault(f"stage {stage}", []).append((predicted, measured))
    return {
        "parameters": {key: six(value) for key, value in fit.constants[name].items()},
        "kind": "fitted",
        "domain": _domain(mine),
        "source": "decode",
        "residuals": {
            "holdout": judged(held),
            "training": judged([point for point in mine if point.train]),
            "blind": _blind(base, mine),
            "groups": {
                **{group: judged(points) for group, points in sorted(groups.items())},
                **{stage: _judged(pairs) for stage, pairs in sorted(stages.items())},
            },
        },
        "note": "fitted on whole decode steps of the training cells, all modes of a kernel set "
        "together; cells are drawn by hash and shared by all modes",
    }


def leaving(steps: Steps, loop: str) -> Document:
    """What it takes to enter and to leave *loop*: medians over batches, if all were measured."""
    found = {f"{name}_s": steps.constants.get((loop, name)) for name in LEAVING}
    times = {name: six(statistics.median(values)) for name, values in found.items() if values}
    return {"leaving": times} if len(times) == len(LEAVING) else {}


def _judged(pairs: Iterable[Pair]) -> dict[str, float]:
    found = list(pairs)
    if not found:
        return {"n": 0}
    return residuals(*(np.concatenate(side) for side in zip(*found, strict=True)))


def _blind(base: Document, points: Sequence[StepPoint]) -> dict[str, float]:
    """Residuals on all cells of what the profile says without any fit to decode steps."""
    kernels, constants = start_of(base, {point.loop for point in points})
    gap = base["constants"]["graph_node_s"]["value"]
    return _judged(
        (seconds(block, kernels, constants[block.first.loop], gap), block.measured)
        for block in blocks(points)
        if block.first.mode != "resident"  # what its stream costs, nobody had measured
    )


def _domain(points: Sequence[StepPoint]) -> dict[str, list[float]]:
    """Smallest and largest value of each axis."""
    found = {}
    for axis in ("batch", "tokens", "context"):
        values = [float(point.cell[axis]) for point in points]
        found[axis] = [min(values), max(values)]
    rows = [float(point.cell["batch"] * point.cell["tokens"]) for point in points]
    return {**found, "rows": [min(rows), max(rows)]}


def _said(steps: Steps, head: Mapping[str, Any]) -> str:
    """One line about a file of steps."""
    name = steps.place.replace("\\", "/").rpartition("/")[2]
    train = sum(point.train for point in steps.points)
    device = head.get("device")
    device = device.get("name") if isinstance(device, dict) else device
    return (
        f"{name}: own measurement, {len(steps.points)} decode steps, {train} of them for fitting; "
        f"one {device}, driver {head.get('driver')}, {head.get('date')}"
    )


def table(document: Mapping[str, Any]) -> str:
    """Residuals of all loops, one line each."""
    lines = []
    for name, entry in document["loops"].items():
        for part in ("blind", "training", "holdout"):
            figures = entry["residuals"][part]
            if figures["n"]:
                lines.append(
                    f"{name:20} {part:8} n {figures['n']:3d}  median {figures['median']:6.1%}  "
                    f"p90 {figures['p90']:6.1%}  max {figures['max']:6.1%}  "
                    f"signed {figures['signed_median']:+6.1%}\n"
                )
    return "".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """0 written, 2 a file is at fault."""
    parser = argparse.ArgumentParser(prog="kernels.fit.decoder", description="Steps into a profile")
    parser.add_argument("--steps", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--samples", type=Path, required=True, metavar="FILE", help="what IN was fitted to"
    )
    parser.add_argument("--profile", type=Path, required=True, metavar="IN.json")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.json")
    arguments = parser.parse_args(argv)
    try:
        document = json.loads(arguments.profile.read_text(encoding="utf-8"))
        made = add_decoder(document, read_steps(arguments.steps), read(arguments.samples))
        arguments.out.write_text(text(made), encoding="utf-8")
    except (SamplesError, OSError, ValueError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(table(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
