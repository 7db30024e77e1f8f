"""Steps after a turn from prefill to decode, held batches, and noise by kind: fitted and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_steps import document, step_scenario
from stepping_engine import Engine, Law, requests
from toy import TICK, play

from sim.profile import load_profile
from sim.step_beyond import beyond
from sim.step_fit import fit_steps
from sim.step_form import Load, Regime, Term
from sim.step_log import from_dicts
from sim.step_plan import Plan, fit, levels_of
from sim.step_profile import document as written
from sim.step_ready import load_of, prepared

if TYPE_CHECKING:
    from pathlib import Path

Steps = list[dict[str, Any]]
STEP = [{"term": "step", "value": 5 * TICK, "unit": "s"}]


def turning(enter: float = 0.0, leave: float = 0.0, seed: int = 1, count: int = 200) -> Steps:
    """A run of the small engine whose first decode step after prefill takes *enter* seconds more,
    and whose first step with prefill after decode takes *leave* more."""
    steps = Engine(Law(), noise=0.01, seed=seed).serve(requests(count, 6.0, seed))
    found: Steps = []
    shift, before = 0.0, None
    for step in steps:
        more = 0.0
        prefill = step["prefill_tokens"] > 0
        if before is not None and prefill != before:
            more = leave if prefill else enter
        taken = step["duration_s"] + more
        kept = {k: v for k, v in step.items() if k not in ("gpu_s", "host_s")}
        found.append(kept | {"start_s": step["start_s"] + shift, "duration_s": taken})
        shift, before = shift + more, prefill
    return found


def errors(found: Any, steps: Steps) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors on other steps, and which of them are turns to decode."""
    log, seconds, _, _ = prepared(from_dicts(steps), "auto")
    load = load_of(log)
    assert load.turned is not None
    turned = (load.turned > 0) & (load.prefill_tokens == 0)
    return found.form.seconds(load) / seconds - 1.0, turned


# ---------------------------------------------------------------- the fit
def test_what_entering_takes_is_found_and_told() -> None:
    found = fit_steps(from_dicts(turning(enter=2e-3)))
    assert found.form.decode.turn[0].seconds == pytest.approx(2e-3, rel=0.05)
    assert found.form.mixed.turn == ()
    error, turned = errors(found, turning(enter=2e-3, seed=5))
    assert turned.sum() > 50
    assert np.median(np.abs(error[turned])) < 0.01
    assert abs(np.median(error[~turned])) < 0.003
    assert any("first step that only decodes after prefill takes 2" in n for n in found.notes)


def test_what_leaving_takes_is_found() -> None:
    found = fit_steps(from_dicts(turning(leave=4e-3)))
    assert found.form.mixed.turn[0].seconds == pytest.approx(4e-3, rel=0.15)
    assert found.form.decode.turn == ()


def test_an_engine_without_turns_gets_none() -> None:
    found = fit_steps(from_dicts(turning()))
    assert found.form.decode.turn == found.form.mixed.turn == ()


def test_turns_need_the_step_before_in_the_log() -> None:
    rows = [{"duration_s": 1e-3, "decode_requests": 1, "prefill_tokens": tokens, "start_s": start}
            for start, tokens in ((0.0, 5), (1e-3, 0), (2e-3, 0), (3e-3, 5), (9.0, 5), (9.001, 0))
            ]  # fmt: skip
    assert load_of(from_dicts(rows)).turned.tolist() == [0, 1, 0, 1, 0, 1]
    idle = [row | {"start_s": row["start_s"] + (5.0 if at > 2 else 0.0)}
            for at, row in enumerate(rows)]  # fmt: skip
    assert load_of(from_dicts(idle)).turned.tolist() == [0, 1, 0, 0, 0, 1]


def test_a_batch_that_is_held_is_padded_as_when_it_began() -> None:
    rng = np.random.default_rng(3)
    steps: Steps = []
    for _ in range(120):
        batch = held = int(rng.integers(1, 9))
        size = next(one for one in (1, 2, 4, 8) if one >= held)
        steps.append({"duration_s": 5e-3 + 1e-5 * 64, "decode_requests": 0, "prefill_tokens": 64})
        for at in range(12):
            batch -= batch > 1 and at % 3 == 2
            steps.append({"duration_s": 1e-3 * (1 + size) + 1e-8 * batch * 100 * (at + 5),
                          "decode_requests": batch, "prefill_tokens": 0, "padded_requests": size,
                          "context_tokens": batch * 100 * (at + 5)})  # fmt: skip
    found = fit_steps(from_dicts(steps))
    assert found.form.held
    error, _ = errors(found, steps)
    assert np.quantile(np.abs(error), 0.99) < 0.01
    apart = [{k: v for k, v in step.items() if k != "padded_requests"} for step in steps]
    assert not fit_steps(from_dicts(apart)).form.held


def test_captured_sizes_have_a_cost_each() -> None:
    batch = np.tile(np.arange(1.0, 17.0), 40)
    load = Load(batch, batch, batch * 500, batch * 0, batch * 0, batch * 0)
    captured = (1, 2, 4, 8, 12, 16)
    assert levels_of(captured, load) == (2.0, 4.0, 8.0, 12.0)
    cost = dict(zip(captured, (1.0, 1.01, 1.02, 1.2, 1.21, 1.6), strict=True))
    size = np.array([next(s for s in captured if s >= one) for one in batch])
    seconds = np.array([cost[int(one)] for one in size])
    regime = fit(Plan(("step",), levels_of(captured, load), captured=captured), load, seconds)
    told = Regime(regime.branches).seconds(Load(size, size, *load[2:6]))
    assert told == pytest.approx(seconds, rel=2e-3)


