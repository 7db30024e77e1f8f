"""Block-parallel decode: its steps, its refreshes, and runs by hand in which both appear."""

from __future__ import annotations

import tempfile
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kv_runs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engines_agree import (
    assert_same,
    both,
    check_conservation,
    check_times,
    crowd,
    settings_of_a_run,
)
from toy import hbm, play, toy_scenario

from sim.ahead import WIDTH, Ahead
from sim.block_decode import BlockDecode
from sim.errors import InputError
from sim.load import load
from sim.refining import Refiner
from sim.request import Request
from sim.steps import Course, Step

if TYPE_CHECKING:
    from toy import Ran

    from sim.scenario import Scenario
    from sim.trace.chunk import Chunk


def refiner(seed: int = 0, **keys: Any) -> Refiner:
    return Refiner(BlockDecode.model_validate(keys), seed)


def stepped(spec: Refiner, output: int, generated: int = 1, number: int = 0) -> list[Step]:
    """All steps of a request by `step`."""
    state, steps = spec.begin(Request(number, 0.0, 10, output)), []
    while generated < output:
        steps.append(spec.step(state, generated, output, 0))
        generated += steps[-1].commits
    return steps


def rows_and_commits(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.rows, step.commits) for step in steps]


# ---------------------------------------------------------------- steps
def test_a_block_is_committed_by_the_last_of_its_steps() -> None:
    """Nine tokens after the first: two blocks of four, and one of which a token is asked for."""
    steps = rows_and_commits(stepped(refiner(block=4, steps=3), 10))
    assert steps == [(4, 0), (4, 0), (4, 4)] * 2 + [(4, 0), (4, 0), (4, 1)]


def test_tokens_a_step_may_be_a_mean() -> None:
    """2.5 a step: 3 and 2 of a block of 5, so that it takes two steps."""
    steps = rows_and_commits(stepped(refiner(block=5, steps={"tokens": 2.5}, commit="prefix"), 6))
    assert steps == [(5, 3), (2, 2)]


def test_by_prefix_tokens_leave_the_block_when_they_are_final() -> None:
    """Seven by three steps: 3, 2, 2; the second block is over when the last token asked for is."""
    steps = rows_and_commits(stepped(refiner(block=7, steps=3, commit="prefix"), 1 + 7 + 4))
    assert steps == [(7, 3), (4, 2), (2, 2), (7, 3), (4, 1)]


def test_by_prefix_a_token_waits_for_those_before_it() -> None:
    spec = refiner(block=6, steps=6, commit="prefix", order="drawn")
    finals = spec.finals(0, 1)
    assert sorted(finals) == [1, 2, 3, 4, 5, 6] != list(finals)
    commits = [step.commits for step in stepped(spec, 7)]
    first = finals.index(1)  # the place that the first step makes final
    assert sum(commits) == 6
    assert (commits[0] > 0) == (first == 0)
    for step in range(1, 7):
        done = next((i for i, t in enumerate(finals) if t > step), 6)
        assert sum(commits[:step]) == done


def test_every_step_of_a_rate_makes_something_final() -> None:
    """A rate of 1 needs a step a block; one of nearly nothing makes one token final a step."""
    assert len(stepped(refiner(block=8, steps={"rate": 1.0}), 17)) == 2
    assert len(stepped(refiner(block=8, steps={"rate": 1e-9}), 17)) == 16


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.6])
def test_steps_of_a_block_against_the_closed_form(rate: float) -> None:
    """Of m open tokens binomial(m, rate) become final, or one: a Markov chain on m."""
    expected = [0.0]
    for m in range(1, 9):
        chances = [comb(m, k) * rate**k * (1 - rate) ** (m - k) for k in range(m + 1)]
        rest = sum(chances[k] * expected[m - max(k, 1)] for k in range(m + 1))
        expected.append(1.0 + rest)
    spec = refiner(block=8, steps={"rate": rate})
    course = spec.course(spec.begin(Request(0, 0.0, 1, 1)), 1, 1 + 8 * 20_000, 0)
    lengths = np.diff(course.commits.nonzero()[0], prepend=-1)
    error = lengths.std() / np.sqrt(len(lengths))
    assert abs(lengths.mean() - expected[8]) < 4 * error


