"""Measuring grid of the page selection: rows, pages, budget and distribution of the scores.

In a step the scoring stage has just written the scores, so they are warm in L2 unless a point
says `cold`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, on_device, on_host, poisoned
from ..work import Work
from . import launch, reference
from .check import scores_like

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Gpu

PAGE_TOKENS = 16
COLD_BYTES = 320e6
SHAPE = ("gaussian", "peaked", "flat", "equal", "sorted", "duplicates")


def points() -> list[dict[str, Any]]:
    """About 120 points; the target is 128 rows of 2048 to 8192 pages, budget 128."""
    grid = [(128, pages, 128, scores) for pages in (2048, 4096, 8192) for scores in SHAPE]
    grid += [
        (rows, pages, 128, scores)
        for rows in (1, 8, 64, 256, 512)
        for pages in (512, 2048, 8192)
        for scores in ("gaussian", "flat", "equal", "duplicates")
    ]
    grid += [
        (rows, pages, budget, scores)
        for rows in (32, 128)
        for pages, budget in ((4096, 32), (4096, 512), (16384, 128), (16384, 512), (16384, 2048))
        for scores in ("gaussian", "peaked", "sorted")
    ]
    shape = ("rows", "pages", "budget", "scores")
    warm = [dict(zip(shape, point, strict=True)) | {"cold": False} for point in grid]
    return warm + [
        {"rows": rows, "pages": pages, "budget": 128, "scores": "gaussian", "cold": True}
        for rows in (8, 128, 512)
        for pages in (512, 2048, 8192, 16384)
    ]


def prepare(gpu: Gpu, point: dict[str, Any], rng: np.random.Generator) -> Work:
    """The calls of *point*; the baseline is `torch.topk` on the same rows, where torch exists."""
    rows, pages, budget = point["rows"], point["pages"], point["budget"]
    heads = min(rows, 8)
    size = rows * pages * 4
    copies = min(int(COLD_BYTES / size) + 1, 400) if point["cold"] else 2
    xp = gpu.xp
    host = scores_like(point["scores"], (rows // heads, heads, pages), rng)
    scores = [on_device(gpu, host)]
    # Copies hold the same rows in another order: the same work from another place.
    scores += [xp.roll(scores[0], shift, axis=0).copy() for shift in range(1, copies)]
    lengths = xp.full(rows // heads, pages * PAGE_TOKENS - 1, np.int32)
    selected = poisoned(gpu, (rows // heads, heads, budget), np.int32)
    counts = poisoned(gpu, (rows // heads, heads), np.int32)

    def call(source: Any) -> None:
        launch.topk_select(
            gpu, source, lengths, selected, counts, new_tokens=1, budget=budget,
            page_tokens=PAGE_TOKENS,
        )  # fmt: skip

    def check() -> float:
        call(scores[0])
        got = on_host(gpu, selected)
        for row in range(0, rows, max(1, rows // 4)):
            b, h = divmod(row, heads)
            want = reference.select(host[b, h], pages, 1, budget, 1, 1)
            if not np.array_equal(got[b, h], want):
                raise CheckError(f"topk_select {point}: row {row} differs")
        return 0.0

    return Work(
        calls=[partial(call, source) for source in scores],
        check=check,
        bytes=float(size + rows * (budget + 1) * 4),
        flops=0.0,
        baselines=_baselines(gpu, scores, budget),
    )


def _baselines(gpu: Gpu, scores: list[Any], budget: int) -> dict[str, Sequence[Callable[[], None]]]:
    try:
        import torch
    except ImportError:
        return {}
    rows = [torch.as_tensor(s, device="cuda").view(-1, s.shape[-1]) for s in scores]
    out = torch.topk(rows[0], budget, sorted=False)

    def call(row: Any) -> None:
        stream = torch.cuda.ExternalStream(gpu.xp.cuda.get_current_stream().ptr)
        with torch.cuda.stream(stream):
            torch.topk(row, budget, sorted=False, out=(out.values, out.indices))

    return {"torch_topk": [partial(call, row) for row in rows]}
