"""Which scenarios draw at random, by their keys and by their results with another seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sim.load import load
from sim.randomness import draws, idle_seeds
from sim.simulate import Simulation
from sim.study import load_study

if TYPE_CHECKING:
    from pathlib import Path

    from sim.scenario import Scenario

EVEN = "source: synthetic, requests: 40, rate: 20 /s, arrivals: constant, prompt_tokens: 64"
ROWS = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(
    f"{i // 2},{50 + i},{20 + i % 7}\n" for i in range(60)
)
SPECULATION = "speculation: {draft: eagle, acceptance: {%s}}"
CASES = [
    (f"{{{EVEN}, output_tokens: 30}}", "", []),
    (f"{{{EVEN}, output_tokens: {{fixed: 30}}, diurnal: 0.5}}", "", []),
    ("{source: constant, requests: 40, rate: 20 /s, prompt_tokens: 64, output_tokens: 30}", "", []),
    (f"{{{EVEN}, output_tokens: {{exponential: 30}}}}", "", ["trace.source"]),
    (f"{{{EVEN.replace('constant', 'poisson')}, output_tokens: 30}}", "", ["trace.source"]),
    ("{source: azure-conv-like, requests: 40}", "", ["trace.source"]),
    ("{file: rows.csv}", "", []),
    ("{file: rows.csv, replica: {index: 0, of: 2}}", "", []),
    ("{file: rows.csv, window: [0 s, 20 s], time_scale: 2}", "", []),
    ("{file: rows.csv, thin: 0.5}", "", ["trace.thin"]),
    ("{file: rows.csv, dither: 1 s}", "", ["trace.dither"]),
    ("{file: rows.csv, replica: {index: 0, of: 2, by: random}}", "", ["trace.replica"]),
    (
        "{merge: [{file: rows.csv, weight: 1}, {file: rows.csv, weight: 3}]}",
        "",
        ["trace.merge"],
    ),
    ("{file: rows.csv}", SPECULATION % "mismatch_stride: 3", []),
    ("{file: rows.csv}", SPECULATION % "rate: 0.6", ["speculation.acceptance"]),
    ("{file: rows.csv}", "block_decode: {block: 8, steps: 4}", []),
    ("{file: rows.csv}", "block_decode: {block: 8, steps: {rate: 0.4}}", ["block_decode.steps"]),
    (
        "{file: rows.csv}",
        "block_decode: {block: 8, steps: 4, order: drawn, commit: prefix}",
        ["block_decode.steps"],
    ),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)


def results(scenario: Scenario) -> dict[str, object]:
    """The summary of a run, but for what names the scenario."""
    summary = Simulation(scenario).run()
    return {key: summary[key] for key in summary if key not in ("seed", "scenario_hash")}


@pytest.mark.parametrize(("trace", "rest", "keys"), CASES, ids=str)
def test_seeds_matter_where_something_is_drawn(
    tmp_path: Path, trace: str, rest: str, keys: list[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"trace: {trace}\nmodel: llama-3.2-1b\n{rest}\n")
    scenario = load(file)
    assert draws(scenario) == keys
    assert (results(scenario) == results(load(file, ["seed=1"]))) == (keys == [])


def test_sessions_may_get_drawn_starts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "trace: {file: rows.csv, session_arrivals: {rate: 1 /s}}\nmodel: llama-3.2-1b\n"
    )
    assert draws(load("a.yaml")) == ["trace.session_arrivals"]


def test_seeds_without_effect_are_warned_of(tmp_path: Path) -> None:
    text = "trace: {file: rows.csv}\nmodel: llama-3.2-1b\nsweep: {trace.thin: [1, 0.5], "
    (tmp_path / "a.yaml").write_text(f"{text}seeds: 3}}\n")
    assert idle_seeds(load_study("a.yaml")) == [
        "warning: sweep.seeds: has no effect on 1 of 2 points; nothing is drawn at random, so that "
        "the 3 runs of a point are alike"
    ]
    (tmp_path / "a.yaml").write_text(f"{text}seeds: 1}}\n")
    assert idle_seeds(load_study("a.yaml")) == []
    (tmp_path / "a.yaml").write_text(f"{text.replace('1, 0.5', '1')}seeds: 2}}\n")
    (line,) = idle_seeds(load_study("a.yaml"))
    assert line.startswith("warning: sweep.seeds: has no effect; nothing is drawn at random")
    (tmp_path / "a.yaml").write_text(f"{text.replace('1, 0.5', '0.5, 0.7')}seeds: 3}}\n")
    assert idle_seeds(load_study("a.yaml")) == []
