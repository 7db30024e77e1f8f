"""The report's tables besides the targets: models, constants, selection, copies, interference."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .draw_copies import (
    MOVERS,
    SINGLES,
    WORDS,
    disturbances,
    grid_label,
    grids,
    mover_label,
    rate,
    records,
    singles,
    slowdown,
)
from .style import binary
from .words import NONE, fixed, number, percent, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..fit.samples import Point
    from .inputs import Evidence, Fit

BARS = {"median": 0.05, "p90": 0.12, "frontier": 0.10}
"""Row 27 of the targets: residuals on held-out points, and the median at the frontier."""


# ------------------------------------------------------------------------------ models
def model_verdict(fit: Fit) -> str:
    """`met`, or which of the bars of row 27 a model misses."""
    found = fit.entry["residuals"]
    held, far = found.get("holdout", {}), found.get("frontier", {})
    if not held.get("n"):
        return "no held-out points"
    misses = [
        f"{name} {percent(value, 1)}"
        for name, value in (("median", held["median"]), ("p90", held["p90"]))
        if value > BARS[name]
    ]
    if far.get("n") and far["median"] > BARS["frontier"]:
        misses.append(f"frontier {percent(far['median'], 1)}")
    return "missed: " + ", ".join(misses) if misses else "met"


def models(evidence: Evidence) -> list[str]:
    """Each fitted kernel: its form, and residuals of all kinds of hold-out."""
    rows = []
    folders = Counter(folder for folder, _ in evidence.samples.points)
    for name, fit in evidence.fits.items():
        found = fit.entry["residuals"]
        floor = fit.entry.get("floor", {})
        held = found.get("holdout", {})
        kind = str(fit.entry["kind"]) + ("" if fit.own else ", on other samples")
        rows.append(
            [
                f"`{name}`",
                f"{fit.entry['form']} ({kind})",
                f"{len(fit.points)} of {folders.get(fit.points[0].kernel, 0)}",
                f"{held.get('n', 0)}",
                _pair(held),
                percent(held.get("max"), 1),
                _signed(held.get("signed_median")),
                number(held.get("rmsle"), 2),
                _pair(found.get("left_out_shapes")),
                _pair(found.get("frontier")),
                _outside(found),
                _pair(found.get("repeatability")),
                _pair(found.get("second_run_model")),
                percent(floor.get("fraction_median")) + " / " + percent(floor.get("fraction_best")),
                model_verdict(fit),
            ]
        )
    head = (
        "model", "form", "points of the folder", "held out", "median / p90", "max",
        "signed median", "RMSLE", "shape left out", "largest fifth", "outside its domain",
        "measured twice", "second run", "of floor median / best",
        "<= 5 / 12 %, frontier <= 10 %",
    )  # fmt: skip
    return table(head, rows, "ll" + "r" * 12 + "l")


def largest_misses(evidence: Evidence, most: int = 2) -> list[str]:
    """The held-out points that each model misses most."""
    lines = []
    for name, fit in evidence.fits.items():
        order = sorted(map(int, np.flatnonzero(fit.held)), key=lambda i: (-abs(fit.error[i]), i))
        for index in order[:most]:
            predicted, measured = fit.predicted[index] * 1e6, fit.measured[index] * 1e6
            lines.append(
                f"- `{name}` {100 * fit.error[index]:+.1f} %: predicted {fixed(predicted, 1)} us, "
                f"measured {fixed(measured, 1)} ({axes_text(fit.points[index])})"
            )
    return lines


def estimated_models(evidence: Evidence) -> list[str]:
    """Kernels of the profile that nobody measured: a line each."""
    return [
        f"- `{name}`: {entry['kind']}; {entry.get('note', '')}"
        for name, entry in sorted(evidence.profile["kernels"].items())
        if name not in evidence.fits
    ]


def parameters(fit: Fit) -> str:
    """The fitted parameters in words."""
    fixed_ones = fit.entry.get("fixed", {})
    parts = []
    for name, value in fit.entry["parameters"].items():
        mark = f" ({fixed_ones[name].get('kind', 'fixed')})" if name in fixed_ones else ""
        parts.append(f"{_parameter(name, float(value))}{mark}")
    return ", ".join(parts)


def _parameter(name: str, value: float) -> str:
    if name.endswith("bytes_per_s"):
        return f"{name.removesuffix('_per_s')} {value / 1e12:.3g} TB/s"
    if name.endswith("flops_per_s"):
        return f"{name.removesuffix('_per_s')} {value / 1e12:.4g} TFLOP/s"
    if name.endswith("_s"):
        text = f"{value * 1e6:.3g} us" if value >= 1e-8 else f"{value * 1e9:.3g} ns"
        return f"{name.removesuffix('_s')} {text}"
    return f"{name} {value:.4g}"


def _pair(figures: Mapping[str, float] | None) -> str:
    if not figures or not figures.get("n"):
        return NONE
    return f"{100 * figures['median']:.1f} / {100 * figures['p90']:.1f} %"


def _outside(found: Mapping[str, Any]) -> str:
    """Residuals at points beyond the model's domain, with how many."""
    figures = found.get("groups", {}).get("outside the domain")
    return f"{_pair(figures)} ({figures['n']})" if figures else NONE


