"""Logged steps through a cost model: seconds that each would take, nothing scheduled anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cost import Chunk
from .step_cost import StepCost

if TYPE_CHECKING:
    from .cost import Cost
    from .step_form import Load
    from .step_log import StepLog


def seconds_of(cost: Cost, load: Load) -> np.ndarray:
    """Seconds of each step of *load* under *cost*; entering and leaving a loop left out."""
    if isinstance(cost, StepCost):
        return cost.steps.form.seconds(load)
    found = np.empty(len(load.context))
    plain = load.prefill_tokens == 0
    keys = load.decode_requests * 2.0**32 + np.maximum(load.decode_requests, load.decode_tokens)
    for key in np.unique(keys[plain]):
        rows = np.flatnonzero(plain & (keys == key))
        batch, tokens = (int(values[rows[0]]) for values in load[:2])
        decode = cost.decode(batch, max(batch, tokens))
        found[rows] = decode.seconds_into(np.floor(load.context[rows]))
    for row in np.flatnonzero(~plain).tolist():
        found[row] = _with_prefill(cost, load, row)
    return found


def _with_prefill(cost: Cost, load: Load, row: int) -> float:
    """One step; its prompts are taken as equally long, as a log of totals leaves no other."""
    totals = load[:6]  # what comes after is of single prompts, which a log of totals has not
    batch, rows, context, prompts, tokens, before = (int(values[row]) for values in totals)
    prompts = max(1, min(prompts, tokens))
    chunks = [
        Chunk((tokens + number) // prompts, (before + number) // prompts)
        for number in range(prompts)
    ]
    return cost.mixed(batch, context, chunks, batch + prompts, 1.0, max(batch, rows)).seconds


def with_turns(log: StepLog) -> StepLog:
    """*log* with columns `entered` and `left`: whether a loop on the device would be entered for
    a step (the first to decode alone after prompts) and left (the first with prompts after it)."""
    prefill = log.get("prefill_tokens") > 0
    decodes = log.get("decode_tokens") > 0
    first = np.ones(len(log), bool)
    first[1:] = np.diff(log.get("segment")) != 0
    before = np.append(True, prefill[:-1]) | first
    turns = {
        "entered": (decodes & ~prefill & before).astype(np.float64),
        "left": (prefill & ~before).astype(np.float64),
    }
    return type(log)(log.columns | turns, log.names, log.notes, log.rows_read)


def turns_of(cost: Cost, log: StepLog) -> np.ndarray:
    """Seconds that each step of *log*, `with_turns`, takes for entering or leaving the loop."""
    if not cost.loop.leaves:
        return np.zeros(len(log))
    found: np.ndarray = log.get("entered") * cost.modes.relaunch + log.get("left") * cost.modes.exit
    return found
