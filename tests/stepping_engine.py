"""A small engine of its own, with a scheduler loop and a law of step times that nobody else knows.

It serves a list of requests and writes what a real one would: a log of steps and one of requests.
Nothing of the simulator is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Asked:
    """A request as it comes."""

    arrival: float
    prompt: int
    output: int
    admitted: float = float("nan")
    computed: int = 0
    generated: int = 0
    times: list[float] = field(default_factory=list)


@dataclass
class Law:
    """Seconds of a step, hidden from the fit: graphs for decode, a knee, quadratic attention."""

    host: float = 1.5e-3
    each: float = 12e-6
    weights: float = 6e-3
    token: float = 30e-6
    knee: int = 192
    kv: float = 25e-9
    pair: float = 1.5e-9
    eager: float = 1.2e-3
    captured: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    hidden: bool = False
    """Whether the host works beside the GPU."""
    longest: int = 0
    """The longest context of the step; the engine says so."""

    def seconds(
        self, decode: int, context: int, chunks: list[tuple[int, int]]
    ) -> tuple[float, float]:
        """(GPU, host) seconds; chunks are (tokens, tokens before)."""
        rows = decode
        if not chunks:
            rows = next((size for size in self.captured if size >= decode), decode)
        tokens = rows + sum(chunk for chunk, _ in chunks)
        gpu = (self.weights**6 + (self.weights * 0.4 + self.token * tokens) ** 6) ** (1 / 6)
        gpu += self.kv * context
        gpu += self.pair * sum(chunk * (before + chunk / 2) for chunk, before in chunks)
        if chunks:
            gpu += self.eager
        return gpu, self.host + self.each * (decode + len(chunks))


@dataclass
class Engine:
    """FIFO admission, decode first, chunked prefill under a token budget."""

    law: Law = field(default_factory=Law)
    max_batch: int = 64
    budget: int = 512
    noise: float = 0.01
    hiccups: float = 0.0
    seed: int = 1
    prefill_first: bool = False
    warm: int = 0
    """Steps at the beginning that take ten times as long."""
    quantum: float = 0.0

    def serve(self, asked: list[Asked]) -> list[dict[str, Any]]:
        """Serves all; returns a dictionary for each step."""
        rng = np.random.default_rng(self.seed)
        waiting, now = sorted(asked, key=lambda one: one.arrival), 0.0
        prefilling: list[Asked] = []
        decoding: list[Asked] = []
        steps: list[dict[str, Any]] = []
        while waiting or prefilling or decoding:
            if not prefilling and not decoding:
                now = max(now, waiting[0].arrival)
            order = self._chunks(now, waiting, prefilling, decoding)
            chunks = [(chunk, one.computed) for one, chunk in order]
            runs = [] if self.prefill_first and chunks else list(decoding)
            context = sum(one.prompt + one.generated for one in runs)
            self.law.longest = max((one.prompt + one.generated for one in runs), default=0)
            gpu, host = self.law.seconds(len(runs), context, chunks)
            gpu *= float(np.exp(rng.normal(0.0, self.noise)))
            if rng.random() < self.hiccups:
                host += 9.0 * (gpu + host)
            if len(steps) < self.warm:
                gpu *= 10.0
            took = max(gpu, host) if self.law.hidden else gpu + host
            end = now + took
            shown = round(took / self.quantum) * self.quantum if self.quantum else took
            steps.append({
                "start_s": now, "duration_s": shown, "decode_requests": len(runs),
                "decode_tokens": len(runs), "prefill_requests": len(chunks),
                "prefill_tokens": sum(c for c, _ in chunks), "context_tokens": context,
                "prefill_context_tokens": sum(b for _, b in chunks), "gpu_s": gpu, "host_s": host,
                "running": len(prefilling) + len(decoding), "waiting": len(waiting),
            })  # fmt: skip
            for one in runs:
                one.generated += 1
                one.times.append(end)
            for one, chunk in order:
                one.computed += chunk
                if one.computed == one.prompt:
                    one.generated, one.times = 1, [end]
                    prefilling.remove(one)
                    decoding.append(one)
            decoding = [one for one in decoding if one.generated < one.output]
            now = end
        return steps

    def _chunks(
        self, now: float, waiting: list[Asked], prefilling: list[Asked], decoding: list[Asked]
    ) -> list[tuple[Asked, int]]:
        budget = self.budget - (0 if self.prefill_first else len(decoding))
        left = budget - sum(one.prompt - one.computed for one in prefilling)
        while (
            waiting and waiting[0].arrival <= now and left > 0
            and len(prefilling) + len(decoding) < self.max_batch
        ):  # fmt: skip
            one = waiting.pop(0)
            one.admitted = now
            prefilling.append(one)
            left -= one.prompt
        found = []
        for one in prefilling:
            chunk = min(budget, one.prompt - one.computed)
            if chunk <= 0:
                break
            found.append((one, chunk))
            budget -= chunk
        return found


def requests(
    count: int, rate: float, seed: int, prompt: Callable[..., Any] | None = None
) -> list[Asked]:
    """*count* requests at *rate* a second, prompts and outputs of very unlike lengths."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1.0 / rate, count))
    prompts = np.clip(rng.lognormal(5.6, 0.9, count), 4, 6000).astype(int)
    outputs = np.clip(rng.lognormal(4.4, 0.7, count), 2, 600).astype(int)
    return [Asked(float(a), int(p), int(o)) for a, p, o in zip(at, prompts, outputs, strict=True)]
