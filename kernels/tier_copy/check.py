"""Random pages moved between pools; every byte of the target pool must be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import equal, on_device, on_host, poisoned
from . import launch, movers, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Array, Backend


def cases(small: bool) -> Iterator[dict[str, Any]]:
    """Page sizes, directions and movers; *small*: the kernel alone, for the CPU."""
    if small:
        yield {"mover": "hold"}
        for page_bytes, count, blocks in ((16, 5, 1), (656, 7, 2), (4096, 9, 4), (20_000, 3, 2)):
            case = {"mover": "gather", "direction": "h2d", "page_bytes": page_bytes}
            yield {**case, "count": count, "blocks": blocks}
        return
    for mover in ("gather", "engine", "batch"):
        if mover == "batch" and movers.why_no_batch():
            continue
        for direction in ("h2d", "d2h", "d2d"):
            for page_bytes in (16, 656, 4096, 16384, 1 << 20):
                case = {"mover": mover, "direction": direction, "page_bytes": page_bytes}
                yield {**case, "count": 200, "blocks": 8}


def check(backend: Backend, case: dict[str, Any], rng: np.random.Generator) -> float:
    """0.0; raises `CheckError` if *case* is wrong."""
    if case["mover"] == "hold":
        launch.hold(backend, _pool(backend, "h", np.ones(1, np.uint32)), limit_s=5.0)
        backend.synchronize()
        return 0.0
    count, page_bytes = case["count"], case["page_bytes"]
    pages = 2 * count + 1
    contents = rng.integers(0, 256, (pages, page_bytes), np.uint8)
    source = _pool(backend, case["direction"][0], contents)
    target = _pool(backend, case["direction"][2], np.full_like(contents, 0xFF))
    lists = [rng.permutation(pages)[:count].astype(np.int32) for _ in range(2)]
    run(backend, case["mover"], source, target, lists[0], lists[1], case["blocks"])
    want = reference.move_pages(contents, np.full_like(contents, 0xFF), *lists)
    return equal(on_host(backend, target), want, "target")


def run(
    backend: Any, mover: str, source: Array, target: Array, first: Any, second: Any, blocks: int
) -> None:
    """Moves pages by the mover of that name, on a stream of its own, and waits for them."""
    if mover == "gather":
        movers.gather(backend, source, target, first, second, blocks)
        backend.synchronize()
        return
    with backend.xp.cuda.Stream(non_blocking=True) as stream:
        {"engine": movers.engine, "batch": movers.batch}[mover](
            backend, source, target, first, second
        )
        stream.synchronize()


def _pool(backend: Backend, where: str, contents: np.ndarray[Any, Any]) -> Array:
    if where == "d":
        pool = poisoned(backend, contents.shape, contents.dtype)
        pool[...] = on_device(backend, contents)
        backend.synchronize()
        return pool
    pool = movers.pinned(backend, contents.shape, contents.dtype)
    pool[...] = contents
    return pool
