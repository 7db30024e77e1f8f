"""The scheduler's keys in any company: both engines agree, everybody finishes, no block is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import hbm, play, toy_scenario

if TYPE_CHECKING:
    from pathlib import Path

Requests = list[tuple[float, int, int]]
KEYS = st.fixed_dictionaries(
    {},
    optional={
        "order": st.sampled_from(["decode_first", "prefill_first", "prefill_alone"]),
        "prefill_budget": st.integers(1, 30),
        "long_prefill": st.integers(1, 10),
        "partial_prefills": st.integers(1, 3),
        "max_prompts": st.integers(1, 3),
        "reserve": st.sampled_from(["chunk", "chunk_if_fits"]),
        "blocked_prompt": st.just("preempt"),
        "free_margin": st.sampled_from([0.1, 0.4]),
        "output_reserve": st.sampled_from([0.25, 1.0]),
        "asynchronous": st.booleans(),
        "freed_late": st.booleans(),
        "chunked": st.booleans(),
        "token_delay": st.just("1 ms"),
    },
)
REQUESTS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 3.0, 20.0]), st.integers(1, 40), st.integers(1, 20)),
    min_size=1, max_size=20,
)  # fmt: skip


def check(
    folder: Path, keys: dict[str, Any], mode: str, requests: Requests, batch: int, blocks: int
) -> None:
    if not keys.get("chunked", True):
        keys = {k: v for k, v in keys.items() if k not in ("long_prefill", "partial_prefills")}
    if mode == "resident":
        keys = {k: v for k, v in keys.items() if k != "asynchronous"}
    scenario = toy_scenario(
        folder, requests, hardware={"hbm": hbm(blocks, 4)}, schedule=keys,
        kv={"block_tokens": 4, "prefix_cache": False},
        loop={"mode": mode, "max_batch": batch, "token_budget": batch + 7},
    )  # fmt: skip
    step, leap = play(scenario, "step"), play(scenario, "leap")
    assert step.requests.equals(leap.requests)
    assert step.iterations.equals(leap.iterations)
    found = leap.summary
    assert found["requests_finished"] == len(requests)
    assert found["kv_blocks_allocated"] == found["kv_blocks_freed"]
    if keys.get("output_reserve") == 1.0:
        assert found["kv_preemptions"] == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    keys=KEYS, mode=st.sampled_from(["graph", "resident"]), rows=REQUESTS,
    batch=st.integers(1, 6), blocks=st.integers(16, 30),
)  # fmt: skip
def test_any_keys_over_any_load(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any], mode: str, rows: Requests,
    batch: int, blocks: int,
) -> None:  # fmt: skip
    at, requests = 0.0, []
    for gap, prompt, output in rows:
        at += gap
        requests.append((at, prompt, output))
    check(tmp_path_factory.mktemp("any"), keys, mode, requests, batch, blocks)


CROWD = [(20.0 + 3.5 * i, 11 + 23 * i % 29, 1 + 7 * i % 20) for i in range(24)]


@pytest.mark.parametrize("blocks", [16, 20])
@pytest.mark.parametrize(
    ("keys", "mode"),
    [
        ({"long_prefill": 6, "reserve": "chunk_if_fits"}, "resident"),
        ({"prefill_budget": 5, "reserve": "chunk", "blocked_prompt": "preempt"}, "resident"),
        (
            {"long_prefill": 3, "reserve": "chunk", "blocked_prompt": "preempt",
             "free_margin": 0.1, "asynchronous": True}, "graph",
        ),
    ],
)  # fmt: skip
def test_prompts_that_hold_what_decoding_needs(
    tmp_path: Path, keys: dict[str, Any], mode: str, blocks: int
) -> None:
    for batch in (3, 5):
        check(tmp_path, keys, mode, CROWD, batch, blocks)
