"""The decoder's targets, set before it was built, and what was measured against each.

One rule: without a measurement the verdict is `not measured`, and a shorter soak is a missed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .decoder_steps import FUSED_GRAPH, LADDER_CONTEXT, RESIDENT, TORCH_GRAPH, Place, Rung, spread
from .words import NONE, fixed, number, percent, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .decoder_steps import Steps

FUSED_GRAPH_US, RESIDENT_US, RESIDENT_STRETCH_US = 820.0, 720.0, 640.0
TARGET_MODEL, BATCH, BATCH_PERCENT = "1b", 8, 10.0
SOAK_STEPS, EQUAL_STEPS = 10_000, 256
MEDIAN_PERCENT, P90_PERCENT = 3.0, 7.0
HARM = ("hangs", "lost_tokens", "leaked_pages")
"""What a soak may not have."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A target: *value* and *bar* in *unit*, less is better."""

    what: str
    unit: str
    bar: float
    value: float | None
    stretch: float | None = None
    floor: float | None = None
    beside: float | None = None
    """PyTorch's CUDA graph at the same place in the same records."""
    note: str = ""
    broken: bool = False
    """Missed whatever the value says."""

    @property
    def verdict(self) -> Literal["met", "met, stretch too", "missed", "not measured"]:
        """How the value stands to the bar."""
        if self.value is None:
            return "not measured"
        if self.broken or self.value > self.bar:
            return "missed"
        good = self.stretch is not None and self.value <= self.stretch
        return "met, stretch too" if good else "met"


def goals(steps: Steps) -> list[Goal]:
    """All targets with what *steps* say."""
    step = f"1B step, batch 1, context {LADDER_CONTEXT:,}"
    return [
        _time(steps, f"{step}: {FUSED_GRAPH.name}", FUSED_GRAPH, FUSED_GRAPH_US, None),
        _time(steps, f"{step}: {RESIDENT.name}", RESIDENT, RESIDENT_US, RESIDENT_STRETCH_US),
        *(_scaling(steps, rung) for rung in (RESIDENT, FUSED_GRAPH)),
        *_prediction(steps),
        _soak(steps),
        _equal(steps),
    ]


def _place(batch: int = 1) -> Place:
    return Place(TARGET_MODEL, "bf16", "bf16", 1, 16, batch, LADDER_CONTEXT, 0)


def _time(steps: Steps, what: str, rung: Rung, bar: float, stretch: float | None) -> Goal:
    cell, torch = steps.cell(_place(), rung), steps.cell(_place(), TORCH_GRAPH)
    return Goal(
        what, "us", bar, cell.wall * 1e6 if cell else None, stretch,
        cell.floor * 1e6 if cell else None, torch.wall * 1e6 if torch else None,
    )  # fmt: skip


def _scaling(steps: Steps, rung: Rung) -> Goal:
    """How much longer a step of eight requests takes than one of one."""
    what = f"1B step of batch {BATCH} over batch 1, context {LADDER_CONTEXT:,}: {rung.name}"
    one, many = steps.cell(_place(), rung), steps.cell(_place(BATCH), rung)
    if one is None or many is None:
        return Goal(what, "% longer", BATCH_PERCENT, None)
    floor = 100.0 * (many.floor / one.floor - 1.0)
    note = f"{fixed(many.wall * 1e6, 1)} / {fixed(one.wall * 1e6, 1)} us"
    return Goal(
        what, "% longer", BATCH_PERCENT, 100.0 * (many.wall / one.wall - 1.0), floor=floor,
        note=note,
    )  # fmt: skip


