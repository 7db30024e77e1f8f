"""What a run says of a loop that stays on the GPU: how long it stays and what a launch yields."""

from __future__ import annotations

from typing import Any

import pytest

from sim.profile import load_profile
from sim.scenario import Scenario
from sim.simulate import Simulation

REQUESTS, TOKENS = 5, 21


def summary(mode: str, **loop: Any) -> dict[str, Any]:
    """Of requests that come one after the other, each after the last one has ended."""
    data = {
        "trace": {
            "source": "synthetic", "requests": REQUESTS, "arrivals": "constant", "rate": "1 /s",
            "prompt_tokens": 100, "output_tokens": TOKENS,
        },
        "model": "llama-3.2-1b",
        "loop": {"mode": mode, **loop},
    }  # fmt: skip
    return Simulation(Scenario.model_validate(data)).run()


def test_a_resident_loop_leaves_for_every_prompt_and_stays_for_its_answer() -> None:
    found = summary("resident")
    assert found["loop_exits"] == found["loop_entries"] == REQUESTS
    assert found["loop_iterations_per_entry"] == TOKENS - 1
    assert found["loop_tokens_per_resident_loop"] == 1.0
    loop = load_profile("nvidia-h200").loops["resident/fused"].leaving
    assert loop is not None
    left = loop["exit_s"] + loop["exit_to_idle_s"] + loop["relaunch_s"]
    assert found["loop_exit_s"] == pytest.approx(REQUESTS * left)
    each = found["loop_barriers"] / (REQUESTS * (TOKENS - 1))
    assert each == round(each) > 16, "barriers of every iteration, several a layer"
    assert found["loop_tokens_per_barrier"] == pytest.approx(1 / each)


def test_a_graph_is_launched_for_each_token() -> None:
    found = summary("graph")
    assert (found["loop_exits"], found["loop_entries"], found["loop_barriers"]) == (0, 0, 0)
    assert found["loop_iterations_per_entry"] is None
    launches = found["loop_launches"]
    assert found["loop_tokens_per_launch"] == pytest.approx(REQUESTS * (TOKENS - 1) / launches)
    assert found["loop_bubble_s"] == pytest.approx(found["loop_gap_s"])
    assert summary("host")["loop_tokens_per_launch"] < found["loop_tokens_per_launch"]
