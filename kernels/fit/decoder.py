"""Measured decode steps into a profile: kernels as they run inside a step, and loops' constants.

    python -m kernels.fit.decoder --steps FILE --profile IN.json --out OUT.json

The one rule: a fit sees the steps of the training cells and nothing else; every figure that the
profile states beside it is of cells that it has not seen. What the profile predicts without any
fit to steps is stated too (`blind`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import least_squares

from .decode_free import Free, free_of, start_of
from .decode_model import Block, blocks, layers, seconds
from .decode_points import read_steps
from .judge import residuals
from .profile import text
from .samples import SamplesError
from .solve import six

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .decode_points import StepPoint, Steps
    from .forms import FloatArray

Document = dict[str, Any]
NOISE = 0.02
"""Relative error of a step that a fit takes for noise; larger ones count less than their square."""
STAGE_WEIGHT = 0.5
"""A stage counts half as much as a step."""
TINY = 1e-9
"""Seconds: a search may pass by gaps so short that a stage would take less than nothing."""
LEAST = 4
"""Fewer training steps than this make no loop."""


class Fit:
    """Parameters of one kernel set, fitted on the training cells of all its modes together."""

    def __init__(self, document: Document, points: Sequence[StepPoint]) -> None:
        self.gap = document["constants"]["graph_node_s"]["value"]
        train = [point for point in points if point.train]
        count: dict[str, int] = {}
        for point in train:
            count[point.loop] = count.get(point.loop, 0) + 1
        self.loops = sorted(name for name, n in count.items() if n >= LEAST)
        self.points = [point for point in points if point.loop in self.loops]
        self.train = blocks([point for point in train if point.loop in self.loops])
        self.kernels, self.constants = start_of(document, self.loops)
        self.free: list[Free] = free_of(self.train, self.kernels, self.constants)

    def solve(self) -> None:
        """Puts the best parameters into `kernels` and `constants`."""
        if not self.free:
            return
        first = np.log([free.start for free in self.free])
        low = np.log([free.low for free in self.free])
        high = np.log([free.high for free in self.free])
        found = least_squares(
            self._error, np.clip(first, low + 1e-9, high - 1e-9), bounds=(low, high),
            loss="soft_l1", max_nfev=60, x_scale=np.array([free.width for free in self.free]),
        )  # fmt: skip
        self._put(found.x)
        for free in self.free:
            free.table[free.key] = six(free.table[free.key])

    def _put(self, logs: FloatArray) -> None:
        for free, value in zip(self.free, np.exp(logs).tolist(), strict=True):
            free.table[free.key] = value

    def _error(self, logs: FloatArray) -> FloatArray:
        self._put(logs)
        parts = []
        for block in self.train:
            loop = self.constants[block.first.loop]
            parts.append(np.log(self.predict(block) / block.measured) / NOISE)
            if block.first.mode == "resident":
                continue
            stages = layers(block, self.kernels, loop["node_s"] - self.gap).stages()
            for name, predicted in stages.items():
                measured = block.stage(name)
                good = np.isfinite(measured)
                ratio = np.maximum(predicted[good], TINY) / measured[good]
                parts.append(np.log(ratio) / NOISE * STAGE_WEIGHT)
        starts = np.log([free.start for free in self.free])
        widths = np.array([free.width for free in self.free])
        return np.concatenate([*parts, (logs - starts) / widths])

    def predict(self, block: Block) -> FloatArray:
        """Seconds of *block*'s steps."""
        return seconds(block, self.kernels, self.constants[block.first.loop], self.gap)


def add_decoder(document: Document, steps: Steps) -> Document:
    """*document* with the loops of *steps*; raises `SamplesError` if there are too few."""
    found = {key: value for key, value in document.items() if key != "checks"}
    kernels = {
        name: entry for name, entry in document["kernels"].items() if entry["source"] != "decode"
    }
    found["kernels"] = kernels
    base = {**document, "kernels": dict(kernels)}
    loops: dict[str, Any] = {}
    for name in ("library", "fused"):
        points = [point for point in steps.points if point.kernels == name]
        fit = Fit(base, points)
        fit.solve()
        kernels |= _kernels(fit)
        for loop in fit.loops:
            loops[loop] = _loop(fit, loop, base)
    if not loops:
        raise SamplesError(f"{steps.place}: too few decode steps; measure more cells")
    head = steps.headers[-1] if steps.headers else {}
    sources = {**document["sources"], "decode": _said(steps, head)}
    return {
        **found, "sources": sources, "kernels": dict(sorted(kernels.items())),
        "loops": dict(sorted(loops.items())), "checks": document["checks"],
    }  # fmt: skip


