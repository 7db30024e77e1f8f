"""`trace generate`: the list of workloads, each workload, and what its options refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.generate import SOURCES, generate
from sim.trace.lengths import Length
from sim.trace.read import read
from sim.trace.workloads.catalog import KNOBS, WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path

NEEDED: dict[str, tuple[str, Any]] = {
    "rate_per_s": ("4", 4.0),
    "burstiness": ("0.25", 0.25),
    "on_s": ("5", 5.0),
    "off_s": ("20", 20.0),
    "prompt": ("lognormal:300:0.8,cap=999", Length("lognormal", median=300, sigma=0.8, cap=999)),
    "output": ("uniform:3:9", Length("uniform", low=3, high=9)),
}
OTHERS: dict[str, str | None] = {
    "arrivals": "constant",
    "rank_correlation": "0.5",
    "diurnal": "0.5",
    "start_hour": "3",
    "clients": "folder",
    "population": "m-mid",
    "sub_agents": "0.5",
    "shared_prefix": None,
}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["generate", *(str(argument) for argument in arguments)])


def options(knobs: dict[str, str | None]) -> list[str]:
    return [
        word
        for name, value in knobs.items()
        for word in (KNOBS[name].option, value)
        if word is not None
    ]


def needed(source: str) -> dict[str, str | None]:
    return {name: NEEDED[name][0] for name in WORKLOADS[source].needs}


def test_the_list_has_every_workload_with_its_options() -> None:
    result = run("--list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == [*SOURCES]
    at = lines.index(next(line for line in lines if line.startswith("on-off: ")))
    assert lines[at + 1 : at + 3] == [
        "    needs --rate --on --off --prompt --output",
        "    takes --burstiness --rank-correlation --diurnal --start-hour",
    ]
    assert {word for line in lines for word in line.split() if word.startswith("--")} == {
        knob.option for knob in KNOBS.values()
    }


def test_help_names_every_option() -> None:
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["generate", "--help"])
    assert result.exit_code == 0
    assert all(knob.option in result.output for knob in KNOBS.values())


@pytest.mark.parametrize("source", SOURCES)
def test_each_workload_is_the_one_of_generate(tmp_path: Path, source: str) -> None:
    out = tmp_path / "out.parquet"
    given = {name: NEEDED[name][1] for name in WORKLOADS[source].needs}
    result = run(source, *options(needed(source)), "--requests", 60, "--seed", 7, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 60 requests\n"
    (theirs,) = read(out)
    (ours,) = generate(source, 60, 7, **given)
    assert np.array_equal(ours.arrival_s, theirs.arrival_s)
    assert np.array_equal(ours.prompt_tokens, theirs.prompt_tokens)
    assert np.array_equal(ours.output_tokens, theirs.output_tokens)
    if ours.block_ids is not None:
        assert ours.block_ids == theirs.block_ids
    if ours.links is not None:
        assert theirs.links is not None
        assert ours.links.after == theirs.links.after
        assert np.allclose(ours.links.delay_s, theirs.links.delay_s)
    before = out.read_bytes()
    run(source, *options(needed(source)), "--requests", 60, "--seed", 7, "--out", out)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (source, name)
        for source in SOURCES
        for name in WORKLOADS[source].takes
        if name not in ("clients", "start_hour", "prompt", "output", "burstiness", "shared_prefix")
    ],
)
def test_each_option_changes_the_trace(tmp_path: Path, source: str, name: str) -> None:
    made: list[bytes] = []
    value = {"rate_per_s": "7"}.get(name) or OTHERS[name]
    variants: list[dict[str, str | None]] = [{}, {name: value}]
    for knobs in variants:
        out = tmp_path / f"{len(made)}.csv"
        given = options(needed(source) | knobs)
        result = run(source, *given, "--requests", 300, "--out", out)
        assert result.exit_code == 0, result.output
        made.append(out.read_bytes())
    assert made[0] != made[1]


def test_a_shared_prefix_changes_the_ids(tmp_path: Path) -> None:
    made = []
    for more in ((), ("--shared-prefix",)):
        out = tmp_path / "out.jsonl"
        assert run("agent-like", *more, "--requests", 100, "--out", out).exit_code == 0
        made.append(out.read_bytes())
    assert made[0] != made[1]


@pytest.mark.parametrize("shape", ["burstgpt", "0.9", ",".join(str(n) for n in range(24))])
def test_shapes_of_a_day(tmp_path: Path, shape: str) -> None:
    out = tmp_path / "o.csv"
    result = run("azure-conv-like", "--diurnal", shape, "--start-hour", 8, "--out", out)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("source", SOURCES)
def test_options_that_mean_nothing(tmp_path: Path, source: str) -> None:
    out = tmp_path / "o.csv"
    workload = WORKLOADS[source]
    wrong: dict[str, str | None] = {
        name: NEEDED[name][0] if name in NEEDED else OTHERS[name]
        for name in KNOBS
        if name not in workload.knobs
    }
    result = run(source, *options(needed(source) | wrong), "--out", out)
    assert isinstance(result.exception, InputError)
    assert [line.partition(" nothing")[0] for line in result.exception.lines] == [
        f"{KNOBS[name].option}: means" for name in wrong
    ]
    if workload.needs:
        lacks = run(source, "--out", out)
        assert isinstance(lacks.exception, InputError)
        starts = [line.partition(";")[0] for line in lacks.exception.lines]
        assert starts == [f"{KNOBS[name].option}: missing" for name in workload.needs]
        assert not out.exists()


POISSON = ("poisson", "--rate", "2", "--prompt", "fixed:5", "--output", "fixed:5")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "NAME: missing; write one of azure-conv-like, "),
        (("azure-conv-like",), "--out: missing; name the file to write"),
        (("Poisson",), "NAME: 'Poisson' is unknown; write one of"),
        (("\x1b[2J",), "NAME: '\\x1b[2J' is unknown"),
        ((*POISSON, "--rate", "nan"), "--rate: nan is not in"),
        ((*POISSON, "--rate", "inf"), "--rate: inf is not in"),
        ((*POISSON, "--rate", "-1"), "--rate: -1.0 is not in"),
        ((*POISSON, "--prompt", "fixed"), "--prompt: 'fixed' is no length; write fixed:MEAN"),
        ((*POISSON, "--prompt", "table:none.csv"), "none.csv: no such file"),
        ((*POISSON, "--rank-correlation", "2"), "--rank-correlation: 2.0 is not in -1 to 1"),
        ((*POISSON, "--rank-correlation", "nan"), "--rank-correlation: nan is not in -1 to 1"),
        ((*POISSON, "--diurnal", "mars"), "--diurnal: 'mars' is no shape; write one of servegen-"),
        ((*POISSON, "--diurnal", "1,2,3"), "diurnal: 3 numbers; write 24"),
        ((*POISSON, "--diurnal", "nan"), "diurnal: an amplitude of nan is not in 0 to 1"),
        ((*POISSON, "--diurnal", "2"), "diurnal: an amplitude of 2.0 is not in 0 to 1"),
        ((*POISSON, "--start-hour", "3"), "--start-hour: means nothing without --diurnal"),
        ((*POISSON, "--diurnal", "1", "--start-hour", "24"), "start_hour: 24.0 is not in 0 to"),
        (("servegen", "--population", "x"), "population: 'x' is unknown; write one of m-large"),
        (("servegen", "--clients", "none"), "none: no such file"),
        (("servegen", "--clients", "x", "--population", "m-mid"), "means nothing beside --clients"),
        (("servegen", "--prompt", "fixed:5"), "--prompt: means nothing without --output"),
        (("servegen", "--start-hour", "25"), "start_hour: 25.0 is not in 0 to below 24"),
        (("agent-like", "--sub-agents", "2"), "--sub-agents: 2.0 is not in 0 to 1"),
        (("agent-like", "--burstiness", "0.5"), "--burstiness: only with --arrivals gamma"),
        (("on-off", *POISSON[1:], "--on", "0", "--off", "1"), "--on: 0.0 is not in"),
    ],
)
def test_options_that_make_no_trace(
    tmp_path: Path, arguments: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = () if expected.startswith("--out") else ("--out", "o.csv")
    result = run(*arguments, "--requests", 5, *more)
    assert isinstance(result.exception, InputError), result.output
    (line,) = result.exception.lines
    assert expected in line
    assert not list(tmp_path.iterdir())


def test_formats_that_cannot_hold_sessions_or_ids_say_so(tmp_path: Path) -> None:
    result = run("agent-like", "--requests", 50, "--out", tmp_path / "o.csv")
    assert result.exit_code == 0
    assert result.stderr
    assert "block" in result.stderr
