"""Controllers: widths on recorded sequences, by the seeds' rules, and caps by load and cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speculating import of, request, stepped

from sim.speculation.acceptance import MismatchStride
from sim.speculation.controllers import Asbs, AsbsRule, Windowed, WindowedRule, trajectory

RECORDED = [1, 0, 0, 0, 1, 1, 1, 1]


def widths(acceptance: float, width: dict[str, object], output_tokens: int = 40) -> list[int]:
    return [step.proposed for step in stepped(of(acceptance, width), request(0, output_tokens))]


# ---------------------------------------------------------------- ASBS
def test_asbs_golden_vector() -> None:
    asbs, averages = Asbs(AsbsRule()), []
    for observed in RECORDED:
        asbs.observe(observed * asbs.width, asbs.width)
        averages.append(round(asbs.average, 4))
    assert averages == [0.840, 0.672, 0.5376, 0.4301, 0.5441, 0.6353, 0.7082, 0.7666]
    recorded = [(seen, 1) for seen in RECORDED]
    assert trajectory(Asbs(AsbsRule()), recorded) == [8, 4, 4, 1, 4, 4, 4, 4]


def test_asbs_golden_vector_under_pressure() -> None:
    spec = of(0.5, {"controller": "asbs"})
    free, pressed = spec.cap(4, 100.0, 0.85), spec.cap(4, 100.0, 0.8501)
    assert (free, pressed) == (8, 2)
    golden = [8, 4, 4, 1, 4, 4, 4, 4]
    assert [min(width, pressed) for width in golden] == [2, 2, 2, 1, 2, 2, 2, 2]
    state = spec.begin(request())
    assert spec.step(state, 1, 100, pressed).proposed == 2
    roomy = of(0.5, {"controller": "asbs", "pressure": 0.95, "pressure_cap": 3})
    assert roomy.cap(4, 100.0, 0.9) == 8
    assert roomy.cap(4, 100.0, 0.96) == 3


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("first", [1, 4, 8])
def test_asbs_on_the_device_rule_of_the_seeds(number: int, first: int) -> None:
    """A draft token divisible by 4 is refused; 128 tokens; iterations do not depend on *first*."""
    asbs = Asbs(AsbsRule(initial=first))
    last, left, drafted = (7 * number + 3) % 32_000, 128, []
    while left:
        width = min(asbs.width, left)
        tokens = [(last + 1 + i + number) % 32_000 for i in range(width)]
        accepted = next((i for i, token in enumerate(tokens) if token % 4 == 0), width)
        asbs.observe(accepted, width)
        last = 0 if accepted else (last + 1 + number) % 32_000
        left -= max(1, accepted)
        drafted.append(width)
    assert len(drafted) == (44, 65, 128, 128)[number % 4]
    if first == 4:
        expected = ([4] * 8, [4] * 8, [4, 4, 4, 1, 4, 4, 1, 4], [4, 4, 4, 1, 1, 1, 1, 1])
        assert drafted[:8] == expected[number % 4]


@pytest.mark.parametrize(("block", "accepted_share"), [(4, 5 / 7), (8, 5 / 9)])
def test_forced_rejection_of_the_seeds(block: int, accepted_share: float) -> None:
    """Stride 2, five tokens and no token of the model's own: 0.714 and 0.556 in three steps."""
    law = MismatchStride(2, block)
    asbs, done, drafted, steps = Asbs(AsbsRule(most=block)), 0, 0, 0
    while done < 5:
        width, accepted = min(asbs.width, 5 - done), 0
        chances = law.chances(0)
        while accepted < width and law.draw(0, 0, done + accepted) < chances[accepted]:
            accepted += 1
        asbs.observe(accepted, width)
        done, drafted, steps = done + accepted, drafted + width, steps + 1
    assert (done / drafted, steps) == (accepted_share, 3)


