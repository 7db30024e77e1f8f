"""Random cases for the small stages, checked against `reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import close, on_device, on_host, poisoned
from ..element import decode, encode
from . import launch, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Shapes to check: *small* ones for the CPU, the models' own for the GPU."""
    for element in ("bf16", "fp16"):
        for rows, width in [(1, 8), (3, 264)] if small else [(1, 2048), (7, 4096), (300, 14336)]:
            yield {"op": "rmsnorm", "rows": rows, "width": width, "element": element}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """Relative error of *case*; raises `CheckError` if it is too large."""
    shape, element = (case["rows"], case["width"]), case["element"]
    x = encode(rng.standard_normal(shape, np.float32), element)
    weight = encode(rng.standard_normal(shape[1], np.float32), element)
    y = poisoned(backend, shape, x.dtype)
    launch.rmsnorm(backend, on_device(backend, x), on_device(backend, weight), y, element=element)
    want = reference.rmsnorm(decode(x, element), decode(weight, element), 1e-5)
    return close(decode(on_host(backend, y), element), want, tolerance=6e-3)
