"""The loop table in words and tables: who is fastest, by how much, and where the gap goes."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .loops import PARTS, STEADY, parts, stages_alone, stages_inside
from .words import NONE, fixed, percent, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .loops import Loops, Place


def answer(loops: Loops) -> str:
    """Who wins how often, and where the margin is largest and smallest."""
    won: dict[str, int] = {}
    best: tuple[float, Place, str] | None = None
    margins = []
    for place in loops.cells:
        found = loops.winner(place)
        if found is None:
            continue
        mode, margin = found
        won[mode] = won.get(mode, 0) + 1
        margins.append(margin)
        if best is None or margin > best[0]:
            best = margin, place, mode
    if best is None:
        return ""
    order = sorted(won.items(), key=lambda item: -item[1])
    text = f"Of {len(margins)} cells "
    text += ", ".join(f"`{mode}` is fastest in {count}" for mode, count in order)
    text += f". Its margin over the second: median {percent(statistics.median(margins), 1)}, most "
    text += f"{percent(best[0], 1)} (`{best[2]}`, {place_text(best[1])})."
    for other in ("graph", "host-c", "host-python"):
        ratios = [
            mine[other].seconds / mine["resident"].seconds
            for mine in loops.cells.values()
            if other in mine and "resident" in mine
        ]
        if ratios:
            text += f" `{other}` takes {statistics.median(ratios):.2f}x the time of `resident` in "
            text += f"the median, {min(ratios):.2f}x to {max(ratios):.2f}x."
    return text


def predicted_answer(loops: Loops) -> str:
    """How far the predictions are from the measured steps, and whether they name the winner."""
    errors: dict[str, list[float]] = {}
    named = agreed = 0
    for place, mine in loops.cells.items():
        guesses = {}
        for mode in loops.modes:
            error = loops.error(mine[mode]) if mode in mine else None
            if error is not None:
                errors.setdefault(mode, []).append(error)
                guesses[mode] = loops.predicted[place, mode]
        found = loops.winner(place)
        if found and len(guesses) == len(loops.modes):
            named += 1
            agreed += min(guesses, key=lambda mode: guesses[mode]) == found[0]
    every = sorted(abs(error) for mine in errors.values() for error in mine)
    if not every:
        return ""
    text = f"The simulator's prediction of {len(every)} of these steps is off by "
    text += f"{percent(statistics.median(every), 1)} in the median, "
    text += f"{percent(every[int(0.9 * (len(every) - 1))], 1)} at the 90th percentile ("
    text += ", ".join(f"`{m}` {_error(statistics.median(mine))}" for m, mine in errors.items())
    return text + f", signed medians); it names the fastest in {agreed} of {named} cells."


def place_text(place: Place) -> str:
    """A cell in words."""
    return f"{'sparse' if place[0] else 'dense'}, batch {place[1]}, context {place[2]:,}"


def step_table(loops: Loops, sparse: bool) -> list[str]:
    """Microseconds a step by batch and context, the winner, and the prediction's error."""
    modes = loops.modes
    rows = []
    for place in sorted(p for p in loops.cells if p[0] == sparse):
        mine = loops.cells[place]
        found = loops.winner(place)
        cells = [fixed(mine[m].seconds * 1e6, 1) if m in mine else NONE for m in (*modes, STEADY)]
        warm = " (L2)" if any(cell.warm for cell in mine.values()) else ""
        row = [f"{place[1]}", f"{place[2]:,}{warm}", *cells]
        row += [found[0], percent(found[1], 1)] if found else [NONE, NONE]
        if loops.predicted:
            row += [_error(loops.error(mine[mode])) if mode in mine else NONE for mode in modes]
        rows.append(row)
    head = ["batch", "context", *modes, "graph, nobody waits", "fastest", "second slower by"]
    if loops.predicted:
        head += [f"{mode} predicted" for mode in modes]
    return table(head, rows, "rr" + "r" * (len(modes) + 1) + "lr") if rows else []


def _error(value: float | None) -> str:
    return NONE if value is None else f"{100.0 * value:+.1f} %"


def gap_table(loops: Loops, places: Sequence[Place]) -> list[str]:
    """Where the time of each mode goes at *places*, microseconds."""
    rows = []
    for place in places:
        for mode in loops.modes:
            cell = loops.cells[place].get(mode)
            found = parts(loops, cell) if cell else None
            if cell and found:
                label = [place_text(place), mode, fixed(cell.seconds * 1e6, 1)]
                rows.append([*label, *(fixed(found[name] * 1e6, 1) for name in PARTS)])
    return table(("cell", "mode", "step, us", *PARTS), rows, "ll") if rows else []


def stage_table(loops: Loops, places: Sequence[Place]) -> list[str]:
    """Each stage alone and inside the resident loop, microseconds."""
    rows = []
    for place in places:
        cell = loops.cells[place].get("resident")
        if cell is None:
            continue
        alone, own = stages_alone(cell), stages_alone(cell, "own_stage_s")
        inside = stages_inside(cell)
        names = [name for name in inside if not name.endswith("_wait")] or list(alone)
        for name in names:
            times = [own.get(name), alone.get(name), inside.get(name), inside.get(f"{name}_wait")]
            cells = [NONE if time is None else fixed(time * 1e6, 1) for time in times]
            rows.append([place_text(place), name, *cells])
    head = ("cell", "stage", "alone, its own launch", "alone, the loop's launch",
            "inside the loop", "wait after it")  # fmt: skip
    return table(head, rows, "ll") if rows else []


def shown_places(loops: Loops, most: int = 6) -> list[Place]:
    """Cells for the pictures of gaps: small, middle and large, dense and sparse."""
    full = sorted(p for p, mine in loops.cells.items() if set(loops.modes) <= mine.keys())
    found: list[Place] = []
    for sparse in (False, True):
        mine = [place for place in full if place[0] == sparse]
        picks = sorted({0, len(mine) // 2, len(mine) - 1}) if mine else []
        found += [mine[index] for index in picks]
    return found[:most]
