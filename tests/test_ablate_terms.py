"""Terms of a kernel profile in an engine, removed: each is gone, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.ablate_terms import (
    JUDGED,
    OVER,
    REMOVED,
    WHOLE,
    cost_model,
    engine_file,
    inside,
    markdown,
    newest,
    out_file,
    read,
    rows_of,
    skew_markdown,
    variants,
)
from bench.blind_ablate import NOISE, promised
from bench.blind_rounds import ROUNDS, Engine, Round
from bench.blind_scenario import scenario
from sim.cost import Chunk

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("graph-library", "host-python-library", "control-library", "resident-fused")
FIRST = ROUNDS[1]
FITTED = [
    (chosen, engine) for chosen in ROUNDS.values() for engine in chosen.engines.values()
    if engine_file(chosen, engine).is_file()
]  # fmt: skip


def based(chosen: Round, engine: Engine, folder: Path) -> dict[str, Any]:
    """The scenario of a run of one request."""
    path = folder / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,10\n")
    return scenario(engine, chosen.profile(engine.name), path, 1.0, chosen.clip)


def decode_and_prompts(data: dict[str, Any]) -> tuple[float, float, float]:
    """Microseconds of five decoding requests, of 1,500 tokens of a prompt, of a turn."""
    cost = cost_model(data)
    turn = cost.modes.relaunch + cost.modes.exit
    found = cost.decode(5).seconds(5000), cost.mixed(0, 0, [Chunk(1500, 0)], 1).seconds, turn
    return tuple(round(one * 1e6, 3) for one in found)  # type: ignore[return-value]


@pytest.mark.parametrize("mode", MODES)
def test_every_term_that_is_removed_changes_what_it_names(tmp_path: Path, mode: str) -> None:
    engine = FIRST.engines[mode]
    base = based(FIRST, engine, tmp_path)
    found = {
        name: decode_and_prompts(data)
        for name, data in variants(engine, base, engine_file(FIRST, engine), tmp_path)
        if name != NOISE
    }
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


@pytest.mark.parametrize(("chosen", "engine"), FITTED, ids=lambda one: getattr(one, "name", ""))
def test_the_engines_are_over_the_shipped_kernels(
    tmp_path: Path, chosen: Round, engine: Engine
) -> None:
    path = engine_file(chosen, engine)
    assert json.loads(path.read_text())["over"] == "nvidia-h200"
    cost = cost_model(inside(engine, based(chosen, engine, tmp_path), path))
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


@pytest.mark.parametrize("chosen", [ROUNDS[number] for number in ROUNDS if number <= newest()])
def test_what_was_judged_names_every_term_and_cell(chosen: Round) -> None:
    if not out_file(chosen).is_file():
        pytest.skip("not judged yet")
    found = read(chosen)
    assert set(found["free"]) >= {WHOLE, *REMOVED, NOISE}
    assert set(found["free"][WHOLE]) <= {one["cell"] for one in promised(chosen)}
    assert set(found["skew"]) <= set(found["steps"][WHOLE]) <= set(found["free"][WHOLE])
    assert len(skew_markdown(found["skew"]).splitlines()) == 2 + len(found["skew"])


def test_the_first_rounds_terms() -> None:
    rows = rows_of(FIRST)
    assert rows[0]["without"] == WHOLE
    assert (rows[0]["cells"], rows[0]["runs"]) == (12, 17)
    assert rows[0]["mean_tpot_ms"][0] == pytest.approx(0.012, abs=0.0005)
    assert rows[-1]["mean_tpot_ms"][0] > 0.15
    assert max(map(len, out_file(FIRST).read_text().splitlines())) < 1000