def _kernels(fit: Fit) -> dict[str, Any]:
    """The kernels that the fit changed or made, as the profile has them."""
    freed = {free.kernel for free in fit.free if free.kernel}
    made = {}
    for name in sorted(freed):
        entry = fit.kernels[name]
        made[name] = {
            "form": entry["form"],
            "parameters": {key: six(value) for key, value in entry["parameters"].items()},
            "fixed": {},
            "kind": "fitted",
            "domain": entry.get("domain", {}),
            "source": "decode",
            "includes_node_gap": True,
            "residuals": _stages(fit, name),
            "note": entry["note"],
        }
    return made


def _stages(fit: Fit, name: str) -> dict[str, Any]:
    """Residuals of the stages in which the kernel *name* works, on held-out cells."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for block in blocks([point for point in fit.points if not point.train]):
        if not name.endswith(f".{block.first.place}") or block.first.mode == "resident":
            continue
        shift = fit.constants[block.first.loop]["node_s"] - fit.gap
        for stage, predicted in layers(block, fit.kernels, shift).stages().items():
            if stage not in fit.kernels[name]["stages"]:
                continue
            measured = block.stage(stage)
            good = np.isfinite(measured)
            pairs = zip(predicted[good].tolist(), measured[good].tolist(), strict=True)
            rows.setdefault(stage, []).extend(pairs)
    return {
        f"stage {stage}": residuals(*np.array(pairs).T) for stage, pairs in rows.items() if pairs
    }


def _loop(fit: Fit, name: str, base: Document) -> dict[str, Any]:
    """The profile's entry of the loop *name*, with its residuals."""
    mine = [point for point in fit.points if point.loop == name]

    def judged(points: Sequence[StepPoint]) -> dict[str, float]:
        pairs = [(fit.predict(block), block.measured) for block in blocks(points)]
        if not pairs:
            return {"n": 0}
        return residuals(*(np.concatenate(side) for side in zip(*pairs, strict=True)))

    held = [point for point in mine if not point.train]
    found: dict[str, Any] = {
        "holdout": judged(held),
        "training": judged([point for point in mine if point.train]),
        "blind": _blind(base, mine),
    }
    groups: dict[str, list[StepPoint]] = {}
    for point in held:
        kind = "sparse" if point.cell["budget_tokens"] else "dense"
        label = f"{point.cell['model']} {point.cell['weights']} {point.cell['kv']}"
        for group in (kind, label):
            groups.setdefault(group, []).append(point)
    found["groups"] = {group: judged(points) for group, points in sorted(groups.items())}
    return {
        "parameters": {key: six(value) for key, value in fit.constants[name].items()},
        "kind": "fitted",
        "domain": _domain(mine),
        "source": "decode",
        "residuals": found,
        "note": "fitted on whole decode steps of the training cells, all modes of a kernel set "
        "together; cells are drawn by hash and shared by all modes",
    }


def _blind(base: Document, points: Sequence[StepPoint]) -> dict[str, float]:
    """Residuals on all cells of what the profile says without any fit to decode steps."""
    kernels, constants = start_of(base, {point.loop for point in points})
    gap = base["constants"]["graph_node_s"]["value"]
    pairs = [
        (seconds(block, kernels, constants[block.first.loop], gap), block.measured)
        for block in blocks(points)
        if block.first.mode != "resident"  # what its stream costs, nobody had measured
    ]
    if not pairs:
        return {"n": 0}
    return residuals(*(np.concatenate(side) for side in zip(*pairs, strict=True)))


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


def main(argv: Sequence[str] | None = None) -> int:
    """0 written, 2 a file is at fault."""
    parser = argparse.ArgumentParser(prog="kernels.fit.decoder", description="Steps into a profile")
    parser.add_argument("--steps", type=Path, required=True, metavar="FILE")
    parser.add_argument("--profile", type=Path, required=True, metavar="IN.json")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.json")
    arguments = parser.parse_args(argv)
    try:
        document = json.loads(arguments.profile.read_text(encoding="utf-8"))
        made = add_decoder(document, read_steps(arguments.steps))
        arguments.out.write_text(text(made), encoding="utf-8")
    except (SamplesError, OSError, ValueError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for name, entry in made["loops"].items():
        for part in ("blind", "training", "holdout"):
            figures = entry["residuals"][part]
            if figures["n"]:
                print(
                    f"{name:20} {part:8} n {figures['n']:3d}  median {figures['median']:6.1%}  "
                    f"p90 {figures['p90']:6.1%}  max {figures['max']:6.1%}  "
                    f"signed {figures['signed_median']:+6.1%}"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
