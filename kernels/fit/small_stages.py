"""Recipes of the small stages between products, and of the choice of a token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .recipe import REPLAY, Axes, Recipe, lent_by

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SMALL = {
    "norm": ("rmsnorm", "rmsnorm_add"),
    "rope": ("rope",),
    "silu_mul": ("silu_mul",),
    "add": ("add",),
}
LARGE_BYTES = 24e6
"""Of a stage's largest array; from here on it is taken cold: it does not stay in the L2 cache."""
WIDTHS = {"rmsnorm": 4096, "rmsnorm_add": 4096, "silu_mul": 28672, "add": 4096, "rope": 5120}


def _as_in_a_step(ops: Sequence[str]) -> Callable[[Axes], bool]:
    """Points of *ops*: small arrays just written and so warm, large ones cold."""

    def where(axes: Axes) -> bool:
        if axes["op"] not in ops:
            return False
        large = 2.0 * float(axes["rows"]) * WIDTHS[str(axes["op"])] >= LARGE_BYTES
        return bool(axes["cold"]) == large

    return where


def small(name: str, ops: Sequence[str], what: str) -> Recipe:
    """A small stage, or all of them."""
    return Recipe(
        name=name,
        folder="small_ops",
        form="cached_bytes",
        where=_as_in_a_step(ops),
        inputs=lambda point: {"bytes": point.bytes},
        start={"t0_s": 2e-6, "bytes_per_s": 3.9e12, "l2_bytes_per_s": 6e12, "l2_bytes": 3e7},
        free=("t0_s", "bytes_per_s", "l2_bytes_per_s", "l2_bytes"),
        shape=lambda axes: f"{axes['op']} {axes['rows']}",
        domain=("bytes",),
        groups={"op": lambda axes: str(axes["op"])},
        bounds={"l2_bytes": (8e6, 2e8), "l2_bytes_per_s": (1e12, 1e14)},
        note=f"{what}, bytes read plus written. Times come from CUDA-graph replay, so t0 includes "
        "the gap between nodes. Small arrays are warm in L2, as the stage before leaves them; "
        "arrays of 24 MB and more are cold.",
    )


def small_alone(name: str, ops: Sequence[str]) -> Recipe:
    """One small stage: a fixed cost of its own, the rates of all."""
    lent = ("bytes_per_s", "l2_bytes_per_s", "l2_bytes")
    said = {"kind": "fitted", "note": "of all small stages together, see elementwise"}
    return replace(
        small(f"elementwise.{name}", ops, f"Stage {name}: a fixed cost of its own"),
        free=("t0_s",),
        fixed=dict.fromkeys(lent, said),
        least=3,
        borrow=lent_by("elementwise", *lent),
    )


def sampler(name: str, op: str, what: str) -> Recipe:
    """The choice of a token from a row of the vocabulary."""
    return Recipe(
        name=f"elementwise.{name}",
        folder="small_ops",
        form="linear_bytes",
        where=lambda axes: axes["op"] == op,
        inputs=lambda point: {"bytes": point.bytes, "rows": float(point.axes["rows"])},
        start={"t0_s": 6e-6, "bytes_per_s": 3e12},
        free=("t0_s", "bytes_per_s"),
        shape=lambda axes: f"{axes['rows']} rows of {axes['logits']}",
        domain=("bytes", "rows"),
        least=3,
        note=REPLAY + f"{what} from rows of 128,256 logits, bytes read.",
    )


EVERY_SMALL = [op for ops in SMALL.values() for op in ops]
ELEMENTWISE = (
    small("elementwise", EVERY_SMALL, "Norm, rotary embedding, activation and add together"),
    *(small_alone(name, ops) for name, ops in SMALL.items()),
    sampler("sample", "sampled", "Sampling at a temperature"),
    sampler("argmax", "greedy", "Arg-max"),
)
