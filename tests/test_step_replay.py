"""Engine and simulator schedule by the same rules: one plans what the log of the other holds."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.serve.blocks import Account, Pages, slack
from kernels.serve.clock import FakeClock
from kernels.serve.engine import Engine
from kernels.serve.fake import FakeDevice
from kernels.serve.records import write_steps
from kernels.serve.request import Request
from kernels.serve.scheduler import Scheduler
from kernels.serve.slots import Slots
from sim.errors import InputError
from sim.scenario import Scenario
from sim.validation.replay import Asked, Replayed, read_logged, replay

if TYPE_CHECKING:
    from pathlib import Path

    from kernels.serve.scheduler import Plan

PAGE = 4


def seconds(plan: Plan) -> float:
    return 1e-3 * bool(plan.decode) + 1e-4 * sum(chunk.tokens for chunk in plan.chunks)


def serve(
    asked: list[tuple[float, int, int]], blocks: int, batch: int, budget: int, alone: bool
) -> Engine:
    """The engine's own loop over a device that takes as long as a formula says."""
    pages = Pages(list(range(blocks + slack(batch, 1, PAGE))))
    slots = Slots(pages, batch, PAGE, 1, sizes=[batch])
    scheduler = Scheduler(
        Account(blocks, PAGE), max_batch=batch, token_budget=budget, max_context=4096,
        prompts_first=alone,
    )  # fmt: skip
    clock = FakeClock()
    requests = [Request(i, *one) for i, one in enumerate(asked)]
    engine = Engine(scheduler, FakeDevice(slots, clock, seconds), clock, requests)
    engine.run()
    return engine


def scenario(batch: int, budget: int, alone: bool, **keys: Any) -> Scenario:
    schedule = {"order": "prefill_alone"} if alone else {}
    return Scenario.model_validate(
        {
            "trace": {"source": "synthetic", "requests": 1, "rate": "1 /s", "prompt_tokens": 1,
                      "output_tokens": 1},
            "model": {"preset": "llama-3.2-1b", "max_context": 4096},
            "loop": {"mode": "host", "max_batch": batch, "token_budget": budget},
            "kv": {"block_tokens": PAGE},
            "schedule": schedule,
        }
        | keys
    )  # fmt: skip


def followed(folder: Path, engine: Engine, blocks: int, chosen: Scenario) -> Replayed:
    path = folder / "steps.jsonl.gz"
    write_steps(path, {}, engine.steps)
    asked = [Asked(r.id, r.arrival, r.prompt_tokens, r.output_tokens) for r in engine.requests]
    return replay(chosen, blocks, asked, read_logged(path))


GAPS = st.sampled_from([0.0, 0.0, 1e-3, 2.5e-3, 0.02])


@st.composite
def loads(draw: Any) -> dict[str, Any]:
    """Requests, and memory and budget for few of them."""
    rows = draw(st.lists(st.tuples(GAPS, st.integers(1, 40), st.integers(1, 20)), max_size=25))
    at = np.cumsum([gap for gap, _, _ in rows]).tolist()
    batch = draw(st.integers(1, 6))
    return {
        "asked": [(t, p, o) for t, (_, p, o) in zip(at, rows, strict=True)],
        "blocks": draw(st.integers(15, 40)),
        "batch": batch,
        "budget": batch + draw(st.integers(1, 30)),
        "alone": draw(st.booleans()),
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(load=loads())
def test_every_step_of_any_log_is_planned_alike(
    tmp_path_factory: pytest.TempPathFactory, load: dict[str, Any]
) -> None:
    engine = serve(**load)
    chosen = scenario(load["batch"], load["budget"], load["alone"])
    found = followed(tmp_path_factory.mktemp("log"), engine, load["blocks"], chosen)
    assert found == Replayed(len(engine.steps), len(engine.steps), None)


CROWD = [(0.002 * i, 20 + 7 * i % 30, 12) for i in range(30)]


def test_the_log_has_preemptions_and_cut_prompts(tmp_path: Path) -> None:
    engine = serve(CROWD, 24, 4, 16, False)
    assert engine.scheduler.preemptions > 3
    assert any(c[1] for step in engine.steps for c in step.chunks)
    assert followed(tmp_path, engine, 24, scenario(4, 16, False)).exact


@pytest.mark.parametrize(
    ("batch", "budget", "blocks", "alone"),
    [(2, 16, 24, False), (4, 17, 24, False), (4, 16, 23, False), (4, 16, 24, True)],
)
def test_another_rule_is_noticed(
    tmp_path: Path, batch: int, budget: int, blocks: int, alone: bool
) -> None:
    engine = serve(CROWD, 24, 4, 16, False)
    found = followed(tmp_path, engine, blocks, scenario(batch, budget, alone))
    assert not found.exact
    assert found.steps == found.alike + 1 < len(engine.steps)
    assert (found.difference or "").startswith(f"step {found.steps} at ")


def test_what_is_not_replayed_is_said(tmp_path: Path) -> None:
    engine = serve(CROWD[:2], 24, 4, 16, False)
    chosen = scenario(4, 16, False, speculation={"draft": "ngram", "acceptance": {"rate": 0.5}})
    with pytest.raises(InputError, match="speculation: a log of such steps is not replayed"):
        followed(tmp_path, engine, 24, chosen)
    path = tmp_path / "bare.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"start_s": 0.0, "duration_s": 1.0}).encode()))
    with pytest.raises(InputError, match=r"bare\.jsonl\.gz:1: a step must say start_s"):
        list(read_logged(path))
