"""Which requests each step runs: the simulator's rules, without a device and without a clock.

A step begins with `plan` and ends with `commit`:

- requests whose prompt the last step completed join those that decode, or have finished;
- decoding comes first: if the next blocks of all that decode exceed the free ones, the youngest
  running request is preempted, as often as it takes. Nobody is admitted in such a step;
- otherwise the head of the queue is admitted, as long as there is a slot, token budget that the
  prompts in hand leave, and blocks for its whole prompt beside those that decoding needs next;
- what decoding leaves of the token budget goes to chunks of prompts, in order of admission.

A loop that leaves the device for prompts (`prompts_first`) turns that round: prompts have the whole
budget and run alone; requests decode, and room is made for them, when no prompt is left.

`recompute` throws a victim's keys away and puts it at the queue's head, to prefill prompt and
answer again; `swap` keeps them in DRAM, and the request decodes on in the step that takes it back,
once its blocks and the next one fit beside what decoding needs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .blocks import Account
    from .request import Request


SURE_STEPS = 64
"""A horizon beyond it need not be the last possible."""


class Chunk(NamedTuple):
    """*tokens* of a prompt from token *start* on."""

    request: Request
    start: int
    tokens: int

    @property
    def completes(self) -> bool:
        """Whether it is the prompt's last."""
        return self.start + self.tokens == self.request.prefill_tokens


@dataclass(slots=True)
class Plan:
    """What one step does; membership changed in the order of the fields."""

    answered: list[Request] = field(default_factory=list)
    """Finished with the token of their prompt: they never decode."""
    joined: list[Request] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    """To prefill, for the first time or again."""
    resumed: list[Request] = field(default_factory=list)
    """Back from DRAM, and decode in this step."""
    decode: list[Request] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    context: int = 0
    """Tokens that decoding requests read: those held and the new ones."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to run."""
        return not self.decode and not self.chunks


