"""The tables of the decoder's report."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .decoder_draw_maps import against_best, resident_cells, rung_counts
from .decoder_goals import MEDIAN_PERCENT, P90_PERCENT
from .decoder_looks import short
from .decoder_lost import FLOOR, PARTS, PRODUCTS, parts, resident_places, stage_place
from .decoder_steps import RESIDENT, spread
from .words import NONE, fixed, listed, percent, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .decoder_steps import Place, Rung, Steps

CLOSE = 0.01
"""Margin below which two steps are as good as equal."""


def ladder_table(steps: Steps, place: Place) -> list[str]:
    """Every rung at *place*."""
    rows, before = [], None
    for rung in steps.rungs([place]):
        cell = steps.cells[place][rung]
        rate = cell.bytes / cell.wall * 1e-12
        rows.append(
            [
                rung.name,
                fixed(cell.wall * 1e6, 1),
                f"{fixed(cell.low * 1e6, 1)} to {fixed(cell.high * 1e6, 1)}",
                f"{len(cell.record['seconds'])}",
                percent(cell.floor / cell.wall),
                fixed(rate, 2),
                NONE if before is None else f"{100.0 * (cell.wall / before - 1.0):+.1f} %",
                _count(cell.record.get("nodes")),
                _count(cell.record.get("barriers")),
            ]
        )
        before = cell.wall
    floor = next(iter(steps.cells[place].values())).floor
    rows.append(["floor (computed)", fixed(floor * 1e6, 1), NONE, NONE, "100 %",
                 fixed(steps.ceiling.bytes_per_s * 1e-12, 2), *[NONE] * 3])  # fmt: skip
    head = ("rung", "us a step", "p10 to p90", "steps", "of floor", "TB/s",
            "against the rung above", "nodes", "barriers")  # fmt: skip
    return table(head, rows, "lrrrrrrrr")


def _count(value: object) -> str:
    return NONE if value is None else f"{value}"


def step_table(steps: Steps, places: Sequence[Place]) -> list[str]:
    """Microseconds a step of every rung at *places*, the fastest and its margin."""
    rungs = steps.rungs(places)
    several = any(place.variant for place in places)
    budgets = any(place.budget for place in places)
    rows = []
    for place in places:
        mine = steps.cells[place]
        found = steps.winner(place)
        cells = [fixed(mine[r].wall * 1e6, 1) if r in mine else NONE for r in rungs]
        row = [f"{place.model.upper()}, {place.variant}"] if several else []
        row += [f"{place.batch}", short(place.context)]
        row += [f"{place.budget:,}" if place.budget else "all"] if budgets else []
        row += [*cells, fixed(next(iter(mine.values())).floor * 1e6, 1)]
        row += [found[0].name, percent(found[1], 1)] if found else [NONE, NONE]
        rows.append(row)
    head = ["what"] if several else []
    head += ["batch", "context"] + (["attended"] if budgets else [])
    head += [*(rung.name for rung in rungs), "floor", "fastest", "second slower by"]
    sides = ("l" if several else "") + "rr" + ("r" if budgets else "")
    return table(head, rows, sides + "r" * (len(rungs) + 1) + "lr") if rows else []


def map_answer(steps: Steps, model: str) -> str:
    """Who wins how often, and where the resident kernel stands."""
    found = []
    for sparse in (False, True):
        places = steps.places(model, sparse)
        counts = rung_counts(steps, places)
        if counts:
            word = "sparse" if sparse else "dense"
            won = ", ".join(f"{rung.name} in {count}" for rung, count in counts.items())
            close = sum(steps.winner(p)[1] < CLOSE for p in places if steps.winner(p))  # type: ignore[index]
            found.append(f"Of {sum(counts.values())} {word} cells the fastest is {won}; in {close} "
                         f"the second is slower by less than {percent(CLOSE)}.")  # fmt: skip
    cells = resident_cells(steps, model)
    for sparse in (False, True):
        mine = [place for place in cells if (place.budget > 0) == sparse]
        if mine:
            found.append(_resident_answer(steps, mine, "sparse" if sparse else "dense"))
    return " ".join(found)


def _resident_answer(steps: Steps, cells: Sequence[Place], word: str) -> str:
    """Where the resident kernel wins among *cells*, and by how much."""
    ratios = {place: against_best(steps, place) for place in cells}
    wins = [place for place, ratio in ratios.items() if ratio < 0.0]
    best, worst = min(ratios, key=lambda p: ratios[p]), max(ratios, key=lambda p: ratios[p])
    text = f"Of the {len(cells)} {word} cells that the resident kernel ran beside others it wins "
    text += f"{len(wins)}{f' ({_where(wins, cells)})' if wins else ''}; against the best of the "
    text += f"others it takes {100.0 * statistics.median(ratios.values()):+.1f} % in the median, "
    text += f"{100.0 * ratios[best]:+.1f} % ({_cell(best)}) to {100.0 * ratios[worst]:+.1f} % "
    return text + f"({_cell(worst)})."


def _cell(place: Place) -> str:
    kind = f", {place.budget:,} selected" if place.budget else ""
    return f"batch {place.batch}, context {short(place.context)}{kind}"


def _where(places: Sequence[Place], of: Sequence[Place]) -> str:
    """The cells by batch: "batch 1 everywhere, batch 4 at 1k and 2k"."""
    words = []
    for batch in sorted({place.batch for place in places}):
        mine = sorted(place.context for place in places if place.batch == batch)
        every = sum(place.batch == batch for place in of)
        at = f"at {listed([short(context) for context in mine])}"
        words.append(f"batch {batch} {'everywhere' if len(mine) == every else at}")
    return ", ".join(words)


# ------------------------------------------------------------------------------ batch
def scaling_table(steps: Steps, places: Sequence[Place]) -> list[str]:
    """Microseconds by batch at one context, and batch 8 and others over batch 1."""
    rows = []
    for rung in [*steps.rungs(places), None]:
        walls = {
            place.batch: (steps.cells[place][rung].wall if rung else _floor(steps, place))
            for place in places
            if rung is None or rung in steps.cells[place]
        }
        cells = []
        for place in places:
            wall = walls.get(place.batch)
            grown = ""
            if wall and 1 in walls and place.batch > 1:
                grown = f" ({100.0 * (wall / walls[1] - 1.0):+.0f} %)"
            cells.append(NONE if wall is None else fixed(wall * 1e6, 1) + grown)
        rows.append([rung.name if rung else "floor (computed)", *cells])
    head = ("us a step (against batch 1)", *(f"batch {place.batch}" for place in places))
    return table(head, rows, "l")


def _floor(steps: Steps, place: Place) -> float:
    return next(iter(steps.cells[place].values())).floor


# ------------------------------------------------------------------------------ lost time
def stage_table(steps: Steps, place: Place) -> list[str]:
    """The resident step by stage."""
    cell = steps.accounts[place][RESIDENT]
    rows = []
    for stage in cell.stages:
        least = (stage.bytes or 0.0) / cell.ceiling.bytes_per_s
        whole = stage.seconds + stage.tail + stage.wait
        rows.append(
            [
                f"`{stage.name}`",
                f"{(stage.bytes or 0.0) / 1e6:,.1f}",
                *(fixed(1e6 * s, 1) for s in (least, stage.seconds, stage.wait, stage.tail, whole)),
                f"{1e6 * (whole - least):+,.1f}",
            ]
        )
    sums = [sum(getattr(s, name) for s in cell.stages) for name in ("seconds", "wait", "tail")]
    whole = sum(sums)
    totals = [fixed(1e6 * seconds, 1) for seconds in (cell.floor, *sums, whole)]
    lost = f"{1e6 * (whole - cell.floor):+,.1f}"
    rows.append(["all", f"{cell.bytes / 1e6:,.1f}", *totals, lost])
    rest = cell.wall - whole
    last = "outside the stages: commit, boundary, messages"
    rows.append([last, NONE, NONE, NONE, NONE, NONE, fixed(1e6 * rest, 1),
                 f"{1e6 * rest:+,.1f}"])  # fmt: skip
    head = ("stage, all layers", "MB", "at the ceiling", "work", "barrier before it", "tail",
            "in all, us", "lost")  # fmt: skip
    return table(head, rows, "l")


def lost_table(steps: Steps, model: str) -> list[str]:
    """The parts of whole steps."""
    at = stage_place(steps, model)
    bars = [(place, RESIDENT) for place in resident_places(steps, model)]
    bars += [(at, rung) for rung in (steps.rungs([at]) if at else []) if rung != RESIDENT and at]
    rows = []
    for place, rung in bars:
        cell = steps.accounted(place, rung)
        found = parts(cell) if cell else None
        if cell and found:
            rows.append([f"{rung.name}, batch {place.batch}", fixed(cell.wall * 1e6, 1),
                         *(_part(name, found) for name in PARTS)])  # fmt: skip
    return table(("step", "us", *PARTS), rows, "l") if rows else []


def _part(name: str, found: Mapping[str, float]) -> str:
    value = found[name] * 1e6
    return fixed(value, 1) if name == FLOOR or value >= 0.0 else f"{value:,.1f}"


def lost_answer(steps: Steps, model: str) -> str:
    """The largest losses of the resident step, in order."""
    at = stage_place(steps, model)
    cell = steps.accounted(at, RESIDENT)
    found = parts(cell) if cell else None
    if not at or not cell or not found:
        return ""
    lost = cell.wall - cell.floor
    order = sorted((n for n in PARTS if n != FLOOR and found[n] > 0.0), key=lambda n: -found[n])
    text = f"At batch {at.batch}, context {at.context:,} the resident {model.upper()} step loses "
    text += f"{fixed(1e6 * lost, 0)} us of {fixed(1e6 * cell.wall, 0)} to the floor: "
    text += listed([f"{n} {fixed(1e6 * found[n], 0)}" for n in order]) + " us."
    gained = -sum(min(0.0, found[n]) for n in PARTS)
    if found[PRODUCTS] < 0.0:
        text += f" {fixed(1e6 * gained, 0)} us of reading are hidden behind them: weights are "
        text += "streamed ahead while SMs wait or attend."
    return text


# ------------------------------------------------------------------------------ predictions
def error_table(steps: Steps) -> list[str]:
    """Errors of the simulated steps by rung, held out and fitted on apart, and blind."""
    errors = steps.errors()
    rows = []
    for rung in [*steps.rungs(), None]:
        here = [one for one in errors if rung is None or one.rung == rung]
        blind = [one.blind / one.measured - 1.0 for one in here if one.blind]
        kinds = [(word, [one.error for one in here if one.held is held]) for word, held in
                 (("held out", True), ("fitted on", False), ("not said", None))]  # fmt: skip
        for word, mine in (*kinds, ("all, blind", blind)):
            if mine:
                rows.append([rung.name if rung else "**all**", word, f"{len(mine)}",
                             *_errors(mine)])  # fmt: skip
    head = ("rung", "steps", "n", "median", "p90", "max", "signed median", "bars")
    return table(head, rows, "llrrrrrl") if rows else []


def _errors(found: Sequence[float]) -> list[str]:
    sizes, signed = spread(found), statistics.median(found)
    good = 100.0 * sizes[0] <= MEDIAN_PERCENT and 100.0 * sizes[1] <= P90_PERCENT
    cells = [*(percent(value, 1) for value in sizes), f"{100.0 * signed:+.1f} %"]
    return [*cells, "kept" if good else "**missed**"]


def worst_errors(steps: Steps, most: int = 5) -> list[str]:
    """The held-out steps that are missed most."""
    mine = sorted((one for one in steps.errors() if one.held), key=lambda one: -abs(one.error))
    return [
        f"- {one.rung.name}, {one.place.text}: {100.0 * one.error:+.1f} % (simulated "
        f"{fixed(1e6 * one.predicted, 1)} us, measured {fixed(1e6 * one.measured, 1)})"
        for one in mine[:most]
    ]


def named_winners(steps: Steps) -> tuple[int, int]:
    """(cells whose fastest rung the simulator names, cells where it predicts all rungs)."""
    right = every = 0
    for place, mine in steps.cells.items():
        guesses = {rung: steps.predicted[place, rung][0] for rung in mine
                   if (place, rung) in steps.predicted}  # fmt: skip
        found = _fastest(steps, place, list(guesses))
        if len(guesses) > 1 and found is not None:
            every += 1
            right += min(guesses, key=lambda rung: guesses[rung]) == found
    return right, every


def _fastest(steps: Steps, place: Place, rungs: Sequence[Rung]) -> Rung | None:
    """The fastest of *rungs*."""
    return min(rungs, key=lambda rung: steps.cells[place][rung].wall, default=None)
