"""Engines unlike ours, fitted on one run and judged on another: steps within their bars.

Shapes that are planned when they are first met, attention padded to the longest context, hosts
that are slower than their GPU, prompts computed whole and alone, batches that stay together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_steps import document, step_scenario
from stepping_engine import Engine, Law, requests
from toy import TICK, play

from sim.cost import Chunk
from sim.errors import InputError
from sim.profile import load_profile
from sim.step_cold import Cold, fresh, learned
from sim.step_fit import fit_steps
from sim.step_form import Load
from sim.step_log import from_dicts
from sim.step_profile import document as written
from sim.step_ratios import Ratios, true
from sim.step_ready import load_of, prepared
from sim.step_residuals import residuals

if TYPE_CHECKING:
    from pathlib import Path

Steps = list[dict[str, Any]]


def without(steps: Steps, *names: str) -> Steps:
    return [{k: v for k, v in step.items() if k not in names} for step in steps]


def served(law: Law, count: int = 200, rate: float = 6.0, seed: int = 1, **keys: Any) -> Steps:
    steps = Engine(law, seed=seed, **keys).serve(requests(count, rate, seed))
    return without(steps, "gpu_s", "host_s")


def judged(found: Any, steps: Steps, region: str = "all") -> dict[str, float]:
    log, seconds, _, _ = prepared(from_dicts(steps), "auto")
    load = load_of(log)
    return residuals(load, found.form.seconds(load), seconds)[region]


# ---------------------------------------------------------------- shapes that are new
@dataclass
class Planned(Law):
    """40 ms more for each chunk of a shape that was not computed before."""

    by_before: bool = True
    met: set[Any] = field(default_factory=set)
    seen: list[Any] = field(default_factory=list)

    def seconds(
        self, decode: int, context: int, chunks: list[tuple[int, int]]
    ) -> tuple[float, float]:
        gpu, host = super().seconds(decode, context, chunks)
        self.seen.append(chunks)
        for chunk, before in chunks:
            shape = (chunk, before) if self.by_before else chunk
            host += 0.0 if shape in self.met else 40e-3
            self.met.add(shape)
        return gpu, host


@pytest.fixture(scope="module")
def planned() -> Any:
    return fit_steps(from_dicts(served(Planned(), count=250)))


def test_new_shapes_by_hand() -> None:
    tokens, before = (np.array([float(v) for v in row])
                      for row in ([5, 5, 0, 5, 7, 9, 7], [0, 0, 0, 8, 0, 0, 0]))  # fmt: skip
    prompts, run = np.array([1.0, 1, 0, 1, 1, 2, 1]), np.array([0.0] * 6 + [1])
    found = fresh(tokens, prompts, before, run)
    # Of the two prompts that only their sum tells of, as many are new as of the five marks so far:
    # (begun with one) 1, 1, 0, 0, 1 by tokens, and 1, 1, 0, 1, 1 with those before.
    assert found[:, 0].tolist() == [1, 0, 0, 0, 1, 1, 1]
    assert found[:, 1].tolist() == [1, 0, 0, 1, 1, 2, 1]
    alone = fresh(tokens, prompts, None, run)
    assert alone[:, 1].tolist() == alone[:, 0].tolist() == found[:, 0].tolist()


def test_what_a_new_shape_takes_is_found_and_holds_on_another_run(planned: Any) -> None:
    found = planned
    assert found.form.cold is not None
    assert found.form.cold.seconds == pytest.approx(40e-3, rel=0.02)
    assert found.form.cold.by == "chunk"
    assert any("before it) is new takes " in note for note in found.notes)
    other = served(Planned(), seed=7, rate=8.0)
    assert judged(found, other)["median"] < 0.01
    assert judged(found, other)["p90"] < 0.05
    # The others are as if nothing were planned.
    calm = fit_steps(from_dicts(served(Law(), count=120)))
    assert calm.form.cold is None
    load = Load(*(np.array([float(v)]) for v in (8, 8, 4000, 1, 300, 0)))
    assert found.form.seconds(load) == pytest.approx(calm.form.seconds(load), rel=0.03)


def test_without_the_tokens_before_a_chunk_most_steps_are_still_told() -> None:
    steps = without(served(Planned(), count=250), "prefill_context_tokens")
    found = fit_steps(from_dicts(steps))
    assert found.form.cold is not None
    assert found.form.cold.seconds == pytest.approx(40e-3, rel=0.05)
    other = without(served(Planned(), seed=7), "prefill_context_tokens")
    assert judged(found, other, "with prefill")["median"] < 0.05


def listed(steps: Steps, law: Planned) -> Steps:
    """*steps* of an engine with *law*, prompts' tokens as lists."""
    kept = [step | {"prefill_tokens": [c for c, _ in chunks],
                    "prefill_context_tokens": [b for _, b in chunks]}
            for step, chunks in zip(steps, law.seen, strict=True)]  # fmt: skip
    return without(kept, "prefill_requests")


def test_lists_tell_the_shapes_of_several_prompts() -> None:
    law, other = Planned(), Planned()
    found = fit_steps(from_dicts(listed(served(law, count=250, rate=9.0), law)))
    steps = served(other, seed=7, rate=9.0)
    several = np.array([step["prefill_requests"] > 1 for step in steps])
    assert several.sum() > 20
    assert judged(found, listed(steps, other), "with prefill")["p90"] < 0.05
    assert judged(found, steps, "with prefill")["p90"] > 0.1  # sums do not


def test_lengths_are_told_from_shapes() -> None:
    steps = served(Planned(by_before=False), count=300)
    log, seconds, _, _ = prepared(from_dicts(steps), "auto")
    cold, _ = learned(load_of(log), seconds)
    assert cold is not None
    assert cold.by == "tokens"


