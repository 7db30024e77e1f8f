"""The map of who wins where, and how the resident kernel stands to the best graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .decoder_looks import colour, short, us
from .decoder_steps import RESIDENT
from .style import GREY, empty, handle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .decoder_steps import Place, Rung, Steps

PALE = 0.62
LEAST_LIMIT = 10.0
"""Percent at which the colours of the second map end, unless a cell is beyond it."""


def map_size(steps: Steps, model: str) -> tuple[float, float]:
    """Inches that the maps of *model* need."""
    kinds = [sparse for sparse in (False, True) if steps.places(model, sparse)]
    columns = sum(len({p.context for p in steps.places(model, sparse)}) for sparse in kinds)
    rows = max(len({p.batch for p in steps.places(model, sparse)}) for sparse in kinds)
    two = 2 if resident_cells(steps, model) else 1
    width = max(6.8, 0.72 * columns + 0.4 * len(kinds))
    return 3.4 + width, 0.9 + two * (0.7 + 0.4 * rows)


def resident_cells(steps: Steps, model: str) -> list[Place]:
    """Places where the resident kernel and another rung were measured."""
    return [
        place
        for sparse in (False, True)
        for place in steps.places(model, sparse)
        if RESIDENT in steps.cells[place] and len(steps.cells[place]) > 1
    ]


def against_best(steps: Steps, place: Place) -> float:
    """The resident step over the best of the others, less one."""
    mine = steps.cells[place]
    best = min(cell.wall for rung, cell in mine.items() if rung != RESIDENT)
    return mine[RESIDENT].wall / best - 1.0


def draw_map(figure: Figure, steps: Steps, model: str) -> None:
    """Batch by context: the fastest rung's colour, its time and its margin; dense and sparse."""
    kinds = [sparse for sparse in (False, True) if steps.places(model, sparse)]
    widths = [len({p.context for p in steps.places(model, sparse)}) for sparse in kinds]
    two = bool(resident_cells(steps, model))
    grid = figure.subplots(
        2 if two else 1, len(kinds), squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    for column, sparse in enumerate(kinds):
        places = steps.places(model, sparse)
        _winners(grid[0][column], steps, places)
        word = _kind(places)
        grid[0][column].set_title(word)
        if two:
            _against(grid[1][column], steps, places)
            grid[1][column].set_title("resident against the best other (%)")
    for row in grid:
        row[0].set_ylabel("batch")
    for axes in grid[-1]:
        axes.set_xlabel("context (tokens)")
    rungs = steps.rungs(place for sparse in kinds for place in steps.places(model, sparse))
    won = {(steps.winner(p) or (None,))[0] for s in kinds for p in steps.places(model, s)}
    figure.legend(
        handles=[
            handle(
                rung.name + ("" if rung in won else " (nowhere)"), color=_pale(colour(rung)),
                marker="s", linestyle="", markersize=8,
            )
            for rung in rungs
        ],
        loc="outside right upper", title="fastest",
    )  # fmt: skip
    figure.suptitle(f"{model.upper()}: the fastest step in us and how much longer the second "
                    "takes, measured medians")  # fmt: skip


def _kind(places: list[Place]) -> str:
    budgets = sorted({place.budget for place in places})
    if budgets == [0]:
        return "dense"
    return f"{' or '.join(f'{budget:,}' for budget in budgets)} tokens selected"


def _winners(axes: Axes, steps: Steps, places: list[Place]) -> None:
    from matplotlib.colors import to_rgb

    batches, contexts = _frame(axes, places)
    image = np.ones((len(batches), len(contexts), 3))
    for place in places:
        i, j = batches.index(place.batch), contexts.index(place.context)
        found = steps.winner(place)
        if found is None:
            axes.text(j, i, "one rung only", ha="center", va="center", fontsize=6.5, color=GREY)
            continue
        rung, margin = found
        image[i, j] = to_rgb(_pale(colour(rung)))
        axes.text(j, i + 0.15, us(steps.cells[place][rung].wall), ha="center", va="center",
                  fontsize=7)  # fmt: skip
        digits = 1 if margin < 0.0095 else 0
        text = f"+{100.0 * margin:.{digits}f} %"
        axes.text(j, i - 0.22, text, ha="center", va="center", fontsize=6.5, color="#303030")
    axes.imshow(image, aspect="auto", origin="lower")


def _against(axes: Axes, steps: Steps, places: list[Place]) -> None:
    batches, contexts = _frame(axes, places)
    field = np.full((len(batches), len(contexts)), np.nan)
    ratios = [against_best(steps, place) for place in resident_cells(steps, places[0].model)]
    limit = max(LEAST_LIMIT, *(100.0 * abs(ratio) for ratio in ratios))
    for place in places:
        if RESIDENT not in steps.cells[place] or len(steps.cells[place]) < 2:
            continue
        i, j = batches.index(place.batch), contexts.index(place.context)
        field[i, j] = value = 100.0 * against_best(steps, place)
        axes.text(j, i, f"{value:+.0f}", ha="center", va="center", fontsize=7,
                  color="white" if abs(value) > 0.6 * limit else "black")  # fmt: skip
    if np.isnan(field).all():
        empty(axes, "not measured here")
        return
    axes.imshow(field, cmap="BrBG_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower")


def _frame(axes: Axes, places: list[Place]) -> tuple[list[int], list[int]]:
    batches = sorted({place.batch for place in places})
    contexts = sorted({place.context for place in places})
    axes.set_yticks(range(len(batches)), [f"{batch}" for batch in batches])
    axes.set_xticks(range(len(contexts)), [short(context) for context in contexts])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return batches, contexts


def _pale(name: str) -> tuple[float, float, float]:
    """The colour mixed with white, so that black text can be read on it."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1.0 - PALE * (1.0 - part) for part in to_rgb(name))
    return red, green, blue


def rung_counts(steps: Steps, places: list[Place]) -> dict[Rung, int]:
    """How often each rung is the fastest."""
    found: dict[Rung, int] = {}
    for place in places:
        winner = steps.winner(place)
        if winner:
            found[winner[0]] = found.get(winner[0], 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
