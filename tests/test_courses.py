"""Steps of several tokens: what they commit and hold, and that both engines agree on it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kv_runs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from steppers import Blocks, Budget, Widths, stepping
from test_engines_agree import (
    assert_same,
    both,
    check_conservation,
    check_times,
    scarce,
    settings_of_a_run,
)
from toy import KV_BYTES, TICK, hbm, play, toy_scenario

from sim.cost import Cost
from sim.errors import InputError
from sim.fleet import hbm_blocks
from sim.profile import load_profile
from sim.rng import uniforms
from sim.wide import Wide

if TYPE_CHECKING:
    from sim.trace.chunk import Chunk

SPECULATORS = st.one_of(
    st.builds(
        Widths,
        width=st.integers(1, 6),
        rate=st.sampled_from([0.0, 0.4, 0.8, 1.0]),
        grows=st.booleans(),
        by_batch=st.sampled_from([0, 0, 4, 8]),
        uncut=st.booleans(),
    ),
    st.builds(Blocks, size=st.integers(1, 6), rounds=st.integers(1, 4)),
    st.none(),
)
SELECTIONS = st.one_of(st.none(), st.builds(Budget, tokens=st.integers(1, 40), page=st.just(4)))
PARTS = st.builds(
    Budget, tokens=st.integers(1, 40), page=st.just(4), keep=st.integers(1, 6),
    offload=st.booleans(), drop=st.just(True),
)  # fmt: skip


@settings(
    max_examples=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(settings_of_a_run(), SPECULATORS, SELECTIONS)
def test_any_small_run(data: dict[str, Any], speculator: Any, selection: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, stepping(speculator, selection):
        step, leap = both(toy_scenario(Path(folder), **data))
    assert_same(step, leap)
    check_conservation(leap)
    check_times(leap)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(settings_of_a_run(), SPECULATORS, PARTS, st.integers(1, 40))
def test_any_run_with_a_part_in_hbm(
    data: dict[str, Any], speculator: Any, selection: Any, dram: int
) -> None:
    data["kv"] = {"block_tokens": selection.page}
    data["schedule"] = {}  # chunks and plans made ahead do not go with tiers
    data["hardware"] |= {"hbm": hbm(dram, selection.page)}
    data["hardware"]["dram"] = {"capacity": f"{dram * selection.page * KV_BYTES} B"}
    with tempfile.TemporaryDirectory() as folder, stepping(speculator, selection):
        step, leap = both(toy_scenario(Path(folder), **data))
    assert_same(step, leap)
    check_conservation(leap)
    if selection.offload and len(leap.iterations):
        capacity = leap.summary["kv_lower_blocks_capacity"]
        assert leap.iterations.kv_blocks_lower.max() <= capacity


@settings(max_examples=14, deadline=None, suppress_health_check=list(HealthCheck))
@given(kv_runs.runs(), SPECULATORS, SELECTIONS)
def test_any_run_with_tiers(
    run: tuple[list[Chunk], int, dict[str, Any]], speculator: Any, selection: Any
) -> None:
    chunks, block_tokens, sections = run
    with tempfile.TemporaryDirectory() as folder, stepping(speculator, selection):
        scenario = toy_scenario(Path(folder), [(0, 1, 1)], **sections)
        step, leap = both(scenario, chunks, block_tokens)
    assert_same(step, leap)
    if sections["stop"]["at"] is None:
        assert not (leap.requests.status == "unfinished").any()


@settings(max_examples=14, deadline=None, suppress_health_check=list(HealthCheck))
@given(kv_runs.crowds(), SPECULATORS, SELECTIONS)
def test_any_run_of_several_replicas(
    run: tuple[list[Chunk], int, dict[str, Any]], speculator: Any, selection: Any
) -> None:
    chunks, block_tokens, sections = run
    with tempfile.TemporaryDirectory() as folder, stepping(speculator, selection):
        step, leap = both(toy_scenario(Path(folder), [(0, 1, 1)], **sections), chunks, block_tokens)
    assert_same(step, leap)


@st.composite
def speculations(draw: Any) -> dict[str, Any]:
    """The section `speculation`, with every controller and law."""
    kind = draw(st.sampled_from(["mtp", "eagle", "medusa", "ngram"]))
    controllers = ["fixed", "asbs", "windowed", "load_aware", "goodput"]
    acceptance: list[dict[str, Any]] = [
        {"rate": 0.7},
        {"per_position": [0.9, 0.6, 0.3, 0.1]},
        {"beta": {"mean": 0.6, "concentration": 3.0}},
    ]
    given: dict[str, Any] = {
        "draft": {"kind": kind},
        "acceptance": draw(st.sampled_from(acceptance)),
        "overlap": draw(st.booleans()),
    }
    if kind in ("eagle", "medusa") and draw(st.booleans()):
        return given | {"tree": draw(st.sampled_from([[2], [2, 2], [3, 2, 1, 1]]))}
    controller = draw(st.sampled_from(controllers))
    return given | {"width": {"controller": controller, "max": 4}}


@st.composite
def sparses(draw: Any, block: int) -> dict[str, Any]:
    """The section `sparse`, small enough to matter."""
    select = draw(st.sampled_from(["dense", "recency", "topk", "window", "h2o", "cluster"]))
    given: dict[str, Any] = {"select": select}
    sizes = {"top_k_tokens": ("recency", "topk", "h2o", "cluster"), "sink_tokens":
             ("topk", "window", "cluster"), "recent_tokens": ("topk", "window", "h2o", "cluster"),
             "cluster_tokens": ("cluster",)}  # fmt: skip
    for key, policies in sizes.items():
        if select in policies:
            given[key] = block * draw(st.integers(1, 3))
    if select != "dense" and draw(st.booleans()):
        given["offload"] = {"resident_tokens": block * draw(st.integers(9, 12))}
    return given


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(settings_of_a_run(), st.none() | speculations(), st.data())
def test_any_run_as_scenarios_say(
    data: dict[str, Any], speculation: dict[str, Any] | None, rest: Any
) -> None:
    block = data["kv"]["block_tokens"]
    sparse = rest.draw(st.none() | sparses(block)) if speculation else rest.draw(sparses(block))
    if sparse is not None and "offload" in sparse:
        dram = rest.draw(st.integers(1, 60))
        data["hardware"]["dram"] = {"capacity": f"{dram * block * KV_BYTES} B"}
        data["schedule"] = {}
    count = rest.draw(st.integers(1, 3))
    if count > 1:
        router = rest.draw(st.sampled_from(["round_robin", "least_loaded"]))
        data["replicas"] = {"count": count, "router": router, "tiers": "own"}
    sections = {"speculation": speculation, "sparse": sparse}
    data |= {name: section for name, section in sections.items() if section is not None}
    data["trace"] = {"rate_scale": 16.0}
    memory = rest.draw(st.sampled_from([3000, 4000, 5000, 7000]))  # some of it for a drafter
    data["hardware"] |= {"profile": "nvidia-h200", "hbm": {"capacity": f"{memory} B"}}
    with tempfile.TemporaryDirectory() as folder:
        scenario = toy_scenario(Path(folder), **data)
        try:
            hbm_blocks(scenario, load_profile("nvidia-h200"))
        except InputError:
            reject()
        step, leap = both(scenario)
    assert_same(step, leap)
    check_conservation(leap)
    if count == 1:
        check_times(leap)


# ---------------------------------------------------------------- stories
def test_uniforms_are_the_same_one_by_one() -> None:
    positions = np.array([0, 1, 7, 2**31, 2**40])
    many = uniforms(3, "acceptance", 11, positions)
    assert [uniforms(3, "acceptance", 11, int(p)) for p in positions] == many.tolist()
    other = (
        uniforms(4, "acceptance", 11, positions),
        uniforms(3, "typical", 11, positions),
        uniforms(3, "acceptance", 12, positions),
    )
    assert all((draws != many).all() for draws in other)


def test_uniforms_are_uniform() -> None:
    draws = uniforms(0, "acceptance", 5, np.arange(100_000))
    counts, _ = np.histogram(draws, bins=50, range=(0, 1))
    assert ((counts - 2000) ** 2 / 2000).sum() < 86  # chi-square, 49 degrees, 0.1 %
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.01


def one_request(folder: Path, output: int, blocks: int = 100, **more: Any) -> Any:
    """A request of 5 tokens that asks for *output*, with memory for so many blocks of 4."""
    return toy_scenario(
        folder, [(0, 5, output)], hardware={"hbm": hbm(blocks, 4)}, kv={"block_tokens": 4}, **more
    )


@pytest.mark.parametrize("engine", ["step", "leap"])
def test_all_drafts_accepted(tmp_path: Path, engine: str) -> None:
    """Prefill commits a token; then 4, 4, and what is left of 10: never more than asked."""
    with stepping(Widths(3, 1.0)):
        ran = play(one_request(tmp_path, 10), engine)
    columns = ("decode_rows", "output_tokens", "draft_tokens", "accepted_tokens", "context_tokens")
    assert [row[2:] for row in ran.rows(*columns)] == [
        (0, 1, 0, 0, 0), (4, 4, 3, 3, 9), (4, 4, 3, 3, 13), (1, 1, 0, 0, 14),
    ]  # fmt: skip
    summary = ran.summary
    assert summary["total_output_tokens"] == 10
    assert summary["spec_num_drafts"] == 2
    assert summary["spec_num_draft_tokens"] == summary["spec_num_accepted_tokens"] == 6
    assert summary["spec_num_accepted_tokens_per_pos"] == [2, 2, 2]
    assert summary["spec_mean_acceptance_length"] == 4.0
    assert summary["spec_num_bonus_tokens"] == 3
    assert summary["loop_tokens_per_resident_loop"] == 3.0
    row = ran.requests.iloc[0]
    assert (row.drafts, row.draft_tokens, row.accepted_tokens) == (2, 6, 6)


@pytest.mark.parametrize("engine", ["step", "leap"])
def test_two_replicas_count_as_two_of_one(tmp_path: Path, engine: str) -> None:
    """Two like requests, one for each: twice the counts of a single one, the same ratios."""
    loop = {"mode": "resident"}
    with stepping(Widths(3, 1.0)):
        one = play(one_request(tmp_path, 10, loop=loop), engine).summary
        scenario = toy_scenario(
            tmp_path, [(0, 5, 10), (0, 5, 10)], hardware={"hbm": hbm(100, 4)},
            kv={"block_tokens": 4}, loop=loop, replicas={"count": 2},
        )  # fmt: skip
        ran = play(scenario, engine)
    two = ran.summary
    assert ran.requests.replica.tolist() == [0, 1]
    assert ran.requests.accepted_tokens.tolist() == [6, 6]
    counts = (
        "spec_num_drafts", "spec_num_accepted_tokens", "loop_entries", "loop_exits", "loop_exit_s",
        "loop_bubble_s",
    )  # fmt: skip
    for name in counts:
        assert two[name] == 2 * one[name] > 0, name
    ratios = (
        "spec_mean_acceptance_length", "loop_tokens_per_resident_loop", "loop_iterations_per_entry",
    )  # fmt: skip
    for name in ratios:
        assert two[name] == one[name] > 1, name
    at = one["spec_num_accepted_tokens_per_pos"]
    assert two["spec_num_accepted_tokens_per_pos"] == [2 * count for count in at]


@pytest.mark.parametrize("engine", ["step", "leap"])
def test_rejected_drafts_hold_blocks_for_one_step(tmp_path: Path, engine: str) -> None:
    """Contexts 5, 6, 7 need 2 blocks; five rows more need one further, and it comes back."""
    with stepping(Widths(4, 0.0, uncut=True)):
        ran = play(one_request(tmp_path, 4), engine)
    assert [row[2:] for row in ran.rows("output_tokens", "kv_blocks", "kv_draft_blocks")] == [
        (1, 2, 0), (1, 3, 1), (1, 3, 1), (1, 3, 1),
    ]  # fmt: skip
    assert ran.summary["kv_blocks_peak"] == 3
    assert ran.summary["kv_blocks_allocated"] == ran.summary["kv_blocks_freed"] == 2 + 3
    assert ran.summary["spec_acceptance_rate"] == 0.0


def test_a_step_that_cannot_fit_is_turned_away(tmp_path: Path) -> None:
    with stepping(Widths(4, 0.0, uncut=True)):
        ran = play(one_request(tmp_path, 4, blocks=2))
        assert ran.requests.reason.tolist() == ["exceeds_kv_capacity"]
        ran = play(one_request(tmp_path, 4, blocks=3))
        assert ran.requests.status.tolist() == ["finished"]


@pytest.mark.parametrize("engine", ["step", "leap"])
def test_itl_is_a_commit_and_tpot_a_token(tmp_path: Path, engine: str) -> None:
    with stepping(Widths(3, 1.0)):
        ran = play(one_request(tmp_path, 9), engine)
    durations = ran.iterations.duration_s.to_numpy()[1:]
    assert len(durations) == 2
    assert ran.summary["mean_itl_ms"] == pytest.approx(durations.mean() * 1e3)
    assert ran.summary["mean_tpot_ms"] == pytest.approx(durations.sum() / 8 * 1e3)


@pytest.mark.parametrize("engine", ["step", "leap"])
def test_steps_that_commit_nothing(tmp_path: Path, engine: str) -> None:
    """Blocks of 4 after three rounds each: two gaps of three iterations."""
    with stepping(Blocks(4, 3)):
        ran = play(one_request(tmp_path, 9), engine)
    assert ran.iterations.output_tokens.tolist() == [1, 0, 0, 4, 0, 0, 4]
    assert ran.summary["mean_itl_ms"] / 1e3 / TICK == pytest.approx(3 * 16)
    assert ran.summary["std_itl_ms"] == pytest.approx(0.0)


def test_plans_leave_no_mark(tmp_path: Path) -> None:
    """Plans may be cut short: what they ask is not what the run did. Plain ones ask the run's."""
    scenario = toy_scenario(tmp_path, [(0, 1, 1)])
    cost = Cost(scenario, load_profile(scenario.hardware.profile))
    assert Wide(scenario, cost, leaps=True).plans is cost
    with stepping(Widths(3, 0.5)):
        plans = Wide(scenario, cost, leaps=True).plans
    plans.decode(99, 396, 3)
    assert cost.most_batch == cost.most_tokens == 0
    assert plans.most_batch == 99


