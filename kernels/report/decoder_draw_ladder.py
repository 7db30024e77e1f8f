"""Pictures of the ladder, from PyTorch to the floor, and of how a step grows with its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .decoder_goals import BATCH, BATCH_PERCENT, TARGET_MODEL
from .decoder_looks import FLOOR_COLOUR, colour, mark, us
from .style import handle, log_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .decoder_steps import Place, Rung, Steps


def ladder_places(steps: Steps) -> list[Place]:
    """A place a model, those with one rung left out."""
    found = [steps.ladder_place(model) for model in steps.models]
    return [place for place in found if place and len(steps.cells[place]) > 1]


def ladder_size(steps: Steps) -> tuple[float, float]:
    """Inches that the ladder needs."""
    places = ladder_places(steps)
    most = max(len(steps.cells[place]) for place in places)
    return max(9.0, 7.2 * len(places) + 0.4), 1.5 + 0.36 * (most + 1)


def draw_ladder(figure: Figure, steps: Steps) -> None:
    """A bar a rung, the floor below them all."""
    places = ladder_places(steps)
    line = figure.subplots(1, len(places), squeeze=False)[0]
    most = max(len(steps.cells[place]) for place in places)
    for axes, place in zip(line, places, strict=True):
        _rungs(axes, steps, place)
        axes.set_ylim(most + 0.6, -0.6)  # bars of one height in all panels
    figure.suptitle(
        "A decode step as its host sees it: measured medians (p10 to p90); percent: floor over step"
    )


def _rungs(axes: Axes, steps: Steps, place: Place) -> None:
    rungs = steps.rungs([place])
    cells = [steps.cells[place][rung] for rung in rungs]
    floor = cells[0].floor
    walls = [cell.wall * 1e6 for cell in cells]
    rows = range(len(rungs))
    spread: Any = [
        [(c.wall - c.low) * 1e6 for c in cells],
        [(c.high - c.wall) * 1e6 for c in cells],
    ]
    axes.barh(rows, walls, color=[colour(rung) for rung in rungs], xerr=spread,
              error_kw={"elinewidth": 1.0, "ecolor": "#303030", "capsize": 2.0})  # fmt: skip
    axes.barh(len(rungs), floor * 1e6, color="white", edgecolor=FLOOR_COLOUR, hatch="////",
              linewidth=0.8)  # fmt: skip
    axes.axvline(floor * 1e6, color=FLOOR_COLOUR, linestyle="--", linewidth=1.0)
    axes.set_yticks(range(len(rungs) + 1), [*(rung.name for rung in rungs), "floor"])
    for row, cell in zip(rows, cells, strict=True):
        axes.text(
            max(cell.wall, cell.high) * 1e6 + 0.012 * max(walls), row,
            f"{us(cell.wall)} us, {100.0 * floor / cell.wall:.0f} %", va="center",
            fontsize=8,
        )  # fmt: skip
    axes.text(floor * 1e6 + 0.012 * max(walls), len(rungs), f"{us(floor)} us", va="center",
              fontsize=8)  # fmt: skip
    axes.set_xlim(0.0, 1.25 * max(cell.high * 1e6 for cell in cells))
    axes.set_xlabel("us a step")
    axes.set_title(place.text)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


# ------------------------------------------------------------------------------ batch
def scaling_places(steps: Steps, model: str) -> list[Place]:
    """Dense places of *model* at its ladder's context, by batch."""
    at = steps.ladder_place(model)
    return [p for p in steps.places(model, False) if at and p.context == at.context]


def has_scaling(steps: Steps, model: str) -> bool:
    """Whether batch 1 and another were measured."""
    batches = {place.batch for place in scaling_places(steps, model)}
    return 1 in batches and len(batches) > 1


def draw_scaling(figure: Figure, steps: Steps, model: str) -> None:
    """The step over batch, and by how much it is longer than that of batch 1."""
    places = scaling_places(steps, model)
    left, right = figure.subplots(1, 2)
    rungs = [r for r in steps.rungs(places) if sum(r in steps.cells[p] for p in places) > 1]
    for rung in rungs:
        mine = [(p.batch, steps.cells[p][rung].wall) for p in places if rung in steps.cells[p]]
        _line(left, rung, [b for b, _ in mine], [1e6 * t for _, t in mine])
        if mine[0][0] == 1:
            few = [(b, 100.0 * (t / mine[0][1] - 1.0)) for b, t in mine if b <= 16]
            _line(right, rung, [b for b, _ in few], [grown for _, grown in few])
    floors = [(p.batch, next(iter(steps.cells[p].values())).floor) for p in places]
    look: Any = {"color": FLOOR_COLOUR, "linestyle": "--", "linewidth": 1.2}
    left.plot([b for b, _ in floors], [1e6 * f for _, f in floors], **look)
    few = [(b, 100.0 * (f / floors[0][1] - 1.0)) for b, f in floors if b <= 16]
    right.plot([b for b, _ in few], [grown for _, grown in few], **look)
    log_axes(left, "", "us a step")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        shown = sorted({p.batch for p in places if axes is left or p.batch <= 16})
        axes.set_xticks(shown, [f"{batch}" for batch in shown])
        axes.minorticks_off()
        axes.set_xlabel("batch")
    right.axhline(0.0, color="#9a9a9a", linewidth=0.8)
    title = "against batch 1"
    if model == TARGET_MODEL:
        right.plot([BATCH], [BATCH_PERCENT], marker="_", markersize=26, color="black",
                   linestyle="", markeredgewidth=2.0)  # fmt: skip
        title += f"; bar: {BATCH_PERCENT:.0f} % at batch {BATCH}, the target"
    right.set_ylabel("longer than batch 1 (%)")
    left.set_title("step")
    right.set_title(title)
    figure.legend(
        handles=[*(_entry(rung) for rung in rungs), handle("floor", **look)],
        loc="outside right center",
    )
    figure.suptitle(f"{model.upper()}, context {places[0].context:,}, dense: measured medians")


def _line(axes: Axes, rung: Rung, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, color=colour(rung), marker=mark(rung), markersize=5, linewidth=1.3)


def _entry(rung: Rung) -> Any:
    return handle(rung.name, color=colour(rung), marker=mark(rung), markersize=5, linewidth=1.3)