LAWS = st.one_of(
    st.builds(lambda n: {"count": n}, st.integers(1, 6)),
    st.builds(lambda x: {"tokens": x}, st.floats(1, 6)),
    st.builds(lambda p: {"rate": p}, st.sampled_from([0.05, 0.3, 0.7, 1.0])),
)


@st.composite
def sections(draw: Any) -> dict[str, Any]:
    """A section `block_decode` without a refresh."""
    law = draw(LAWS)
    least = max(law.get("count", 1), int(np.ceil(law.get("tokens", 1))))
    return {
        "block": draw(st.integers(least, 9)),
        "steps": law,
        "commit": draw(st.sampled_from(["block", "prefix"])),
        "order": draw(st.sampled_from(["left", "drawn"])),
    }


@settings(max_examples=120, deadline=None, derandomize=True)
@given(sections(), st.integers(2, 60), st.integers(0, 5), st.integers(0, 40))
def test_a_course_is_its_steps(section: dict[str, Any], output: int, number: int, cut: int) -> None:
    """From any step of it on, and after a token that comes from elsewhere."""
    spec = refiner(3, **section)
    one = Request(number, 0.0, 10, output)
    state, other, generated = spec.begin(one), spec.begin(one), 1
    while generated < output:
        course = spec.course(state, generated, output, 0)
        steps = [Step(*row) for row in np.array(course).T.tolist()]
        assert sum(step.commits for step in steps) == output - generated
        assert all(0 < step.rows <= spec.most_rows for step in steps)
        taken = steps[: cut or 1]
        for step in taken:
            assert spec.step(other, generated, output, 0) == step
            generated += step.commits
        spec.advance(state, course, len(taken))
        generated += cut % 3 == 2  # as a prefill does
        assert isinstance(course, Course)


# ---------------------------------------------------------------- runs by hand
def ran(folder: Path, requests: list[tuple[float, int, int]], **sections: Any) -> Ran:
    return play(toy_scenario(folder, requests, **sections))


def test_one_request_by_hand(tmp_path: Path) -> None:
    """A prompt of 8 and 10 tokens in blocks of 4 by 2 steps, KV blocks of 4.

    Its first token comes at 20; each step takes 16 ticks and holds KV of the block, and every
    other step commits. The third block is refined whole for the last token.
    """
    one = ran(tmp_path, [(0, 8, 10)], block_decode={"block": 4, "steps": 2}, kv={"block_tokens": 4})
    columns = ("decode_rows", "context_tokens", "output_tokens", "kv_blocks", "path")
    assert one.rows(*columns) == [
        (0, 20, 0, 0, 1, 2, "host"),
        (20, 16, 4, 12, 0, 3, "graph"),
        (36, 16, 4, 12, 4, 3, "graph"),
        (52, 16, 4, 16, 0, 4, "graph"),
        (68, 16, 4, 16, 4, 4, "graph"),
        (84, 16, 4, 20, 0, 5, "graph"),
        (100, 16, 4, 20, 1, 5, "graph"),
    ]
    assert one.ticks("finished_s") == [116]
    said = one.summary
    assert said["mean_itl_ms"] == said["p99_itl_ms"] == 32e3 / 1024  # between commits
    assert said["mean_tpot_ms"] == pytest.approx(96e3 / 1024 / 9)
    assert (said["block_steps"], said["block_rows"]) == (6, 24)
    assert said["block_tokens_per_step"] == 1.5
    assert said["kv_blocks_allocated"] == said["kv_blocks_freed"]
    assert "block_refreshes" not in said


def test_refreshes_by_hand(tmp_path: Path) -> None:
    """Every second step computes 8, 12 and 16 tokens again; it is launched, not replayed.

    A layer of it is four products (1 tick each), decode attention (2) and prefill attention (4).
    """
    blocks = {"block": 4, "steps": 2, "refresh": {"every": 2}}
    one = ran(tmp_path, [(0, 8, 13)], block_decode=blocks)
    columns = ("refreshing_requests", "refreshed_tokens", "output_tokens", "path")
    assert one.rows(*columns)[1:] == [
        (20, 16, 0, 0, 0, "graph"),
        (36, 16, 0, 0, 4, "graph"),
        (52, 24, 1, 12, 0, "host"),
        (76, 16, 0, 0, 4, "graph"),
        (92, 24, 1, 16, 0, "host"),
        (116, 16, 0, 0, 4, "graph"),
    ]
    assert one.summary["block_refreshed_tokens"] == 28
    assert one.summary["block_refreshes"] == 2
    blocks["refresh"] |= {"scope": "prompt"}
    assert ran(tmp_path, [(0, 8, 13)], block_decode=blocks).summary["block_refreshed_tokens"] == 16


