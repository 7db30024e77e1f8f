"""How alike two traces are: each figure of both side by side, judged where there is a bar.

One rule: the bars stand here once, for `trace inspect A B` and for the report on generators.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .look.inspection import Inspection
    from .look.lengths import Lengths

KS_BAR = 0.05
KS_BAR_ON_OFF = 0.10  # gaps of traffic that stops at times
DISPERSION_BAR = 0.25  # share of A's
LRU_BAR = 0.03  # 3 points
WINDOWS_S = (1.0, 10.0, 60.0)
CAPACITIES_BLOCKS = (1_000, 10_000, 100_000)

Steps = tuple["NDArray[Any]", "NDArray[np.float64]"]  # values, and the share at or below each


def ks_distance(a: Steps, b: Steps) -> float:
    """The largest difference of two distribution functions, each as values and shares."""
    at = np.unique(np.concatenate([a[0], b[0]]))
    shares = []
    for values, below in (a, b):
        # of equal values the last one has the share of all
        found = np.searchsorted(values, at, side="right")
        shares.append(np.concatenate([[0.0], below])[found])
    return float(np.abs(shares[0] - shares[1]).max())


def compare(a: Inspection, b: Inspection, *, on_off: bool | None = None) -> dict[str, Any]:
    """*b* against *a*: `rows` by key, `within`, whether all that are judged are in bounds, `notes`.

    A row has `figure` and `unit`, the values `a` and `b` (None where the trace has none),
    `difference` and how it is measured (`measure`: ks, relative or points; the difference itself
    is a share, and None where a side is missing), the `bar` it is judged by, `within` (both None
    where nothing is judged) and the `verdict` in words. *on_off* says whether *a* is traffic that
    stops at times, whose gaps have a wider bar; None looks at *a*. Time stamps on a grid are to be
    spread before a trace is inspected (`transforms.dither`).
    """
    on_off = a.on_off if on_off is None else on_off
    rows = {
        "requests": _relative("requests", "", a.requests, b.requests),
        "duration_s": _relative("duration", "s", a.duration_s, b.duration_s),
        "mean_rate_per_s": _relative("mean rate", "/s", a.mean_rate_per_s, b.mean_rate_per_s),
    }
    for name in ("prompt", "output"):
        sides: list[Lengths] = [getattr(x, name) for x in (a, b)]
        rows[f"{name}_tokens_mean"] = _relative(
            f"{name}, mean", "tokens", *(side.total / side.count for side in sides)
        )
        rows[f"{name}_tokens"] = _ks(
            f"{name}, distribution (median)", "tokens",
            [side.cdf() for side in sides], [side.quantile(0.5) for side in sides], KS_BAR,
        )  # fmt: skip
    rows["prompt_output_spearman"] = _points(
        "prompt and output, rank correlation", "", a.pairs.spearman(), b.pairs.spearman(), None
    )
    rows["inter_arrival_cv"] = _relative("gaps, CV", "", a.gaps.cv, b.gaps.cv)
    rows["inter_arrival_s"] = _ks(
        "gaps, distribution (median)", "s",
        [x.gaps.sorted() for x in (a, b)],
        [x.gaps.quantiles([0.5])[0] if x.gaps.count else None for x in (a, b)],
        KS_BAR_ON_OFF if on_off else KS_BAR,
    )  # fmt: skip
    curves = [x.dispersion() for x in (a, b)]
    for size in WINDOWS_S:
        rows[f"index_of_dispersion_{size:g}s"] = _relative(
            f"index of dispersion, {size:g} s", "",
            *(curve.get(size) for curve in curves), bar=DISPERSION_BAR,
        )  # fmt: skip
    rows |= _prefix(a, b) | _sessions(a, b)
    judged = [row["within"] for row in rows.values() if row["within"] is not None]
    return {"on_off": on_off, "rows": rows, "within": all(judged), "notes": _notes(a, b)}


def _notes(a: Inspection, b: Inspection) -> list[str]:
    """What makes figures of the two less alike, or less sure, than they look."""
    notes = []
    sizes = [x.reuse.block_tokens for x in (a, b)]
    if a.reuse.blocks and b.reuse.blocks and sizes[0] != sizes[1]:
        notes.append(
            f"a block is {sizes[0]:,} tokens in A and {sizes[1]:,} in B, so caches of as many "
            "blocks do not hold as much"
        )
    for side, x in (("A", a), ("B", b)):
        if not x.gaps.exact:
            notes.append(f"gaps of {side} are binned, 1.2 % wide each, for their distribution")
    return notes


def _prefix(a: Inspection, b: Inspection) -> dict[str, dict[str, Any]]:
    """Hit rates of LRU prefix caches; none if neither trace has block ids."""
    curves = [x.curve() for x in (a, b)]
    if curves == [None, None]:
        return {}
    rows = {}
    for blocks in (*CAPACITIES_BLOCKS, inf):
        name, bar = ("infinite", None) if blocks == inf else (f"{blocks}_blocks", LRU_BAR)
        a_rate, b_rate = (None if curve is None else curve.hit_rate(blocks) for curve in curves)
        said = "any size" if blocks == inf else f"{blocks:,} blocks"
        rows[f"lru_hit_rate_{name}"] = _points(
            f"prefix hits, LRU of {said}", "share", a_rate, b_rate, bar
        )
    return rows


def _sessions(a: Inspection, b: Inspection) -> dict[str, dict[str, Any]]:
    """The shape of sessions; none if neither trace has any."""
    found = [x.sessions.summary() for x in (a, b)]
    if found == [None, None]:
        return {}

    def both(*keys: str) -> tuple[float | None, float | None]:
        return _at(found[0], keys), _at(found[1], keys)

    return {
        "sessions": _relative("sessions", "", *both("sessions")),
        "turns_per_session_mean": _relative(
            "turns a session, mean", "", *both("turns_per_session", "mean")
        ),
        "gap_between_turns_s": _relative(
            "between turns, median", "s", *both("gap_between_turns_s", "p50")
        ),
        "waiting_share": _points(
            "requests that wait for an answer", "share", *both("waiting_share"), None
        ),
        "known_prompt_share": _points(
            "of later prompts, known from before", "share", *both("extends", "blocks_share"), None
        ),
    }


def _at(figures: Any, keys: Sequence[str]) -> float | None:
    """What stands under *keys*, one inside the other; None where one of them is None."""
    for key in keys:
        figures = None if figures is None else figures[key]
    return None if figures is None else float(figures)


def _row(
    figure: str,
    unit: str,
    sides: Sequence[float | None],
    measure: str,
    difference: float | None,
    bar: float | None,
) -> dict[str, Any]:
    a, b = sides
    within = None if difference is None or bar is None else abs(difference) <= bar
    verdict = ""
    if a is None or b is None:
        verdict = "in neither" if a is b else "only in B" if a is None else "only in A"
    elif within is not None:
        assert bar is not None
        verdict = f"{'within' if within else 'beyond'} {bar_in_words(measure, bar)}"
    return {
        "figure": figure, "unit": unit, "a": a, "b": b, "measure": measure,
        "difference": difference, "bar": bar, "within": within, "verdict": verdict,
    }  # fmt: skip


def bar_in_words(measure: str, bar: float) -> str:
    """*bar* as people say it: 0.05, 25 % or 3 points."""
    words = {"ks": f"{bar:g}", "relative": f"{100 * bar:g} %", "points": f"{100 * bar:g} points"}
    return words[measure]


def _relative(
    figure: str, unit: str, a: float | None, b: float | None, *, bar: float | None = None
) -> dict[str, Any]:
    difference = None
    if a is not None and b is not None and a != 0:
        difference = b / a - 1.0
    return _row(figure, unit, (a, b), "relative", difference, bar)


def _points(
    figure: str, unit: str, a: float | None, b: float | None, bar: float | None
) -> dict[str, Any]:
    difference = None if a is None or b is None else b - a
    return _row(figure, unit, (a, b), "points", difference, bar)


def _ks(
    figure: str, unit: str, steps: list[Steps], sides: Sequence[float | None], bar: float
) -> dict[str, Any]:
    there = all(len(values) for values, _ in steps)
    return _row(figure, unit, sides, "ks", ks_distance(*steps) if there else None, bar)
