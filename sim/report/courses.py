"""Figures of where time goes, of the courses of single runs, and of KV over the tiers.

One rule: what goes over time is that of the first replication, and its caption says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim import panels, reuse_panels, tier_panels
from sim.plots import HALF, Picture

from .lines import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.runs import Cell, Run

    from .view import View

MOST_BARS = 16


def recorded(run: Run) -> bool:
    """Whether *run* kept its iterations."""
    return (run.folder / "iterations.parquet").is_file()


def single(draw: Callable[[Axes], None], *, alone: bool = False) -> Callable[[Figure], None]:
    """A figure of one pair of axes, its names below it; with *alone* none for a single line."""

    def drawn(figure: Figure) -> None:
        axes = figure.subplots()
        draw(axes)
        panels.legend_below(figure, axes, alone=alone)

    return drawn


def at_of(view: View) -> str:
    """Where along the study the figures stand that show some of its cells."""
    where = view.where(view.alike) if len(view.alike) > 1 else ""
    return f", at {where}" if where and len(view.alike) < len(view.cells) else ""


def times(view: View, kept: bool) -> list[Picture]:
    """Where the time of the run and of an iteration goes."""
    cells = view.alike[:MOST_BARS]
    bars = [(view.name(cell, view.alike_axes), cell.runs) for cell in cells]
    found = [
        Picture(
            "time-shares",
            f"Where the time goes{at_of(view)}",
            "Of the run's length on all GPUs: the GPU works, on iterations that decode alone or "
            "with prompts, waits for its loop between kernels and launches, or has no request."
            + (" Means over the replications." if len(cells[0].runs) > 1 else ""),
            single(lambda axes: panels.stacked(axes, bars)),
            (HALF, max(3.6, 1.7 + 0.34 * len(bars))),
        )
    ]
    if kept:
        found.append(
            Picture(
                "iteration-batch",
                f"Length of a decode iteration by batch{at_of(view)}",
                "Median over the iterations with so many requests; batches seen five times."
                + _first(view),
                single(lambda axes: panels.by_batch(axes, shown(view)), alone=True),
            )
        )
    return found


def _first(view: View) -> str:
    return " Of the first replication." if len(view.alike[0].runs) > 1 else ""


def courses(view: View) -> list[Picture]:
    """Batch and queue over simulated time; no queue where there never was one."""
    found = []
    still = not any(_waited(cell.runs[0]) for cell in view.alike)
    queued = " No request ever waited at the end of an iteration." if still else ""
    for name, column, label in (
        ("batch", "decode_requests", "requests decoding"), ("queue", "waiting", "requests waiting"),
    ):  # fmt: skip
        if name == "queue" and still:
            continue

        def draw(axes: Axes, column: str = column, label: str = label) -> None:
            panels.timeline(axes, shown(view), column, label)

        title = f"{label[0].upper()}{label[1:]} over time{at_of(view)}"
        says = f"Means over bins of a {panels.BINS}th of the run.{_first(view)}{queued}"
        found.append(Picture(f"over-time-{name}", title, says, single(draw, alone=True)))
    return found


def _waited(run: Run) -> bool:
    """Whether any request waited to be admitted when an iteration ended."""
    return bool(run.summary.get("loop_max_waiting_requests", 1))


def reuse(view: View, kept: bool) -> list[Picture]:
    """KV over the tiers, and what was found there; nothing where no run kept any."""
    if not kept or not all(tier_panels.keeps(cell.runs[0]) for cell in view.alike):
        return []
    bars = [(view.name(cell, view.alike_axes), cell.runs) for cell in view.alike]
    found = []
    if len(view.cells) > 1:
        found.append(
            Picture(
                "reuse",
                f"Where prompt tokens came from{at_of(view)}",
                "Of all prompt tokens of finished requests: found in a tier, or computed.",
                single(lambda axes: reuse_panels.sources(axes, bars)),
                (HALF, max(3.6, 1.7 + 0.34 * len(bars))),
            )
        )
    for cell in view.alike[:1] if len(view.cells) == 1 else _two(view.alike):
        of_cell = "" if len(view.cells) == 1 else f": {view.name(cell)}"
        number = view.alike.index(cell)
        for name, (title, panel) in tier_panels.panels(cell.runs[0]).items():
            if of_cell and name not in ("occupancy", "hits"):
                continue

            def draw(axes: Axes, run: Run = cell.runs[0],
                     panel: Callable[[Axes, Run], None] = panel) -> None:  # fmt: skip
                panel(axes, run)

            suffix = f"-{number}" if of_cell else ""
            says = f"Over simulated time.{_first(view)}"
            found.append(Picture(f"tiers-{name}{suffix}", title + of_cell, says, single(draw)))
    return found


def _two(cells: Sequence[Cell]) -> Sequence[Cell]:
    """The first and the last of *cells*."""
    return cells if len(cells) < 3 else (cells[0], cells[-1])
