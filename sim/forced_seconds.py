"""Logged steps through a cost model: seconds that each would take, nothing scheduled anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cost import Chunk
from .engine_cost import EngineCost
from .step_cost import StepCost
from .step_rows import ONLY_DECODE

if TYPE_CHECKING:
    from .cost import Cost
    from .step_form import Load
    from .step_log import StepLog


def seconds_of(cost: Cost, load: Load) -> np.ndarray:
    """Seconds of each step of *load* under *cost*; what steps before it add left out."""
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
    if isinstance(cost, EngineCost) and cost.holds and load.held is not None:
        for row in np.flatnonzero(plain & (load.held > load.decode_requests)).tolist():
            held, batch, tokens = (int(v[row]) for v in (load.held, *load[:2]))
            found[row] += cost.more_for(held, batch, max(batch, tokens), int(load.context[row]))
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


def turns_of(cost: Cost, log: StepLog) -> np.ndarray:
    """Seconds that each step of *log* takes because others were before it: entering and leaving a
    loop on the device, taking in who has joined, and batches that are held open."""
    if isinstance(cost, StepCost):
        return np.zeros(len(log))  # in the form
    found = entered(log) * _entering(cost)
    if cost.loop.leaves:
        found += left(log) * cost.modes.exit
    return found


def _entering(cost: Cost) -> float:
    if cost.loop.leaves:
        return cost.modes.relaunch
    return cost.engine.term("enter_s") if isinstance(cost, EngineCost) else 0.0


def entered(log: StepLog) -> np.ndarray:
    """Whether each step only decodes, and the one before did not."""
    found: np.ndarray = (log.get("prefill_tokens") == 0) & (log.get("prev_kind") != ONLY_DECODE)
    return found


def left(log: StepLog) -> np.ndarray:
    """Whether each step has prompts, and the one before only decoded."""
    found: np.ndarray = (log.get("prefill_tokens") > 0) & (log.get("prev_kind") == ONLY_DECODE)
    return found
