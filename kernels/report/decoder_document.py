"""The decoder's report as Markdown: the answer first, then the ladder, the map, the lost time.

One rule: every figure in the text is computed from the inputs; the report has no date of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import decoder_notes as notes
from . import decoder_tables as tables
from .decoder_draw_ladder import has_scaling, ladder_places, scaling_places
from .decoder_goals import goal_table, goals
from .decoder_lost import stage_place
from .decoder_notes import facts
from .decoder_steps import spread
from .words import fixed, listed, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .decoder_goals import Goal
    from .decoder_steps import Steps

TIMELINE = "timeline.json.gz"
"""The timeline's file beside the document."""
WORDS = """**Words.** *Measured*: wall time of whole steps as the host sees them, until it holds the
tokens; medians. *Simulated*: what the simulator says of the same step, never mixed into a measured
table. *Floor*: computed, the bytes that a step must read (weights, cache, page bounds) at the read
ceiling of {ceiling}. *Of floor*: floor over step. *Fastest*: of the rungs measured in that cell;
a rung that was not measured there can not win it."""

RUNGS = """H1: a Python host launches every kernel. H2: a C host launches the same. G: one captured
CUDA graph a step, replayed from C. R1: the captured step is launched again by the device. R2: one
kernel that stays on the GPU, a grid barrier after each stage, tokens through pinned memory.
*library*: cuBLAS and one kernel an operation; *fused*: five stages a layer. All have the same
weights and the same inputs."""

LOST = """By the clock of every SM, in one step: *barrier* from the last SM's end of a stage to the
mean begin of the next, *work* the mean from begin to end, *tail* from the mean end to the last;
together they are the step. *Lost* is all of it over the stage's bytes at the ceiling, negative
where its weights were streamed ahead. In whole steps the tails of attention, head and commit count
with them, for there many SMs have nothing to do; *commit, boundary* of R2 is what the stages leave
of the wall time: commit, messages and the way to the next step. Other rungs have stages timed one
by one, node gaps included, and *in no stage* holds their host, negative where stages overlap in the
step; the picture shortens losses in proportion for that, the table does not."""

PREDICTED = """|simulated / measured - 1|. *Held out*: cells drawn by hash before anything was
measured, which no fit has seen in any mode. *Fitted on*: the other cells. *Blind*: all steps, by a
profile without anything that was fitted to decode steps. *Bars*: median and 90th percentile of the
target."""


