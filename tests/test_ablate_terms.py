"""Terms of a kernel profile in an engine, removed: each is gone, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.ablate_terms import (
    ENGINES,
    JUDGED,
    OUT,
    OVER,
    REMOVED,
    WHOLE,
    cost_model,
    inside,
    markdown,
    variants,
)
from sim.cost import Chunk

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("graph-library", "host-python-library", "control-library", "resident-fused")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,10\n")
    return path


def decode_and_prompts(data: dict[str, Any]) -> tuple[float, float, float]:
    """Microseconds of five decoding requests, of 1,500 tokens of a prompt, of a turn."""
    cost = cost_model(data)
    turn = cost.modes.relaunch + cost.modes.exit
    found = cost.decode(5).seconds(5000), cost.mixed(0, 0, [Chunk(1500, 0)], 1).seconds, turn
    return tuple(round(one * 1e6, 3) for one in found)  # type: ignore[return-value]


@pytest.mark.parametrize("mode", MODES)
def test_every_term_that_is_removed_changes_what_it_names(
    tmp_path: Path, trace: Path, mode: str
) -> None:
    found = {
        name: decode_and_prompts(data)
        for name, data in variants(mode, trace, 1.0, tmp_path) if name not in ("step noise",)
    }  # fmt: skip
    decode, prompts, turn = found[WHOLE]
    assert set(found) >= set(REMOVED)
    for name in ("kernels' fixed cost", "occupancy ramp", "gaps between kernels"):
        if name == "occupancy ramp" and mode.startswith("host-python"):
            continue  # the host is the limit: a fuller GPU changes nothing
        assert found[name][0] <= decode, name
        assert found[name][1] < prompts, name
    assert found["kernels' fixed cost"][0] < decode or mode.startswith("host-python")
    assert found["engine: around prompts"][0] == decode
    assert found["engine: around prompts"][1] < prompts - 500
    assert found["engine: around a step"][0] != decode
    assert found["engine: entering and leaving"][:2] == (decode, prompts)
    if mode.startswith(("control", "resident")):
        assert found["engine: entering and leaving"][2] == 0 < turn
    if mode.startswith("host"):
        assert found["host gap"][0] < 0.8 * decode
    assert found["padding"][0] < decode or mode.startswith("host-python")  # 5 run as 8


def test_the_engines_are_over_the_shipped_kernels(trace: Path) -> None:
    for path in sorted(ENGINES.glob("*.json")):
        document = json.loads(path.read_text())
        assert document["over"] == "nvidia-h200"
        mode = path.stem.removeprefix("h200-1b-")
        cost = cost_model(inside(mode, path, trace, 1.0))
        assert cost.profile.engine is not None
        assert not cost.profile.engine.seams, "fitted over another version of the kernels"
    assert OVER.is_file()


def test_the_table_has_a_row_a_term() -> None:
    rows = [
        {"without": name, **{metric: [0.011, 0.092] for metric in JUDGED},
         "decode only": {"median": 0.013, "p90": 0.048}, "with prefill": {"median": None}}
        for name in (WHOLE, *REMOVED)
    ]  # fmt: skip
    lines = markdown(rows).splitlines()
    assert len(lines) == 2 + 1 + len(REMOVED)
    assert lines[2] == f"| {WHOLE} | 1.3, 4.8 | - |" + " 1.1, 9.2 |" * 6


def test_what_was_judged_names_every_term() -> None:
    found = json.loads(OUT.read_text())
    assert set(found["free"]) >= {WHOLE, *REMOVED, "step noise"}
    assert len(found["free"][WHOLE]) == 14
    assert set(found["skew"]) == set(found["steps"][WHOLE])
