"""Schedulers like those of other engines are planned alike by the planner with the keys for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_schedulers import Memory, OneWalk, Plans, PromptsOnly, Whole, served

from sim.scenario import Scenario
from sim.validation.replay import Replayed, replay

BLOCK = 4
GAPS = st.sampled_from([0.0, 0.0, 1 / 32, 1 / 8, 1.0])
REQUESTS = st.lists(
    st.tuples(GAPS, st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=25
)
ANY_LOAD = settings(max_examples=80, deadline=None, derandomize=True)


def arrivals(rows: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    at, found = 0.0, []
    for gap, prompt, output in rows:
        at += gap
        found.append((at, prompt, output))
    return found


def scenario(batch: int, budget: int, **schedule: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "trace": {"source": "synthetic", "requests": 1, "rate": "1 /s", "prompt_tokens": 1,
                      "output_tokens": 1},
            "model": {"preset": "llama-3.2-1b", "max_context": 4096},
            "loop": {"mode": "host", "max_batch": batch, "token_budget": budget},
            "kv": {"block_tokens": BLOCK, "prefix_cache": False},
            "schedule": schedule,
        }
    )  # fmt: skip


def followed(
    scheduler: Plans, requests: list[tuple[float, int, int]], blocks: int, chosen: Scenario
) -> Replayed:
    sent, steps = served(scheduler, requests, chosen.schedule.arrival_delay)
    found = replay(chosen, blocks, sent, steps)
    assert found.exact or found.steps <= len(steps)
    return found


@ANY_LOAD
@given(
    rows=REQUESTS, blocks=st.integers(15, 40), batch=st.integers(1, 6), more=st.integers(1, 30),
    longest=st.sampled_from([None, 3, 8]), fits=st.booleans(),
    delay=st.sampled_from([0.0, 1 / 16, 0.5]),
)  # fmt: skip
def test_one_walk_over_all_that_run(
    rows: list[tuple[float, int, int]], blocks: int, batch: int, more: int, longest: int | None,
    fits: bool, delay: float,
) -> None:  # fmt: skip
    # Where the budget does not do for all that run, who comes first differs: see own-engine.md.
    budget = batch * longest + more if longest else batch + more
    chosen = scenario(
        batch, budget, reserve="chunk_if_fits" if fits else "chunk", blocked_prompt="preempt",
        arrival_delay=f"{delay} s", **({"long_prefill": longest} if longest else {}),
    )  # fmt: skip
    walk = OneWalk(Memory(blocks, BLOCK), batch, budget, longest, fits)
    assert followed(walk, arrivals(rows), blocks, chosen).difference is None


@ANY_LOAD
@given(
    rows=REQUESTS, blocks=st.integers(15, 40), batch=st.integers(1, 6), more=st.integers(1, 30)
)  # fmt: skip
def test_whole_prompts_and_nobody_evicted(
    rows: list[tuple[float, int, int]], blocks: int, batch: int, more: int
) -> None:
    chosen = scenario(batch, batch + more, chunked=False, output_reserve=1.0)
    whole = Whole(Memory(blocks, BLOCK), batch, batch + more)
    assert followed(whole, arrivals(rows), blocks, chosen).difference is None
    assert whole.preemptions == 0


@ANY_LOAD
@given(
    rows=REQUESTS, blocks=st.integers(15, 40), batch=st.integers(1, 6), budget=st.integers(1, 50),
    share=st.sampled_from([0.0, 0.25, 1.0]), prompts=st.integers(1, 4),
)  # fmt: skip
def test_prompts_and_decoding_in_steps_of_their_own(
    rows: list[tuple[float, int, int]], blocks: int, batch: int, budget: int, share: float,
    prompts: int,
) -> None:  # fmt: skip
    chosen = scenario(
        batch, 64, order="prefill_alone", prefill_budget=budget, output_reserve=share,
        max_prompts=prompts,
    )  # fmt: skip
    alone = PromptsOnly(Memory(blocks, BLOCK), batch, budget, share, prompts)
    assert followed(alone, arrivals(rows), blocks, chosen).difference is None


CROWD = [(i / 32, 20 + 7 * i % 30, 12) for i in range(30)]


def test_the_crowd_has_preempted_prompts_and_long_ones() -> None:
    walk = OneWalk(Memory(20, BLOCK), 4, 36, 8, False)
    _, steps = served(walk, CROWD)
    assert walk.preemptions > 3
    assert any(len(step.chunks) > 1 for step in steps)
    assert any(step.chunks and not step.decode for step in steps)


@pytest.mark.parametrize(
    "other",
    [
        {"long_prefill": 7}, {"long_prefill": 8, "partial_prefills": 1}, {"reserve": "prompt"},
        {"reserve": "chunk_if_fits"}, {"blocked_prompt": "wait"}, {"output_reserve": 0.5},
        {"max_prompts": 1}, {"prefill_budget": 5}, {"arrival_delay": "100 ms"},
    ],
)  # fmt: skip
def test_every_other_key_is_noticed(other: dict[str, Any]) -> None:
    keys: dict[str, Any] = {"reserve": "chunk", "blocked_prompt": "preempt", "long_prefill": 8}
    walk = OneWalk(Memory(20, BLOCK), 4, 36, 8, False)
    sent, steps = served(walk, CROWD)
    assert replay(scenario(4, 36, **keys), 20, sent, steps).exact
    assert not replay(scenario(4, 36, **(keys | other)), 20, sent, steps).exact
