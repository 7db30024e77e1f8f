"""agent-like: sessions of coding agents in closed loop, shaped like Claude Code's.

Measured on the Weka sessions (kv-cache-tester, Apache-2.0). A session is a chain of turns, each
sent a think time after the answer to the one before; now and then it sends off sub-agents and waits
for them. Sessions begin by a process of their own: the file says nothing about that.

Memory grows with the sessions that are open at once, never with the requests.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError
from sim.rng import stream
from sim.trace.chunk import Chunk, Links
from sim.trace.gaps import plain_gaps
from sim.trace.lengths import in_range
from sim.trace.ragged import Ragged

from . import runs
from .agent_session import BLOCK_TOKENS, FORK_SHARE, MAIN, Session, Shape, Turn
from .arrivals import ROWS, Renewal, Shaped
from .diurnal import DayShape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sim.trace.gaps import Arrivals as Process

    from .arrivals import Arrivals
    from .knobs import Knobs

__all__ = ["BLOCK_TOKENS", "NAME", "rows"]

NAME = "agent-like"
# Model: sessions a second; about a request a second once the first sessions have ended.
_RATE_PER_S = 0.02
_EVEN = 64  # sessions that have one in each 64th of every shape
_IDS = 2**21  # block ids a chunk, about
_SUB = MAIN - 1  # the context that all sub-agents of a session begin with


def rows(seed: int, requests: int, knobs: Knobs) -> Iterator[Chunk]:
    """*requests* requests in order of their earliest time; raises `InputError`.

    Answers take no time in that order. `recorded_s` is when a turn would come with the answer
    times of the Weka sessions.
    """
    process: Any = knobs.arrivals or "poisson"
    if knobs.burstiness is not None and process != "gamma":
        raise InputError("burstiness: only with arrivals: gamma; leave it out, or add that")
    share = FORK_SHARE if knobs.sub_agents is None else knobs.sub_agents
    in_range("sub_agents", share, 0.0, 1.0)
    starts = _starts(seed, process, knobs)
    return _Agents(seed, starts, share, bool(knobs.shared_prefix)).chunks(requests)


def whole_sessions(seed: int, sessions: int, knobs: Knobs) -> list[Session]:
    """The first *sessions* sessions, each to its end: what a report on their shape compares."""
    share = FORK_SHARE if knobs.sub_agents is None else knobs.sub_agents
    agents = _Agents(seed, _starts(seed, "poisson", knobs), share, bool(knobs.shared_prefix))
    return [agents.session(number) for number in range(sessions)]


def _starts(seed: int, process: Process, knobs: Knobs) -> Arrivals:
    """When sessions begin."""
    rate = _RATE_PER_S if knobs.rate_per_s is None else knobs.rate_per_s
    shape = 1.0 if knobs.burstiness is None else knobs.burstiness
    starts = Renewal(seed, NAME, plain_gaps(rate, process, shape))
    if knobs.diurnal is None:
        return starts
    return Shaped(starts, DayShape(knobs.diurnal, knobs.start_hour or 0.0))


class _Open:
    """A session that is going on: its turns in order of their earliest times."""

    def __init__(self, name: str, start_s: float, session: Session) -> None:
        self.name = name
        self.start_s = start_s
        self.prefix = session.prefix // BLOCK_TOKENS
        self.turns = session.turns
        self.order = sorted(range(len(self.turns)), key=lambda n: (self.turns[n].at_s, n))
        self.next = 0
        self.positions = [-1] * len(self.turns)
        self.contexts: dict[int, tuple[runs.Run, ...]] = {}

    @property
    def due_s(self) -> float:
        """When the next turn comes."""
        return self.start_s + self.turns[self.order[self.next]].at_s


class _Agents:
    """All sessions together."""

    def __init__(self, seed: int, starts: Arrivals, fork_share: float, shared: bool) -> None:
        self._seed, self._fork_share = seed, fork_share
        self._begin = _flat(starts)
        self._begun = 0
        self._next_s = next(self._begin)
        self._shapes = np.zeros((4, 0))
        self._open: list[tuple[float, int, _Open]] = []
        self._next_id = 0
        self._position = 0
        self._common: tuple[runs.Run, ...] | None = () if shared else None
        self._common_blocks = 0

    def chunks(self, requests: int) -> Iterator[Chunk]:
        """The first *requests* requests."""
        while requests > 0:
            chunk = self._chunk(min(requests, ROWS))
            requests -= len(chunk)
            yield chunk

    def _chunk(self, most: int) -> Chunk:
        made: list[tuple[_Open, Turn, float]] = []
        ids: list[tuple[runs.Run, ...]] = []
        after: list[list[int]] = []
        blocks = 0
        while len(made) < most and blocks < _IDS:
            due_s, number, session = self._next()
            turn = session.order[session.next]
            made.append((session, session.turns[turn], due_s))
            after.append([session.positions[n] for n in session.turns[turn].after])
            ids.append(self._ids(session, session.turns[turn]))
            blocks += session.turns[turn].prompt // BLOCK_TOKENS
            session.positions[turn] = self._position
            self._position += 1
            session.next += 1
            if session.next < len(session.order):
                heapq.heappush(self._open, (session.due_s, number, session))
        links = Links(
            [session.name for session, _, _ in made],
            Ragged.of(after),
            np.array([turn.delay_s for _, turn, _ in made]),
            np.array([session.start_s + turn.recorded_s for session, turn, _ in made]),
        )
        return Chunk(
            np.array([due_s for _, _, due_s in made]),
            np.array([turn.prompt for _, turn, _ in made], dtype=np.int64),
            np.array([turn.output for _, turn, _ in made], dtype=np.int64),
            runs.ragged(ids),
            links,
        )

    def _next(self) -> tuple[float, int, _Open]:
        """The session whose turn comes first, after those that begin before it have begun."""
        while not self._open or self._next_s <= self._open[0][0]:
            number = self._begun
            begun = _Open(f"agent-{number}", self._next_s, self.session(number))
            heapq.heappush(self._open, (begun.due_s, number, begun))
            self._begun += 1
            self._next_s = next(self._begin)
        return heapq.heappop(self._open)

    def session(self, number: int) -> Session:
        """Session *number*; to be called in order, from 0."""
        rng = stream(self._seed, f"trace.{NAME}.session", number)
        return Session(self._shape(number), rng, self._fork_share)

    def _shape(self, number: int) -> Shape:
        """Of session *number*: each 64 sessions have one in each 64th of every distribution."""
        block, at = divmod(number, _EVEN)
        if at == 0:
            rng = stream(self._seed, f"trace.{NAME}.shapes", block)
            even = rng.permuted(np.tile(np.arange(_EVEN), (4, 1)), axis=1)
            self._shapes = (even + rng.random(even.shape)) / _EVEN
        return Shape(*self._shapes[:, at].tolist())

    def _ids(self, session: _Open, turn: Turn) -> tuple[runs.Run, ...]:
        """The ids of a prompt's full blocks: what it keeps of its context, and new ones."""
        context = session.contexts.get(turn.context)
        if context is None:
            context = self._start(session, turn)
        kept = runs.cut(context, turn.keep)
        held = sum(count for _, count in kept)
        ids = (*kept, *self._fresh(turn.prompt // BLOCK_TOKENS - held))
        session.contexts[turn.context] = ids
        return ids

    def _start(self, session: _Open, turn: Turn) -> tuple[runs.Run, ...]:
        """What a new context begins with; the first turn of a session keeps it whole."""
        if turn.context != MAIN:
            if _SUB not in session.contexts:
                session.contexts[_SUB] = self._fresh(turn.keep)
            return session.contexts[_SUB]
        if self._common is None:
            return ()
        more = session.prefix - self._common_blocks
        if more > 0:
            self._common = (*self._common, *self._fresh(more))
            self._common_blocks += more
        turn.keep = session.prefix
        return self._common

    def _fresh(self, blocks: int) -> tuple[runs.Run, ...]:
        """*blocks* new ids."""
        if blocks <= 0:
            return ()
        self._next_id += blocks
        return ((self._next_id - blocks, blocks),)


def _flat(arrivals: Arrivals) -> Iterator[float]:
    while True:
        yield from arrivals.take().tolist()
