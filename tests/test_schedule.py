"""The scheduler's keys, each by a story that can be followed on paper: 1 ms a toy iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from toy import Ran, hbm, play, toy_scenario

from sim.cost import Chunk, Cost
from sim.profile import load_profile
from sim.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4


def served(
    folder: Path, requests: list[tuple[float, int, int]], blocks: int = 64, **sections: Any
) -> Ran:
    """Both engines' run of *requests* (arrival in ticks, prompt, output), which are the same."""
    scenario = toy_scenario(
        folder,
        requests,
        hardware={"hbm": hbm(blocks, BLOCK)},
        kv={"block_tokens": BLOCK, "prefix_cache": False},
        loop={"mode": "graph", "max_batch": 4, "token_budget": 8} | sections.pop("loop", {}),
        **sections,
    )
    step, leap = play(scenario, "step"), play(scenario, "leap")
    assert step.requests.equals(leap.requests)
    assert step.iterations.equals(leap.iterations)
    return leap


def shape(ran: Ran) -> list[tuple[int, int]]:
    """(requests that decode, prompt tokens) of each iteration."""
    rows = ran.iterations
    return list(zip(rows.decode_requests.tolist(), rows.prefill_tokens.tolist(), strict=True))


TWO = [(0, 4, 6), (1, 20, 2)]
"""A short prompt that decodes, and a long one that arrives while the first is computed."""


def test_decode_first_gives_prompts_what_is_left(tmp_path: Path) -> None:
    assert shape(served(tmp_path, TWO)) == [
        (0, 4), (1, 7), (1, 7), (1, 6), (2, 0), (1, 0),
    ]  # fmt: skip


def test_prefill_alone_decodes_nothing_beside_prompts(tmp_path: Path) -> None:
    ran = served(tmp_path, TWO, schedule={"order": "prefill_alone"})
    assert shape(ran) == [(0, 4), (0, 8), (0, 8), (0, 4), (2, 0), (1, 0), (1, 0), (1, 0), (1, 0)]


def test_prefill_first_goes_on_with_prompts_before_it_decodes(tmp_path: Path) -> None:
    ran = served(tmp_path, TWO, schedule={"order": "prefill_first"})
    # The new prompt begins with what decoding leaves; then its rest has the budget, until enough
    # is left for decoding.
    assert shape(ran) == [(0, 4), (1, 7), (0, 8), (1, 5), (2, 0), (1, 0), (1, 0)]


def test_a_margin_keeps_prompts_out_while_others_run(tmp_path: Path) -> None:
    requests = [(0, 8, 6), (0, 8, 2)]
    loop = {"token_budget": 16}
    without = served(tmp_path, requests, 6, loop=loop)
    assert shape(without)[0] == (0, 16)
    # 2 of 6 blocks are taken: 67 % are free.
    kept = served(tmp_path, requests, 6, loop=loop, schedule={"free_margin": 0.7})
    assert shape(kept)[:2] == [(0, 8), (1, 0)]
    assert kept.summary["requests_finished"] == 2
    admitted = served(tmp_path, requests, 6, loop=loop, schedule={"free_margin": 0.6})
    assert shape(admitted) == shape(without)


def test_blocks_by_chunk_let_a_long_prompt_begin(tmp_path: Path) -> None:
    requests = [(0, 8, 8), (1, 16, 1)]
    whole = served(tmp_path, requests, 6)
    chunk = served(tmp_path, requests, 6, schedule={"reserve": "chunk"})
    # 4 of 6 blocks are free, and decoding takes one: the prompt's 4 do not fit, its first 2 do.
    assert shape(whole)[1] == (1, 0)
    assert shape(chunk)[1] == (1, 7)
    for ran in (whole, chunk):
        assert ran.summary["requests_finished"] == 2
        assert ran.summary["kv_blocks_allocated"] == ran.summary["kv_blocks_freed"]


def test_prompts_that_hold_all_blocks_give_way_to_the_oldest(tmp_path: Path) -> None:
    requests = [(0, 20, 1), (0, 20, 1), (0, 20, 1)]
    ran = served(tmp_path, requests, 6, schedule={"reserve": "chunk"}, loop={"token_budget": 60})
    assert ran.summary["requests_finished"] == 3
    assert ran.summary["kv_blocks_peak"] <= 6
    assert ran.requests.finished_s.is_monotonic_increasing