def test_each_key_of_asbs() -> None:
    def run(**keys: float) -> list[int]:
        return trajectory(Asbs(AsbsRule(**keys)), [(seen, 1) for seen in RECORDED])  # type: ignore[arg-type]

    plain = run()
    assert run(alpha=0.5) == [8, 1, 1, 1, 4, 4, 8, 8]  # .9 .45 .225 .1125 .556 .778 .889 .944
    assert run(high=0.75)[-1] == 8 != plain[-1]
    assert run(low=0.7) == [8, 1, 1, 1, 1, 1, 4, 4]
    assert run(most=4) == [4, 2, 2, 1, 2, 2, 2, 2]  # midway (1 + 4) // 2, as the seeds' harness
    assert run(least=2) == [8, 5, 5, 2, 5, 5, 5, 5]
    assert Asbs(AsbsRule(initial=3)).width == 3


def test_asbs_in_a_run() -> None:
    assert widths(1.0, {"controller": "asbs"})[:4] == [8, 8, 8, 8]
    # 0.8 0.64 0.512 0.4096: the fourth step and all further ones have width 1.
    assert widths(0.0, {"controller": "asbs"})[:6] == [8, 4, 4, 1, 1, 1]


# ---------------------------------------------------------------- windowed
def test_windowed_by_hand() -> None:
    """Noted before each step: 0, then all accepted over all drafted; four are needed."""
    up = trajectory(Windowed(WindowedRule()), [(4, 4)] * 7)
    # 0 1 1 1 is 0.75, which holds; from then on 1.
    assert up == [4, 4, 4, 5, 6, 7, 8]
    assert trajectory(Windowed(WindowedRule()), [(0, 4)] * 7) == [4, 4, 3, 2, 1, 1, 1]


def test_windowed_is_cumulative_and_slows_down() -> None:
    seen = [(4, 4)] * 20 + [(0, 8)] * 20
    found = trajectory(Windowed(WindowedRule()), seen)
    assert found[19] == 8
    # 80 of 80; then 80/88, 80/96, 80/104, ... falls below 0.6 (four of them) only after nine.
    fell = next(i for i, width in enumerate(found[20:], 1) if width < 8)
    noted = [80 / (80 + 8 * i) for i in range(20)]
    assert fell == next(i for i in range(4, 20) if sum(noted[i - 3 : i + 1]) / 4 < 0.6)


def test_each_key_of_windowed() -> None:
    def run(**keys: float) -> list[int]:
        return trajectory(Windowed(WindowedRule(**keys)), [(3, 4)] * 6)  # type: ignore[arg-type]

    # 0 .75 .75 .75 is 0.5625, which is low; then 0.75, which holds.
    assert run() == [4, 4, 3, 3, 3, 3]
    assert run(step=2) == [4, 4, 2, 2, 2, 2]
    assert run(target=0.6) == [4, 4, 4, 5, 6, 7]
    assert run(margin=0.2) == [4, 4, 4, 4, 4, 4]
    assert run(initial=6) == [6, 6, 5, 5, 5, 5]
    assert run(initial=2, least=2, step=3) == [2, 2, 2, 2, 2, 2]
    assert run(target=0.6, most=5) == [4, 4, 4, 5, 5, 5]


def test_windowed_in_a_run() -> None:
    assert widths(0.0, {"controller": "windowed"})[:7] == [4, 4, 4, 3, 2, 1, 1]


@given(st.lists(st.integers(0, 8), max_size=30))
def test_copies_go_their_own_way(seen: list[int]) -> None:
    for one in (Asbs(AsbsRule()), Windowed(WindowedRule())):
        trajectory(one, [(n, 8) for n in seen])
        copy = one.twin()
        later = [(n, 8) for n in (8, 8, 0, 0, 0, 8)]
        assert trajectory(copy, later) == trajectory(one.twin(), later)
        assert one.width == one.twin().width


# ---------------------------------------------------------------- the batch's cap
def roofline(batch: int, rows: int, depth: int, context: int) -> float:
    """A GPU that reads weights for 10 ms and computes 64 rows meanwhile; drafts take 1 ms each."""
    return max(10e-3, rows * 10e-3 / 64) + context * 1e-9 + depth * 1e-3