def build(steps: Steps, timeline: Mapping[str, Any] | None, pictures: set[str]) -> str:
    """The whole document; *pictures* names the files that were drawn."""
    found = goals(steps)
    parts = [
        "# A whole decode step: from PyTorch to the resident kernel",
        "",
        *_answer(steps, found),
        *WORDS.format(ceiling=_ceiling(steps)).split("\n"),
        "",
        "## Targets",
        "",
        *goal_table(found),
        "## The ladder",
        "",
        *RUNGS.split("\n"),
        "",
        *_picture(pictures, "ladder", "a step on every rung of the ladder"),
        *_ladders(steps),
        *_maps(steps, pictures),
        *_batches(steps, pictures),
        *_lost(steps, timeline, pictures),
        *_predictions(steps, pictures),
        *_variants(steps),
        *notes.constants(steps),
        *notes.others(steps),
        "## What is missing",
        "",
        *notes.missing(steps, timeline, found),
        "## How it was measured",
        "",
        *notes.method(steps),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _ceiling(steps: Steps) -> str:
    return f"{steps.ceiling.bytes_per_s / 1e12:.2f} TB/s ({steps.ceiling.note})"


# ------------------------------------------------------------------------------ the answer
def _answer(steps: Steps, found: list[Goal]) -> list[str]:
    count = sum(len(mine) for mine in steps.cells.values())
    lines = [f"{_where(steps)}{count:,} steps of {len(steps.cells):,} cells. Random weights: this "
             "measures time, not quality.", ""]  # fmt: skip
    met = [goal for goal in found if goal.verdict.startswith("met")]
    missed = [goal for goal in found if goal.verdict == "missed"]
    text = f"**Of {len(found)} targets {len(met)} are met, {len(missed)} missed, "
    text += f"{len(found) - len(met) - len(missed)} not measured.**"
    for word, mine in (("Met", met), ("Missed", missed)):
        if mine:
            text += f" {word}: {'; '.join(_goal(goal) for goal in mine)}."
    lines += [text, ""]
    for place in ladder_places(steps):
        lines += [_ladder_answer(steps, place), ""]
    for model in steps.models:
        lines += [text for text in (tables.lost_answer(steps, model),) if text]
    return [*lines, "", _predicted_answer(steps), ""] if steps.errors() else [*lines, ""]


def _goal(goal: Goal) -> str:
    if goal.unit == "in all":
        return f"{goal.what} ({goal.note or f'{goal.value:.0f}'})"
    target = f"target {goal.bar:g}" + (f", stretch {goal.stretch:g}" if goal.stretch else "")
    return f"{goal.what} ({fixed(goal.value, 1)} {goal.unit}, {target})"


def _where(steps: Steps) -> str:
    if not steps.headers:
        return "Nobody wrote down where. "
    heads = [facts(head) for head in steps.headers]
    head = heads[-1]
    ids = {str(one.get("id")) for one in heads}
    dates = sorted({str(one["date"]) for one in heads if one.get("date")})
    commits = list(dict.fromkeys(str(one.get("commit")) for one in heads))
    where = f"one {head.get('name', 'unknown GPU')}"
    if len(ids) > 1:
        where = f"{len(ids)} machines with {where} each"
    when = listed(dates[:1]) if len(dates) < 2 else f"{dates[0]} to {dates[-1]}"
    where = f"Measured on {where}, driver {head.get('driver')}; {when or 'date unknown'}; "
    return where + f"commit {listed(commits)}. "


def _ladder_answer(steps: Steps, place: Any) -> str:
    """The fastest rung, how far from the floor, and what each further rung brings."""
    mine = steps.cells[place]
    order = sorted(mine, key=lambda rung: mine[rung].wall)
    best, floor = mine[order[0]], mine[order[0]].floor
    text = f"**{place.text}.** The fastest step is that of {order[0].name}: "
    text += f"{fixed(best.wall * 1e6, 1)} us, "
    text += f"of which the floor is {percent(floor / best.wall)} ({fixed(floor * 1e6, 0)} us)."
    for rung in order[1:]:
        text += f" {rung.name} {fixed(mine[rung].wall * 1e6, 0)} us"
        text += f" ({mine[rung].wall / best.wall:.2f}x)" + ("," if rung != order[-1] else ".")
    return text


def _predicted_answer(steps: Steps) -> str:
    errors = steps.errors()
    held = [one.error for one in errors if one.held]
    mine = held or [one.error for one in errors]
    median, p90, most = spread(mine)
    text = f"**The simulator** predicts {len(errors)} of these steps. On the "
    text += f"{len(held)} that nothing was fitted to it is " if held else (
        f"{len(mine)}, none of them marked as held out, it is ")  # fmt: skip
    text += f"off by {percent(median, 1)} in the median, {percent(p90, 1)} at the 90th percentile "
    text += f"and {percent(most, 1)} at most"
    right, every = tables.named_winners(steps)
    text += f"; it names the fastest rung in {right} of {every} cells." if every else "."
    return text


# ------------------------------------------------------------------------------ sections
def _picture(pictures: set[str], name: str, text: str) -> list[str]:
    return [f"![{text}]({name}.png)", ""] if f"{name}.png" in pictures else []


def _ladders(steps: Steps) -> list[str]:
    lines = []
    for place in ladder_places(steps):
        lines += [f"{place.text}, dense:", "", *tables.ladder_table(steps, place)]
    return lines or ["No place has two rungs.", ""]


def _maps(steps: Steps, pictures: set[str]) -> list[str]:
    lines = ["## Who wins where", ""]
    for model in steps.models:
        answer = tables.map_answer(steps, model)
        if answer:
            lines += [f"**{model.upper()}.** {answer}", ""]
        lines += _picture(pictures, f"map-{model}", f"{model.upper()}: fastest by batch, context")
        for sparse in (False, True):
            rows = tables.step_table(steps, steps.places(model, sparse))
            kind = "with selected tokens" if sparse else "dense"
            if rows:
                lines += [f"{model.upper()} {kind}, us a step, measured medians:", "", *rows]
    return lines


def _batches(steps: Steps, pictures: set[str]) -> list[str]:
    lines = []
    for model in steps.models:
        if has_scaling(steps, model):
            lines += _picture(pictures, f"batch-{model}", f"{model.upper()}: step by batch")
            lines += tables.scaling_table(steps, scaling_places(steps, model))
    return ["## Batch", "", *lines] if lines else []


def _lost(steps: Steps, timeline: Mapping[str, Any] | None, pictures: set[str]) -> list[str]:
    lines = ["## Where the resident step loses time", ""]
    shown = [model for model in steps.models if stage_place(steps, model)]
    if not shown:
        lines += ["No resident step with stages was measured.", ""]
    else:
        lines += [*LOST.split("\n"), ""]
    for model in shown:
        place = stage_place(steps, model)
        assert place is not None
        lines += _picture(pictures, f"lost-{model}", f"{model.upper()}: lost time of a step")
        lines += [f"{place.text}, the resident step, us:", "", *tables.stage_table(steps, place)]
        lines += ["Whole steps, us:", "", *tables.lost_table(steps, model)]
    if timeline:
        lines += _picture(pictures, "timeline", "a resident step on all SMs")
        about = ", ".join(f"{name} {what}" for name, what in timeline.get("otherData", {}).items())
        lines += [f"The same step as a [timeline]({TIMELINE}) for ui.perfetto.dev: a track an SM, "
                  f"one for the barriers ({about or 'nobody says of what'}).", ""]  # fmt: skip
    return lines


def _predictions(steps: Steps, pictures: set[str]) -> list[str]:
    rows = tables.error_table(steps)
    if not rows:
        return []
    lines = ["## Simulated against measured", "", *PREDICTED.split("\n"), ""]
    lines += [*_picture(pictures, "predicted", "errors of the simulated steps"), *rows]
    worst = tables.worst_errors(steps)
    return [*lines, "Held-out steps missed most:", "", *worst, ""] if worst else lines


def _variants(steps: Steps) -> list[str]:
    """Other weights, caches, new tokens and pages."""
    places = sorted((p for p in steps.cells if not p.plain), key=lambda p: (p.model, p.variant, p))
    rows = tables.step_table(steps, places)
    title = "## Other weights, caches, new tokens"
    return [title, "", "us a step, measured medians:", "", *rows] if rows else []
