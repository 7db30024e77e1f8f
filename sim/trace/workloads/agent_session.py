"""One session of a coding agent: its turns, what each keeps of a prompt, who waits for whom.

Model: all tables are measured on the Weka sessions of Claude Code, see `agent_tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.trace.lengths import correlated
from sim.trace.normal import normal_below, normal_quantile

from . import agent_tables as tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BLOCK_TOKENS = 64
MAIN = 0
"""The context of the session itself; those of its sub-agents count from 1."""
# Model: the correlation of a session's growth with its turns (normal scores), and the share of the
# log-variance of growth that is the session's. Measured are -0.31 and 0.17 on mean logarithms,
# which are noisy in short sessions; these give the distribution of prompts. Most turns are of long
# sessions, whose score is this much above 0.
_GROWTH_BY_TURNS, _GROWTH_BY_SESSION, _LONG_SCORE = -0.6, 0.1, 0.9
_SMALL, _EARLY = 40_000, 8  # tokens and turns for which early growth holds
_MIDDLE, _HIGH = 80_000, 120_000
# Model: compaction at the latest when these are reached (contexts of 200k and 1M tokens).
_NARROW_TOKENS, _WIDE_TOKENS = 200_000, 950_000
# Model: 38 of 44,850 turns send off 1, 2 or 3 sub-agents (21, 9, 8 times), all at once; their
# first prompts have all but about 150 tokens in common within a session.
FORK_SHARE = 0.00085
_AGENTS = (0.55, 0.79)
_OWN_TOKENS = 150
# Model: the recorded time of a request, s, a linear fit over all Weka requests.
_SERVICE_S, _PER_UNCACHED, _PER_OUTPUT = 2.82, 2.454e-5, 0.01522


@dataclass(slots=True)
class Turn:
    """A request before it has a place in the trace.

    `at_s` its earliest time and `recorded_s` the one with measured service times, both from the
    session's start. `after` are the turns it waits for, by their number in the session. Of context
    `context` it keeps `keep` blocks; the first turn of a sub-agent keeps those of `MAIN - 1`, the
    common start of all sub-agents.
    """

    at_s: float
    recorded_s: float
    after: tuple[int, ...]
    delay_s: float
    prompt: int
    output: int
    context: int
    keep: int
    ends_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What is drawn once for a session, each uniform in [0, 1)."""

    wide: float
    turns: float
    first: float
    prefix: float


