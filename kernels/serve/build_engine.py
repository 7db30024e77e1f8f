"""Puts an engine together on a GPU: weights, device, scheduler, requests; and says what ran."""

from __future__ import annotations

import contextlib
import hashlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import build, machine
from ..decoder.shape import SHAPES
from ..decoder.weights import Weights
from ..fit.samples import SamplesError
from .blocks import Account
from .clock import RealClock
from .command import ROOT, asked_of, prompts_of, settings
from .device import LOOPS, PAGE_TOKENS, ModelDevice, Setup
from .engine import Engine, ResidentEngine
from .request import Request
from .scheduler import Scheduler
from .steps import most_requests
from .streams import engine_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Gpu
    from .trace_file import Arrival

HEADROOM = 6 << 30
"""Bytes of the GPU's memory that are left for the libraries and for buffers."""


@contextlib.contextmanager
def open_engine(
    gpu: Gpu, arguments: Any, rows: list[Arrival] | None
) -> Iterator[tuple[Engine, dict[str, Any]]]:
    """The engine of the command's *arguments*, on a stream of its own, and its header."""
    begin = time.perf_counter()
    shape = SHAPES[arguments.model]
    most = most_requests(arguments.kernels, arguments.model, arguments.tokens)
    batch = arguments.max_batch or most
    if batch > most:
        raise SamplesError(f"--max-batch {batch}: {arguments.kernels} kernels take {most}")
    requests = [Request(i, *row) for i, row in enumerate(rows or ())]
    texts = prompts_of(requests, shape.vocabulary, arguments.seed)
    some = np.random.default_rng(arguments.seed).integers(0, shape.vocabulary, 1 << 17, np.int32)
    loops = arguments.mode in LOOPS
    with engine_stream(gpu) as stream:
        weights = Weights(gpu, shape, arguments.seed)
        setup = _setup(gpu, arguments, shape, batch)
        clock = RealClock()
        device = ModelDevice(
            gpu, weights, setup, clock,
            lambda one: texts.get(one.id, some[: one.prompt_tokens]), stream,
        )  # fmt: skip
        scheduler = Scheduler(
            Account(setup.blocks, PAGE_TOKENS), max_batch=batch,
            token_budget=arguments.token_budget, max_context=arguments.max_context,
            new_tokens=arguments.tokens, preemption=arguments.preemption, prompts_first=loops,
        )  # fmt: skip
        if device.script is not None:
            device.script.prepare(requests)
        kind = ResidentEngine if loops else Engine
        engine = kind(scheduler, device, clock, requests, arguments.timed_every)
        header = {
            "mode": arguments.mode, "kernels": arguments.kernels, "model": arguments.model,
            "max_batch": batch, "blocks": setup.blocks, "block_tokens": PAGE_TOKENS,
            "sizes": list(device.sizes), **asked_of(arguments), "options": settings(arguments),
            "device": machine.facts(gpu), "commit": machine.commit(ROOT),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "cubins": cubins(gpu),
            "setup_s": round(time.perf_counter() - begin, 2),
        }  # fmt: skip
        yield engine, header


def _setup(gpu: Gpu, arguments: Any, shape: Any, batch: int) -> Setup:
    """Sizes; raises `SamplesError` for blocks that do not fit."""
    page = shape.kv_bytes(PAGE_TOKENS) * 9 // 8  # with bounds
    tape = shape.bytes_streamed() if arguments.kernels == "fused" else 0
    free = int(gpu.xp.cuda.Device().mem_info[0]) - tape - HEADROOM
    wanted = arguments.kv_blocks or batch * arguments.max_context // PAGE_TOKENS
    if wanted * page > free:
        if arguments.kv_blocks:
            raise SamplesError(f"--kv-blocks {wanted}: {free // page} fit")
        wanted = free // page
    swap = int(arguments.swap_gib * 2**30) // page if arguments.preemption == "swap" else 0
    return Setup(
        mode=arguments.mode, kernels=arguments.kernels, blocks=wanted, max_batch=batch,
        max_context=arguments.max_context, token_budget=arguments.token_budget,
        new_tokens=arguments.tokens, budget_pages=arguments.budget_tokens // PAGE_TOKENS,
        swap_pages=swap, seed=arguments.seed, acceptance=arguments.acceptance,
    )  # fmt: skip


def cubins(gpu: Gpu) -> dict[str, str]:
    """The compiled files of every kernel that *gpu* has loaded, with a digest of their bytes."""
    found = {build.cubin(folder, gpu.arch, defines) for folder, _, defines in gpu._functions}
    return {
        path.name: hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
        for path in sorted(found)
    }
