"""The shipped profile's loops: what was measured, what is predicted, and the bar they must keep."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kernels.fit.decode_points import read_steps
from kernels.fit.decoder import add_decoder
from kernels.fit.samples import read

ROOT = Path(__file__).parent.parent
STEPS = ROOT / "calibration" / "decode-run1.jsonl.gz"
OTHER = ROOT / "calibration" / "decode-run2.jsonl.gz"
"""The 1B table on another machine; nothing is fitted to it."""
SHIPPED = json.loads((ROOT / "sim" / "profiles" / "nvidia-h200.json").read_text())
pytestmark = pytest.mark.skipif(not STEPS.exists(), reason="no measured decode steps")
SPLITS = ("holdout", "training", "blind")


def judged(steps: Path):
    """Every step through the simulator, and the tables of `bench/decode_table.py`."""
    sys.path.insert(0, str(ROOT))
    try:
        from bench.decode_table import compare, tables
    finally:
        sys.path.pop(0)
    rows = compare(steps, "nvidia-h200")
    return rows, tables([row for row in rows if not row["train"]])


@pytest.fixture(scope="module")
def table():
    return judged(STEPS)


def test_every_loop_keeps_three_and_seven_percent_on_cells_it_has_not_seen(table):
    keeps_the_bar(table[1])


@pytest.mark.skipif(not OTHER.exists(), reason="no second run")
def test_so_does_every_loop_on_another_machine():
    keeps_the_bar(judged(OTHER)[1])


def keeps_the_bar(found) -> None:
    assert {"graph/library", "control/library", "resident/fused", "graph/fused"} <= set(found)
    for name, parts in found.items():
        assert parts["all"]["n"] >= 10, name
        assert parts["all"]["median"] <= 0.03, name
        assert parts["all"]["p90"] <= 0.07, name


def test_the_profile_states_the_errors_that_the_simulator_makes(table):
    _, found = table
    for name, parts in found.items():
        told = SHIPPED["loops"][name]["residuals"]["holdout"]
        assert told["n"] == parts["all"]["n"]
        assert told["median"] == pytest.approx(parts["all"]["median"], abs=1e-3), name
        assert told["max"] == pytest.approx(parts["all"]["max"], abs=1e-3), name


def test_nothing_is_fitted_on_a_cell_that_is_judged(table):
    rows, _ = table
    drawn: dict[tuple[object, ...], set[bool]] = {}
    for row in rows:
        names = ("model", "weights", "kv", "batch", "tokens", "context", "budget_tokens")
        drawn.setdefault(tuple(row[name] for name in names), set()).add(row["train"])
    assert all(len(draws) == 1 for draws in drawn.values())
    share = sum(draws == {True} for draws in drawn.values()) / len(drawn)
    assert 0.2 < share < 0.4


@pytest.mark.slow
def test_shipped_loops_are_what_the_program_writes():
    """Of the fused set: both take most of a minute."""
    samples = read(ROOT / "calibration" / "h200-run1.jsonl.gz")
    made = add_decoder(SHIPPED, read_steps(STEPS), samples, ("fused",))
    assert made.keys() == SHIPPED.keys()
    assert made["in_step"].keys() < SHIPPED["in_step"].keys()
    for name, entry in made["loops"].items():
        for split in SPLITS:
            ours, theirs = entry["residuals"][split], SHIPPED["loops"][name]["residuals"][split]
            assert ours["n"] == theirs["n"]
            if ours["n"]:
                assert ours["median"] == pytest.approx(theirs["median"], abs=0.003), name
                assert ours["p90"] == pytest.approx(theirs["p90"], abs=0.01), name
