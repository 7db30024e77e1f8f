"""Arrivals: one process walks the trace and hands each request over at its time.

Open loop: a request comes when the trace says, whatever became of those before it. Closed loop: a
request that waits for others is sent when their answers are there and its delay has passed, so a
slower server sees it later.
"""

from __future__ import annotations

from itertools import chain, pairwise, repeat
from math import inf, nan
from typing import TYPE_CHECKING, Protocol

from .clock import ARRIVALS, Alarm
from .closed_loop import ClosedLoop
from .errors import InputError
from .request import Request
from .trace.bounds import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from simpy.events import Event

    from .clock import Clock
    from .memory.held import Held
    from .memory.manager import Memory
    from .trace.chunk import Chunk


class Server(Protocol):
    """What serves the requests."""

    def submit(self, request: Request) -> None:
        """Takes *request*, which arrives now, or rejects it."""

    def listen(self, heard: Callable[[list[Request]], None]) -> None:
        """From now on tells *heard* who has got a last token, at the time of that token."""

    def expect(self, request: Request) -> None:
        """*request* will be sent at a time that is known now."""


class Arrivals:
    """Counts what arrived; `arrive` is the process. It ends with the trace or at *stop_at*."""

    def __init__(
        self, clock: Clock, chunks: Iterable[Chunk], server: Server, stop_at: float = inf,
        ids_found: Callable[[], Memory | None] = lambda: None,
        delays: tuple[float, float] = (0.0, 0.0),
    ) -> None:  # fmt: skip
        self.clock = clock
        self.chunks = iter(chunks)
        self.server = server
        self.stop_at = stop_at
        self.count = 0
        self.prefix_ids = False
        """Whether the trace says which prompts share a prefix."""
        self.delays = delays
        """Seconds from a send until the engine knows of it, and from a token to its client."""
        self.ids_found = ids_found
        self.memory: Memory | None = None
        """Who makes use of that."""
        self.links: ClosedLoop | None = None
        """Who waits for whom; None for a trace that says nothing about it."""
        # Of all that happens at one instant the loop comes last, so a boundary sees what is due.
        self.alarm = Alarm(clock, ARRIVALS)
        clock.process(self.arrive())

    def arrive(self) -> Generator[Event, None, None]:
        """The process; raises `InputError` for a trace that is bad or too long."""
        clock, submit = self.clock, self.server.submit
        for chunk in self.chunks:
            self._check(chunk)
            if chunk.links is not None:
                assert self.count == 0, "either all chunks of a trace have links or none"
                yield from self.arrive_linked(chain((chunk,), self.chunks))
                return
            delay = self.delays[0]
            rows = zip(
                (chunk.arrival_s + delay).tolist(), chunk.prompt_tokens.tolist(),
                chunk.output_tokens.tolist(), self._held(chunk),
                chunk.arrival_s.tolist() if delay else repeat(nan, len(chunk)), strict=True,
            )  # fmt: skip
            for time, prompt, output, held, sent in rows:
                if time > clock.now:
                    if time > self.stop_at:
                        return
                    yield clock.at(time)
                submit(Request(self.count, time, prompt, output, kv=held, sent=sent))
                self.count += 1

    # ---------------------------------------------------------------- closed loop
    def arrive_linked(self, chunks: Iterable[Chunk]) -> Generator[Event, None, None]:
        """The process for a trace with links. A request is read when the clock is at its earliest
        time, so each one that can be due is known; sooner where KV is brought up for it."""
        clock, links = self.clock, ClosedLoop(*self.delays)
        self.links = links
        self.server.listen(self.hear)
        for request, after in self._requests(chunks):
            known = request.arrival
            if self.memory is not None and request.arrival <= self.stop_at:
                known -= self.memory.prefetching.ahead_s
            while known > clock.now:
                self._send()
                yield self._alarm_at(min(known, links.next_due))
            if links.read(request, after):
                self._expect(request)
        while True:
            self._send()
            yield self._alarm_at(links.next_due)

    def hear(self, answered: list[Request]) -> None:
        """Takes note that *answered* got their last tokens just now; sends what follows at once."""
        assert self.links is not None
        for request in answered:
            for following in self.links.answered(request, self.clock.now):
                self._expect(following)
        self._send()
        if self.links.next_due <= self.stop_at:
            self.alarm.bring_forward(self.links.next_due)

    def _expect(self, request: Request) -> None:
        """Tells the server of a *request* that follows an answer and is not due yet."""
        if self.memory is not None and request.arrival > self.clock.now:
            self.server.expect(request)

    def _send(self) -> None:
        """Hands over what is due, in the order of the trace among those of the same instant."""
        assert self.links is not None
        now = self.clock.now
        while self.links.next_due <= now:
            request = self.links.pop()
            self.server.submit(request)
            self.count += 1
            if request.reason is not None:
                # Model: a client takes a rejection for an answer, and goes on with its session.
                self.links.answered(request, now)

    def _alarm_at(self, time: float) -> Event:
        ever = time < inf and time <= self.stop_at
        return self.alarm.set(time) if ever else self.alarm.never()

    def _requests(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Request, tuple[int, ...]]]:
        """Requests in the order of the trace, each with the positions of those it waits for."""
        position = 0
        for chunk in chunks:
            self._check(chunk)
            links = chunk.links
            rows = zip(
                chunk.arrival_s.tolist(), chunk.prompt_tokens.tolist(),
                chunk.output_tokens.tolist(),
                repeat("", len(chunk)) if links is None else links.session,
                repeat((), len(chunk)) if links is None else links.after,
                repeat(0.0, len(chunk)) if links is None else links.delay_s.tolist(),
                self._held(chunk), strict=True,
            )  # fmt: skip
            for time, prompt, output, session, after, think, held in rows:
                request = Request(
                    position, time, prompt, output, session=session, waits_for=len(after),
                    think=think, kv=held,
                )  # fmt: skip
                yield request, after
                position += 1

    @property
    def shares(self) -> bool:
        """Whether anybody makes use of prefixes that prompts share."""
        return self.memory is not None

    def _held(self, chunk: Chunk) -> Iterable[Held | None]:
        """For each request what it has to do with KV that is shared."""
        ids, memory = chunk.block_ids, self.memory
        if memory is None or ids is None:
            return repeat(None, len(chunk))
        spans = pairwise(ids.offsets.tolist())
        prompts = chunk.prompt_tokens.tolist()
        return (
            memory.ids(ids.values[start:stop], prompt)
            for (start, stop), prompt in zip(spans, prompts, strict=True)
        )

    def _check(self, chunk: Chunk) -> None:
        """Notes whether *chunk* has ids; raises `InputError` if it comes too late."""
        if chunk.block_ids is not None and not self.prefix_ids:
            self.prefix_ids = True
            self.memory = self.ids_found()
        if len(chunk) and (last := float(chunk.arrival_s[-1])) > MAX_SECONDS:
            raise InputError(
                f"trace: a request arrives after {last:g} s, beyond {MAX_SECONDS:g} s, where a "
                "clock no longer resolves microseconds; raise trace.rate_scale or cut the trace"
            )