def quantile(values: Sequence[float], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a table at `SHARES`; a straight line in the logarithm of one more than the value."""
    logs = np.interp(share, tables.SHARES, np.log1p(values))
    return np.asarray(np.expm1(logs), dtype=np.float64)


def _one(values: Sequence[float], share: float) -> float:
    return float(quantile(values, np.array([share]))[0])


def _share(steps: Sequence[tuple[float, float]], at: float) -> float:
    """Of a table of (from, share)."""
    return next(share for since, share in reversed(steps) if since <= at)


def _mixed(correlation: float, score: float, own: float) -> float:
    """A normal score of this correlation with *score*, from its *own* independent part."""
    return correlation * score + float((1 - correlation**2) ** 0.5) * own


def _leveled(random: NDArray[np.float64], level: float, by_level: float) -> NDArray[np.float64]:
    """Uniform numbers, of whose variance (as normal scores) *by_level* is the session's *level*."""
    score = by_level**0.5 * level + (1 - by_level) ** 0.5 * normal_quantile(random)
    return normal_below(score)


class Session:
    """Draws the turns of one session."""

    def __init__(self, shape: Shape, rng: np.random.Generator, fork_share: float) -> None:
        self._rng = rng
        self._fork_share = fork_share
        self._wide = shape.wide < tables.WIDE_SHARE
        self.prefix = int(_one(tables.PREFIX, shape.prefix))
        self.turns: list[Turn] = []
        self._agents = 0
        self._agent_first = 0  # tokens of a sub-agent's first prompt, of the session
        self._make(shape)

    def _make(self, shape: Shape) -> None:
        """Draw all turns."""
        wide = self._wide
        count = round(_one(tables.WIDE_TURNS if wide else tables.NARROW_TURNS, shape.turns))
        correlation = tables.WIDE_RANK_CORRELATION if wide else tables.NARROW_RANK_CORRELATION
        share = correlated(np.array([shape.turns]), np.array([shape.first]), correlation)
        first = int(_one(tables.WIDE_FIRST if wide else tables.NARROW_FIRST, float(share[0])))
        self.prefix = min(self.prefix, first - 1)
        outputs, growth, thinks, random = self._draws(shape, count)
        self._add((), 0.0, first, outputs[0], MAIN, 0)
        last: tuple[int, ...] = (0,)
        for turn in range(1, count):
            before = self.turns[last[0]].prompt
            added = int(_one(self._growth(turn, before), growth[turn]))
            prompt, keep, think_s = self._next(before, added, thinks[turn], *random[turn])
            number = self._add(last, think_s, prompt, outputs[turn], MAIN, keep)
            last = (number,)
            if self._fork_share and turn + 1 < count and self._rng.random() < self._fork_share:
                last = (number, *self._fork(number))

    def _draws(
        self, shape: Shape, count: int
    ) -> tuple[list[float], list[float], list[float], list[list[float]]]:
        """For each turn its output, a share for its growth, its think time, and two shares."""
        random = self._rng.random((4, count))
        level = self._rng.standard_normal(5)
        turns = float(normal_quantile(np.array([shape.turns]))[0])
        users = np.array([_mixed(tables.USER_BY_TURNS, turns, level[0])])
        user_share = np.interp(normal_below(users), tables.SHARES, tables.USER_SHARE)[0]
        grows = _mixed(_GROWTH_BY_TURNS, turns - _LONG_SCORE, level[1])
        outputs = quantile(tables.OUTPUT, _leveled(random[0], level[2], tables.OUTPUT_BY_SESSION))
        thinks = np.where(
            random[3] < user_share,
            quantile(tables.USER_S, _leveled(random[2], level[3], tables.USER_BY_SESSION)),
            quantile(tables.TOOL_S, _leveled(random[2], level[4], tables.TOOL_BY_SESSION)),
        )
        growth = _leveled(random[1], grows, _GROWTH_BY_SESSION)
        events = self._rng.random((count, 2))
        return outputs.tolist(), growth.tolist(), thinks.tolist(), events.tolist()

    def _growth(self, turn: int, before: int) -> Sequence[float]:
        """The table of what turn *turn* adds to a prompt of *before* tokens."""
        if self._wide:
            return tables.WIDE_GROWTH
        if before >= _SMALL or turn > _EARLY:
            if before < _MIDDLE:
                return tables.LOW_GROWTH
            return tables.MIDDLE_GROWTH if before < _HIGH else tables.HIGH_GROWTH
        return (tables.FIRST_GROWTH, tables.SECOND_GROWTH, tables.EARLY_GROWTH)[min(turn - 1, 2)]

    def _next(
        self, before: int, growth: int, think_s: float, event: float, size: float
    ) -> tuple[int, int, float]:
        """Prompt tokens, blocks kept and think time of the turn after one of *before* tokens."""
        most = _WIDE_TOKENS if self._wide else _NARROW_TOKENS
        compact = _share(tables.WIDE_COMPACT if self._wide else tables.NARROW_COMPACT, before)
        if event < compact or before + growth > most:
            # Model: a compaction keeps tools and system prompt, and never makes a prompt longer.
            prompt = min(int(_one(tables.COMPACTED, size)), before)
            prompt = max(prompt, self.prefix + 1)
            think_s = _one(tables.COMPACT_S, float(self._rng.random()))
            return prompt, self.prefix // BLOCK_TOKENS, think_s
        held = before // BLOCK_TOKENS
        event -= compact
        if event < (edit := _share(tables.EDIT_SHARE, think_s)):
            grown = before + int(np.interp(size, tables.SHARES, tables.EDIT_GROWTH))
            prompt = min(max(grown, self.prefix + 1), most)
            kept = int(_one(tables.EDIT_KEPT, float(self._rng.random()))) // BLOCK_TOKENS
            return prompt, min(kept, held), think_s
        event -= edit
        if event < tables.TRIM_SHARE:
            held -= 1 if event < tables.TRIM_SHARE * tables.TRIM_ONE_BLOCK else 2
        return before + max(1, growth), max(held, 0), think_s

    def _add(
        self,
        after: tuple[int, ...],
        delay_s: float,
        prompt: int,
        output: float,
        context: int,
        keep: int,
    ) -> int:
        """A turn after those numbered *after*; its number."""
        earlier = [self.turns[number] for number in after]
        at_s = max((turn.at_s for turn in earlier), default=0.0) + delay_s
        recorded_s = max((turn.ends_s for turn in earlier), default=0.0) + delay_s
        keep = min(keep, prompt // BLOCK_TOKENS)
        answer = max(1, round(float(output)))
        fresh = prompt - keep * BLOCK_TOKENS
        service_s = _SERVICE_S + _PER_UNCACHED * fresh + _PER_OUTPUT * answer
        self.turns.append(
            Turn(
                at_s, recorded_s, after, delay_s if after else 0.0, prompt, answer, context, keep,
                recorded_s + service_s,
            )
        )  # fmt: skip
        return len(self.turns) - 1

    def _fork(self, parent: int) -> list[int]:
        """Sub-agents that start after turn *parent*; the number of the last turn of each."""
        rng = self._rng
        if not self._agent_first:
            self._agent_first = int(_one(tables.SUB_FIRST, float(rng.random())))
        count = 1 + int(np.searchsorted(_AGENTS, rng.random(), side="right"))
        return [self._agent(parent) for _ in range(count)]

    def _agent(self, parent: int) -> int:
        rng = self._rng
        self._agents += 1
        count = max(1, round(_one(tables.SUB_TURNS, float(rng.random()))))
        random = rng.random((3, count))
        outputs = quantile(tables.OUTPUT, random[0])
        growth = quantile(tables.SUB_GROWTH, random[1])
        waits = quantile(tables.SUB_S, random[2])
        common = max(0, self._agent_first - _OWN_TOKENS) // BLOCK_TOKENS
        number = self._add((parent,), 0.0, self._agent_first, outputs[0], self._agents, common)
        for turn in range(1, count):
            before = self.turns[number].prompt
            number = self._add(
                (number,), float(waits[turn]), before + int(growth[turn]), outputs[turn],
                self._agents, before // BLOCK_TOKENS,
            )  # fmt: skip
        return number