def test_fixed_width_is_for_any_batch() -> None:
    spec = of(0.6, 5)
    assert {spec.cap(batch, 10.0**k, 1.0) for batch in (1, 500) for k in range(6)} == {5}


def test_load_aware_by_thresholds() -> None:
    limits = [{"batch": 8, "width": 6}, {"batch": 32, "width": 2}, {"batch": 64, "width": 0}]
    spec = of(0.6, {"controller": "load_aware", "thresholds": limits, "max": 6})
    found = [spec.cap(batch, 100.0, 0.0) for batch in (1, 8, 9, 32, 33, 64, 65, 1000)]
    assert found == [6, 6, 2, 2, 0, 0, 0, 0]
    assert spec.begin(request()).controller.width == 6


def test_load_aware_by_the_knee() -> None:
    def cap(batch: int, slack: float, depth_s: float = 1e-3) -> int:
        width = {"controller": "load_aware", "slack": slack}
        return of(0.6, width, seconds=roofline).cap(batch, 256.0, 0.0)

    # batch * (1 + width) <= 64 rows are free; with a slack of 25 % 80 rows are.
    assert [cap(batch, 0.0) for batch in (1, 7, 8, 16, 21, 32, 33, 64)] == [8, 8, 7, 3, 2, 1, 0, 0]
    assert [cap(batch, 0.25) for batch in (8, 10, 16, 40, 64)] == [8, 7, 4, 1, 0]


def test_goodput_is_the_best_of_all_widths() -> None:
    spec = of(0.7, {"controller": "goodput"}, seconds=roofline)

    def goodput(batch: int, width: int) -> float:
        tokens = batch * sum(0.7**i for i in range(width + 1))
        return tokens / roofline(batch, batch * (width + 1), width, batch * 512)

    caps = [spec.cap(batch, 500.0, 0.0) for batch in (1, 8, 16, 32, 64, 256)]
    assert caps == sorted(caps, reverse=True)
    assert caps[0] > 2
    assert caps[-1] == 0
    for batch, found in zip((1, 8, 16, 32, 64, 256), caps, strict=True):
        assert found == max(range(9), key=lambda width: goodput(batch, width))


def test_goodput_knows_acceptance_drafting_and_the_tree() -> None:
    width = {"controller": "goodput"}
    low, high = (of(rate, width, seconds=roofline).cap(4, 100.0, 0.0) for rate in (0.2, 0.9))
    assert low < high

    def costly(batch: int, rows: int, depth: int, context: int) -> float:
        return roofline(batch, rows, 0, context) + depth * 5e-3

    assert of(0.7, width, seconds=costly).cap(4, 100.0, 0.0) < of(0.7, width, seconds=roofline).cap(
        4, 100.0, 0.0
    )
    tree = of(0.7, width, seconds=roofline, tree=[4, 4, 4])
    assert [tree.cap(batch, 100.0, 0.0) for batch in (1, 16, 64)] == [2, 1, 0]
    beta = of({"beta": {"mean": 0.5, "concentration": 0.5}}, width, seconds=roofline)
    assert beta.cap(4, 100.0, 0.0) > of(0.5, width, seconds=roofline).cap(4, 100.0, 0.0)


def test_a_cap_is_sought_once_for_contexts_alike() -> None:
    asked: list[tuple[int, int, int, int]] = []

    def seconds(batch: int, rows: int, depth: int, context: int) -> float:
        asked.append((batch, rows, depth, context))
        return 1.0

    spec = of(0.7, {"controller": "goodput", "max": 3}, seconds=seconds)
    for context in (257.0, 300.5, 512.0):
        spec.cap(10, context, 0.0)
    assert asked == [(10, 10 * (1 + w), w, 5120) for w in range(4)]
    spec.cap(10, 513.0, 0.0)
    assert len(asked) == 8