def test_computing_is_no_limit_within_the_log() -> None:
    """A batch of one is not made to cost what the largest does."""
    decode = Regime(((Term("step", 1.0), Term("tokens", 0.1)),))
    mixed = Regime(((Term("step", 3.0), Term("tokens", 0.05)),))
    batch = np.array([1.0, 10.0])
    load = Load(batch, batch, batch * 0, batch * 0, batch * 0, batch * 0)
    assert beyond(decode, mixed, load).seconds(load) == pytest.approx([1.1, 2.0])


def slowed(steps: Steps, share: float, until: float) -> Steps:
    """*steps*, of which a *share* of those with prefill takes three times as long, up to *until*
    of the log."""
    rng = np.random.default_rng(4)
    kept = [{k: v for k, v in step.items() if k != "start_s"} for step in steps]
    for at, step in enumerate(kept):
        if step["prefill_tokens"] and at < until * len(kept) and rng.random() < share:
            step["duration_s"] *= 3.0
    return kept


def test_a_cold_engines_prompts_are_no_noise_and_hiccups_are() -> None:
    steps = turning()
    cold = fit_steps(from_dicts(slowed(steps, 0.2, 0.4)))
    assert cold.ratios["prefill"].mean() < 1.05  # 1.16 with them
    hiccups = fit_steps(from_dicts(slowed(steps, 0.08, 1.0)))
    every = sum(step["prefill_tokens"] > 0 for step in steps)
    assert len(hiccups.ratios["prefill"]) == every > len(cold.ratios["prefill"])
    assert hiccups.ratios["prefill"].mean() > 1.08


def test_drift_is_told_and_noise_is_not() -> None:
    steps = turning()
    assert not any("longer in part" in note for note in fit_steps(from_dicts(steps)).notes)
    slower: Steps = []
    for at, step in enumerate(steps):
        kept = {key: value for key, value in step.items() if key != "start_s"}
        grown = step["duration_s"] * (1.0 + 0.08 * at / len(steps))
        slower.append(kept | {"duration_s": grown})
    said = [note for note in fit_steps(from_dicts(slower)).notes if "longer in part 10" in note]
    assert said
    assert "than in part 1 " in said[0]


# ---------------------------------------------------------------- in a run
@pytest.mark.parametrize("engine", ["leap", "step"])
def test_a_run_pays_at_turns_only(tmp_path: Path, engine: str) -> None:
    profile = document(decode=[[("step", 4)]], mixed=[[("step", 8)]])
    profile["form"]["turns"] = {"decode": STEP, "mixed": [STEP[0] | {"value": 3 * TICK}]}
    rows = [(0, 8, 4), (18, 8, 2), (500, 8, 2)]
    ran = play(step_scenario(tmp_path, rows, profile), engine)
    found = [float(value) / TICK for value in ran.iterations.duration_s]
    # Prefill, then decode: the first step pays 5. The second prompt comes in between: prefill pays
    # 3, the step after it 5. The third comes when nothing ran: it pays nothing before its decode.
    assert found == [8.0, 9.0, 4.0, 11.0, 9.0, 8.0, 9.0]


@pytest.mark.parametrize("engine", ["leap", "step"])
def test_a_run_holds_the_size_of_the_first_step(tmp_path: Path, engine: str) -> None:
    profile = document(decode=[[("decode_request", 1)]], mixed=[[("step", 8)]], captured=[1, 4])
    rows = [(0, 8, 3), (0, 8, 5)]
    own = play(step_scenario(tmp_path, rows, profile), engine).iterations
    assert (own.duration_s / TICK).tolist() == [8.0, 4.0, 4.0, 1.0, 1.0]
    profile["form"]["held"] = True
    held = play(step_scenario(tmp_path, rows, profile), engine).iterations
    assert (held.duration_s / TICK).tolist() == [8.0, 4.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("engine", ["leap", "step"])
def test_noise_is_of_the_kind_of_step(tmp_path: Path, engine: str) -> None:
    def always(value: float) -> dict[str, Any]:
        return {"at": [0.0, 1.0], "values": [value, value]}

    kinds = {"decode": always(1.0), "turned": always(2.0), "prefill": always(0.5)}
    profile = document(
        decode=[[("step", 4)]], mixed=[[("step", 8)]], ratios=always(7.0) | {"kinds": kinds}
    )
    ran = play(step_scenario(tmp_path, [(0, 8, 4)], profile), engine)
    assert (ran.iterations.duration_s / TICK).tolist() == [4.0, 8.0, 4.0, 4.0]
    del kinds["turned"]  # then all steps' noise serves
    ran = play(step_scenario(tmp_path, [(0, 8, 3)], profile), engine)
    assert (ran.iterations.duration_s / TICK).tolist() == [4.0, 28.0, 4.0]


# ---------------------------------------------------------------- the file
def test_what_was_fitted_is_read_back(tmp_path: Path) -> None:
    import json

    found = fit_steps(from_dicts(turning(enter=2e-3)))
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(written(found, "engine", "engine", {})))
    read = load_profile(path).steps
    assert read is not None
    assert read.form == found.form
    assert set(json.loads(path.read_text())["ratios"]["kinds"]) == {"decode", "turned", "prefill"}
    assert read.ratios["turned"].values.tolist() != read.ratios["decode"].values.tolist()
