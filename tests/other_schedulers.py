"""Schedulers of other engines, written down again from their rules alone, and a loop to run them.

Nothing here comes from `sim` but the form of a log, so that a plan that agrees agrees by its rules.
Steps last sixteenths of a second, which floats hold exactly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

from sim.validation.replay import Asked, Logged

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(eq=False)
class Job:
    """A request; *done* tokens of it are in *blocks* blocks, *made* have been committed."""

    id: int
    prompt: int
    output: int
    made: int = 0
    done: int = 0
    blocks: int = 0
    prompting: bool = True

    @property
    def tokens(self) -> int:
        return self.prompt + self.made

    @property
    def final(self) -> int:
        return self.prompt + self.output - 1


class Memory:
    def __init__(self, blocks: int, size: int) -> None:
        self.free, self.size = blocks, size

    def of(self, tokens: int) -> int:
        return ceil(tokens / self.size)

    def grow(self, job: Job, tokens: int) -> None:
        more = self.of(tokens) - job.blocks
        assert 0 <= more <= self.free
        self.free -= more
        job.blocks += more

    def release(self, job: Job) -> None:
        self.free += job.blocks
        job.blocks = 0


class Plans(Protocol):
    running: list[Job]
    waiting: deque[Job]
    memory: Memory
    preemptions: int

    def plan(self) -> dict[Job, int]:
        """Tokens of each request in the next step."""


class Base:
    def __init__(self, memory: Memory, batch: int, budget: int) -> None:
        self.memory, self.batch, self.budget = memory, batch, budget
        self.running: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.preemptions = 0

    def evict(self) -> Job:
        """The youngest gives all away and is the next to be admitted."""
        job = self.running.pop()
        self.memory.release(job)
        job.done, job.prompting = 0, True
        self.waiting.appendleft(job)
        self.preemptions += 1
        return job


class OneWalk(Base):
    """Like vLLM's V1: one walk over the running requests in order of admission, whether they
    compute prompts or decode, then the queue."""

    def __init__(
        self, memory: Memory, batch: int, budget: int, longest: int | None, fits: bool
    ) -> None:
        super().__init__(memory, batch, budget)
        self.longest, self.fits = longest, fits

    def plan(self) -> dict[Job, int]:
        step: dict[Job, int] = {}
        left, evicted, place = self.budget, False, 0
        while place < len(self.running) and left:
            job = self.running[place]
            tokens = self.cut(job, left)
            more = self.memory.of(job.done + tokens) - job.blocks
            while more > self.memory.free and job in self.running:
                self.evict()
                evicted = True
            if job not in self.running:
                break
            self.memory.grow(job, job.done + tokens)
            step[job] = tokens
            left -= tokens
            place += 1
        while not evicted and self.waiting and left and len(self.running) < self.batch:
            job = self.waiting[0]
            tokens = self.cut(job, left)
            whole = self.memory.of(job.tokens) if self.fits else 0
            if max(whole, self.memory.of(tokens)) > self.memory.free:
                break
            self.memory.grow(job, tokens)
            self.running.append(self.waiting.popleft())
            step[job] = tokens
            left -= tokens
        return step

    def cut(self, job: Job, left: int) -> int:
        return min(job.tokens - job.done, left, self.longest or left)


class Whole(Base):
    """Like TensorRT-LLM without chunked context under GUARANTEED_NO_EVICT: generation first, then
    whole prompts while they fit into the budget and all that ever comes fits into memory."""

    def plan(self) -> dict[Job, int]:
        memory, step = self.memory, dict[Job, int]()
        for job in self.running:
            step[job] = 1
        left = self.budget - len(step)
        promised = sum(memory.of(job.final) - job.blocks for job in self.running)
        for job in self.running:
            memory.grow(job, job.done + 1)
            promised -= memory.of(job.done + 1) - memory.of(job.done)
        first = True
        while self.waiting and len(self.running) < self.batch:
            job = self.waiting[0]
            alone = first and job.tokens > self.budget
            if job.tokens > left and not alone:
                break
            if memory.of(job.final) > memory.free - promised:
                break
            memory.grow(job, job.tokens)
            promised += memory.of(job.final) - job.blocks
            self.running.append(self.waiting.popleft())
            step[job] = job.tokens
            left -= job.tokens
            first = False
        return step


class PromptsOnly(Base):
    """Like SGLang: steps of prompts alone, one of which may be cut, or of decoding alone; a share
    of the tokens to come is kept free."""

    def __init__(self, memory: Memory, batch: int, budget: int, share: float, prompts: int) -> None:
        super().__init__(memory, batch, budget)
        self.share, self.prompts = share, prompts

    def plan(self) -> dict[Job, int]:
        memory, left, step = self.memory, self.budget, dict[Job, int]()
        for job in [job for job in self.running if job.prompting]:
            step[job] = min(job.tokens - job.done, left)
            left -= step[job]
        while self.waiting and left > 0 and len(step) < self.prompts:
            job = self.waiting[0]
            kept = sum(self.later(one) - one.blocks for one in self.running)
            needed = self.later(job) if self.share else memory.of(job.tokens)
            if len(self.running) >= self.batch or needed > memory.free - kept:
                break
            memory.grow(job, job.tokens)
            self.running.append(self.waiting.popleft())
            step[job] = min(job.tokens, left)
            left -= step[job]
        if step:
            return step
        while sum(job.done % memory.size == 0 for job in self.running) > memory.free:
            self.evict()
        for job in self.running:
            memory.grow(job, job.done + 1)
            step[job] = 1
        return step

    def later(self, job: Job) -> int:
        if not self.share:
            return job.blocks
        now = job.tokens if job.prompting else job.done
        return self.memory.of(now + ceil(self.share * (job.final - now)))


def served(
    scheduler: Plans, asked: Sequence[tuple[float, int, int]], delay: float = 0.0
) -> tuple[list[Asked], list[Logged]]:
    """Runs *scheduler* over requests of (arrival, prompt, output), known *delay* later."""
    sent = [Asked(number, *one) for number, one in enumerate(asked)]
    coming = deque(sorted(sent, key=lambda one: one.arrival))
    now, steps = 0.0, list[Logged]()
    while coming or scheduler.waiting or scheduler.running:
        while coming and coming[0].arrival + delay <= now:
            one = coming.popleft()
            scheduler.waiting.append(Job(one.id, one.prompt_tokens, one.output_tokens))
        step = scheduler.plan()
        if not step:
            now = coming[0].arrival + delay
            continue
        end = now + (1 + sum(step.values()) // 8) / 16
        steps.append(Logged(now, end, *_told(step), now))
        for job, tokens in step.items():
            _advance(scheduler, job, tokens)
        now = end
    return sent, steps


def _told(step: dict[Job, int]) -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]:
    decode = tuple(sorted(job.id for job in step if not job.prompting))
    return decode, tuple((job.id, job.done, n) for job, n in step.items() if job.prompting)


def _advance(scheduler: Plans, job: Job, tokens: int) -> None:
    job.done += tokens
    if job.done < job.tokens:
        return
    job.prompting = False
    job.made += 1
    if job.made == job.output:
        scheduler.running.remove(job)
        scheduler.memory.release(job)
