"""Random cases for the page selection, over distributions that are hard for a radix select."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, equal, on_device, on_host, poisoned
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

DISTRIBUTIONS = (
    "gaussian",
    "peaked",
    "flat",
    "equal",
    "sorted",
    "reversed",
    "duplicates",
    "three",
    "wild",
)


def scores_like(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """float32 scores of *shape*, rows along the last axis."""
    normal = rng.standard_normal(shape, np.float32)
    match name:
        case "peaked":  # a narrow cluster and a few far above
            far = rng.random(shape) < 0.01
            return np.where(far, 100 * np.abs(normal), 1 + 1e-4 * normal).astype(np.float32)
        case "flat":
            return rng.random(shape, np.float32)
        case "equal":
            return np.broadcast_to(normal[..., :1], shape).copy()
        case "sorted":
            return np.sort(normal, axis=-1)
        case "reversed":
            return np.sort(normal, axis=-1)[..., ::-1].copy()
        case "duplicates":
            return rng.integers(-3, 4, shape).astype(np.float32)
        case "three":  # nearly all equal, a few above and below
            return np.where(rng.random(shape) < 0.02, np.sign(normal), 0).astype(np.float32)
        case "wild":  # every kind of float, NaN and infinities included
            bits = rng.integers(0, 2**32, shape, np.uint64).astype(np.uint32).view(np.float32)
            special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45], np.float32)
            return np.where(rng.random(shape) < 0.4, rng.choice(special, shape), bits)
    return normal


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Shapes to check: *small* ones for the CPU, a model's own for the GPU."""
    base: dict[str, Any] = {
        "batch": 2,
        "heads": 2,
        "new_tokens": 1,
        "sink": 1,
        "recent": 1,
        "threads": 128,
    }
    base |= {"page_tokens": 16, "grid": None}
    if small:
        for scores in DISTRIBUTIONS:
            yield base | {"pages": 520, "budget": 24, "scores": scores}
        yield base | {"pages": 8, "budget": 16, "scores": "gaussian"}
        yield base | {"pages": 64, "budget": 4, "scores": "flat", "recent": 9, "sink": 2}
        yield base | {"pages": 1024, "budget": 300, "scores": "wild", "grid": 1, "threads": 256}
        return
    base |= {"batch": 16, "heads": 8}
    for scores in DISTRIBUTIONS:
        for pages, budget, threads in (
            (252, 64, 512),
            (2048, 128, 512),
            (8192, 128, 256),
            (8192, 1000, 512),
            (16384, 512, 128),
            (16384, 2048, 512),
        ):
            yield base | {"pages": pages, "budget": budget, "threads": threads, "scores": scores}
        yield base | {"batch": 67, "pages": 4096, "budget": 128, "scores": scores, "threads": 512,
                      "grid": 132, "new_tokens": 8, "page_tokens": 64}  # fmt: skip


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """0.0 if every row of *case* equals the reference; raises `CheckError`."""
    batch, heads, pages, tokens = case["batch"], case["heads"], case["pages"], case["page_tokens"]
    new, budget = case["new_tokens"], case["budget"]
    max_pages = -(-pages // 4) * 4
    scores = scores_like(case["scores"], (batch, heads, max_pages), rng)
    most = max(0, pages * tokens - new)
    lengths = rng.integers(min(pages * tokens // 2, most), most + 1, batch).astype(np.int32)
    lengths[0] = most
    if batch > 2:
        lengths[1], lengths[2] = -1, 1
    selected = poisoned(backend, (batch, heads, budget + 3), np.int32)
    counts = poisoned(backend, (batch, heads), np.int32)
    launch.topk_select(
        backend,
        on_device(backend, scores),
        on_device(backend, lengths),
        selected,
        counts,
        new_tokens=new,
        budget=budget,
        sink=case["sink"],
        recent=case["recent"],
        page_tokens=tokens,
        threads=case["threads"],
        grid=case["grid"],
    )
    got, number = on_host(backend, selected), on_host(backend, counts)
    want = np.full(got.shape, -1, np.int32)
    for b in range(batch):
        if lengths[b] < 0:
            continue
        held = -(-(int(lengths[b]) + new) // tokens)
        for h in range(heads):
            row = reference.select(
                scores[b, h], held, held - int(lengths[b]) // tokens, budget, case["sink"],
                case["recent"],
            )  # fmt: skip
            want[b, h, : len(row)] = row
            if number[b, h] != len(row):
                raise CheckError(f"counts[{b}, {h}]: {number[b, h]}, expected {len(row)}")
    return equal(got, want, "selected")
