"""A designed grid of step compositions through the engine itself: what a profile is fitted to.

Requests are put straight into slots, at the lengths that a point wants, over pages that hold random
keys; then the engine runs as it always does. Points come in random order, so that a clock that
drifts does not look like a length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .engine import ResidentEngine
from .request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .engine import Engine

BATCHES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64)
CONTEXTS = (128, 512, 1024, 2048, 4096, 8000)
CHUNKS = (16, 64, 128, 256, 512, 1024, 1984)
ODD_CHUNKS = 20
"""Chunks of random length, from a prompt's first token: a product's time has steps in its rows, and
round numbers stand at their edges."""
PRIORS = (0, 1024, 4096, 6144)
PROMPTS = ((2, 64), (8, 64), (4, 256), (2, 700))
"""Several prompts in one step: how many, of how many tokens."""
BESIDE = (0, 4, 16, 48)
"""Requests that decode beside a prompt, at `BESIDE_CONTEXT`."""
BESIDE_CONTEXT = 1024
STEPS, SKEWED, JITTER = 12, 90, 0.15
FIRST_ID = 1 << 24
"""Of requests that no trace has asked for."""
WARM_CHUNKS = (1, 8, 16, 32, 64, 100, 128, 200, 256, 300, 400, 512, 700, 850, 1024, 1300, 1600)


@dataclass(frozen=True, slots=True)
class Point:
    """Requests that decode at *contexts*, beside prompts: (tokens computed before, tokens to come)
    each, in chunks of *chunk*; *steps* steps of decoding without prompts."""

    contexts: tuple[int, ...]
    prompts: tuple[tuple[int, int], ...] = ()
    chunk: int = 0
    steps: int = STEPS


def points(most: int, seed: int = 1) -> list[Point]:
    """The grid for at most *most* requests, in random order."""
    rng = np.random.default_rng(seed)
    found = list(_points(most, rng))
    return [found[i] for i in rng.permutation(len(found))]


def _points(most: int, rng: np.random.Generator) -> Iterator[Point]:
    for batch in BATCHES:
        if batch <= most:
            for context in CONTEXTS:
                # Lengths that are all alike meet the blocks of a kernel as no traffic does.
                lengths = context * rng.uniform(1 - JITTER, 1, batch)
                yield Point(tuple(int(n) for n in lengths))
    for _ in range(SKEWED):
        batch = int(rng.integers(2, most + 1))
        lengths = np.clip(rng.lognormal(6.8, 1.0, batch), 16, 8000)
        yield Point(tuple(int(n) for n in lengths), steps=8)
    for beside in sorted({min(one, most - 1) for one in BESIDE}):
        contexts = (BESIDE_CONTEXT,) * beside
        for chunk in CHUNKS:
            for prior in PRIORS:
                # Two chunks; the second completes the prompt.
                yield Point(contexts, ((prior, 2 * chunk),), chunk, 2)
        for chunk in rng.integers(16, CHUNKS[-1], ODD_CHUNKS).tolist():
            prior = int(rng.choice((0, 0, int(rng.integers(1, PRIORS[-1])))))
            yield Point(contexts, ((prior, chunk),), chunk, 1)
        for count, tokens in PROMPTS:
            if beside + count <= most:
                yield Point(contexts, ((0, tokens),) * count, count * tokens, 2)


def warm_up(engine: Engine) -> None:
    """Runs every size once, so that no library loads anything later; leaves no trace of it."""
    scheduler = engine.scheduler
    most, budget = scheduler.max_batch, scheduler.token_budget
    sizes = [n for n in WARM_CHUNKS if n < budget] + [budget]
    first = [Point((512,) * n, steps=20) for n in engine.device.slots.sizes if n <= most]
    some = [Point((), ((0, 2 * n),), n, 0) for n in sizes if 2 * n < scheduler.max_context]
    device: Any = engine.device
    device.prefill.math.warm()
    Calibration(engine).run([*first, *some, *first])
    engine.steps.clear()
    engine.idle_s = 0.0
    scheduler.account.peak = scheduler.preemptions = 0
    if isinstance(engine, ResidentEngine):
        engine.entered = 0


class Calibration:
    """Runs points through *engine*, which has nothing else to do."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.number = engine, FIRST_ID
        self.resident = isinstance(engine, ResidentEngine)

    def run(self, some: Sequence[Point]) -> tuple[int, int]:
        """How many of *some* were run, and how many did not fit."""
        run = skipped = 0
        for point in some:
            if self._fits(point):
                self._run(point)
                run += 1
            else:
                skipped += 1
        return run, skipped

    def _run(self, point: Point) -> None:
        """Runs *point* to its end, when nobody is left.

        Steps that carry the making of it are not kept: the first one with its slots, the first of a
        loop's stay, and the last, in which all who decode finish at once.
        """
        engine, scheduler = self.engine, self.engine.scheduler
        usual, before = scheduler.token_budget, len(engine.steps)
        self._decode(point)
        if isinstance(engine, ResidentEngine):
            engine.outside = 1
        elif point.contexts:
            engine.turn()
            del engine.steps[before:]
        self._prefill(point)
        if point.prompts:
            rows = 0 if self.resident else len(point.contexts) * scheduler.new_tokens
            scheduler.token_budget = rows + point.chunk
        while engine.turn():
            pass
        if point.contexts:
            del engine.steps[-1]
        engine.steps[before:] = [one for one in engine.steps[before:] if one.turn != "entered"]
        scheduler.ended.clear()
        scheduler.token_budget = usual

    def _fits(self, point: Point) -> bool:
        scheduler = self.engine.scheduler
        account, new = scheduler.account, scheduler.new_tokens
        more = (self._decode_steps(point) + 1) * new
        longest = max([n + more for n in point.contexts] + [sum(one) for one in point.prompts])
        blocks = sum(account.blocks(n + more) for n in point.contexts)
        blocks += sum(account.blocks(sum(one)) for one in point.prompts)
        rows = 0 if self.resident else len(point.contexts) * new
        return (
            longest < scheduler.max_context
            and blocks <= account.capacity
            and rows + point.chunk <= scheduler.token_budget
        )

    @staticmethod
    def _decode_steps(point: Point) -> int:
        chunks = sum(tokens for _, tokens in point.prompts) / max(1, point.chunk)
        return 2 + point.steps + int(np.ceil(chunks))

    def _decode(self, point: Point) -> None:
        """Puts the requests that decode into slots."""
        engine, scheduler = self.engine, self.engine.scheduler
        slots, account = engine.device.slots, scheduler.account
        now, new = engine.clock.now(), scheduler.new_tokens
        steps = self._decode_steps(point)
        for context in point.contexts:
            request = Request(
                self._id(), now, context, 1 + steps * new, generated=1, admitted=now,
                first_token=now, tokens=[1],
            )  # fmt: skip
            account.take(account.blocks(context))
            scheduler.running[request] = None
            scheduler.decoding.append(request)
            slots.place(request)

    def _prefill(self, point: Point) -> None:
        """Puts the prompts behind them."""
        engine, scheduler = self.engine, self.engine.scheduler
        slots, account, now = engine.device.slots, scheduler.account, engine.clock.now()
        for prior, tokens in point.prompts:
            request = Request(self._id(), now, prior + tokens, 1, prefilled=prior, admitted=now)
            account.take(account.blocks(prior + tokens))
            scheduler.running[request] = None
            scheduler.prefilling[request] = None
            slots.reserve(request, prior + tokens)

    def _id(self) -> int:
        self.number += 1
        return self.number


def arrivals(start: float, seed: int = 2, count: int = 60) -> list[Request]:
    """Requests that come while others decode: what leaving a resident loop for a prompt costs."""
    rng = np.random.default_rng(seed)
    times = start + rng.exponential(25e-3, count).cumsum()
    prompts, outputs = rng.integers(16, 900, count), rng.integers(20, 80, count)
    return [
        Request(2 * FIRST_ID + i, float(at), int(prompt), int(output))
        for i, (at, prompt, output) in enumerate(zip(times, prompts, outputs, strict=True))
    ]