def uncovered(evidence: Evidence) -> str:
    """How many points of each folder belong to no model."""
    parts = []
    for folder, count in sorted(Counter(key[0] for key in evidence.samples.points).items()):
        without = [p for p in evidence.samples.of(folder) if evidence.prediction(p) is None]
        if without and folder != "streams":
            parts.append(f"{len(without)} of {count} of `{folder}`")
    return "Points that no model covers: " + "; ".join(parts) + "." if parts else ""


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:+.1f} %"


def checks(evidence: Evidence) -> list[str]:
    """The profile's predictions of whole decode steps that another engine measured."""
    rows = [
        [
            str(check["name"]),
            fixed(1e6 * check["measured_s"], 1),
            fixed(1e6 * check["predicted_s"], 1),
            f"{100.0 * check['relative_error']:+.1f} %",
        ]
        for check in evidence.profile.get("checks", [])
    ]
    return table(("step", "measured, us", "predicted, us", "error"), rows, "lrrr") if rows else []


# ------------------------------------------------------------------------------ constants
def constants(evidence: Evidence) -> list[str]:
    """Every constant of the profile with its kind."""
    rows = []
    for name, entry in evidence.profile.get("constants", {}).items():
        again = entry.get("repeatability")
        rows.append([f"`{name}`", _quantity(entry), str(entry["kind"]), percent(again, 1),
                     str(entry.get("note", ""))])  # fmt: skip
    return table(("constant", "value", "kind", "measured twice", "what"), rows, "lrlrl")


def _quantity(entry: Mapping[str, Any]) -> str:
    value, unit = float(entry["value"]), str(entry["unit"])
    if unit == "s":
        if value < 1e-8:
            return f"{value * 1e9:.3g} ns"
        return f"{value * 1e6:.4g} us" if value < 1e-2 else f"{value:.4g} s"
    if unit == "s/request":
        return f"{value * 1e6:.3g} us a request"
    if unit == "bytes/s":
        return f"{value / 1e12:.3f} TB/s" if value >= 1e12 else f"{value / 1e9:.2f} GB/s"
    if unit == "bytes":
        return f"{value / 1e6:.4g} MB"
    return f"{value:.4g}" + ("" if unit in ("1", "") else f" {unit}")


# ------------------------------------------------------------------------------ selection
def selection(evidence: Evidence) -> list[str]:
    """Microseconds of the selection at the target's rows, by pages and distribution."""
    mine = evidence.find("topk_select", rows=128, budget=128, cold=False)
    if not mine:
        return []
    names = sorted({str(point.axes["scores"]) for point in mine})
    rows = []
    for pages in sorted({int(point.axes["pages"]) for point in mine}):
        here = {str(p.axes["scores"]): p for p in mine if p.axes["pages"] == pages}
        base = [
            statistics.median(times) * 1e6 for p in here.values() for times in p.baselines.values()
        ]
        spread = max(p.median for p in here.values()) / min(p.median for p in here.values())
        cells = [fixed(here[n].median * 1e6, 2) if n in here else NONE for n in names]
        span = f"{min(base):.1f} to {max(base):.1f}" if base else NONE
        rows.append([f"{pages:,}", *cells, f"{spread:.2f}x" if len(here) > 1 else NONE, span])
    return table(("pages a row", *names, "slowest / fastest", "torch.topk, same run"), rows,
                 "r" * (len(names) + 3))  # fmt: skip


