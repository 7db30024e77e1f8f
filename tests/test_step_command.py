"""`residentsim profile fit`: from an engine's file to a profile, tables and figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from stepping_engine import Engine, requests
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import InputError
from sim.profile import load_profile

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {
    "start_s": "begin", "duration_s": "lat", "decode_requests": "running_seqs",
    "prefill_tokens": "new_toks", "prefill_requests": "new_seqs_", "context_tokens": "kv",
}  # fmt: skip
MAPS = [
    "start_s=begin[ms]", "duration_s=lat[ms]", "decode_requests=running_seqs",
    "prefill_tokens=new_toks", "prefill_requests=new_seqs_", "context_tokens=kv",
]  # fmt: skip


def log(path: Path, seed: int) -> Path:
    """An engine's steps under names of its own, in ms."""
    lines = []
    for step in Engine(seed=seed).serve(requests(60, 6.0, seed)):
        row = {theirs: step[ours] * (1e3 if ours.endswith("_s") else 1)
               for ours, theirs in NAMES.items()}  # fmt: skip
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))
    return path


def fit(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["profile", "fit", *map(str, arguments)])


def test_a_mapped_log_becomes_a_profile(tmp_path: Path) -> None:
    steps, other = log(tmp_path / "a.jsonl", 1), log(tmp_path / "b.jsonl", 2)
    file = tmp_path / "maps.txt"
    file.write_text("# our=theirs\n" + "\n".join(MAPS[:3]) + "\n\n")
    maps = [word for text in MAPS[3:] for word in ("--map", text)]
    out = tmp_path / "own.json"
    result = fit(steps, "--out", out, "--map-file", file, *maps, "--hold-out", other,
                 "--plots", tmp_path / "figures", "--captured", "none")  # fmt: skip
    assert result.exit_code == 0, result.output
    for part in ("Held-out errors", "other run, all", "covers: decoding requests", "duration_s ="):
        assert part in result.output
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "step_errors.png", "step_errors.svg", "steps.png", "steps.svg"
    ]  # fmt: skip
    profile = load_profile(out)
    assert profile.name == "own"
    assert profile.steps is not None
    assert profile.steps.residuals["other run, all"]["median"] < 0.012
    assert profile.steps.log["columns"]["start_s"] == "begin [ms]"
    again = tmp_path / "again.json"
    fit(steps, "--out", again, "--name", "own", "--map-file", file, *maps, "--hold-out", other,
        "--captured", "none", "-q")  # fmt: skip
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--captured", "1,x"], "--captured '1,x': write batch sizes"),
        (["--mode", "fast"], "--mode 'fast': choose engine"),
        (["--pace", "slow"], "--pace 'slow': choose auto"),
        (["--map", "duration_s=nothing"], "--map duration_s: no column 'nothing'; there are"),
        ([], "no column for duration_s and decode_requests; say which with --map duration_s=NAME"),
        (["--map-file", "missing.txt"], "missing.txt: cannot be read"),
    ],
)
def test_one_line_for_what_the_user_says_wrongly(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    result = fit(log(tmp_path / "a.jsonl", 1), "--out", tmp_path / "p.json", *arguments)
    assert isinstance(result.exception, InputError)
    assert len(result.exception.lines) == 1
    assert said in result.exception.lines[0]
    assert not (tmp_path / "p.json").exists()