def test_a_plan_made_ahead_sees_arrivals_an_iteration_later(tmp_path: Path) -> None:
    now = served(tmp_path, TWO)
    ahead = served(tmp_path, TWO, schedule={"asynchronous": True})
    assert shape(now)[:2] == [(0, 4), (1, 7)]
    assert shape(ahead)[:3] == [(0, 4), (1, 0), (1, 7)]


def test_a_plan_made_ahead_knows_of_no_slot_that_has_just_come_free(tmp_path: Path) -> None:
    requests = [(0, 4, 2), (0, 4, 8), (0, 4, 1)]
    loop = {"max_batch": 2}
    now = served(tmp_path, requests, loop=loop)
    ahead = served(tmp_path, requests, loop=loop, schedule={"asynchronous": True})
    assert shape(now)[:3] == [(0, 8), (2, 0), (1, 4)]
    assert shape(ahead)[:4] == [(0, 8), (2, 0), (1, 0), (1, 4)]


def test_a_slot_that_decoding_frees_may_be_given_away_a_step_late(tmp_path: Path) -> None:
    requests = [(0, 4, 2), (0, 4, 8), (0, 4, 1), (0, 4, 1)]
    keys = {"order": "prefill_alone"}
    loop = {"max_batch": 2}
    now = served(tmp_path, requests, loop=loop, schedule=keys)
    late = served(tmp_path, requests, loop=loop, schedule=keys | {"freed_late": True})
    assert shape(now)[:4] == [(0, 8), (2, 0), (0, 4), (0, 4)]
    # What a step with prompts frees is known at once.
    assert shape(late)[:5] == [(0, 8), (2, 0), (1, 0), (0, 4), (0, 4)]


def test_who_arrives_in_a_step_is_not_late_though_slots_are(tmp_path: Path) -> None:
    requests = [(0, 4, 9), (4, 4, 2), (8, 4, 2)]
    for order in ("prefill_alone", "decode_first"):
        keys: dict[str, Any] = {"order": order}
        late = served(tmp_path, requests, schedule=keys | {"freed_late": True})
        assert shape(late) == shape(served(tmp_path, requests, schedule=keys))


def prompts(ran: Ran) -> list[tuple[int, int]]:
    """(prompts, tokens of them) of each iteration with prompts."""
    rows = ran.iterations[ran.iterations.prefill_tokens > 0]
    return list(zip(rows.prefill_requests.tolist(), rows.prefill_tokens.tolist(), strict=True))


def test_a_long_prompt_leaves_room_for_others(tmp_path: Path) -> None:
    requests = [(0, 20, 1), (0, 4, 1)]
    assert prompts(served(tmp_path, requests)) == [(1, 8), (1, 8), (2, 8)]
    ran = served(tmp_path, requests, schedule={"long_prefill": 6})
    # The short one has the other 2 tokens of each budget, and is done first.
    assert prompts(ran) == [(2, 8), (2, 8), (1, 6), (1, 2)]
    assert ran.ticks("first_token_s")[1] < ran.ticks("first_token_s")[0]


def test_one_unfinished_prompt_at_a_time(tmp_path: Path) -> None:
    requests = [(0, 20, 1), (0, 4, 1), (0, 2, 1)]
    schedule: dict[str, Any] = {"long_prefill": 6, "partial_prefills": 1}
    # The second needs 4 tokens where 2 are left: it would be unfinished, too, and the third,
    # which would not, does not overtake it.
    ran = served(tmp_path, requests, schedule=schedule)
    assert prompts(ran) == [(1, 6), (1, 6), (1, 6), (3, 8)]
    two = served(tmp_path, requests, schedule=schedule | {"partial_prefills": 2})
    assert prompts(two) == [(2, 8), (2, 8), (2, 8), (1, 2)]


def test_prompts_of_an_iteration_are_counted(tmp_path: Path) -> None:
    requests = [(0, 2, 1)] * 4
    assert prompts(served(tmp_path, requests)) == [(4, 8)]
    ran = served(tmp_path, requests, schedule={"max_prompts": 3})
    assert prompts(ran) == [(3, 6), (1, 2)]


def test_iterations_without_decoding_have_a_budget_of_their_own(tmp_path: Path) -> None:
    ran = served(tmp_path, TWO, schedule={"prefill_budget": 3})
    assert shape(ran) == [(0, 3), (0, 3), (1, 7), (1, 7), (1, 4), (2, 0), (1, 0)]
    alone = served(tmp_path, TWO, schedule={"order": "prefill_alone", "prefill_budget": 16})
    assert shape(alone)[:4] == [(0, 4), (0, 16), (0, 4), (2, 0)]