# ------------------------------------------------------------------------------ tiers
def copies(evidence: Evidence) -> list[str]:
    """GB/s of single copies by size, and of shuffled pages by mover."""
    lines = []
    sizes = sorted({int(r["bytes"]) for r in records(evidence, "copy_engine", calls=1)})
    if sizes:
        rows = []
        for way in ("h2d", "d2h"):
            for calls, held, words in SINGLES:
                by_size = {int(r["bytes"]): r for r in singles(evidence, way, calls, held)}
                if by_size:
                    cells = [_gb(by_size.get(n)) for n in sizes]
                    rows.append([f"{WORDS[way]}, {words}", *cells])
        lines += table(("single copies, GB/s", *(binary(n) for n in sizes)), rows, "l")
    rows = []
    for way in ("h2d", "d2h"):
        for name in ("copy_engine_pages", "copy_batch", "gather"):
            mine = records(evidence, name, direction=way)
            for grid in grids(mine) if name == "gather" else [""]:
                label = f"{WORDS[way]}, {MOVERS[name]}" + (f", {grid}" if grid else "")
                some = [r for r in mine if not grid or grid_label(r) == grid]
                rows.append([label, *(_best_at(some, n << 10) for n in (4, 16, 64, 256, 1024))])
    if rows:
        lines += table(("shuffled pages, GB/s", "4 KiB", "16 KiB", "64 KiB", "256 KiB", "1 MiB"),
                       rows, "l")  # fmt: skip
    return lines


def interference(evidence: Evidence) -> list[str]:
    """Percent by which work grows beside each mover."""
    found = disturbances(evidence)
    if not found:
        return []
    victims = list(dict.fromkeys(str(record["victim"]) for record in found))
    rows = []
    for name in dict.fromkeys(mover_label(record) for record in found):
        mine = {str(r["victim"]): r for r in found if mover_label(r) == name}
        cells = [f"{slowdown(mine[v]):+.1f} %" if v in mine else NONE for v in victims]
        speeds = [mine[v].get("mover_bytes_s", 0.0) / 1e9 for v in victims if v in mine]
        rows.append([name, *cells, f"{min(speeds):.0f} to {max(speeds):.0f}"])
    return table(("mover", *victims, "mover, GB/s meanwhile"), rows, "l")


def _gb(record: Mapping[str, Any] | None) -> str:
    return NONE if record is None else fixed(rate(dict(record)) / 1e9, 1)


def _best_at(found: Sequence[dict[str, Any]], page_bytes: int) -> str:
    mine = [record for record in found if record.get("page_bytes") == page_bytes]
    return _gb(max(mine, key=lambda record: float(record["bytes"]), default=None))


# ------------------------------------------------------------------------------ a family in words
def summary(evidence: Evidence, points: Sequence[Point]) -> str:
    """How near *points* are to the floor, and to libraries timed beside them."""
    shares = np.array([evidence.floor(point.bytes) / point.median for point in points])
    best = points[int(shares.argmax())]
    text = f"{len(points)} points. Floor over time: median {percent(float(np.median(shares)))}, "
    text += f"best {percent(float(shares.max()))} ({axes_text(best)})."
    ratios: dict[str, list[float]] = {}
    for point in points:
        for name, times in point.baselines.items():
            if times:
                ratios.setdefault(name, []).append(point.median / statistics.median(times))
    for name, values in sorted(ratios.items()):
        faster = sum(value < 1.0 for value in values)
        text += f" Against `{name}`, same run: time ratio median {statistics.median(values):.2f}, "
        text += f"from {min(values):.2f} to {max(values):.2f}; faster at {faster} of {len(values)}."
    return text


def axes_text(point: Point) -> str:
    """A point's axes in a few words."""
    return ", ".join(f"{key} {value}" for key, value in point.axes.items())