def _prediction(steps: Steps) -> list[Goal]:
    """The simulator's step times on steps that nothing was fitted to."""
    held = [one.error for one in steps.errors() if one.held]
    found = [100.0 * value for value in spread(held)] if held else [None, None]
    note = f"{len(held)} steps held out" if held else ""
    if not held and steps.errors():
        note = f"{len(steps.errors())} steps predicted, none of them marked as held out"
    what = "simulated step time against measured steps not fitted on"
    return [
        Goal(f"{what}: median", "% off", MEDIAN_PERCENT, found[0], note=note),
        Goal(f"{what}: 90th percentile", "% off", P90_PERCENT, found[1], note=note),
    ]


def _soak(steps: Steps) -> Goal:
    """The resident loop's longest soak; steps that were not reached and harm both count."""
    what = f"soak of {SOAK_STEPS:,} resident steps: hangs, lost tokens and leaked pages"
    mine = [one for one in steps.others.get("soak", []) if one.get("mode") == RESIDENT.mode]
    if not mine:
        return Goal(what, "in all", 0.0, None)
    one = max(mine, key=lambda entry: int(entry.get("steps", 0)))
    done = int(one.get("steps", 0))
    told = [name for name in HARM if one.get(name) is not None]
    count = sum(int(one[name]) for name in told)
    note = f"{done:,} steps: " + ", ".join(f"{_harm(one, name)}" for name in HARM)
    return Goal(
        what, "in all", 0.0, float(count), note=note,
        broken=done < SOAK_STEPS or len(told) < len(HARM),
    )  # fmt: skip


def _harm(entry: Mapping[str, Any], name: str) -> str:
    count = entry.get(name)
    return f"{name.replace('_', ' ')} {'not counted' if count is None else count}"


def _equal(steps: Steps) -> Goal:
    """Modes that gave other tokens than the rest, over as many steps as asked."""
    what = f"greedy tokens over {EQUAL_STEPS} steps: loops that differ beyond the tie rule"
    mine = steps.others.get("agreement", [])
    if not mine:
        return Goal(what, "in all", 0.0, None)
    short = [entry for entry in mine if int(entry.get("steps", 0)) < EQUAL_STEPS]
    wrong = [entry for entry in mine if not entry.get("equal")]
    least = min(int(entry.get("steps", 0)) for entry in mine)
    note = f"{len(mine)} comparisons of at least {least} steps"
    for entry in mine:
        if entry.get("ties"):
            ties = f"{entry['ties']} of {entry.get('of')} tokens are ties"
            note += f"; {entry.get('kernels')}: {ties}"
    return Goal(what, "in all", 0.0, float(len(wrong)), note=note, broken=bool(short))


def goal_table(found: list[Goal]) -> list[str]:
    """A line a target."""
    rows = []
    for goal in found:
        bar = f"<= {number(goal.bar, 3)}"
        bar += f" ({number(goal.stretch, 3)})" if goal.stretch is not None else ""
        timed = goal.unit == "us" and goal.value and goal.floor
        rows.append(
            [
                goal.what,
                goal.unit,
                figure(goal, goal.value),
                bar,
                _verdict(goal),
                figure(goal, goal.floor),
                percent(goal.floor / goal.value) if timed else NONE,  # type: ignore[operator]
                figure(goal, goal.beside),
                goal.note,
            ]
        )
    head = ("what", "unit", "measured", "target (stretch)", "verdict", "floor", "of floor",
            "PyTorch, CUDA graph", "note")  # fmt: skip
    return table(head, rows, "llrllrrrl")


def figure(goal: Goal, value: float | None) -> str:
    """*value* as its unit deserves."""
    if value is None:
        return NONE
    return f"{value:.0f}" if goal.unit == "in all" else fixed(value, 1)


def _verdict(goal: Goal) -> str:
    if goal.verdict == "missed" and goal.value is not None and goal.value > goal.bar:
        if goal.unit == "us":
            return f"**missed** by {percent(goal.value / goal.bar - 1.0, 1)}"
        if goal.unit != "in all":
            return f"**missed** by {goal.value - goal.bar:.1f} points"
    return goal.verdict if goal.verdict == "not measured" else f"**{goal.verdict}**"
