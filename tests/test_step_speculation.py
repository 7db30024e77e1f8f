"""Profiles of steps of an engine that speculates: the same acceptance, the same tokens a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from serving import engine
from small_steps import document, step_scenario
from toy import play

from kernels.serve.script import counts
from sim.step_fit import fit_steps
from sim.step_log import from_dicts
from sim.step_ready import load_of

if TYPE_CHECKING:
    from pathlib import Path

TOKENS, ACCEPTANCE = 4, 0.7
ASKED = [(0.0, 16 + number, 400) for number in range(24)]
MEAN = 1 + 0.7 + 0.7**2 + 0.7**3


def served() -> list[dict[str, Any]]:
    """The step log of the engine's own loop, with what its script accepts."""
    table = [counts(1, number, 600, TOKENS, ACCEPTANCE) for number in range(len(ASKED))]
    found = engine(
        ASKED, new_tokens=TOKENS, blocks=400, batch=4,
        accepted=lambda request: int(table[request.id][request.context_tokens]),
    )  # fmt: skip
    found.run()
    return [step.record() | step.composition() for step in found.steps]


def test_the_engines_script_and_the_scenario_emit_alike(tmp_path: Path) -> None:
    log = [step for step in served() if step["decode_requests"]]
    emitted = sum(sum(step["decode_commits"]) for step in log)
    real = emitted / sum(step["decode_requests"] for step in log)
    profile = document()
    profile["domain"]["ranges"]["tokens_each"] = [1.0, float(TOKENS)]
    speculation = {"draft": "ngram", "width": TOKENS - 1, "acceptance": ACCEPTANCE}
    ran = play(step_scenario(tmp_path, ASKED, profile, speculation=speculation))
    told = ran.summary["spec_tokens_per_step"]
    assert real == pytest.approx(MEAN, rel=0.02)
    assert told == pytest.approx(real, rel=0.02)
    plain = ran.iterations[ran.iterations.kind == "decode"]
    most = plain[plain.draft_tokens == plain.decode_requests * (TOKENS - 1)]
    assert (most.decode_rows == TOKENS * most.decode_requests).all()
    assert len(most) > 0.9 * len(plain)  # near its end a request drafts no more than it needs


def test_decode_tokens_are_rows_and_not_what_is_emitted() -> None:
    log = from_dicts(served())
    load = load_of(log)
    plain = load.prefill_tokens == 0
    assert (load.decode_tokens[plain] == TOKENS * load.decode_requests[plain]).all()
    assert fit_steps(log).domain.ranges["tokens_each"] == (1.0, float(TOKENS))
