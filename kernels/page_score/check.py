"""Random ragged batches over shuffled pages; what must not be written must stay poisoned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, close, on_device, on_host, poisoned
from ..element import decode, encode
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

TOLERANCE = 2e-5
"""Products of 16-bit values are exact in fp32; what is left is the order of the sums."""


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Shapes to check: *small* ones for the CPU, the models' own for the GPU."""
    base = {"page_tokens": 16, "element": "bf16", "reduce": "max", "threads": 512}
    names = ("requests", "tokens", "kv_heads", "group", "head_dim", "max_pages")
    if small:
        shapes = [(1, 1, 2, 4, 128, 9), (3, 3, 2, 4, 128, 40), (2, 1, 3, 8, 64, 70)]
    else:
        shapes = [(1, 1, 8, 4, 128, 2048), (16, 1, 8, 4, 128, 2100), (7, 5, 8, 8, 128, 300)]
        shapes += [(300, 2, 4, 1, 128, 40), (5, 8, 8, 4, 64, 999), (9, 1, 8, 8, 64, 513)]
    for shape in shapes:
        yield {**base, **dict(zip(names, shape, strict=True))}
    last = {**base, **dict(zip(names, shapes[1], strict=True))}
    yield {**last, "element": "fp16", "page_tokens": 64}
    yield {**last, "reduce": "sum", "threads": 128}
    yield {**last, "blocks": 3, "threads": 256, "kv_heads": 11}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """Relative error of *case*; raises `CheckError` if it is too large or too much is written."""
    element, requests, heads = case["element"], case["requests"], case["kv_heads"]
    tokens, dim, pages = case["tokens"], case["head_dim"], case["max_pages"]
    lengths = ragged_lengths(case, rng)
    table, count = shuffled_table(requests, pages, rng)
    keys = rng.standard_normal((2, count, heads, dim), np.float32)
    minmax = encode(np.stack([keys.min(axis=0), keys.max(axis=0)], axis=2), element)
    q = encode(
        rng.standard_normal((requests, tokens, heads * case["group"], dim), np.float32), element
    )
    scores = poisoned(backend, (requests, heads, pages), np.float32)
    inputs = [on_device(backend, array) for array in (q, minmax, table, lengths)]
    launch.page_scores(
        backend,
        inputs[0],
        inputs[1],
        inputs[2],
        inputs[3],
        scores,
        page_tokens=case["page_tokens"],
        element=element,
        reduce=case["reduce"],
        blocks=case.get("blocks"),
        threads=case["threads"],
    )
    got = on_host(backend, scores)
    plain_q = decode(q, element).reshape(requests, tokens, heads, case["group"], dim)
    low, high = (decode(minmax[:, :, i], element) for i in range(2))
    want, written = [], np.zeros(got.shape, bool)
    for b, length in enumerate(lengths):
        used = reference.pages_of(int(length), tokens, case["page_tokens"])
        ids = table[b, :used]
        written[b, :, :used] = True
        for h in range(heads):
            rows = plain_q[b, :, h].reshape(-1, dim)
            want.append(reference.page_scores(rows, low[ids, h], high[ids, h], case["reduce"]))
    if (got.view(np.int32)[~written] != -1).any():
        raise CheckError("scores behind the last page of a request were written")
    return close(got[written], np.concatenate(want), TOLERANCE, "scores")


def ragged_lengths(case: dict[str, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """int32 [requests]: any length that fits, the largest, none at all, and idle slots."""
    most = case["max_pages"] * case["page_tokens"] - case["tokens"]
    lengths: np.ndarray[Any, Any] = rng.integers(0, most + 1, case["requests"], np.int32)
    choice = rng.random(case["requests"])
    lengths[choice < 0.15] = -1
    lengths[choice > 0.85] = most
    if (lengths < 0).all():
        lengths[0] = most
    return lengths


def shuffled_table(
    requests: int, max_pages: int, rng: np.random.Generator
) -> tuple[np.ndarray[Any, Any], int]:
    """int32 [requests, max_pages] of distinct physical pages, and how many there are."""
    count = requests * max_pages + 3
    pages = rng.permutation(count)[: requests * max_pages].astype(np.int32)
    return pages.reshape(requests, max_pages), count
