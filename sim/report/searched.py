"""What a search adds to a report: its answer, what is to be known about it, and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.plots import HALF, WHOLE, Picture
from sim.search import panels
from sim.search.tables import answer, remarks

from .courses import single
from .words import html, plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from matplotlib.axes import Axes

    from .view import View


def found(view: View) -> str:
    """The search's answer in a sentence as HTML; empty without a search."""
    return "" if view.search is None else html(answer(view.search), 1000)


def notes(view: View) -> str:
    """What is to be known about the search, a line each."""
    if view.search is None:
        return ""
    items = "".join(f"<li>{html(line, 600)}</li>" for line in remarks(view.search))
    count = len(view.cells)
    said = f"<p>Searched by {html(view.search['method'])}; every probe is one of the {count} points"
    return f"{said} of the table.</p>" + (f"<ul>{items}</ul>" if items else "")


def searched(view: View) -> list[Picture]:
    """The figures of the search; none without one."""
    document = view.search
    if document is None:
        return []
    guessed = any(one["profile_status"] == "estimated" for one in document["configurations"])
    mark = " Hollow or hatched: estimated profiles." if guessed else ""
    drawn = []

    def add(name: str, title: str, says: str, panel: Callable[..., None], **more: Any) -> None:
        def draw(axes: Axes) -> None:
            panel(axes, document, **more)

        rows = len(document["configurations"])
        size = (WHOLE if rows > 6 else HALF, max(3.6, 1.4 + 0.3 * rows))
        drawn.append(Picture(f"search-{name}", title, says + mark, single(draw, alone=True), size))

    if document["method"] == "capacity":
        add("capacity", "Capacity within the limits", "Bars end at the highest value that keeps "
            "all limits, ticks at the lowest that does not.", panels.capacity)  # fmt: skip
        for number, metric in enumerate(document["search"]["subject_to"]):
            title = f"Probes: {plain(str(metric))}"
            says = "Every probe of the search, and the limit."
            add(f"probes-{number}", title, says, panels.probes, metric=metric)
    if document["pareto"]:
        add("cost", "Cost against goodput", "Up and left is better.", panels.cost_and_goodput)
    if document["method"] == "halving":
        add("rungs", "Successive halving", "A line a configuration over the rungs it reached.",
            panels.rungs)  # fmt: skip
    return drawn
