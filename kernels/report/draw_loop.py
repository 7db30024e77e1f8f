"""The pictures of the loop table: heat maps of the step, the winner, the prediction, the gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .loop_tables import place_text, shown_places
from .loops import PARTS, parts
from .style import empty, handle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .loops import Cell, Loops, Place

MODE_COLOURS = {
    "resident": "#009e73", "graph": "#0072b2", "host-c": "#e69f00", "host-python": "#d55e00",
}  # fmt: skip
PART_COLOURS = ("#56b4e9", "#d55e00", "#000000", "#e69f00", "#bdbdbd")
TEXT_SIZE = 6.5


def draw_steps(figure: Figure, loops: Loops, sparse: bool) -> None:
    """Step times of each mode over batch and context, and who is fastest."""
    line = figure.subplots(1, len(loops.modes) + 1)
    times = [cell.seconds for p, mine in loops.cells.items() if p[0] == sparse
             for cell in mine.values()]  # fmt: skip
    span = np.log10(min(times)), np.log10(max(times) * 1.0001)
    for axes, mode in zip(line, loops.modes, strict=False):
        _map(axes, loops, sparse, _step_of(loops, mode), "cividis", span)
        axes.set_title(mode)
    _winners(line[-1], loops, sparse)
    _labels(line)
    figure.suptitle(f"{_word(sparse)} step of one layer under four kinds of control, measured "
                    "(us, median)")  # fmt: skip


def draw_errors(figure: Figure, loops: Loops, sparse: bool) -> None:
    """Predicted over measured, less one, in percent."""
    line = figure.subplots(1, len(loops.modes), squeeze=False)[0]
    for axes, mode in zip(line, loops.modes, strict=True):
        _map(axes, loops, sparse, _error_of(loops, mode), "PuOr", (-40.0, 40.0))
        axes.set_title(mode)
    _labels(line)
    what = f"{_word(sparse)} steps as the simulator predicts them"
    figure.suptitle(f"{what}: predicted / measured - 1 (%)")


def _labels(line: Sequence[Axes]) -> None:
    line[0].set_ylabel("batch")
    for axes in line:
        axes.set_xlabel("context (tokens)")


def _word(sparse: bool) -> str:
    return "Sparse" if sparse else "Dense"


def draw_gaps(figure: Figure, loops: Loops) -> None:
    """Stacked bars: where the time of each mode goes, at a few cells."""
    places = shown_places(loops)
    grid = figure.subplots(2, 3).ravel()
    for axes, place in zip(grid, places, strict=False):
        _stack(axes, loops, place)
    for axes in grid[len(places) :]:
        axes.set_axis_off()
    figure.legend(
        handles=[
            handle(name, color=colour, marker="s", linestyle="", markersize=7)
            for name, colour in zip(PARTS, PART_COLOURS, strict=True)
        ]
        + [handle("the whole, measured", color="black", marker="D", linestyle="", markersize=5,
                  markerfacecolor="white")],
        loc="outside lower center", ncols=len(PARTS) + 1,
    )  # fmt: skip
    figure.suptitle("Where a step's time goes: the whole is measured; parts of resident too, the "
                    "others' parts from measured constants")  # fmt: skip


# ------------------------------------------------------------------------------ panels
def _step_of(loops: Loops, mode: str) -> Callable[[Place], tuple[float, str] | None]:
    def value(place: Place) -> tuple[float, str] | None:
        cell = loops.cells.get(place, {}).get(mode)
        return None if cell is None else (float(np.log10(cell.seconds)), _us(cell))

    return value


def _error_of(loops: Loops, mode: str) -> Callable[[Place], tuple[float, str] | None]:
    def value(place: Place) -> tuple[float, str] | None:
        cell = loops.cells.get(place, {}).get(mode)
        error = loops.error(cell) if cell else None
        return None if error is None else (100.0 * error, f"{100.0 * error:+.0f}")

    return value


def _us(cell: Cell) -> str:
    us = cell.seconds * 1e6
    return f"{us:.1f}" if us < 100.0 else f"{us:.0f}"


def _map(
    axes: Axes, loops: Loops, sparse: bool, value: Callable[[Place], tuple[float, str] | None],
    colours: str, span: tuple[float, float],
) -> None:  # fmt: skip
    batches, contexts = _frame(axes, loops, sparse)
    field = np.full((len(batches), len(contexts)), np.nan)
    for i, batch in enumerate(batches):
        for j, context in enumerate(contexts):
            found = value((sparse, batch, context))
            if found is None:
                continue
            field[i, j] = found[0]
            share = (found[0] - span[0]) / (span[1] - span[0])
            # Both maps are dark at one end or both; text must stand out.
            dark = share < 0.5 if colours == "cividis" else not 0.2 < share < 0.8
            axes.text(j, i, found[1], ha="center", va="center", fontsize=TEXT_SIZE,
                      color="white" if dark else "black")  # fmt: skip
    axes.imshow(field, cmap=colours, vmin=span[0], vmax=span[1], aspect="auto", origin="lower")


def _winners(axes: Axes, loops: Loops, sparse: bool) -> None:
    batches, contexts = _frame(axes, loops, sparse)
    axes.set_title("fastest, second slower by (%)")
    image = np.ones((len(batches), len(contexts), 3))
    from matplotlib.colors import to_rgb

    for i, batch in enumerate(batches):
        for j, context in enumerate(contexts):
            found = loops.winner((sparse, batch, context))
            if found is None:
                continue
            colour = np.array(to_rgb(MODE_COLOURS.get(found[0], "#999999")))
            image[i, j] = 1.0 - 0.65 * (1.0 - colour)
            axes.text(j, i, f"{100.0 * found[1]:.0f}", ha="center", va="center",
                      fontsize=TEXT_SIZE)  # fmt: skip
    axes.imshow(image, aspect="auto", origin="lower")
    axes.legend(
        handles=[
            handle(mode, color=MODE_COLOURS.get(mode, "#999999"), marker="s", linestyle="",
                   markersize=6, alpha=0.65)
            for mode in loops.modes
        ],
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7,
    )  # fmt: skip


def _frame(axes: Axes, loops: Loops, sparse: bool) -> tuple[list[int], list[int]]:
    batches, contexts = loops.axis(1, sparse), loops.axis(2, sparse)
    axes.set_yticks(range(len(batches)), [f"{batch}" for batch in batches])
    axes.set_xticks(range(len(contexts)), [_short(context) for context in contexts])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return batches, contexts


def _short(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens % 1024 == 0 and tokens >= 1024 else f"{tokens}"


def _stack(axes: Axes, loops: Loops, place: Place) -> None:
    axes.set_title(place_text(place))
    modes: Sequence[str] = [mode for mode in loops.modes if mode in loops.cells[place]]
    shown: list[tuple[str, dict[str, float]]] = []
    for mode in modes:
        found = parts(loops, loops.cells[place][mode])
        if found is not None:
            shown.append((mode, found))
    if not shown:
        empty(axes, "no parts")
        return
    left: Any = np.zeros(len(shown))
    for name, colour in zip(PARTS, PART_COLOURS, strict=True):
        width = np.array([max(0.0, found[name]) * 1e6 for _, found in shown])
        axes.barh([mode for mode, _ in shown], width, left=left, color=colour,
                  edgecolor="white", linewidth=0.5)  # fmt: skip
        left = left + width
    whole = [loops.cells[place][mode].seconds * 1e6 for mode, _ in shown]
    axes.plot(whole, range(len(shown)), "D", color="black", markerfacecolor="white", markersize=5)
    axes.invert_yaxis()
    axes.set_xlabel("us")
    axes.grid(visible=False, axis="y")