def refreshing(one: Ran) -> list[int]:
    """How many requests refresh in each iteration in which all four of `four` decode."""
    rows = one.iterations[one.iterations.decode_requests == 4]
    return rows.refreshing_requests.tolist()


def four(folder: Path, **refresh: Any) -> Ran:
    """Four requests that begin to decode together, for 16 steps."""
    blocks = {"block": 4, "steps": 4, "refresh": {"every": 4, **refresh}}
    loop = {"token_budget": 64, "max_batch": 4}
    return ran(folder, [(0, 8, 17)] * 4, block_decode=blocks, loop=loop)


def test_together_staggered_or_a_few_at_a_time(tmp_path: Path) -> None:
    assert refreshing(four(tmp_path)) == [0, 0, 0, 0, 4] + [0, 0, 0, 4] * 2 + [0, 0, 0]
    assert refreshing(four(tmp_path, stagger=True)) == [0] + [1] * 15
    # Two of the four are a step late, each time: the others of a pair are due a step later then.
    two = four(tmp_path, most=2)
    assert refreshing(two) == [0, 0, 0, 0] + [2, 2, 0, 0] * 3
    assert two.summary["block_refresh_max_requests"] == 2
    assert two.summary["block_refresh_mean_late_steps"] == pytest.approx(2 / 12)
    assert four(tmp_path).summary["block_refresh_mean_late_steps"] == 0.0


def test_refreshes_under_the_token_budget(tmp_path: Path) -> None:
    """Four blocks of 4 leave 48 of 64 tokens, and contexts of 16 before the third block: three."""
    each = four(tmp_path, budget=True)
    assert refreshing(each)[4:8] == [4, 0, 0, 0]  # 12 tokens each
    assert refreshing(each)[8:12] == [3, 1, 0, 0]
    assert refreshing(four(tmp_path))[8:12] == [4, 0, 0, 0]


def test_one_goes_even_if_it_is_longer_than_the_budget(tmp_path: Path) -> None:
    blocks = {"block": 4, "steps": 4, "refresh": {"every": 4, "budget": True}}
    loop = {"token_budget": 8, "max_batch": 1}
    one = ran(tmp_path, [(0, 40, 9)], block_decode=blocks, loop=loop)
    assert one.summary["block_refreshes"] == 1
    assert one.summary["requests_finished"] == 1


def test_refreshes_leave_prompts_less_of_the_budget(tmp_path: Path) -> None:
    """A block of 4 and a refresh of 12 leave 4 of 20 tokens to the prompt that has come."""
    blocks = {"block": 4, "steps": 4, "refresh": {"every": 4}}
    loop = {"token_budget": 20, "max_batch": 2}
    two = ran(tmp_path, [(0, 8, 9), (75, 20, 1)], block_decode=blocks, loop=loop)
    rows = two.iterations[two.iterations.prefill_tokens > 0]
    assert rows.refreshed_tokens.tolist() == [0, 12, 0]
    assert rows.prefill_tokens.tolist() == [8, 4, 16]


def test_a_loop_on_the_device_leaves_to_refresh(tmp_path: Path) -> None:
    """Leaving costs 2 ticks and coming back 3, as for a prefill."""
    blocks = {"block": 4, "steps": 2, "refresh": {"every": 2}}
    one = ran(tmp_path, [(0, 8, 13)], block_decode=blocks, loop={"mode": "resident"})
    assert one.rows("path") == [
        (0, 22, "host"),
        (22, 18, "resident"),
        (40, 15, "resident"),
        (55, 26, "host"),
        (81, 18, "resident"),
        (99, 26, "host"),
        (125, 18, "resident"),
    ]


