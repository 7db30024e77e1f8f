"""Times decode steps over batch, context and mode: the loop table.

Every mode starts from the same state, with the same inputs and the same random caches, launches the
same stages with the same blocks, and keeps every sample. Consecutive steps work on different caches
under one page table, as the layers of a model do, so that a step finds its pages out of L2.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from .constants import capture, event_seconds, host_seconds
from .inputs import Cache, Inputs, Model
from .launch import STAGES
from .mailbox import Mailbox
from .modes import THREADS, Decoder
from .state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..backend import Gpu
    from .record import Launch

BATCHES = (1, 4, 16, 64, 8, 2, 32)
CONTEXTS = (1024, 8192, 32768, 131072, 4096, 16384, 65536)
"""Coarse ones first, so that a run cut short covers the range."""
MODES = ("host-python", "host-c", "graph", "graph-steady", "resident")
NEW_TOKENS, PAGE_TOKENS = 4, 16
MOST_SETS, COLD_BYTES = 32, 200e6
"""A turn over the caches touches as much as this, several times the L2 cache, if 32 sets do."""
SPARE_TOKENS = 2048
"""Room for the tokens that a run appends to each request."""
WARM, MOST_STEPS, LEAST_STEPS = 16, 120, 24
RUN_S = 0.12
"""About as long a run's samples last, within those numbers of steps."""


def points() -> list[dict[str, Any]]:
    """Every cell: slots, context in tokens, sparse or dense; each is run in all modes."""
    coarse = {(b, c) for b in BATCHES[:4] for c in CONTEXTS[:4]}
    cells = sorted(((b, c) for c in CONTEXTS for b in BATCHES), key=lambda cell: cell not in coarse)
    return [
        {"slots": slots, "context": context, "sparse": sparse}
        for slots, context in cells
        for sparse in (True, False)
    ]


def measure_table(
    gpu: Gpu,
    points: Sequence[dict[str, Any]],
    deadline: float,
    modes: Sequence[str] = MODES,
    model: Model | None = None,
    seed: int = 1,
) -> Iterator[dict[str, Any]]:
    """One record a point and mode, with seconds a step in `samples_s`; ends at *deadline*.

    *deadline* is a time of `time.monotonic`. The memory is that of the largest point.
    """
    model = model or Model()
    rng = np.random.default_rng(seed)
    cache: Cache | None = None
    if points:
        most = max(_layers(model, point) * _pages(point) for point in points)
        cache = Cache(gpu, model, most, PAGE_TOKENS, rng)
    for point in points:
        if time.monotonic() > deadline:
            return
        assert cache is not None
        decoder = _decoder(gpu, model, cache, point, rng)
        saved = decoder.state.save()
        about = _about(gpu, decoder, point, saved)
        for mode in modes:
            if time.monotonic() > deadline:
                return
            decoder.state.load(saved)
            decoder.rewind(decoder.state.request[0].get())
            yield {**point, "mode": mode, **about, **run(gpu, decoder, mode)}


def _about(
    gpu: Gpu, decoder: Decoder, point: dict[str, Any], saved: dict[str, Any]
) -> dict[str, Any]:
    """What all modes of a point share: sizes, and each stage alone in a graph.

    `stage_s` are the loop's own stages, `own_stage_s` what the stages' launchers would launch.
    """
    found: dict[str, Any] = {
        "new_tokens": NEW_TOKENS,
        "sets": decoder.state.sets,
        "layers": decoder.inputs.layers,
        "threads": THREADS,
        "blocks": gpu.sms,
        "step_bytes": _step_bytes(decoder.inputs.model, point),
    }
    found["touched_bytes"] = found["step_bytes"] * decoder.inputs.layers
    for name, sets in (("stage_s", decoder.recorded), ("own_stage_s", decoder.own)):
        found[name] = {}
        for i in decoder.stages:
            launches = [one[i] for one in sets]
            found[name][STAGES[i]] = _stage_seconds(gpu, decoder, launches, saved)
    return found


def _stage_seconds(
    gpu: Gpu, decoder: Decoder, launches: list[Launch], saved: dict[str, Any], samples: int = 5
) -> list[float]:
    """Seconds of one launch among many in a graph, from the state *saved*, step after step."""
    stream = gpu.xp.cuda.Stream(non_blocking=True)

    def once(count: int) -> list[float]:
        turns = [launches[i % len(launches)] for i in range(count)]
        graph = capture(stream, turns)
        found = []
        for _ in range(samples + 1):
            decoder.state.load(saved)
            gpu.synchronize()
            with stream:
                found.append(event_seconds(gpu, lambda: graph.launch(stream)) / count)
        return found[1:]

    short = once(min(4, len(launches)))
    count = max(len(launches), min(32, round(2e-3 / min(short))))
    return once(count)


