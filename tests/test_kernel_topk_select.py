"""Page selection on the CPU: the reference's pages, in order, for any scores and any launch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.checking import poisoned
from kernels.topk_select import check, launch, reference


@pytest.mark.parametrize("case", list(check.cases(small=True)), ids=lambda case: case["scores"])
def test_small_cases(case: dict) -> None:
    assert check.check(Cpu(), case, np.random.default_rng(1)) == 0.0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    pages=st.integers(1, 700),
    budget=st.integers(1, 80),
    sink=st.integers(0, 5),
    recent=st.integers(0, 5),
    new_tokens=st.sampled_from((1, 5, 40)),
    scores=st.sampled_from(check.DISTRIBUTIONS),
    threads=st.sampled_from((128, 160, 256)),
    grid=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_equals_the_reference(seed: int, **case: object) -> None:
    case |= {"batch": 2, "heads": 1, "page_tokens": 16}
    case["pages"] = max(case["pages"], 3)  # room for the new tokens
    assert check.check(Cpu(), case, np.random.default_rng(seed)) == 0.0


def select(scores: list[float], budget: int, **options: int) -> list[int]:
    """Pages that the kernel selects of one row, one token a step, every page full but the last."""
    backend = Cpu()
    padded = np.zeros((1, 1, -(-len(scores) // 4) * 4), np.float32)
    padded[0, 0, : len(scores)] = scores
    selected = poisoned(backend, (1, 1, budget), np.int32)
    counts = poisoned(backend, (1, 1), np.int32)
    lengths = np.array([len(scores) * 16 - 1], np.int32)
    launch.topk_select(
        backend, padded, lengths, selected, counts,
        new_tokens=1, budget=budget, threads=128, **options,
    )  # fmt: skip
    return [int(page) for page in selected[0, 0, : counts[0, 0]]]


def test_ties_go_to_the_lower_page_and_zeros_are_equal() -> None:
    scores = [-0.0 if i % 2 else 0.0 for i in range(40)]
    assert select(scores, 5, sink=0, recent=1) == [0, 1, 2, 3, 39]


def test_nan_counts_as_minus_infinity() -> None:
    scores = [float("-inf"), *[float("nan")] * 10, -1e38, float("-inf"), 0.0]
    assert select(scores, 4, sink=0, recent=1) == [0, 1, 11, 13]


def test_forced_pages_ignore_their_scores() -> None:
    scores = [float("nan")] + [1.0, 9.0, 2.0, 3.0] + [float("nan")] * 2
    assert select(scores, 5, sink=1, recent=2) == [0, 2, 4, 5, 6]


def test_recent_pages_win_over_sinks_when_the_budget_is_small() -> None:
    assert select([0.0] * 20, 4, sink=3, recent=3) == [0, 17, 18, 19]


def test_reference_takes_every_page_within_the_budget() -> None:
    assert reference.select(np.zeros(8), 6, 1, 6, 1, 1).tolist() == [0, 1, 2, 3, 4, 5]


def test_launcher_names_what_is_off() -> None:
    scores, lengths = np.zeros((1, 1, 8), np.float32), np.zeros(1, np.int32)
    selected, counts = np.zeros((1, 1, 4), np.int32), np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match="budget 5 of 4"):
        launch.topk_select(Cpu(), scores, lengths, selected, counts, new_tokens=1, budget=5)
    with pytest.raises(ValueError, match="lengths int64"):
        launch.topk_select(
            Cpu(), scores, lengths.astype(np.int64), selected, counts, new_tokens=1, budget=4
        )