def test_attention_both_ways_takes_twice_the_scores(tmp_path: Path) -> None:
    """Only where cached KV grows stale, which it does not if blocks see what is before them."""
    data = {"model": "llama-3.2-1b", "hardware": {"profile": "nvidia-h200"}}
    data["loop"] = {"token_budget": 16_384}
    ttft = []
    for more in ({}, {"block_decode": {"block": 4, "steps": 2}},
                 {"block_decode": {"block": 4, "steps": 2, "refresh": 100}}):  # fmt: skip
        one = ran(tmp_path, [(0, 16_000, 1)], **data, **more)
        ttft.append(one.summary["mean_ttft_ms"])
    assert ttft[0] == ttft[1] < ttft[2]
    assert any("without a mask" in said for said in one.summary["cost_estimated"])


def test_a_preempted_block_begins_anew(tmp_path: Path) -> None:
    """The second block of one request takes the room of the other, which is in its first: four and
    three KV blocks, of six. What is preempted prefills again, one token more, and loses its step.
    """
    blocks = {"block": 4, "steps": 3}
    two = ran(
        tmp_path, [(0, 8, 9), (30, 8, 9)], block_decode=blocks, kv={"block_tokens": 4},
        hardware={"hbm": hbm(6, 4)},
    )  # fmt: skip
    assert two.summary["kv_preemptions"] == 1
    assert two.requests.generated_tokens.tolist() == [9, 9]
    assert two.requests.preemptions.tolist() == [0, 1]
    done = two.iterations[two.iterations.decode_requests == 2]
    assert two.summary["block_steps"] == 6 + len(done) + 6
    assert 0 < len(done) < 3


# ---------------------------------------------------------------- both engines
@st.composite
def refreshes(draw: Any) -> dict[str, Any] | None:
    if draw(st.booleans()):
        return None
    return {
        "every": draw(st.integers(1, 7)),
        "scope": draw(st.sampled_from(["all", "prompt"])),
        "most": draw(st.sampled_from([None, 1, 2])),
        "budget": draw(st.booleans()),
        "stagger": draw(st.booleans()),
    }


def blocked(data: dict[str, Any], section: dict[str, Any], refresh: Any) -> dict[str, Any]:
    """*data* of a scenario with the section, and a loop that can refresh."""
    loop = data.get("loop", {})
    if refresh is not None:
        loop = loop | {"prefill": "exit"}
    return data | {"block_decode": section | {"refresh": refresh}, "loop": loop}


EXAMPLES: dict[str, Any] = {
    "deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck),
}  # fmt: skip


