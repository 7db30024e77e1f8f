"""Keys of `speculation`: what they accept, refuse, warn about, and do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from speculating import of, request, section, stepped

from sim.cli import main
from sim.errors import InputError
from sim.feasible import faults
from sim.load import load
from sim.scenario import Scenario
from sim.speculation.acceptance import RULES
from sim.speculation.build import speculator
from sim.study import load_study

LEAST = """\
trace: {source: synthetic, requests: 10, rate: 1 /s, prompt_tokens: 10, output_tokens: 9}
model: llama-3.1-8b
speculation:
"""
PLAIN = "  draft: mtp\n  acceptance: 0.7\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(keys: str, *overrides: str) -> Scenario:
    Path("a.yaml").write_text(LEAST + keys)
    return load("a.yaml", overrides, faults)


def lines_of(keys: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        loaded(keys)
    return caught.value.lines


# ---------------------------------------------------------------- what they say
def test_short_forms_say_the_same_as_long_ones() -> None:
    short = loaded("  draft: llama-3.2-1b\n  width: 3\n  acceptance: 0.7\n")
    long = loaded(
        "  draft: {kind: model, preset: llama-3.2-1b}\n"
        "  width: {controller: fixed, max: 3}\n"
        "  acceptance: {rule: greedy, rate: 0.7}\n  overlap: false\n"
    )
    assert short.hash == long.hash
    assert short.warnings() == long.warnings() == []


def test_without_the_section_a_scenario_is_what_it_was() -> None:
    plain = LEAST.replace("speculation:\n", "")
    Path("a.yaml").write_text(plain)
    assert "speculation" not in load("a.yaml").resolved()
    Path("b.yaml").write_text(plain + "speculation: null\nname: a\n")
    assert load("a.yaml").hash == load("b.yaml").hash


def test_a_sweep_may_set_it_off_and_its_width() -> None:
    Path("a.yaml").write_text(LEAST + PLAIN + "sweep: {speculation.width: [1, 2, 4]}\n")
    points = load_study("a.yaml", (), faults).points
    assert [one.scenario.speculation.most for one in points] == [1, 2, 4]  # type: ignore[union-attr]
    plain = LEAST.replace("speculation:\n", "")
    axis = "sweep: {speculation: [null, {draft: mtp, acceptance: 0.7}]}\n"
    Path("b.yaml").write_text(plain + axis)
    assert [one.scenario.speculation is None for one in load_study("b.yaml").points] == [
        True,
        False,
    ]


def test_what_was_resolved_is_read_again() -> None:
    keys = "  draft: {kind: ngram, lookup: 1 ms}\n  width: {controller: windowed}\n"
    found = loaded(keys + "  acceptance: {beta: {mean: 0.5, concentration: 4}}\n")
    data = json.loads(json.dumps(found.resolved()))
    assert data["speculation"] == {
        "draft": {"kind": "ngram", "lookup": 1e-3},
        "width": {"controller": "windowed", "max": 8},
        "acceptance": {"rule": "greedy", "beta": {"mean": 0.5, "concentration": 4.0}},
    }
    assert Scenario.from_resolved(data).hash == found.hash


def test_rules_say_whether_output_is_the_models() -> None:
    assert {name for name, rule in RULES.items() if rule.lossless} == {"greedy", "rejection"}
    assert {name: rule.verify for name, rule in RULES.items()} == {
        "greedy": "greedy", "rejection": "rejection", "typical": "rejection", "top_k": "rejection",
    }  # fmt: skip
    assert all(section({"rule": rule, "rate": 0.5}) for rule in RULES)


CHANGES: list[tuple[str, Any, Any]] = [
    ("rate", {"acceptance": 0.7}, {"acceptance": 0.6}),
    ("per_position", {"acceptance": 0.7}, {"acceptance": {"per_position": [0.7, 0.2]}}),
    ("survival", {"acceptance": {"per_position": [0.8, 0.5]}},
     {"acceptance": {"survival": [0.8, 0.5]}}),
    ("beta.mean", {"acceptance": {"beta": {"mean": 0.5, "concentration": 3}}},
     {"acceptance": {"beta": {"mean": 0.7, "concentration": 3}}}),
    ("beta.concentration", {"acceptance": {"beta": {"mean": 0.5, "concentration": 3}}},
     {"acceptance": {"beta": {"mean": 0.5, "concentration": 30}}}),
    ("mismatch_stride", {"acceptance": {"mismatch_stride": 3}},
     {"acceptance": {"mismatch_stride": 4}}),
    ("max", {"width": 4}, {"width": 5}),
    ("tree", {"width": {"max": 2}}, {"tree": [2, 2]}),
    ("controller", {"width": {"controller": "asbs"}}, {"width": {"controller": "windowed"}}),
    ("min", {"width": {"controller": "asbs"}}, {"width": {"controller": "asbs", "min": 3}}),
    ("initial", {"width": {"controller": "asbs"}}, {"width": {"controller": "asbs", "initial": 2}}),
    ("alpha", {"width": {"controller": "asbs"}}, {"width": {"controller": "asbs", "alpha": 0.9}}),
    ("high", {"width": {"controller": "asbs"}}, {"width": {"controller": "asbs", "high": 0.6}}),
    ("low", {"width": {"controller": "asbs"}}, {"width": {"controller": "asbs", "low": 0.7}}),
    ("step", {"width": {"controller": "windowed"}},
     {"width": {"controller": "windowed", "step": 3}}),
    ("target", {"width": {"controller": "windowed"}},
     {"width": {"controller": "windowed", "target": 0.4}}),
    ("margin", {"width": {"controller": "windowed"}},
     {"width": {"controller": "windowed", "margin": 0.6}}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "before", "after"), CHANGES, ids=[case[0] for case in CHANGES])
def test_each_key_changes_the_steps(key: str, before: Any, after: Any) -> None:
    def steps(keys: Any) -> list[Any]:
        return stepped(of(**({"acceptance": 0.6, "width": {}} | keys)), request(1, 300))

    assert steps(before) != steps(after)


# ---------------------------------------------------------------- rates by request
def test_a_column_gives_each_request_its_rate() -> None:
    pd.DataFrame({"n": [1, 2], "alpha": [0.0, 1.0]}).to_parquet("r.parquet")
    Path("r.csv").write_text("n, alpha\n1,0\n\n2,1.0\n")
    for name in ("r.parquet", "r.csv"):
        spec = of({"file": name, "column": "alpha"}, 3)
        assert [step.accepted for step in stepped(spec, request(0, 8))[:3]] == [0, 0, 0]
        assert [step.accepted for step in stepped(spec, request(1, 9))] == [3, 3]
        with pytest.raises(InputError, match="2 acceptance rates, and the trace has more requests"):
            spec.begin(request(2))


def test_a_file_lies_beside_the_scenario_and_counts_by_its_content(tmp_path: Path) -> None:
    rows = "acceptance\n" + "0.5\n" * 10
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.csv").write_text(rows)
        (tmp_path / folder / "a.yaml").write_text(
            LEAST + "  draft: mtp\n  acceptance: {file: r.csv}\n"
        )
    first, second = (load(f"{folder}/a.yaml", (), faults) for folder in ("x", "y"))
    assert first.hash == second.hash
    assert first.speculation is not None
    assert speculator(first.speculation, 0).begin(request(9)).chances == (0.5,) * 4
    (tmp_path / "y" / "r.csv").write_text(rows.replace("0.5", "0.6"))
    assert load("y/a.yaml", (), faults).hash != first.hash


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acceptance\n0.5\n1.5\n", "row 2: 'acceptance' is 1.5, not a rate from 0 to 1"),
        ("acceptance\nnan\n", "row 1: 'acceptance' is nan, not a rate from 0 to 1"),
        ("acceptance\n0.5\nx\n", "row 2: expected a number in 'acceptance', got 'x'"),
        ("a,acceptance\n1\n", "row 1: expected a number in 'acceptance', got nothing"),
        ("rate\n0.5\n", "no column 'acceptance'; columns there: 'rate'"),
        ("acceptance,acceptance\n1,1\n", "several columns 'acceptance'"),
        ("acceptance\n", "no rows"),
        ("", "no column 'acceptance'"),
        ("acceptance\n0.5\n", "1 rows for 10 requests; give one row a request"),
    ],
)
def test_a_bad_column_is_one_line(text: str, said: str) -> None:
    Path("r.csv").write_text(text)
    (line,) = lines_of("  draft: mtp\n  acceptance: {file: r.csv}\n")
    assert line.startswith("a.yaml:5:22: speculation.acceptance.file: ")
    assert said in line


def test_bad_files_are_one_line() -> None:
    Path("r.csv").write_bytes(b"acceptance\n\xff\xfe\n")
    Path("r.parquet").write_text("no parquet")
    Path("d.csv").mkdir()
    pd.DataFrame({"acceptance": ["a"]}).to_parquet("t.parquet")
    pd.DataFrame({"acceptance": [None, 0.5]}).to_parquet("n.parquet")
    for name in ("r.csv", "r.parquet", "d.csv", "none.csv", "t.parquet", "n.parquet"):
        (line,) = lines_of(f"  draft: mtp\n  acceptance: {{file: {name}}}\n")
        assert "speculation.acceptance.file: " in line
        assert name in line


# ---------------------------------------------------------------- bad input
BAD = [
    ("acceptance: 0.7", ["speculation.draft: missing"]),
    ("draft: mtp", ["speculation.acceptance: missing"]),
    ("{draft: mtp, acceptance: 1.01}", ["acceptance.rate: must be <= 1"]),
    ("{draft: mtp, acceptance: -0.1}", ["acceptance.rate: must be >= 0"]),
    ("{draft: mtp, acceptance: .nan}", ["acceptance.rate: expected a finite number, got nan"]),
    ("{draft: mtp, acceptance: .inf}", ["acceptance.rate: expected a finite number, got inf"]),
    ("{draft: mtp, acceptance: high}", ["acceptance: expected a map"]),
    ("{draft: mtp, acceptance: true}", ["acceptance: expected a map"]),
    ("{draft: mtp, acceptance: {}}", ["acceptance: missing one of rate, per_position"]),
    ("{draft: mtp, acceptance: {rate: '0.5'}}", ["acceptance.rate: expected a number"]),
    ("{draft: mtp, acceptance: {rate: 0.5, beta: {mean: 0.5, concentration: 2}}}",
     ["acceptance.beta: not together with rate; remove one"]),
    ("{draft: mtp, acceptance: {per_position: []}}", ["per_position: expected 1 values, got 0"]),
    ("{draft: mtp, acceptance: {per_position: [0.5, .nan]}}", ["per_position.1: expected a"]),
    ("{draft: mtp, acceptance: {per_position: 0.5}}", ["per_position: expected a list"]),
    ("{draft: mtp, acceptance: {survival: [0.5, 0.6]}}", ["survival.1: 0.6 after 0.5; shares"]),
    ("{draft: mtp, acceptance: {beta: {mean: 1.0, concentration: 2}}}", ["beta.mean: must be < 1"]),
    ("{draft: mtp, acceptance: {beta: {mean: 0.5}}}", ["beta.concentration: missing"]),
    ("{draft: mtp, acceptance: {beta: {mean: 0.5, concentration: 0}}}",
     ["beta.concentration: must be >= 0.01"]),
    ("{draft: mtp, acceptance: {mismatch_stride: 0}}", ["mismatch_stride: must be >= 1"]),
    ("{draft: mtp, acceptance: {rule: lossy, rate: 0.5}}", ["acceptance.rule: expected one of"]),
    ("{draft: mtp, acceptance: {rat: 0.5}}", ["acceptance.rat: no such field; did you mean"]),
    ("{draft: mtp, acceptance: 0.5, width: 0}", ["width.max: must be >= 1, got 0"]),
    ("{draft: mtp, acceptance: 0.5, width: 65}", ["width.max: must be <= 64, got 65"]),
    ("{draft: mtp, acceptance: 0.5, width: 2.5}", ["width: expected a map"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: best}}", ["width.controller: expected"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: asbs, min: 9}}",
     ["width.min: 9 is more than the greatest width, 8"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: asbs, initial: 9}}",
     ["width.initial: 9 is not from 1 to 8"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: asbs, low: 0.9}}",
     ["width.low: 0.9 is more than high (0.8); swap them"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: asbs, alpha: 0}}", ["alpha: must be > 0"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: load_aware, thresholds: []}}",
     ["thresholds: expected 1 values, got 0"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: load_aware, thresholds: "
     "[{batch: 8, width: 2}, {batch: 8, width: 1}]}}",
     ["width.thresholds.1.batch: 8 after 8; batches must increase"]),
    ("{draft: mtp, acceptance: 0.5, width: {controller: load_aware, thresholds: "
     "[{batch: 8, width: 9}]}}",
     ["width.thresholds.0.width: 9 is more than the greatest width, 8"]),
    ("{draft: mtp, acceptance: 0.5, tree: []}", ["speculation.tree: expected 1 values, got 0"]),
    ("{draft: mtp, acceptance: 0.5, tree: [4, 0]}", ["speculation.tree.1: must be >= 1, got 0"]),
    ("{draft: mtp, acceptance: 0.5, tree: [32, 33]}",
     ["speculation.tree: a tree of 1,088 draft tokens, 1,024 is the most; narrow a level"]),
    ("{draft: mtp, acceptance: 0.5, tree: [2, 2], width: 3}",
     ["width.max: 3 levels, and the tree has 2; lower it"]),
    ("{draft: ngram, acceptance: 0.5, tree: [2, 2]}", ["speculation.tree: not with draft.kind"]),
    ("{draft: mtp, acceptance: {mismatch_stride: 2}, tree: [2]}",
     ["speculation.tree: not with acceptance.mismatch_stride"]),
    ("{draft: llama, acceptance: 0.5}", ["speculation.draft.kind: expected one of model, mtp"]),
    ("{draft: model, acceptance: 0.5}", ["speculation.draft: missing preset; add e.g."]),
    ("{draft: {kind: model, preset: llama-3.2-1}, acceptance: 0.5}",
     ["draft.preset: no preset 'llama-3.2-1'; did you mean 'llama-3.2-1b'?"]),
    ("{draft: qwen3-30b-a3b, acceptance: 0.5}", ["a drafter needs the model's vocabulary"]),
    ("{draft: llama-3.1-8b, acceptance: 0.5}", ["llama-3.1-8b is not smaller than llama-3.1-8b"]),
    ("{draft: {kind: eagle, vocab: 200000}, acceptance: 0.5}",
     ["draft.vocab: 200000 is more than the model's vocabulary, 128256"]),
    ("{draft: {kind: medusa, heads: 3}, acceptance: 0.5}",
     ["draft.heads: 3 heads draft 3 levels, and the greatest width is 4"]),
    ("{draft: {kind: ngram, lookup: 20}, acceptance: 0.5}", ["draft.lookup: 20 has no unit"]),
    ("{draft: mtp, acceptance: 0.5, overlap: 1}", ["speculation.overlap: expected true or false"]),
    ("0.7", ["speculation: expected a map of draft, width, acceptance, tree, overlap, got 0.7"]),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "said"), BAD, ids=[keys for keys, _ in BAD])
def test_bad_input_is_one_clear_line(keys: str, said: list[str]) -> None:
    lines = lines_of(f"  {keys}\n")
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert line.startswith("a.yaml:")
        assert part in line
        assert "\n" not in line


def test_check_says_it_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(LEAST + "  draft: mtp\n  width: 0\n  acceptance: 2\n")
    with pytest.raises(SystemExit) as left:
        main(["check", "a.yaml"])
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "a.yaml:5:10: speculation.width.max: must be >= 1, got 0",
        "a.yaml:6:15: speculation.acceptance.rate: must be <= 1.0, got 2",
    ]


# ---------------------------------------------------------------- keys without effect
IDLE = [
    ("draft: {kind: mtp, preset: llama-3.2-1b}", "draft.preset"),
    ("draft: {kind: ngram, weights: int4}", "draft.weights"),
    ("draft: {kind: medusa, layers: 2}", "draft.layers"),
    ("draft: {kind: mtp, vocab: 1000}", "draft.vocab"),
    ("draft: {kind: mtp, heads: 9}", "draft.heads"),
    ("draft: {kind: mtp, lookup: 1 us}", "draft.lookup"),
    ("width: {min: 2}", "width.min"),
    ("width: {controller: goodput, initial: 2}", "width.initial"),
    ("width: {controller: windowed, alpha: 0.3}", "width.alpha"),
    ("width: {controller: windowed, high: 0.9}", "width.high"),
    ("width: {controller: windowed, low: 0.4}", "width.low"),
    ("width: {controller: windowed, pressure: 0.9}", "width.pressure"),
    ("width: {controller: windowed, pressure_cap: 1}", "width.pressure_cap"),
    ("width: {controller: asbs, step: 2}", "width.step"),
    ("width: {controller: asbs, target: 0.5}", "width.target"),
    ("width: {controller: asbs, margin: 0.2}", "width.margin"),
    ("width: {controller: asbs, slack: 0.2}", "width.slack"),
    ("width: {thresholds: [{batch: 3, width: 1}]}", "width.thresholds"),
    ("width: {controller: load_aware, thresholds: [{batch: 3, width: 1}], slack: 1}",
     "width.slack"),
    ("acceptance: {rate: 0.5, column: x}", "acceptance.column"),
    ("acceptance: {per_position: [0.5, 0.5, 0.5, 0.5, 0.1]}", "acceptance.per_position"),
    ("acceptance: {survival: [0.5, 0.5, 0.5, 0.5, 0.1]}", "acceptance.survival"),
    ("{tree: [2, 2, 2], width: 2}", "tree"),
    ("{draft: ngram, overlap: true}", "overlap"),
    ("{draft: medusa, overlap: true}", "overlap"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "path"), IDLE, ids=[keys for keys, _ in IDLE])
def test_a_key_without_effect_is_named(keys: str, path: str) -> None:
    import yaml

    given = {"draft": "mtp", "acceptance": 0.5} | yaml.safe_load(keys)
    (line,) = loaded(f"  {json.dumps(given)}\n").warnings()
    assert line.startswith(f"speculation.{path}: ")
    assert "no effect" in line
