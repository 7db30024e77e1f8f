"""Steps of several tokens: what they commit and hold, and that both engines agree on it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kv_runs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steppers import Blocks, Budget, Widths, stepping
from test_engines_agree import (
    assert_same,
    both,
    check_conservation,
    check_times,
    crowd,
    settings_of_a_run,
)
from toy import KV_BYTES, TICK, hbm, play, toy_scenario

from sim.rng import uniforms

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
    max_examples=120,
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
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(settings_of_a_run(), SPECULATORS, PARTS, st.integers(1, 40))
def test_any_run_with_a_part_in_hbm(
    data: dict[str, Any], speculator: Any, selection: Any, dram: int
) -> None:
    data["kv"] = {"block_tokens": selection.page}
    data["hardware"] |= {"hbm": hbm(dram, selection.page)}
    data["hardware"]["dram"] = {"capacity": f"{dram * selection.page * KV_BYTES} B"}
    with tempfile.TemporaryDirectory() as folder, stepping(speculator, selection):
        step, leap = both(toy_scenario(Path(folder), **data))
    assert_same(step, leap)
    check_conservation(leap)
    if selection.offload and len(leap.iterations):
        capacity = leap.summary["kv_lower_blocks_capacity"]
        assert leap.iterations.kv_blocks_lower.max() <= capacity


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
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