class Scheduler:
    """Requests between arrival and last token.

    *account* holds the KV blocks; a step puts *new_tokens* tokens of each decoding request through
    the model, at most *token_budget* together with prompts, of at most *max_batch* requests of at
    most *max_context* tokens.
    """

    def __init__(
        self,
        account: Account,
        *,
        max_batch: int,
        token_budget: int,
        max_context: int,
        new_tokens: int = 1,
        preemption: str = "recompute",
        prompts_first: bool = False,
    ) -> None:
        if preemption not in ("recompute", "swap"):
            raise ValueError(f"preemption {preemption!r}")
        if token_budget <= (0 if prompts_first else max_batch * new_tokens):
            raise ValueError(f"{token_budget} tokens a step for {max_batch} requests that decode")
        self.account, self.max_batch, self.token_budget = account, max_batch, token_budget
        self.max_context, self.new_tokens = max_context, new_tokens
        self.swaps, self.prompts_first = preemption == "swap", prompts_first
        self.waiting: deque[Request] = deque()
        self.running: dict[Request, None] = {}  # in order of admission
        self.prefilling: dict[Request, None] = {}
        self.prefilled: list[Request] = []
        self.decoding: list[Request] = []
        self.ended: list[Request] = []
        self.preemptions = 0

    @property
    def busy(self) -> bool:
        """Whether anybody waits or runs."""
        return bool(self.waiting or self.running)

    # ---------------------------------------------------------------------------- arrivals
    def arrive(self, request: Request) -> None:
        """Queues *request*, or turns it away for good."""
        most = request.final_context_tokens + self.new_tokens - 1
        if request.prompt_tokens + request.output_tokens > self.max_context:
            request.rejected = "exceeds_model_context"
        elif self.account.blocks(most) > self.account.capacity:
            request.rejected = "exceeds_kv_capacity"
        if request.rejected:
            self.ended.append(request)
        else:
            self.waiting.append(request)

    # ---------------------------------------------------------------------------- a step
    def plan(self, now: float) -> Plan:
        """What the step that starts *now* does; an idle plan if there is nothing to run."""
        plan = Plan()
        self._join(plan)
        if self.prompts_first:
            self._admit(plan, now, self.token_budget - self._tokens_left(), 0)
            plan.chunks = self._chunks(self.token_budget)
            if plan.chunks:
                return plan
            self._make_room(plan)
        else:
            needed = self._make_room(plan)
            if not plan.preempted and self.waiting:
                rows = len(self.decoding) * self.new_tokens
                self._admit(plan, now, self.token_budget - rows - self._tokens_left(), needed)
            plan.chunks = self._chunks(self.token_budget - len(self.decoding) * self.new_tokens)
        plan.decode = self.decoding.copy()
        new = self.new_tokens
        plan.context = sum([r.prompt_tokens + r.generated - 1 + new for r in plan.decode])
        return plan

    def commit(
        self, plan: Plan, end: float, tokens: Sequence[list[int]], first: Sequence[int]
    ) -> None:
        """Books what the step left at *end*: new *tokens* of each decoding request, and the *first*
        token of each prompt that it completed."""
        self.commit_decoded(plan.decode, end, tokens)
        at = 0
        for request, start, count in plan.chunks:
            request.prefilled = start + count
            if request.prefilled < request.prefill_tokens:
                continue
            del self.prefilling[request]
            if isnan(request.first_token):
                request.first_token = end
            request.last_token = end
            request.prefilled = 0
            request.tokens.append(first[at])
            request.generated += 1
            at += 1
            self.prefilled.append(request)

    def commit_decoded(
        self, decoded: Sequence[Request], end: float, tokens: Sequence[list[int]]
    ) -> None:
        """The same for the requests that decoded alone."""
        account, size = self.account, self.account.block_tokens
        taken, finished = 0, False
        for request, new in zip(decoded, tokens, strict=True):
            context = request.prompt_tokens + request.generated - 1
            count = len(new)
            taken += -(-(context + count) // size) + -context // size
            request.tokens += new
            request.generated += count
            if request.generated == request.output_tokens:
                finished = True
        account.take(taken)
        if finished:
            for request in decoded:
                if request.generated == request.output_tokens:
                    self._finish(request, end)
            self.decoding = [r for r in self.decoding if r.generated < r.output_tokens]

    # ---------------------------------------------------------------------------- for loops
    def needed(self) -> int:
        """Blocks that the next decode step takes."""
        size, new = self.account.block_tokens, self.new_tokens
        total = 0
        for request in self.decoding:
            context = request.prompt_tokens + request.generated - 1
            total += -(-(context + new) // size) + -context // size
        return total

    def horizon(self, most: int) -> int:
        """Decode steps, *most* at most, that cannot run out of blocks if nobody finishes."""
        size, new, free = self.account.block_tokens, self.new_tokens, self.account.free
        held = [r.prompt_tokens + r.generated - 1 for r in self.decoding]
        sure = free // max(1, len(held)) * size // new
        if sure >= min(most, SURE_STEPS):
            return min(most, sure)
        now = sum(-(-c // size) for c in held)
        steps = sure
        while steps < most and sum(-(-(c + (steps + 1) * new) // size) for c in held) - now <= free:
            steps += 1
        return steps

    @property
    def would_admit(self) -> bool:
        """Whether a loop that leaves for prompts has one to leave for."""
        if not self.waiting or len(self.running) >= self.max_batch:
            return False
        head = self.waiting[0]
        tokens = head.context_tokens + self.new_tokens if head.swapped else head.prefill_tokens
        reserved = self.needed() if head.swapped else 0
        return self.account.blocks(tokens) + reserved <= self.account.free

    # ---------------------------------------------------------------------------- inside
    def _join(self, plan: Plan) -> None:
        for request in self.prefilled:
            if request.generated == request.output_tokens:
                self._finish(request, request.last_token)
                plan.answered.append(request)
            else:
                self.decoding.append(request)
                plan.joined.append(request)
        self.prefilled.clear()

    def _finish(self, request: Request, end: float) -> None:
        del self.running[request]
        request.finished = end
        self.account.take(-self.account.blocks(request.final_context_tokens))
        self.ended.append(request)

    def _make_room(self, plan: Plan) -> int:
        """Preempts until every decoding request gets its next blocks; how many these are."""
        while (needed := self.needed()) > self.account.free:
            self._preempt(next(reversed(self.running)), plan)
        return needed

    def _preempt(self, request: Request, plan: Plan) -> None:
        del self.running[request]
        if request in self.prefilling:
            del self.prefilling[request]
            tokens = request.prefill_tokens
            request.prefilled = 0
        else:
            self.decoding.remove(request)
            tokens = request.context_tokens
            request.swapped = self.swaps
        self.account.take(-self.account.blocks(tokens))
        request.preemptions += 1
        self.preemptions += 1
        if request in plan.joined:
            plan.joined.remove(request)
        plan.preempted.append(request)
        self.waiting.appendleft(request)

    def _admit(self, plan: Plan, now: float, budget: int, reserved: int) -> None:
        account = self.account
        while budget > 0 and self.waiting and len(self.running) < self.max_batch:
            request = self.waiting[0]
            if request.swapped:
                reserved = max(reserved, self.needed())
                more = account.blocks(request.context_tokens + self.new_tokens)
                if more > account.free - reserved:
                    return
                account.take(account.blocks(request.context_tokens))
                request.swapped = False
                self.decoding.append(request)
                plan.resumed.append(request)
                reserved = self.needed()
                budget -= self.new_tokens
            else:
                blocks = account.blocks(request.prefill_tokens)
                if blocks > account.free - reserved:
                    return
                account.take(blocks)
                self.prefilling[request] = None
                plan.admitted.append(request)
                budget -= request.prefill_tokens
            if isnan(request.admitted):
                request.admitted = now
            self.running[request] = None
            self.waiting.popleft()

    def _tokens_left(self) -> int:
        return sum(r.prompt_tokens + r.generated - r.prefilled for r in self.prefilling)

    def _chunks(self, budget: int) -> list[Chunk]:
        chunks = []
        for request in self.prefilling:
            if budget <= 0:
                break
            tokens = min(budget, request.prefill_tokens - request.prefilled)
            chunks.append(Chunk(request, request.prefilled, tokens))
            budget -= tokens
        return chunks