@settings(max_examples=26, **EXAMPLES)
@given(settings_of_a_run(), sections(), refreshes())
def test_any_small_run(data: dict[str, Any], section: dict[str, Any], refresh: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        step, leap = both(toy_scenario(Path(folder), **blocked(data, section, refresh)))
    assert_same(step, leap)
    check_conservation(leap)
    check_times(leap)


@settings(max_examples=12, **EXAMPLES)
@given(kv_runs.runs(), sections(), refreshes())
def test_any_run_with_tiers(
    run: tuple[list[Chunk], int, dict[str, Any]], section: dict[str, Any], refresh: Any
) -> None:
    chunks, block_tokens, data = run
    with tempfile.TemporaryDirectory() as folder:
        scenario = toy_scenario(Path(folder), [(0, 1, 1)], **blocked(data, section, refresh))
        step, leap = both(scenario, chunks, block_tokens)
    assert_same(step, leap)


def test_prompts_get_in_when_a_refresh_is_over(tmp_path: Path) -> None:
    """A refresh takes the whole budget; the prompt that comes meanwhile starts right after it."""
    blocks = {"block": 4, "steps": 4, "refresh": {"every": 4}}
    loop = {"token_budget": 16, "max_batch": 2}
    scenario = toy_scenario(tmp_path, [(0, 8, 21), (90, 8, 1)], block_decode=blocks, loop=loop)
    step, leap = both(scenario)
    assert_same(step, leap)
    columns = ("refreshed_tokens", "prefill_tokens")
    assert leap.rows(*columns)[5:7] == [(84, 24, 12, 0), (108, 24, 0, 8)]


def test_sums_go_on_behind_the_end_of_their_table() -> None:
    ahead = Ahead(2)
    ahead.add(np.ones((2, WIDTH), np.int64))
    ahead.advance(WIDTH)
    assert ahead.next(3).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("mode", ["graph", "resident"])
def test_crowd_with_many_preemptions(tmp_path: Path, mode: str) -> None:
    refresh = {"every": 3, "most": 2, "budget": True, "stagger": True}
    scenario = toy_scenario(
        tmp_path,
        crowd(60),
        loop={"mode": mode, "max_batch": 6, "token_budget": 40},
        hardware={"hbm": hbm(23, 4)},
        kv={"block_tokens": 4},
        block_decode={"block": 5, "steps": {"rate": 0.4}, "refresh": refresh},
    )
    step, leap = both(scenario)
    assert leap.summary["kv_preemptions"] > 5
    assert leap.summary["requests_finished"] == 60
    assert_same(step, leap)
    check_conservation(leap)


# ---------------------------------------------------------------- keys
LEAST = """\
trace: {source: synthetic, requests: 10, rate: 1 /s, prompt_tokens: 10, output_tokens: 9}
model: llama-3.1-8b
"""


def loaded(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "a.yaml"
    path.write_text(LEAST + text)
    return load(str(path))


def test_short_forms_say_the_same_as_long_ones(tmp_path: Path) -> None:
    short = loaded(tmp_path, "block_decode: {block: 8, steps: 4, refresh: 8}\n")
    long = loaded(
        tmp_path,
        "block_decode: {block: 8, steps: {count: 4}, commit: block, order: left,\n"
        "  refresh: {every: 8, scope: all, budget: false, stagger: false}}\n",
    )
    assert short.hash == long.hash
    assert type(short).from_resolved(short.resolved()).hash == short.hash
    assert "block_decode" not in loaded(tmp_path, "").resolved()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{block: 8}", "block_decode.steps: missing"),
        ("{block: 0, steps: 1}", "block"),
        ("{block: 8, steps: 9}", "steps.count: 9 is more than the 8 tokens of a block"),
        ("{block: 8, steps: {tokens: 9.5}}", "steps.tokens: 9.5 is more than the 8 tokens"),
        ("{block: 8, steps: {tokens: 2, rate: 0.5}}", "expected one of count, tokens, rate"),
        ("{block: 8, steps: {}}", "none is given"),
        ("{block: 8, steps: {rate: 0}}", "steps.rate"),
        ("{block: 8, steps: 2, commit: all}", "commit"),
        ("{block: 8, steps: 2, refresh: {most: 2}}", "refresh"),
        ("{block: 8, steps: 2, refresh: 0}", "refresh"),
        ("{block: 8, steps: 2}\nspeculation: {draft: mtp, acceptance: 0.7}",
         "block_decode: not together with speculation"),
        ("{block: 8, steps: 2, refresh: 4}\nloop: {mode: resident, prefill: partition}",
         "block_decode.refresh: not with loop.prefill: partition"),
        ("{block: 8, steps: 2, refresh: 4}\nsparse: {select: recency, drop: true}",
         "block_decode.refresh: needs all KV of a request"),
    ],
)  # fmt: skip
def test_bad_keys_are_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, f"block_decode: {text}\n")
    (found,) = caught.value.lines
    assert line in found
    assert "a.yaml:" in found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{block: 4, steps: {rate: 0.5}, order: drawn}", "order: has no effect here"),
        ("{block: 4, steps: 2, order: drawn}", "only with commit: prefix"),
        ("{block: 4, steps: 2, refresh: {every: 4, most: 256}}", "refresh.most: has no effect"),
        ("{block: 4, steps: 2, refresh: {every: 1, stagger: true}}", "stagger: has no effect"),
        ("{block: 32, steps: 2}", "loop.token_budget: 64 requests with a block each take it up"),
    ],
)
def test_warnings(tmp_path: Path, text: str, line: str) -> None:
    (found,) = loaded(tmp_path, f"block_decode: {text}\n").warnings()
    assert line in found


def test_no_warning_where_all_have_room(tmp_path: Path) -> None:
    text = "block_decode: {block: 4, steps: 2, commit: prefix, order: drawn, refresh: 4}\n"
    assert loaded(tmp_path, text).warnings() == []