def test_prompts_that_are_not_cut_wait_for_room(tmp_path: Path) -> None:
    requests = [(0, 5, 3), (0, 5, 2), (0, 20, 1)]
    assert prompts(served(tmp_path, requests))[0] == (2, 8)
    ran = served(tmp_path, requests, schedule={"chunked": False})
    # Two do not fit into 8 tokens; the last is longer than any budget and goes by itself.
    assert shape(ran) == [(0, 5), (1, 5), (2, 20)]


def test_blocks_for_the_output_keep_prompts_out(tmp_path: Path) -> None:
    requests = [(0, 4, 13), (0, 4, 13)]  # 1 block each, 4 in the end
    without = served(tmp_path, requests, 6)
    assert without.summary["kv_preemptions"] == 1
    half = served(tmp_path, requests, 6, schedule={"output_reserve": 0.5})
    assert shape(half)[0] == (0, 8)  # 3 blocks each are there
    never = served(tmp_path, requests, 6, schedule={"output_reserve": 1.0})
    assert never.summary["kv_preemptions"] == 0
    assert shape(never)[:2] == [(0, 4), (1, 0)]
    assert never.ticks("admitted_s")[1] >= never.ticks("finished_s")[0]
    chunks = {"output_reserve": 1.0, "reserve": "chunk"}
    assert shape(served(tmp_path, requests, 6, schedule=chunks)) == shape(never)


def test_a_prompt_without_blocks_waits_or_gives_way(tmp_path: Path) -> None:
    requests = [(0, 8, 12), (1, 16, 1)]  # 5 and 4 blocks in the end, of 6
    chunk = served(tmp_path, requests, 6, schedule={"reserve": "chunk"})
    # 14 of its tokens need a block more than is free: it keeps what it has, and decoding goes on.
    assert shape(chunk)[:4] == [(0, 8), (1, 7), (1, 0), (1, 0)]
    keys = {"reserve": "chunk", "blocked_prompt": "preempt"}
    gives = served(tmp_path, requests, 6, schedule=keys)
    # It is the youngest itself, so it begins anew, again and again while the other one runs.
    assert shape(gives)[:5] == [(0, 8), (1, 7), (1, 0), (1, 7), (1, 0)]
    assert gives.summary["kv_preemptions"] > chunk.summary["kv_preemptions"]
    fits = served(tmp_path, requests, 6, schedule={"reserve": "chunk_if_fits"})
    assert fits.summary["kv_preemptions"] == 0
    assert shape(fits)[1] == (1, 0)


@pytest.mark.parametrize("mode", ["host", "graph"])
def test_planning_ahead_hides_the_host(mode: str) -> None:
    """Real costs: the host's part of a step goes, the GPU's stays."""
    costs = [cost(mode, asynchronous=flag) for flag in (False, True)]
    apart, ahead = (one.decode(8).seconds(8 * 1024.0) for one in costs)
    busy = costs[1].decode(8).timing.busy(0.0)
    schedule = costs[0].modes.schedule_base + 8 * costs[0].modes.schedule_each
    assert busy < ahead < apart - 0.5 * schedule
    mixed = [one.mixed(8, 8192, [Chunk(512, 0)], 9).seconds for one in costs]
    assert mixed[1] < mixed[0]


def cost(mode: str, asynchronous: bool) -> Cost:
    scenario = Scenario.model_validate(
        {
            "trace": {"source": "azure-conv-like", "requests": 1}, "model": "llama-3.1-8b",
            "loop": {"mode": mode, "host": "c"}, "schedule": {"asynchronous": asynchronous},
            "kv": {"prefix_cache": False},
        }
    )  # fmt: skip
    return Cost(scenario, load_profile("nvidia-h200"))


