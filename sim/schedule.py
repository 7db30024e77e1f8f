"""Who computes when: the part of a scenario that says how a scheduler orders prefill and decode.

The one rule: what is not given is vLLM V1's order over whole-prompt reservations, and leaves no
mark on the hash. `SCHEDULER.md` has the rules in words, `planner` in code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .node import Flag, Node
from .tiers import memory_options

if TYPE_CHECKING:
    from .node import Place
    from .scenario import Scenario


class Schedule(Node):
    """In which order an iteration is filled, and what is kept back."""

    order: Literal["decode_first", "prefill_first", "prefill_alone"] = "decode_first"
    """decode_first: every decoding request, then prompts with what is left of the token budget;
    prefill_first: prompts that have begun, then decoding requests, then new prompts;
    prefill_alone: an iteration with prompts decodes nothing."""
    free_margin: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    """Share of HBM's KV blocks: with fewer free, no prompt is admitted beside running requests."""
    reserve: Literal["prompt", "chunk"] = "prompt"
    """Blocks that a prompt takes: for all of it when it is admitted, or chunk by chunk."""
    asynchronous: Flag = False
    """Whether an iteration is planned while the one before it runs: the CPU's work is hidden, and
    what arrives or is freed during an iteration counts one iteration later."""


def faults(scenario: Scenario) -> list[tuple[Place, str]]:
    """What does not go together with a scenario's schedule."""
    keys, loop = scenario.schedule, scenario.loop
    found: list[tuple[Place, str]] = []
    if keys.asynchronous and loop.mode not in ("host", "graph", "engine"):
        what = f"a loop on the device plans by itself; remove it, or loop.mode: {loop.mode}"
        found.append((("schedule", "asynchronous"), what))
    options = memory_options(scenario.hardware, scenario.kv)
    alone = "needs kv.prefix_cache: false and no tiers below HBM"
    shares = bool(options.sizes) or scenario.kv.prefix_cache
    if keys.asynchronous and shares:
        found.append((("schedule", "asynchronous"), f"{alone}; give these, or remove it"))
    if keys.reserve == "chunk":
        place: Place = ("schedule", "reserve")
        if shares:
            found.append((place, f"chunk {alone}; give prompt"))
        if loop.mode == "resident" and loop.prefill == "partition":
            found.append((place, "chunk does not go with loop.prefill: partition; give prompt"))
    return found


def warnings(scenario: Scenario) -> list[str]:
    """One line for every key of the schedule that was given and has no effect."""
    keys, loop, lines = scenario.schedule, scenario.loop, []
    if "order" in keys.model_fields_set:
        if loop.leaves and keys.order != "prefill_alone":
            lines.append(
                "schedule.order: has no effect here; this loop leaves the GPU for every prefill"
            )
        elif loop.mode == "resident" and loop.prefill == "partition":
            lines.append("schedule.order: has no effect here; prefill runs beside the loop")
    return lines
