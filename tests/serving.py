"""An engine over a device whose steps take as long as a formula says: for the engine's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.serve.blocks import Account, Pages, slack
from kernels.serve.clock import FakeClock
from kernels.serve.engine import Engine, ResidentEngine
from kernels.serve.fake import FakeDevice, FakeResident
from kernels.serve.request import Request
from kernels.serve.scheduler import Scheduler
from kernels.serve.slots import Slots

if TYPE_CHECKING:
    from kernels.serve.scheduler import Plan

PAGE = 16


def seconds(plan: Plan) -> float:
    """1 ms for a step with decoding, and 10 us a prompt token."""
    return 1e-3 * bool(plan.decode) + 1e-5 * sum(chunk.tokens for chunk in plan.chunks)


def engine(
    asked: list[tuple[float, int, int]],
    *,
    blocks: int = 64,
    batch: int = 4,
    budget: int = 64,
    new_tokens: int = 1,
    preemption: str = "recompute",
    resident: bool = False,
    accepted: Any = None,
    seed: int = 0,
) -> Engine:
    """An engine for requests of (arrival, prompt tokens, output tokens)."""
    requests = [Request(i, *one) for i, one in enumerate(asked)]
    total = blocks + slack(batch, new_tokens, PAGE)
    pages = Pages(np.random.default_rng(seed).permutation(total).tolist())
    slots = Slots(pages, batch, PAGE, new_tokens, sizes=sorted({1, 2, 4, batch}))
    clock = FakeClock()
    scheduler = Scheduler(
        Account(blocks, PAGE), max_batch=batch, token_budget=budget, max_context=4096,
        new_tokens=new_tokens, preemption=preemption, prompts_first=resident,
    )  # fmt: skip
    if resident:
        device = FakeResident(slots, clock, seconds, lambda size: 1e-3)
        return ResidentEngine(scheduler, device, clock, requests)
    return Engine(scheduler, FakeDevice(slots, clock, seconds, accepted), clock, requests)