def test_what_is_not_given_leaves_no_mark() -> None:
    data: dict[str, Any] = {
        "trace": {"source": "azure-conv-like", "requests": 1}, "model": "llama-3.1-8b",
    }  # fmt: skip
    bare = Scenario.model_validate(data)
    same = Scenario.model_validate(data | {"schedule": {"order": "decode_first"}})
    other = Scenario.model_validate(data | {"schedule": {"free_margin": 0.1}})
    assert bare.hash == same.hash != other.hash
    assert "schedule" not in bare.resolved()
    assert Scenario.from_resolved(other.resolved()) == other


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"schedule": {"asynchronous": True}, "loop": {"mode": "resident"}}, "plans by itself"),
        ({"schedule": {"reserve": "chunk"}}, "chunk needs kv.prefix_cache: false"),
        ({"schedule": {"asynchronous": True}}, "asynchronous: needs kv.prefix_cache: false"),
        (
            {
                "schedule": {"reserve": "chunk"}, "kv": {"prefix_cache": False},
                "loop": {"mode": "resident", "prefill": "partition"},
            },
            "does not go with loop.prefill: partition",
        ),
        ({"schedule": {"reserve": "chunk_if_fits"}}, "chunk_if_fits needs kv.prefix_cache: false"),
        ({"schedule": {"output_reserve": 0.5}}, "output_reserve: needs kv.prefix_cache: false"),
        ({"schedule": {"partial_prefills": 1}}, "partial_prefills: needs kv.prefix_cache: false"),
        (
            {
                "schedule": {"chunked": False, "long_prefill": 64}, "kv": {"prefix_cache": False},
            },
            "long_prefill: cuts prompts, and schedule.chunked is false",
        ),
        (
            {
                "schedule": {"chunked": False}, "kv": {"prefix_cache": False},
                "speculation": {"draft": "ngram", "acceptance": {"rate": 0.5}},
            },
            "chunked: does not go with speculation",
        ),
        (
            {
                "schedule": {"long_prefill": 64},
                "loop": {"mode": "resident", "prefill": "partition"},
            },
            "long_prefill: does not go with loop.prefill: partition",
        ),
        ({"schedule": {"long_prefill": 0}}, "greater than or equal to 1"),
        ({"schedule": {"max_prompts": 1.0}}, "valid integer"),
        ({"schedule": {"output_reserve": 1.5}}, "less than or equal to 1"),
        ({"schedule": {"arrival_delay": 0.01}}, "has no unit"),
        ({"schedule": {"token_delay": "-1 ms"}}, "is negative"),
        ({"schedule": {"token_delay": "2 h"}}, "less than or equal to 3600"),
        ({"schedule": {"free_margin": 1.0}}, "less than 1"),
        ({"schedule": {"free_margin": float("nan")}}, "finite"),
        ({"schedule": {"order": "sjf"}}, "decode_first"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(sections: dict[str, Any], what: str) -> None:
    data: dict[str, Any] = {
        "trace": {"source": "azure-conv-like", "requests": 1}, "model": "llama-3.1-8b",
    }  # fmt: skip
    with pytest.raises(ValidationError, match=what):
        Scenario.model_validate(data | sections)


def test_an_order_that_has_no_effect_is_a_warning() -> None:
    data: dict[str, Any] = {
        "trace": {"source": "azure-conv-like", "requests": 1}, "model": "llama-3.1-8b",
        "loop": {"mode": "resident"}, "schedule": {"order": "prefill_first"},
    }  # fmt: skip
    assert any("schedule.order" in line for line in Scenario.model_validate(data).warnings())


@pytest.mark.parametrize(
    ("key", "value", "beside"),
    [
        ("long_prefill", 8192, {}), ("long_prefill", 2048, {}), ("partial_prefills", 1, {}),
        ("partial_prefills", 1, {"long_prefill": 2048}), ("blocked_prompt", "preempt", {}),
        ("reserve", "chunk", {"chunked": False}), ("max_prompts", 256, {}),
    ],
)  # fmt: skip
def test_a_limit_that_binds_nobody_is_a_warning(key: str, value: Any, beside: Any) -> None:
    data: dict[str, Any] = {
        "trace": {"source": "azure-conv-like", "requests": 1}, "model": "llama-3.1-8b",
        "kv": {"prefix_cache": False}, "schedule": {key: value} | beside,
    }  # fmt: skip
    lines = Scenario.model_validate(data).warnings()
    assert any(line.startswith(f"schedule.{key}: has no effect here; ") for line in lines)


@pytest.mark.parametrize(
    "keys",
    [
        {"long_prefill": 512, "partial_prefills": 1}, {"max_prompts": 4}, {"prefill_budget": 4096},
        {"reserve": "chunk_if_fits", "blocked_prompt": "preempt"}, {"chunked": False},
    ],
)  # fmt: skip
def test_a_limit_that_binds_is_none(keys: dict[str, Any]) -> None:
    data: dict[str, Any] = {
        "trace": {"source": "azure-conv-like", "requests": 1}, "model": "llama-3.1-8b",
        "kv": {"prefix_cache": False}, "schedule": keys,
    }  # fmt: skip
    assert not Scenario.model_validate(data).warnings()
