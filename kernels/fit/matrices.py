"""Products of single matrices: those of the decoder's models, each with rates of its own.

A library picks another kernel for every matrix, and one form over all of them is off by more than a
decode step may be. The one rule is that of all fits: held-out points judge and are never fitted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..decoder.shape import LLAMA_1B, LLAMA_8B
from .judge import is_held_out
from .kernel import Table, points_of
from .products import INT4, LIBRARY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .recipe import Axes, Recipe
    from .samples import Samples

MOST_ROWS = {"gemm.bf16": 128, "gemm.int4": 16}
"""Token rows of a decode step: where more come together, libraries pick again."""
FREE = {
    "gemm.bf16": ("bytes_per_s", "flops_per_s"),
    "gemm.int4": ("gemv_bytes_per_s", "gemv_input_s"),
}
LEAST = 3


def matrices() -> list[tuple[int, int]]:
    """(n, k) of every product of a decode step."""
    found: dict[tuple[int, int], None] = {}
    for shape in (LLAMA_1B, LLAMA_8B):
        for n, k in (*shape.products.values(), (shape.vocabulary, shape.hidden)):
            found.setdefault((n, k))
    return list(found)


def products(samples: Samples, kernels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Entries `<product>.<n>x<k>` as far as *samples* have points of them."""
    made = {}
    for base in (LIBRARY, INT4):
        for n, k in matrices():
            recipe = _recipe(base, n, k, kernels[base.name]["parameters"])
            points = points_of(recipe, samples)
            held = [is_held_out(point.kernel, point.axes) for point in points]
            if held.count(False) < LEAST:
                continue
            table = Table(recipe, points)
            train = [not out for out in held]
            parameters = table.fit(train)
            made[f"{base.name}.{n}x{k}"] = {
                "form": recipe.form,
                "parameters": parameters,
                "fixed": {},
                "kind": "fitted",
                "domain": table.domain(),
                "source": "run",
                "includes_node_gap": True,
                "residuals": {
                    "holdout": table.judged(parameters, held),
                    "training": table.judged(parameters, train),
                },
                "note": f"{base.name} of one matrix, {recipe.note}",
            }
    return made


def _recipe(base: Recipe, n: int, k: int, start: Mapping[str, float]) -> Recipe:
    most = MOST_ROWS[base.name]

    def where(axes: Axes) -> bool:
        return bool(base.where(axes) and (axes["n"], axes["k"]) == (n, k) and axes["m"] <= most)

    return replace(base, where=where, start=start, free=FREE[base.name], borrow=None)
