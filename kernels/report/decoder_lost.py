"""Where a step's time is lost: its stages, waits and tails against the floor.

One rule: the parts of a step add up to its wall time. A part may be negative: products are faster
than their bytes at the ceiling where weights were streamed ahead while others waited, and stages
timed one by one overlap in a step. A table has it as it is, a picture shortens the other losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .decoder_steps import LADDER_CONTEXT, RESIDENT, Place

if TYPE_CHECKING:
    from ..decoder.account import Account, Stage
    from .decoder_steps import Steps

FLOOR, PRODUCTS, ATTENTION, HEAD, COMMIT, BARRIERS, TAILS, REST = PARTS = (
    "stream floor", "products beyond it", "attention chain", "head", "commit, boundary",
    "barriers", "tails", "in no stage",
)  # fmt: skip
PART_COLOURS = dict(
    zip(
        PARTS,
        ("#d0dbe3", "#56b4e9", "#d55e00", "#cc79a7", "#009e73", "#000000", "#e69f00", "#8f8f8f"),
        strict=True,
    )
)
ATTEND_STAGES = (
    "attend", "attention", "paged_attention", "score", "page_score", "select", "topk_select",
    "rope", "append", "kv_append", "merge",
)  # fmt: skip
HEAD_STAGES = ("head", "lm_head", "argmax", "sample")
COMMIT_STAGES = ("commit", "verify", "verify_commit")


def group(stage: Stage) -> str:
    """The part that a stage belongs to."""
    for names, part in (
        (ATTEND_STAGES, ATTENTION), (HEAD_STAGES, HEAD), (COMMIT_STAGES, COMMIT),
    ):  # fmt: skip
        if stage.name in names:
            return part
    return PRODUCTS


def parts(cell: Account) -> dict[str, float] | None:
    """Seconds of each of `PARTS`, which add up to the wall time; None without stage times.

    The chain of attention is what it takes beyond reading its cache, and its tail with it, for at
    small batches many SMs have nothing to attend to; so are the head and the commit.
    """
    if not cell.stages:
        return None
    found = dict.fromkeys(PARTS, 0.0)
    found[FLOOR] = cell.floor
    read = 0.0
    for stage in cell.stages:
        part = group(stage)
        least = (stage.bytes or 0.0) / cell.ceiling.bytes_per_s
        read += least
        found[part] += stage.seconds - least
        found[TAILS if part == PRODUCTS else part] += stage.tail
    # What no stage of the record stands for was read all the same, within some other stage.
    found[PRODUCTS] -= cell.floor - read
    waits = sum(seconds for what, seconds, kind in cell.control if kind == "measured")
    found[BARRIERS] = waits
    commits = any(stage.name in COMMIT_STAGES for stage in cell.stages)
    # The resident kernel's control block commits while the others wait for the next step.
    last = COMMIT if cell.record["mode"] == RESIDENT.mode and not commits else REST
    found[last] += cell.wall - cell.busy - waits
    return found


def shown(found: dict[str, float]) -> dict[str, float]:
    """*found* for stacked bars: the floor whole, what is lost in proportion where parts overlap."""
    lost = {name: max(0.0, seconds) for name, seconds in found.items() if name != FLOOR}
    whole = sum(lost.values())
    scale = (sum(found.values()) - found[FLOOR]) / whole if whole > 0.0 else 0.0
    return {FLOOR: found[FLOOR], **{name: scale * seconds for name, seconds in lost.items()}}


def resident_places(steps: Steps, model: str) -> list[Place]:
    """Places of resident steps with stage times, for the bars by batch: dense, at one context."""
    mine = [place for place in steps.places(model, False) if steps.accounted(place, RESIDENT)]
    contexts = {place.context for place in mine}
    if not contexts:
        return []
    best = max(
        contexts,
        key=lambda c: (sum(p.context == c for p in mine), -abs(c - LADDER_CONTEXT)),
    )
    return [place for place in mine if place.context == best]


def stage_place(steps: Steps, model: str) -> Place | None:
    """Where the resident step is shown stage by stage: the ladder's place, else the smallest."""
    mine = resident_places(steps, model)
    ladder = steps.ladder_place(model)
    return ladder if ladder in mine else next(iter(mine), None)
