"""An engine's own log through the planner: does each step hold the requests that it would hold?

Arrivals and the times of steps are the log's; who is admitted, what is cut into chunks and who is
preempted is the planner's. So a difference is one of rules (`SCHEDULER.md`), never one of cost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from sim.admission import Admission
from sim.batch import Batch
from sim.decoding import PlainDecoding
from sim.errors import InputError
from sim.kv import BlockPool
from sim.planner import Plan, Planner
from sim.request import Request
from sim.step_files import chunks as rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sim.scenario import Scenario

EARLY_S = 2e-9
"""Logs round times to 1 ns: an arrival so much after a step's start may have been seen by it."""


class Asked(NamedTuple):
    """A request of the log: *arrival* in seconds on the clock of its steps, when its client sent
    it; the engine knew of it `schedule.arrival_delay` later."""

    id: int
    arrival: float
    prompt_tokens: int
    output_tokens: int


class Logged(NamedTuple):
    """A step of the log: seconds, and who took part."""

    start: float
    end: float
    decode: tuple[int, ...]
    """Ids of the requests that decoded a token each."""
    chunks: tuple[tuple[int, int, int], ...]
    """(id, tokens before, tokens) of every prompt."""
    seen: float
    """What had arrived by then was known to its plan."""
    inside: bool = False
    """Whether a loop on the device ran it by itself: such a loop knows of no arrival and admits
    nobody until it has left."""


@dataclass(frozen=True)
class Replayed:
    """How far the log and the planner agree."""

    steps: int
    alike: int
    """Steps with the same requests and the same tokens, up to the first that differs."""
    difference: str | None
    """What the first step that differs holds, in both."""

    @property
    def exact(self) -> bool:
        """Whether all steps are alike."""
        return self.difference is None


class _Silent:
    """Stands in for the logs that a run keeps."""

    def gap(self, seconds: float) -> None: ...

    def add(self, request: Request) -> None: ...


def replay(
    scenario: Scenario, blocks: int, asked: Iterable[Asked], steps: Iterable[Logged]
) -> Replayed:
    """Plans each of *steps* as *scenario* says, with *blocks* KV blocks, and compares.

    Requests decode a token a step, and KV is neither shared nor moved. `InputError` otherwise.
    """
    _check(scenario)
    pool = BlockPool(blocks, scenario.kv.block_tokens)
    admission = Admission(pool, scenario.loop.max_batch, scenario.model.shape.max_context)
    silent = cast("Any", _Silent())
    batch = Batch(admission, PlainDecoding(pool.block_tokens), silent, silent)
    planner = Planner(scenario.loop, scenario.schedule, batch)
    delay = scenario.schedule.arrival_delay
    known = (one._replace(arrival=one.arrival + delay) for one in asked)
    coming = deque(sorted(known, key=lambda one: (one.arrival, one.id)))
    begun, count = 0.0, 0
    for step in steps:
        while coming and not step.inside and coming[0].arrival <= step.seen + EARLY_S:
            _arrive(planner, coming.popleft())
        batch.join_prefilled()
        planner.see(begun)
        plan = _inside(batch) if step.inside else planner.plan(step.start)
        planned = _composition(batch, plan)
        if planned != (frozenset(step.decode), step.chunks):
            return Replayed(count + 1, count, _said(count, step, planned))
        _run(batch, plan, step.end)
        begun, count = step.start, count + 1
    return Replayed(count, count, None)


def _check(scenario: Scenario) -> None:
    for key in ("speculation", "sparse", "block_decode"):
        if getattr(scenario, key) is not None:
            raise InputError(f"{key}: a log of such steps is not replayed; leave it out")
    if scenario.kv.preemption != "recompute":
        raise InputError("kv.preemption: only logs with recompute are replayed step by step")


def _arrive(planner: Planner, asked: Asked) -> None:
    request, admission = Request(*asked), planner.batch.admission
    if admission.impossible(request) is None:
        (planner.unseen if planner.ahead else admission.waiting).append(request)


def _inside(batch: Batch) -> Plan:
    return Plan({}, True, batch.make_room())


def _composition(batch: Batch, plan: Plan) -> tuple[frozenset[int], tuple[Any, ...]]:
    decoding = cast("PlainDecoding", batch.decoding)
    decode = frozenset(r.id for r in decoding.requests) if plan.decodes else frozenset()
    return decode, tuple((r.id, c.offset, c.tokens) for r, c in plan.chunks.items())


def _run(batch: Batch, plan: Plan, end: float) -> None:
    if plan.decodes and len(batch.decoding):
        batch.take_joined()
        batch.commit(np.array([end]))
    if plan.chunks:
        batch.advance_prefill(plan.chunks, end)


def _said(number: int, step: Logged, planned: tuple[frozenset[int], tuple[Any, ...]]) -> str:
    decode, chunks = planned
    more, fewer = sorted(set(step.decode) - decode), sorted(decode - set(step.decode))
    said = f"step {number + 1} at {step.start:.6f} s:"
    if more:
        said += f" {_few(more)} decoded and were not to;"
    if fewer:
        said += f" {_few(fewer)} were to decode and did not;"
    if step.chunks != chunks:
        said += f" prompts {_few(step.chunks)} where {_few(chunks)} were planned"
    return said.rstrip(";")


def _few(items: Sequence[Any]) -> str:
    shown = ", ".join(str(item) for item in items[:6])
    return f"[{shown}{', ...' if len(items) > 6 else ''}]"


# ---------------------------------------------------------------------------- logs
def read_logged(path: Path) -> Iterator[Logged]:
    """The steps of a log that says who took part: `decode_ids`, and `chunks` of prompts as lists of
    id, tokens before, tokens.

    Raises `InputError` for one that does not say it.
    """
    for part in rows_of(path):
        columns = part.columns
        header = columns.get("kind", ())
        for row in range(part.rows):
            if len(header) and header[row] == "steps":
                continue
            yield _logged(path, part.first + row, {k: v[row] for k, v in columns.items()})


def _logged(path: Path, place: int, row: dict[str, Any]) -> Logged:
    try:
        start = float(row["start_s"])
        end = row.get("commit_s")
        end = start + float(row["duration_s"]) if end is None else float(end)
        seen = start if row.get("seen_s") is None else float(row["seen_s"])
        decode = tuple(int(one) for one in row["decode_ids"])
        chunks = tuple((int(i), int(o), int(n)) for i, o, n in row.get("chunks") or ())
    except (KeyError, TypeError, ValueError) as error:
        what = "a step must say start_s, duration_s, decode_ids and, with prompts, chunks"
        raise InputError(f"{path}:{place}: {what} ({type(error).__name__}: {error})") from None
    # A loop on the device says where it was entered and left; a host's rows say nothing of turns.
    inside = row.get("path") in ("control", "resident") and not chunks
    return Logged(start, end, decode, chunks, seen, inside and row.get("turn") != "entered")
