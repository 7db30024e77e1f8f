"""One point of a kernel's measuring grid, ready to be checked and timed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(slots=True)
class Work:
    """What `bench.prepare(gpu, point, rng)` returns.

    *calls* launch the kernel, each on other buffers; *check* compares the outputs of one call with
    a float64 reference on the same random inputs (a sample of rows where the whole is too large)
    and returns the relative error, or raises `CheckError`.
    """

    calls: Sequence[Callable[[], None]]
    check: Callable[[], float]
    bytes: float
    """Least bytes to and from HBM in one call."""
    flops: float
    baselines: dict[str, Sequence[Callable[[], None]]] = field(default_factory=dict)
    """The same work by a library (`torch_sdpa`, `cublas`), timed in the same run."""