def test_a_cap_by_batch_narrows_drafts(tmp_path: Path) -> None:
    """Two requests share a cap of eight: four drafts each; alone, the second gets eight."""
    requests = [(0, 4, 12), (0, 4, 60)]
    for engine in ("step", "leap"):
        with stepping(Widths(8, 0.0, by_batch=8)):
            ran = play(toy_scenario(tmp_path, requests), engine)
        decode = ran.iterations[ran.iterations.decode_requests > 0]
        together = decode[decode.decode_requests == 2]
        assert together.decode_rows.iloc[0] == 2 + 2 * 4
        assert decode[decode.decode_requests == 1].decode_rows.iloc[0] == 1 + 8


@pytest.mark.parametrize("mode", ["host", "graph", "resident"])
@pytest.mark.parametrize("prefill", ["exit", "partition"])
def test_crowd_with_many_preemptions(tmp_path: Path, mode: str, prefill: str) -> None:
    with stepping(Widths(5, 0.7, grows=True, by_batch=12, uncut=True), Budget(9, 4)):
        step, leap = both(scarce(tmp_path, mode, prefill))
    assert leap.summary["kv_preemptions"] > 5
    assert leap.summary["requests_finished"] == 60
    assert_same(step, leap)
    check_conservation(leap)
    check_times(leap)