def run(gpu: Gpu, decoder: Decoder, mode: str) -> dict[str, Any]:
    """Warms up, then samples *mode* from the decoder's present state."""
    stream = gpu.xp.cuda.Stream(non_blocking=True)
    gpu.synchronize()
    gpu.xp.cuda.get_current_stream().synchronize()
    with stream:
        match mode:
            case "host-python":
                steps = _steps(decoder.host_steps(WARM, stream))
                return {"samples_s": decoder.host_steps(steps, stream)}
            case "host-c":
                host = decoder.host_list(stream)
                steps = _steps(host.launch(0, WARM)[0])
                return {"samples_s": host.launch(WARM, steps)[0].tolist()}
            case "graph" | "graph-steady":
                return _graph(decoder, stream, mode == "graph-steady")
            case "resident":
                return _resident(decoder, stream)
    raise ValueError(f"mode {mode!r}, expected one of {', '.join(MODES)}")


def _graph(decoder: Decoder, stream: Any, steady: bool) -> dict[str, Any]:
    graphs = [capture(stream, launches) for launches in decoder.launches]
    synced = decoder.host_list(stream)
    steps = _steps(synced.replay(graphs, 0, WARM)[0])
    if not steady:
        return {"samples_s": synced.replay(graphs, WARM, steps)[0].tolist()}
    free = decoder.host_list(stream, sync=False, copy=False)
    samples, many = [], 16
    for turn in range(6):
        begin = time.perf_counter()
        free.replay(graphs, turn * many, many)
        samples.append((time.perf_counter() - begin) / many)
    return {"samples_s": samples[1:], "steps_a_sample": many}


def _resident(decoder: Decoder, stream: Any, dedicated: bool = True) -> dict[str, Any]:
    state = decoder.state
    mailbox = Mailbox(state.backend, state.slots, state.new_tokens, outputs=1024)
    loop = decoder.loop(mailbox, dedicated=dedicated, stamp_rows=MOST_STEPS)
    warm = host_seconds(loop, stream, WARM)
    steps = _steps(warm)
    seconds = host_seconds(loop, stream, steps + 1)
    stamps = loop.stamps.get()[1 : min(steps, len(loop.stamps))]
    return {
        "samples_s": seconds[1:].tolist(),
        "reason": str(mailbox.reason()),
        "dedicated": dedicated,
        "stage_cycles": stage_cycles(stamps, decoder.sparse),
    }


def stage_cycles(stamps: Any, sparse: bool) -> dict[str, list[int]]:
    """Clock cycles of each stage in one block, step by step, and of each wait before the next.

    *stamps* [steps, 16] as the kernel leaves them.
    """
    names = ("append", "score", "select", "attend", "verify")
    chosen = range(5) if sparse else (0, 3, 4)
    found: dict[str, list[int]] = {}
    order = list(chosen)
    for i, stage in enumerate(order):
        begin, end = stamps[:-1, 2 * stage], stamps[:-1, 2 * stage + 1]
        last = i + 1 == len(order)
        after = stamps[1:, 2 * order[0]] if last else stamps[:-1, 2 * order[i + 1]]
        found[names[stage]] = (end - begin).tolist()
        found[names[stage] + "_wait"] = (after - end).tolist()
    return found


def _steps(seconds: Any) -> int:
    typical = max(float(np.median(seconds)), 1e-6)
    return int(min(MOST_STEPS, max(LEAST_STEPS, RUN_S / typical)))


def _pages(point: dict[str, Any]) -> int:
    return int(point["slots"]) * _row(point)


def _row(point: dict[str, Any]) -> int:
    tokens = int(point["context"]) + SPARE_TOKENS
    return -(-tokens // (4 * PAGE_TOKENS)) * 4


def _layers(model: Model, point: dict[str, Any]) -> int:
    return int(min(MOST_SETS, max(1, -(-COLD_BYTES // _step_bytes(model, point)))))


def _decoder(
    gpu: Gpu, model: Model, cache: Cache, point: dict[str, Any], rng: np.random.Generator
) -> Decoder:
    slots, layers = point["slots"], _layers(model, point)
    state = State(
        gpu,
        slots=slots,
        new_tokens=NEW_TOKENS,
        max_pages=_row(point),
        pages=_pages(point),
        page_tokens=PAGE_TOKENS,
        sets=max(2, layers),
    )
    state.fill([point["context"]] * slots, [1 << 20] * slots, rng)
    inputs = Inputs(gpu, model, state, cache, rng, layers=layers)
    return Decoder(gpu, inputs, point["sparse"])


def _step_bytes(model: Model, point: dict[str, Any]) -> int:
    """Bytes of KV pages, bounds and logits that a step reads."""
    pages = -(-int(point["context"]) // PAGE_TOKENS)
    page = 4 * PAGE_TOKENS * model.kv_heads * model.head_dim
    bounds = 4 * model.kv_heads * model.head_dim
    each = min(pages, model.budget) * page + pages * bounds if point["sparse"] else pages * page
    return int(point["slots"]) * (each + NEW_TOKENS * model.vocabulary * 2)
