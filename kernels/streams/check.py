"""Random cases for the streams: sums and copies must be exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, equal, on_device, on_host, poisoned
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Sizes with and without a ragged end; *small* ones for the CPU."""
    sizes = (16, 4096, 70_000) if small else (16, 1 << 20, 99_999_984)
    blocks = (1, 3) if small else (1, 132, 528)
    for op in ("read", "read_bulk", "copy"):
        for nbytes in sizes:
            for count in blocks:
                case = {"op": op, "bytes": nbytes, "blocks": count, "threads": 128}
                yield case if op == "copy" else {**case, "passes": 3}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """0.0; raises `CheckError` if *case* is wrong."""
    source = on_device(backend, rng.integers(0, 256, case["bytes"], np.uint8))
    if case["op"] == "copy":
        target = poisoned(backend, case["bytes"], np.uint8)
        launch.copy(backend, source, target, case["blocks"], case["threads"])
        return equal(on_host(backend, target), on_host(backend, source), "target")
    sums = poisoned(backend, case["blocks"], np.uint32)
    read = launch.read if case["op"] == "read" else launch.read_bulk
    read(backend, source, sums, case["passes"], case["threads"])
    return same_sum(backend, sums, reference.wrapped_sum(source, case["passes"]))


def same_sum(backend: Backend, sums: Any, want: int) -> float:
    """0.0; raises `CheckError` unless the blocks' *sums* add up to *want* modulo 2**32."""
    got = int(on_host(backend, sums).sum(dtype=np.uint64)) % 2**32
    if got != want:
        raise CheckError(f"sum of all words {got}, expected {want}")
    return 0.0