def test_kv_beyond_hbm_waits_in_dram(tmp_path: Path) -> None:
    """Two requests of 40 tokens keep 3 blocks each in HBM; DRAM has room for what one leaves."""
    selection = Budget(8, 4, keep=3, offload=True)
    for blocks, most in ((40, 2), (9, 1)):
        scenario = toy_scenario(
            tmp_path, [(0, 40, 8), (0, 40, 8)], kv={"block_tokens": 4},
            hardware={
                "hbm": hbm(40, 4), "dram": {"capacity": f"{blocks * 4 * KV_BYTES} B", "share": 1.0}
            },
        )  # fmt: skip
        with stepping(None, selection):
            step, leap = both(scenario)
        assert_same(step, leap)
        assert leap.summary["kv_lower_blocks_capacity"] == blocks
        assert leap.iterations.kv_blocks_lower.max() == 9 * most
        assert (leap.summary["kv_preemptions"] > 0) == (most == 1)


def test_of_dram_each_replica_has_a_part(tmp_path: Path) -> None:
    """Each leaves 9 blocks of its request; half of 20 is enough for that, half of 16 is not."""
    selection = Budget(8, 4, keep=3, offload=True)
    for blocks, status in ((20, "finished"), (16, "rejected")):
        scenario = toy_scenario(
            tmp_path, [(0, 40, 8), (0, 40, 8)], kv={"block_tokens": 4},
            replicas={"count": 2, "tiers": "own"},
            hardware={
                "hbm": hbm(40, 4), "dram": {"capacity": f"{blocks * 4 * KV_BYTES} B", "share": 1.0}
            },
        )  # fmt: skip
        with stepping(None, selection):
            step, leap = both(scenario)
        assert_same(step, leap)
        assert leap.requests.status.tolist() == [status] * 2
        assert leap.summary["kv_lower_blocks_capacity"] == blocks
        if status == "finished":
            assert leap.summary["kv_lower_blocks_peak"] == 2 * 9