def test_hiccups_are_not_new_shapes() -> None:
    for share in (0.05, 0.3):
        log, seconds, _, _ = prepared(from_dicts(served(Law(), hiccups=share, count=250)), "auto")
        assert learned(load_of(log), seconds)[0] is None
        assert learned(load_of(log), seconds)[1].max() == 0.0


@pytest.mark.parametrize("engine", ["leap", "step"])
def test_a_run_meets_each_shape_once(tmp_path: Path, engine: str) -> None:
    made = document(decode=[[("step", 4)]], mixed=[[("step", 8)]])
    rows = [(0, 8, 1), (500, 8, 1), (1000, 9, 1), (1500, 8, 1)]
    for by in ("tokens", "chunk"):
        made["form"]["cold"] = {"seconds": 7 * TICK, "by": by}
        ran = play(step_scenario(tmp_path, rows, made), engine)
        assert (ran.iterations.duration_s / TICK).tolist() == [15.0, 8.0, 15.0, 8.0]
    assert Cold(1.0, "tokens").shape(Chunk(3, 4)) == (3,)
    assert Cold(1.0, "chunk").shape(Chunk(3, 4)) == (3, 4)


def test_it_is_written_and_read_back(planned: Any, tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    data = written(planned, "engine", "engine", {})
    path.write_text(json.dumps(data))
    read = load_profile(path).steps
    assert read is not None
    assert read.form == planned.form
    data["form"]["cold"] = {"seconds": -1.0, "by": "colour"}
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"form\.cold: .*by \(tokens or chunk\)"):
        load_profile(path)


# ---------------------------------------------------------------- other laws
@dataclass
class Padded(Law):
    """Every decoding request reads as much KV as the longest one; a host that is a floor."""

    def seconds(
        self, decode: int, context: int, chunks: list[tuple[int, int]]
    ) -> tuple[float, float]:
        tokens = decode + sum(chunk for chunk, _ in chunks)
        gpu = 5e-3 + 20e-6 * tokens + 20e-9 * decode * self.longest
        return gpu + 4e-9 * sum(c * (b + c) for c, b in chunks), 7e-3 + 20e-6 * decode


@dataclass
class Eager(Law):
    """A host that launches kernel by kernel: the same for all decode batches, more a prompt."""

    def seconds(
        self, decode: int, context: int, chunks: list[tuple[int, int]]
    ) -> tuple[float, float]:
        tokens = decode + sum(chunk for chunk, _ in chunks)
        gpu = 3e-3 + 12e-6 * tokens + 2e-9 * sum(c * (b + c / 2) for c, b in chunks)
        return gpu, 24e-3 + 3e-3 * len(chunks)


OTHERS = {
    "padded attention": (Padded(hidden=True), {}),
    "a host's floor": (Eager(hidden=True), {}),
    "whole prompts alone": (Eager(hidden=True), {"prefill_first": True, "budget": 8192}),
    "padded, whole prompts alone": (Padded(), {"prefill_first": True, "budget": 8192}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_engines_steps_are_within_their_bars(name: str) -> None:
    law, keys = OTHERS[name]
    found = fit_steps(from_dicts(served(law, count=160, rate=3.0, **keys)))
    errors = judged(found, served(law, 120, seed=9, rate=4.0, **keys))
    assert errors["median"] < 0.03
    assert errors["p90"] < 0.07


def batches(seed: int, count: int = 40, size: int = 8) -> Steps:
    """Static batching as with `generate`: prompts padded to the longest, decode until all end."""
    rng, now = np.random.default_rng(seed), 0.0
    asked = requests(count * size, 8.0, seed)
    steps: Steps = []
    for at in range(0, len(asked), size):
        batch = asked[at : at + size]
        longest = max(one.prompt for one in batch)
        for token in range(max(one.output for one in batch)):
            held = longest + token
            seconds = 0.02 + 60e-6 * size * longest if token == 0 else 0.024 + 30e-9 * size * held
            seconds *= float(np.exp(rng.normal(0.0, 0.01)))
            alive = sum(one.output > token for one in batch)
            steps.append({
                "start_s": now, "duration_s": seconds, "decode_requests": alive * (token > 0),
                "prefill_requests": size * (token == 0),
                "prefill_tokens": sum(one.prompt for one in batch) * (token == 0),
                "context_tokens": alive * held * (token > 0),
            })  # fmt: skip
            now += seconds
    return steps


def test_static_batches_decode_within_their_bars() -> None:
    found = fit_steps(from_dicts(batches(1)))
    errors = judged(found, batches(2), "decode only")
    assert errors["median"] < 0.03
    assert errors["p90"] < 0.07


# ---------------------------------------------------------------- noise
def test_noise_keeps_the_time_of_the_log() -> None:
    rng = np.random.default_rng(3)
    usual = np.where(np.arange(4000) % 4 == 0, 100e-3, 5e-3)
    scatter = np.where(usual < 50e-3, rng.lognormal(0.25, 0.6, 4000), rng.lognormal(0, 0.02, 4000))
    plain, found = Ratios.of(scatter), true(scatter, usual)
    taken = float((usual * scatter).sum())
    drawn = rng.random(4000)
    assert (usual * plain.draw(drawn)).sum() == pytest.approx(1.35 * taken, rel=0.06)
    assert (usual * Ratios.of(found).draw(drawn)).sum() == pytest.approx(taken, rel=0.03)
    assert np.median(found) == pytest.approx(1.0, abs=0.02)  # that of the steps that matter
    even = rng.lognormal(0.0, 0.05, 4000)
    assert true(even, usual) is even  # nothing is wrong, nothing is changed
