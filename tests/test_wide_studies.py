"""What the captions of the shipped studies about speculation and selection say, at a few points."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sim.simulate import Simulation
from sim.study import load_study

SCENARIOS = Path(__file__).parent.parent / "scenarios"


@cache
def points_of(study: str, *overrides: str):
    return load_study(SCENARIOS / f"{study}.yaml", overrides).points


def played(study: str, *overrides: str, **axes: Any) -> dict[str, Any]:
    """The summary of the one point of *study* with these *axes*, by the last part of their names.

    A map is told by one of its values.
    """

    def fits(value: Any, wanted: Any) -> bool:
        if isinstance(value, dict) and not isinstance(wanted, dict):
            return wanted in value.values()
        return bool(value == wanted)

    found = [
        point
        for point in points_of(study, *overrides)
        if all(
            fits(value, axes[key.rpartition(".")[2]])
            for key, value in point.axes.items()
            if key.rpartition(".")[2] in axes
        )
    ]
    assert len(found) == 1, [point.axes for point in found]
    return Simulation(found[0].scenario).run()


def tpot(study: str, **axes: Any) -> float:
    return float(played(study, **axes)["median_tpot_ms"])


# ---------------------------------------------------------------- the K curve
def widths(draft: str, rate: float, *chosen: Any) -> list[float]:
    return [tpot("speculation-width", draft=draft, rate=rate, width=width) for width in chosen]


def test_a_dear_draft_crosses_the_line_the_sooner_the_less_is_accepted() -> None:
    plain, *low = widths("llama-3.2-1b", 0.22, "load_aware", 1, 2, 4)
    assert low[1] > plain
    assert low == sorted(low)
    two, three = widths("llama-3.2-1b", 0.40, 2, 3)
    assert two < plain < three
    five, seven = widths("llama-3.2-1b", 0.62, 5, 7)
    assert five < plain < seven
    assert widths("llama-3.2-1b", 0.86, 7)[0] < 0.6 * plain


def test_the_best_width_grows_with_acceptance() -> None:
    tried = (1, 3, 7)
    best = [
        min(zip(widths("eagle", rate, *tried), tried, strict=True))[1]
        for rate in (0.22, 0.62, 0.86)
    ]
    assert best == [1, 3, 7]


def test_a_free_draft_never_loses() -> None:
    plain = widths("ngram", 0.22, "load_aware")[0]
    assert max(widths("ngram", 0.22, 1, 3, 7)) < 0.9 * plain


def test_the_width_really_changes_what_is_proposed() -> None:
    for width in (1, 4):
        summary = played("speculation-width", draft="ngram", rate=0.86, width=width)
        assert 0.97 * width < summary["spec_num_draft_tokens"] / summary["spec_num_drafts"] <= width


def test_the_baseline_is_decoding_without_speculation() -> None:
    summary = played("speculation-width", draft="eagle", rate=0.62, width="load_aware")
    assert summary["spec_num_drafts"] == 0
    assert summary["spec_acceptance_rate"] is None


# ---------------------------------------------------------------- batches, contexts
@pytest.mark.parametrize(("batch", "pays"), [(32, True), (64, False)])
def test_a_drafter_of_1b_stops_paying_between_32_and_64_requests(batch: int, pays: bool) -> None:
    with_it, without = (
        played("speculation-batch", prompt_tokens=512, max_batch=batch, speculation=drafter)
        for drafter in ("llama-3.2-1b", None)
    )
    assert (with_it["output_throughput"] > without["output_throughput"]) == pays


@pytest.mark.parametrize(
    ("mode", "context", "wins"),
    [
        ("graph", 512, False),
        ("graph", 2048, False),
        ("graph", 4096, True),
        ("resident", 4096, False),
        ("resident", 8192, True),
    ],
)
def test_selection_loses_at_short_contexts_and_wins_at_long_ones(
    mode: str, context: int, wins: bool
) -> None:
    at = {"mode": mode, "prompt_tokens": context}
    dense = tpot("sparse-context", **at, sparse=None)
    every = {"select": "topk", "top_k_tokens": 1024, "sink_tokens": 64, "recent_tokens": 256}
    each = tpot("sparse-context", **at, sparse=every)
    assert (each < dense) == wins
    assert tpot("sparse-context", **at, sparse=every | {"shared_layers": 4}) < each


def test_goodput_control_keeps_up_with_the_best_fixed_width_and_asbs_does_not() -> None:
    best, goodput, asbs = (
        played("speculation-control", rate_scale=8, speculation={"width": width})["request_goodput"]
        for width in (2, {"controller": "goodput", "max": 7}, {"controller": "asbs", "max": 7})
    )
    assert goodput > 0.94 * best
    assert asbs < 0.8 * best
