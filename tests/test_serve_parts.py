"""Parts of the engine that need no device: scripted acceptance, room in DRAM, figures, options."""

from __future__ import annotations

import argparse
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from serving import engine

from kernels.__main__ import main
from kernels.serve.command import add_serve, asked_of
from kernels.serve.measured import line, summary, typical_gaps
from kernels.serve.request import Request
from kernels.serve.script import Script, counts, uniforms
from kernels.serve.steps import most_requests
from kernels.serve.swap import Arena, SwapError

if TYPE_CHECKING:
    from pathlib import Path


def test_draws_hang_on_request_and_place_alone() -> None:
    some = uniforms(1, 7, 4000)
    assert (some == uniforms(1, 7, 5000)[:4000]).all()
    assert not (some == uniforms(1, 8, 4000)).any()
    assert not (some == uniforms(2, 7, 4000)).any()
    assert abs(some.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(some[:-1], some[1:])[0, 1]) < 0.05


def test_accepted_drafts_are_the_first_run_of_good_draws() -> None:
    good = uniforms(3, 5, 110) < 0.7
    found = counts(3, 5, 100, 4, 0.7)
    for length in range(100):
        run = 0
        while run < 3 and good[length + 1 + run]:
            run += 1
        assert found[length] == 1 + run
    # Of drafts at 0.7 each, 0.7 + 0.49 + 0.343 are accepted a step.
    assert counts(1, 1, 20_000, 4, 0.7).mean() == pytest.approx(2.533, abs=0.05)
    assert (counts(1, 1, 100, 4, 0.0) == 1).all()
    assert (counts(1, 1, 100, 4, 1.0) == 4).all()


def test_dram_is_given_in_whole_runs_and_comes_together_again() -> None:
    arena = Arena(10)
    assert [arena.take(4), arena.take(4)] == [0, 4]
    with pytest.raises(SwapError):
        arena.take(3)
    arena.give(0, 4)
    assert arena.take(2) == 0
    arena.give(4, 4)
    assert arena.take(8) == 2
    arena.give(2, 8)
    arena.give(0, 2)
    assert arena.holes == [(0, 10)]


def test_a_run_comes_to_these_figures() -> None:
    found = engine([(0.5, 100, 3), (0.6, 10, 1), (0.7, 5000, 10)])
    found.timed_every = 2
    found.run()
    figures = summary(found)
    assert figures["kind"] == "measured"
    assert (figures["completed"], figures["failed"], figures["requests_rejected"]) == (2, 1, 1)
    assert figures["total_output_tokens"] == figures["tokens_committed"] == 4
    # Prompts take 10 us a token, a decode step 1 ms; the prompts have 64 tokens a step.
    assert figures["p50_itl_ms"] == pytest.approx(1.0)
    assert figures["mean_ttft_ms"] == pytest.approx((1.0 + 0.1) / 2)
    assert figures["loop_iterations"] == len(found.steps) == 5
    assert figures["loop_idle_s"] == pytest.approx(0.5 + 0.097 + 0.0999)
    assert figures["loop_gpu_share_of_timed"] == pytest.approx(1.0)
    assert "2 done" in line("fake", "fake", figures)


def test_a_step_that_was_not_timed_has_the_usual_gap() -> None:
    rows = [
        {"path": "graph", "kind": "decode", "duration_s": 2.0, "gpu_s": 1.5},
        {"path": "graph", "kind": "decode", "duration_s": 3.0},
        {"path": "resident", "kind": "decode", "duration_s": 3.0},
    ]
    assert typical_gaps(rows) == {("graph", "decode"): 0.5, ("resident", "decode"): 0.0}


def test_kernels_take_so_many_requests() -> None:
    assert most_requests("library", "8b", 4) == 64
    assert most_requests("fused", "1b", 1) == 16
    assert most_requests("fused", "1b", 4) == 4
    assert most_requests("fused", "8b", 2) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mode graph", {"budget_tokens": 0, "tokens": 1, "acceptance": None, "seed": 1}),
        ("--mode graph --budget-tokens 512 --seed 3", {"budget_tokens": 512, "seed": 3}),
        (
            "--mode resident --kernels fused --tokens 4 --acceptance 0.6",
            {"tokens": 4, "acceptance": 0.6, "token_budget": 2048, "preemption": "recompute"},
        ),
    ],
)
def test_a_header_says_what_a_step_hangs_on(words: str, said: dict[str, object]) -> None:
    parser = argparse.ArgumentParser()
    add_serve(parser.add_subparsers())
    found = asked_of(parser.parse_args(["serve", "--calibrate", *words.split(), "--out", "x"]))
    assert found | said == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "resident"], "--mode resident runs the fused kernels only"),
        (["--mode", "graph", "--max-batch", "65"], "--max-batch 65: expected 1 to 64"),
        (["--mode", "graph", "--rate-scale", "nan"], "--rate-scale nan"),
        (["--mode", "graph", "--budget-tokens", "100"], "whole pages of 16"),
        (["--mode", "graph", "--trace", "nowhere.csv"], "nowhere.csv: No such file"),
    ],
)
def test_faulty_options_are_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what = [] if "--trace" in words else ["--calibrate"]
    argv = ["kernels", "serve", *what, *words, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    assert main() == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_draws_made_beforehand_are_the_same() -> None:
    cpu: Any = SimpleNamespace(name="cpu", xp=np)
    state: Any = SimpleNamespace(
        slots=SimpleNamespace(max_pages=8), page_tokens=16, tokens=4, batch=2
    )
    requests = [Request(i, 0.0, 10, 20) for i in (5, 9)]
    slots: Any = SimpleNamespace(changed={0, 1}, holders=requests)
    found = []
    for prepared in (requests[:1], ()):
        script = Script(cpu, state, 0.7, 3)
        script.prepare(prepared)
        script.tell(slots)
        found.append(script.array.copy())
    assert np.array_equal(*found)
    assert np.array_equal(found[0][1], counts(3, 9, 128, 4, 0.7))
