"""Steps and courses: one model twice, what never happens, and accepted tokens in closed form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from speculating import full_steps, of, request, stepped, steps_of

from sim.rng import uniforms
from sim.steps import Step

LAWS = st.sampled_from(
    [0.0, 0.3, 0.72, 1.0, {"per_position": [0.9, 0.6, 0.3]}, {"survival": [0.8, 0.4, 0.4]},
     {"beta": {"mean": 0.6, "concentration": 2}}, {"mismatch_stride": 3}]
)  # fmt: skip
WIDTHS = st.one_of(
    st.integers(1, 9),
    st.fixed_dictionaries(
        {"controller": st.sampled_from(["asbs", "windowed"]), "max": st.integers(1, 9)}
    ),
    st.just({"controller": "load_aware", "thresholds": [{"batch": 8, "width": 3}], "max": 5}),
)
TREES = st.sampled_from([None, None, [1, 1], [3], [4, 2, 1], [2, 2, 2, 2]])


@st.composite
def speculators(draw: Any) -> Any:
    law, tree, width = draw(LAWS), draw(TREES), draw(WIDTHS)
    keys: dict[str, Any] = {}
    if tree is not None and "mismatch_stride" not in (law if isinstance(law, dict) else {}):
        keys["tree"] = tree
        if isinstance(width, dict) and width["controller"] == "load_aware":
            width = 1
        width = width if isinstance(width, dict) else {"max": width}
        width["max"] = min(width["max"], len(tree))
    return of(law, width, seed=draw(st.integers(0, 3)), **keys)


# ---------------------------------------------------------------- step and course
@settings(max_examples=150, deadline=None)
@given(speculators(), st.integers(0, 50), st.integers(1, 90), st.data())
def test_a_course_is_the_steps_whatever_caps_come(
    spec: Any, number: int, output_tokens: int, data: Any
) -> None:
    one = request(number, output_tokens)
    slow, fast = spec.begin(one), spec.begin(one)
    generated = data.draw(st.integers(0, output_tokens - 1))
    while generated < output_tokens:
        cap = data.draw(st.integers(0, 10))
        planned = spec.course(fast, generated, output_tokens, cap)
        course = steps_of(planned)
        assert course == steps_of(spec.course(fast, generated, output_tokens, cap))  # as it was
        taken = data.draw(st.integers(1, len(course)))
        for expected in course[:taken]:
            step = spec.step(slow, generated, output_tokens, cap)
            assert step == expected
            assert 1 <= step.commits == step.accepted + 1 <= output_tokens - generated
            assert step.rows == step.proposed + 1
            assert step.accepted <= spec.depth(step.proposed) <= min(cap, spec.max_depth)
            generated += step.commits
        spec.advance(fast, planned, taken)
        if taken == len(course):
            assert generated == output_tokens


def test_courses_are_whole_numbers_of_one_length() -> None:
    spec = of(0.7)
    course = spec.course(spec.begin(request()), 1, 100, 4)
    assert {column.dtype for column in course} == {np.dtype(np.int64)}
    assert len({len(column) for column in course}) == 1


def test_the_last_token_is_drafted_for_by_nobody() -> None:
    assert stepped(of(1.0), request(0, 2)) == [Step(1, 1, 0, 0)]
    assert stepped(of(1.0), request(0, 8)) == [Step(5, 5, 4, 4), Step(2, 2, 1, 1)]
    assert stepped(of(0.0), request(0, 4)) == [Step(3, 1, 2, 0), Step(2, 1, 1, 0), Step(1, 1, 0, 0)]


def test_without_width_every_step_is_plain() -> None:
    assert stepped(of(0.9), request(0, 5), cap=0) == [Step(1, 1, 0, 0)] * 4


def test_draws_belong_to_request_and_position() -> None:
    """The same draft token fares the same in a chain of any width that reaches it."""
    draws = uniforms(5, "acceptance", 3, np.arange(200))
    for width in (1, 2, 7):
        generated = 1
        for step in stepped(of(0.6, width, seed=5), request(3, 200)):
            passed = draws[generated : generated + step.accepted]
            assert (passed < 0.6).all()
            if step.accepted < step.proposed:
                assert draws[generated + step.accepted] >= 0.6
            generated += step.commits


def test_requests_seeds_and_rates_make_a_difference() -> None:
    courses = [
        stepped(of(rate, seed=seed), request(number))
        for rate, seed, number in ((0.6, 0, 0), (0.6, 0, 1), (0.6, 1, 0), (0.7, 0, 0))
    ]
    assert len({tuple(course) for course in courses}) == 4


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([0.1, 0.5, 0.8, 0.95]), st.integers(0, 100), st.integers(2, 120))
def test_wider_never_commits_less(rate: float, number: int, output_tokens: int) -> None:
    """At the same draws, by step after step: a chain with one rate, greedily verified."""
    totals = []
    for width in (1, 2, 3, 5, 8, 13):
        commits = [
            step.commits for step in stepped(of(rate, width), request(number, output_tokens))
        ]
        totals.append(np.cumsum(commits))
    for narrow, wide in pairwise(totals):
        assert len(wide) <= len(narrow)
        assert (wide >= narrow[: len(wide)]).all()


@given(
    st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=9)
)
def test_one_draw_or_many_are_equal(seed: int, number: int, positions: list[int]) -> None:
    many = uniforms(seed, "acceptance", number, np.array(positions, dtype=np.int64))
    assert many.tolist() == [uniforms(seed, "acceptance", number, p) for p in positions]
    assert ((many >= 0.0) & (many < 1.0)).all()


def test_draws_are_uniform_and_tell_streams_apart() -> None:
    """Over positions, over requests, and between neighbours of either."""
    table = np.array([uniforms(1, "acceptance", r, np.arange(300)) for r in range(300)])
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    for first, second in (
        (table[:, 1:], table[:, :-1]), (table[1:], table[:-1]), (table, table.T),
        (table[0], uniforms(2, "acceptance", 0, np.arange(300))),
        (table[0], uniforms(1, "other", 0, np.arange(300))),
    ):  # fmt: skip
        same = first is table and second.base is table
        x, y = (a[~np.eye(300, dtype=bool)] if same else a.ravel() for a in (first, second))
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(len(x))


# ---------------------------------------------------------------- a step at a time, by hand
def test_a_tree_counts_nodes_as_proposed_and_levels_as_accepted() -> None:
    spec = of(1.0, {"max": 3}, tree=[4, 2, 1])
    assert (spec.most_rows, spec.max_depth, spec.overhang) == (21, 3, 17)
    assert stepped(spec, request(0, 8)) == [Step(21, 4, 20, 3), Step(13, 3, 12, 2)]
    assert [spec.depth(nodes) for nodes in (0, 4, 12, 20)] == [0, 1, 2, 3]
    assert spec.depth(np.array([20, 0, 12])).tolist() == [3, 0, 2]


def test_a_stride_of_mismatches_ends_drafts_there() -> None:
    """The rule of the seeds: tokens 2, 4, 6, ... end a draft unless they are its last."""
    spec = of({"mismatch_stride": 2}, 4)
    # Token 1 stands. Drafts of 2, 3, 4, 5: 2 is accepted and ends it; the model gives 3.
    # Drafts of 4, 5, ...: 4 is accepted and ends it, and so on.
    assert stepped(spec, request(0, 20))[:3] == [Step(5, 2, 4, 1)] * 3
    # From an odd start: drafts of 3, 4, 5, 6 end behind 4.
    assert stepped(spec, request(0, 20), generated=2)[0] == Step(5, 3, 4, 2)


# ---------------------------------------------------------------- closed forms
def chances_of(accepted: np.ndarray, levels: int) -> np.ndarray:
    return np.bincount(accepted, minlength=levels + 1) / len(accepted)


def fits(accepted: np.ndarray, expected: list[float]) -> bool:
    """Chi-square test at one in a thousand; draws are fixed, so this never wavers."""
    counts = np.bincount(accepted, minlength=len(expected))
    return bool(stats.chisquare(counts, np.array(expected) * len(accepted)).pvalue > 1e-3)


@pytest.mark.parametrize("width", [1, 4, 8])
@pytest.mark.parametrize("rate", [0.22, 0.40, 0.62, 0.65, 0.86])
def test_one_rate_gives_a_truncated_geometric_law(rate: float, width: int) -> None:
    accepted = full_steps(of(rate, width), 150)
    expected = [rate**i * (1 - rate) for i in range(width)] + [rate**width]
    assert fits(accepted, expected)
    assert not fits(accepted, [*expected[1:], expected[0]])  # the test can fail
    mean = (1 - rate ** (width + 1)) / (1 - rate)  # tokens a step: Leviathan et al. 2023
    assert accepted.mean() + 1 == pytest.approx(mean, rel=0.02)
    assert mean == pytest.approx(sum(rate**i for i in range(width + 1)))
    assert of(rate, width).law.reached(of(rate, width).tree) == pytest.approx(
        [rate**i for i in range(1, width + 1)]
    )


def test_rates_by_position_multiply() -> None:
    rates = [0.8, 0.7, 0.6, 0.5]
    spec = of({"per_position": rates}, 6)
    reached = [*np.cumprod(rates), 0.8 * 0.7 * 0.6 * 0.25, 0.8 * 0.7 * 0.6 * 0.125]
    assert spec.law.reached(spec.tree) == pytest.approx(reached)
    ends = -np.diff([1.0, *reached, 0.0])
    assert fits(full_steps(spec, 150), ends.tolist())


def test_survival_is_what_vllm_counts_by_position() -> None:
    shares = [0.9, 0.5, 0.2]
    accepted = full_steps(of({"survival": shares}, 3), 200)
    found = [(accepted >= level).mean() for level in (1, 2, 3)]
    assert found == pytest.approx(shares, abs=0.01)
    nothing = of({"survival": [0.5, 0.0, 0.0]}, 3)
    assert nothing.law.chances(0) == (0.5, 0.0, 0.0)


def test_a_tree_passes_a_level_if_one_candidate_does() -> None:
    rate, tree = 0.4, [4, 2, 1]
    by_level = [1 - (1 - rate) ** width for width in tree]
    ends = -np.diff([1.0, *np.cumprod(by_level), 0.0])
    spec = of(rate, {"max": 3}, tree=tree)
    assert fits(full_steps(spec, 150), ends.tolist())
    assert spec.law.reached(spec.tree) == pytest.approx(np.cumprod(by_level))


def acceptance_by_request(acceptance: Any, requests: int = 400) -> np.ndarray:
    spec = of(acceptance, 1)
    rates = []
    for number in range(requests):
        course = spec.course(spec.begin(request(number, 800)), 1, 800, 64)
        rates.append(course.accepted.sum() / course.proposed.sum())
    return np.array(rates)


def test_beta_rates_differ_between_requests() -> None:
    mean, concentration = 0.6, 5.0
    rates = acceptance_by_request({"beta": {"mean": mean, "concentration": concentration}})
    law = stats.beta(mean * concentration, (1 - mean) * concentration)
    assert rates.mean() == pytest.approx(mean, abs=0.02)
    assert rates.std() == pytest.approx(law.std(), rel=0.1)  # sqrt(0.24 / 6) = 0.2
    assert stats.kstest(rates, law.cdf).pvalue > 1e-3
    assert acceptance_by_request(mean).std() < 0.15 * law.std()
    narrow = acceptance_by_request({"beta": {"mean": mean, "concentration": 1e6}})
    assert narrow.std() < 0.15 * law.std()


@pytest.mark.parametrize("tree", [None, [4, 2, 1, 1], [1, 3, 1, 2]])
def test_beta_and_column_know_what_they_reach(tree: list[int] | None, tmp_path: Any) -> None:
    law = stats.beta(3.0, 2.0)
    keys = {} if tree is None else {"tree": tree}
    spec = of({"beta": {"mean": 0.6, "concentration": 5}}, {"max": 4}, **keys)

    def product(rate: float, level: int) -> float:
        return float(np.prod([1 - (1 - rate) ** w for w in spec.tree.children[:level]]))

    expected = [
        integrate.quad(lambda a, k=k: product(a, k) * law.pdf(a), 0, 1)[0] for k in range(1, 5)
    ]
    assert spec.law.reached(spec.tree) == pytest.approx(expected, rel=1e-6)
    rates = law.ppf((np.arange(2000) + 0.5) / 2000)
    (tmp_path / "a.csv").write_text("acceptance\n" + "\n".join(map(repr, rates.tolist())))
    column = of({"file": str(tmp_path / "a.csv")}, {"max": 4}, **keys)
    assert column.law.reached(column.tree) == pytest.approx(expected, rel=1e-3)
    assert spec.law.chances(7) == spec.law.chances(7) != spec.law.chances(8)
    assert column.law.chances(7) == (rates[7],) * 4
