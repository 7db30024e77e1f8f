"""The calibration report from made-up samples: what it shows, and what it says without any."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.__main__ import main
from kernels.fit.judge import is_held_out
from kernels.fit.kernel import fitted
from kernels.fit.recipes import RECIPES
from kernels.fit.samples import Samples, SamplesError, read
from kernels.report.command import run_report
from kernels.report.document import build
from kernels.report.inputs import Evidence, gather, read_predicted, read_profile
from kernels.report.loop_tables import step_table
from kernels.report.loops import Loops, parts
from kernels.report.public import PublicTable, read_public
from kernels.report.target_list import TARGETS
from kernels.report.targets import Found, Row, Target, judge
from kernels.report.words import figure_of, listed, number, size, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ = 4.6e12
DEVICE = {
    "name": "NVIDIA H200", "sms": 132, "driver": "580.0", "cuda": "13.0", "cpu": "made up",
    "cores": 16, "packages": {"numpy": "2"}, "python": "3.12",
}  # fmt: skip
FOLDERS = ("streams", "paged_attention", "page_score", "topk_select", "kv_append", "verify_commit",
           "w4a16_gemv", "gemm_library", "small_ops")  # fmt: skip
DRAWN = ("streams", "page_score", "topk_select", "gemm_library")
"""Those of the tests that draw, which takes half a second a picture."""


# ------------------------------------------------------------------------------ made-up samples
def moved(folder: str, a: dict[str, Any]) -> float:
    """Bytes of a call, about as the folders count them."""
    match folder:
        case "streams":
            return float(a["bytes"] * a.get("passes", 1) * (2 if a["op"] == "copy" else 1))
        case "topk_select":
            return 4.0 * a["rows"] * (a["pages"] + a["budget"])
        case "w4a16_gemv":
            weight = a["n"] * a["k"] * (a["bits"] / 8 + (2.5 / 128 if a["bits"] == 4 else 0))
            return weight + 2.0 * a["m"] * (a["n"] + a["k"])
        case "gemm_library":
            if a["op"] == "sdpa":
                return 4.0 * a["kv_heads"] * a["head_dim"] * (a["chunk"] + a["offset"])
            return (2 if a["op"] == "bf16" else 1) * float(a["n"] * a["k"] + a["m"] * a["k"])
        case "page_score":
            return 4.0 * a["batch"] * a["pages"] * a["kv_heads"] * a["head_dim"]
        case "paged_attention":
            heads, width = int(a["heads"].split("/")[1]), int(a["heads"].split("/")[2])
            tokens = a["requests"] * (a["budget"] or a["length"])
            return tokens * heads * width * a["bits"] / 4 + 4e3 * a["requests"]
        case "kv_append":
            return 8e3 * a["batch"] * a["tokens"]
        case "small_ops":
            return 2.0 * a["rows"] * (128256 if "logits" in a else 8192)
        case "verify_commit":
            wide = 4 if a["element"] == "fp32" else 2
            return float(a["batch"] * (a["drafts"] + 1) * a["vocabulary"] * wide)
    raise AssertionError(folder)


def flops(folder: str, a: dict[str, Any]) -> float:
    """Operations of a call."""
    if folder == "gemm_library" and a["op"] == "sdpa":
        return 4.0 * a["q_heads"] * a["head_dim"] * a["chunk"] * (a["offset"] + a["chunk"] / 2)
    return 2.0 * a["m"] * a["n"] * a["k"] if "m" in a else 0.0


def seconds(folder: str, a: dict[str, Any]) -> float:
    """A plausible time."""
    if folder == "streams":
        return moved(folder, a) / (6e10 if a["level"] == "one_block" else 0.99 * READ)
    memory, compute = moved(folder, a) / 4.2e12, flops(folder, a) / 7e14
    if folder == "topk_select":
        slow = {"equal": 0.7, "duplicates": 1.3}.get(a["scores"], 1.0)
        return 2e-6 + slow * max(1.0, a["rows"] / 132) * (1e-6 + 4e-10 * a["pages"])
    return 3e-6 + math.hypot(memory, compute)


def made(names: tuple[str, ...] = FOLDERS, every: int = 1) -> Iterator[dict[str, Any]]:
    """Lines of a samples file: a run, points of *names*, records of copies and of the loop."""
    yield {"kind": "run", "device": DEVICE, "date": "2026-11-21T00:00:00Z", "commit": "abc"}
    rng = np.random.default_rng(5)
    for folder in names:
        points = importlib.import_module(f"kernels.{folder}.bench").points()
        for index, axes in enumerate(points[::every]):
            typical = seconds(folder, axes)
            base = {"library": (1.2 * typical * rng.lognormal(0, 0.1, 5)).tolist()}
            for again in (False, True)[: 1 + (index % 10 == 0)]:
                times = typical * rng.lognormal(0.0, 0.03) * rng.lognormal(0.0, 0.004, 12)
                yield {
                    "kind": "point", "kernel": folder, "point": axes, "again": again,
                    "bytes": moved(folder, axes), "flops": flops(folder, axes), "error": 1e-3,
                    "calls": 3, "clock_mhz": [1980] * 3, "seconds": times.tolist(), "took": 0.1,
                    "baselines": {} if folder in ("streams", "gemm_library") else base,
                }  # fmt: skip
    yield {
        "kind": "failed", "kernel": "page_score", "point": {"batch": 7}, "again": False,
        "reason": "ValueError: no room",
    }  # fmt: skip
    yield _records("loop_control", "measure_steps", list(steps()))
    yield _records("loop_control", "measure_constants", list(control()))
    for measure, records in (("measure_copies", copies()), ("measure_files", files()),
                             ("measure_interference", interference())):  # fmt: skip
        yield _records("tier_copy", measure, list(records))


def _records(folder: str, measure: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    line = {"kind": "records", "kernel": folder, "measure": measure, "again": False}
    return {**line, "records": found, "incomplete": "", "took": 1.0}


def control() -> Iterator[dict[str, Any]]:
    """Records of `loop_control.measure_constants`; one is of a kind that nobody expects."""
    times = [1e-6, 1.1e-6, 1.2e-6]
    yield {"name": "nodes", "data": [{"nodes": n, "samples_s": [n * 6e-7] * 3} for n in (1, 9, 99)]}
    grid = {"blocks": 132, "threads": 256, "samples_s": times}
    yield {"name": "barrier", "data": [{"kind": "counted", **grid}]}
    yield {"name": "control", "data": ["odd"]}
    yield {"name": "launch", "data": {"c_submit_1": times}}


def steps() -> Iterator[dict[str, Any]]:
    """Records of whole steps of `loop_control`."""
    over = {"resident": 7e-6, "graph": 14e-6, "host-c": 20e-6, "host-python": 40e-6}
    for sparse in (False, True):
        for batch in (1, 4, 16, 64):
            for context in (1024, 4096, 16384, 65536):
                work = 6e-6 + 4096.0 * batch * (context if not sparse else context / 8) / 4.2e12
                for mode, extra in {**over, "graph-steady": 3e-6}.items():
                    slower = 1.05 if mode == "resident" else 1.0
                    record = {"slots": batch, "context": context, "mode": mode, "sparse": sparse}
                    record |= {"samples_s": [slower * work + extra] * 5, "touched_bytes": 1 << 40}
                    if mode == "resident":
                        cycles = {"attend": int(2e9 * work), "attend_wait": 2000, "verify": 4000,
                                  "verify_wait": 3000}  # fmt: skip
                        record["stage_cycles"] = {name: [n] * 3 for name, n in cycles.items()}
                    yield record


def copies() -> Iterator[dict[str, Any]]:
    """Records of `tier_copy.measure_copies`."""
    for way in ("h2d", "d2h"):
        for shift in range(12, 31, 2):
            time = 4e-6 + (1 << shift) / 55e9
            for calls in (1, 16):
                axes = {"direction": way, "calls": calls, "bytes": 1 << shift}
                yield {"name": "copy_engine", **axes, "seconds": [time] * 3}
        for page in (4096, 16384, 65536, 262144, 1048576):
            for blocks in (2, 8, 32):
                axes = {"direction": way, "page_bytes": page, "pages": (64 << 20) // page}
                rate = min(51e9, blocks * 7e9)
                yield {"name": "gather", **axes, "blocks": blocks, "bytes": 64 << 20,
                       "seconds": [(64 << 20) / rate] * 3}  # fmt: skip
            for name in ("copy_engine_pages", "copy_batch"):
                yield {"name": name, "direction": way, "page_bytes": page, "pages": 64,
                       "bytes": 64 * page, "seconds": [64 * (2e-6 + page / 55e9)] * 3}  # fmt: skip
    for shift in range(20, 31, 2):
        yield {"name": "copy_engine", "direction": "both", "bytes": 2 << shift,
               "seconds": [4e-6 + (1 << shift) / 50e9] * 3}  # fmt: skip


def files() -> Iterator[dict[str, Any]]:
    """Records of `tier_copy.measure_files`."""
    for shift in range(12, 27, 2):
        for depth in (1, 4, 16):
            for name in ("file_read", "file_write"):
                one = 1e-4 + (1 << shift) / 2e9
                yield {"name": name, "bytes": 1 << shift, "depth": depth, "direct": True,
                       "disk": "virtual disk", "device": "vda", "filesystem": "ext4",
                       "seconds": [one] * 3, "wall_seconds": 3 * one / depth**0.5,
                       "operations": 3}  # fmt: skip


def interference() -> Iterator[dict[str, Any]]:
    """Records of `tier_copy.measure_interference`."""
    for victim in ("read_bulk", "read_stream"):
        for mover, way, blocks in (("copy_engine", "h2d", 0), ("copy_engine", "both", 0),
                                   ("gather", "h2d", 8), ("gather", "d2h", 32)):  # fmt: skip
            yield {"name": "interference", "victim": victim, "bytes": 1e9, "mover": mover,
                   "direction": way, "blocks": blocks, "page_bytes": 16384,
                   "seconds": [2.4e-4 * (1.02 + blocks / 132)] * 3, "alone_seconds": [2.4e-4] * 6,
                   "mover_bytes_s": 5e10}  # fmt: skip


FITTED = ("topk_select", "page_score")


def made_profile(samples: Samples, names: tuple[str, ...] = FITTED) -> dict[str, Any]:
    """A profile fitted to *samples*, with a few constants; all kernels if *names* is empty."""
    with np.errstate(over="ignore"):
        entries = {
            recipe.name: fitted(recipe, samples, None)
            for recipe in RECIPES
            if not names or recipe.name in names
        }
    constant = {"unit": "s", "kind": "measured", "source": "run", "note": "made up"}
    seconds = {
        "grid_barrier_s": 1e-6, "graph_node_s": 1.1e-6, "graph_launch_s": 6e-6,
        "mailbox_round_trip_s": 2e-6, "h2d_latency_s": 4e-6, "d2h_latency_s": 4e-6,
        "host_sync_s": 9e-6, "host_copyback_s": 5e-6, "host_c_submit_s": 2e-6,
        "host_python_submit_s": 4e-6, "launch_latency_s": 3e-6,
    }  # fmt: skip
    constants = {name: {"value": value, **constant} for name, value in seconds.items()}
    for way in ("h2d", "d2h"):
        constants[f"{way}_bytes_per_s"] = {**constant, "value": 55e9, "unit": "bytes/s"}
    return {
        "name": "nvidia-h200", "status": "measured", "date": "2026-11-21", "commit": "abc",
        "constants": constants, "kernels": {k: v for k, v in entries.items() if v is not None},
        "checks": [],
    }  # fmt: skip


def written(path: Path, lines: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Path:
    """*lines* as a samples file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


PUBLIC_ROWS = """op,impl,kernel,dtype,heads,kv_heads,head_dim,batch,ctx,us,bytes,GBps,m,n,k,\
score_mode,model
decode_attention,SGLang 0.5.14,fa3,bfloat16,32.0,8.0,128.0,64.0,8192.0,483.7,2147483648,4440,,,,,
gemm,TRT-LLM 1.2.0rc5,trt_flow_,int4_wo,,,,,,15.9,35000000,2200,1.0,16384.0,4096.0,,
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of made-up samples, their profile, predictions and public rows."""
    place = tmp_path_factory.mktemp("inputs")
    lines = [
        line
        for line in made(DRAWN, every=3)
        if line["kind"] != "point" or line["point"].get("op") not in ("fp8", "int8", "sdpa")
    ]
    samples = written(place / "samples.jsonl", lines)
    profile = place / "profile.json"
    profile.write_text(json.dumps(made_profile(read(samples))))
    predicted = [
        {"batch": row["slots"], "context": row["context"], "mode": row["mode"],
         "sparse": row["sparse"], "predicted_s": 1.1 * row["samples_s"][0]}
        for row in steps()
    ]  # fmt: skip
    (place / "predicted.json").write_text(json.dumps(predicted))
    (place / "public.csv").write_text(PUBLIC_ROWS)
    return {
        "samples": samples, "profile": profile, "predicted": place / "predicted.json",
        "public": place / "public.csv",
    }  # fmt: skip


def report(inputs: dict[str, Path], out: Path, **other: Path | None) -> dict[str, bytes]:
    """The files of a report on *inputs* with *other* in their place."""
    assert run_report(argparse.Namespace(**{**inputs, "out": out, **other})) == 0
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def evidence_of(inputs: dict[str, Path]) -> Evidence:
    """The joined inputs."""
    samples, profile = read(inputs["samples"]), read_profile(inputs["profile"])
    predicted = read_predicted(inputs["predicted"])
    return gather(samples, profile, read_public(inputs["public"]), predicted)


# ------------------------------------------------------------------------------ the whole
@pytest.fixture(scope="module")
def whole(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A report on everything."""
    return report(inputs, tmp_path_factory.mktemp("whole"))


def test_every_picture_is_there_and_small(whole: dict[str, bytes]) -> None:
    text = whole["README.md"].decode()
    shown = set(re.findall(r"\]\((\S+\.png)\)", text))
    assert shown == {name for name in whole if name.endswith(".png")}
    wanted = "page-score gemm topk control loop-dense loop-gaps loop-predicted-sparse copies"
    assert {f"{name}.png" for name in wanted.split()} <= shown
    assert all(len(body) < 200_000 for body in whole.values())


def test_the_text_opens_with_the_answer(whole: dict[str, bytes]) -> None:
    lines = whole["README.md"].decode().splitlines()
    assert lines[0] == "# Calibration report: NVIDIA H200"
    assert "driver 580.0" in lines[2]
    assert "2026-11-21T00:00:00Z; commit abc" in lines[2]
    assert re.match(r"\*\*Of \d+ targets \d+ are met", lines[4])
    assert "The worst misses: #" in lines[4]
    assert re.match(r"\*\*Of 2 fitted kernel models", lines[6])
    assert any(x.startswith("**The loop.** Of 32 cells `resident` is fastest in") for x in lines)


def test_what_is_not_measured_is_called_so(whole: dict[str, bytes]) -> None:
    text = whole["README.md"].decode()
    assert "| public: 483.7 us, SGLang 0.5.14 fa3 |" in text
    assert "kernel model `elementwise`: not in the profile" in text
    assert '`page_score` {"batch": 7}: ValueError: no room' in text
    assert "`loop_control` control: cannot be drawn" in text
    assert "2.00 (est.)" in text


def test_the_same_input_gives_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    lines = inputs["samples"].read_text().splitlines()
    few = [line for line in lines if '"page_score"' in line]
    inputs = {**inputs, "samples": tmp_path / "few.jsonl"}
    inputs["samples"].write_text("\n".join([lines[0], *few, ""]))
    assert report(inputs, tmp_path / "a") == report(inputs, tmp_path / "b")


# ------------------------------------------------------------------------------ parts missing
def test_without_samples_it_says_what_is_missing(inputs: dict[str, Path], tmp_path: Path) -> None:
    empty = written(tmp_path / "empty.jsonl", [])
    profile = tmp_path / "profile.json"
    profile.write_text('{"kernels": {}}')
    found = report(
        inputs, tmp_path / "out", samples=empty, profile=profile, predicted=None,
        public=tmp_path / "none.csv",
    )  # fmt: skip
    text = found["README.md"].decode()
    assert list(found) == ["README.md"]
    assert "0 are met" in text
    assert "of an earlier run; this one measured none" in text
    assert "Target #5, page scoring, B 16, L 32k, page 16: no samples." in text
    assert "No samples of `paged_attention`." in text


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_kernel_alone_makes_a_report(folder: str, tmp_path: Path) -> None:
    file = written(tmp_path / "one.jsonl", [*made((folder,), every=7)][:-5])
    evidence = gather(read(file), made_profile(Samples()), PublicTable([]), [])
    rows = judge(TARGETS, evidence)
    text = build(evidence, rows, Loops(evidence), set())
    assert not any("target" in trouble for trouble in evidence.troubles)
    assert f"No samples of `{folder}`." not in text


def test_a_profile_of_other_samples_is_noticed(inputs: dict[str, Path]) -> None:
    evidence = evidence_of(inputs)
    assert not any("hold-out is not that" in trouble for trouble in evidence.troubles)
    profile = json.loads(inputs["profile"].read_text())
    profile["kernels"]["page_score"]["residuals"]["holdout"]["median"] = 0.5
    other = gather(evidence.samples, profile, evidence.public, [])
    assert any("`page_score`: the profile's hold-out is not" in t for t in other.troubles)


# ------------------------------------------------------------------------------ judging
def test_score_is_half_at_the_library_and_one_at_the_floor() -> None:
    def score(value: float, library: float = 30.0) -> float | None:
        return Found(value, floor=10.0, baseline=("torch", library)).score

    assert score(30.0) == 0.5
    assert score(10.0) == score(9.0) == 1.0
    assert score(50.0) == pytest.approx(1 / 3)
    assert score(20.0, library=10.0) is None
    assert Found(20.0, floor=10.0).fraction == 0.5
    assert Found(20.0, floor=80.0, is_rate=True).fraction == 0.25


def test_verdicts_and_how_far_a_miss_is() -> None:
    def row(value: float | None, better: str = "less", unit: str = "us") -> Row:
        target = Target("1", "x", unit, 10.0, lambda _: None, better=better, stretch=8.0)  # type: ignore[arg-type]
        return Row(target, None if value is None else Found(value), "")

    assert (row(10.0).verdict, row(10.0).stretched) == ("met", False)
    assert row(8.0).stretched
    assert (row(12.0).verdict, row(12.0).gap) == ("missed", pytest.approx(0.2))
    assert (row(5.0, "more").verdict, row(5.0, "more").gap) == ("missed", 1.0)
    assert row(None).verdict == "not measured"
    assert row(21.0, unit="%").gap == pytest.approx(0.1)


def test_the_floor_is_at_the_read_ceiling_of_the_run(inputs: dict[str, Path]) -> None:
    evidence = evidence_of(inputs)
    best = max(
        p.bytes / p.median
        for p in evidence.samples.of("streams")
        if p.axes["level"] == "hbm" and p.axes["op"] != "copy"
    )
    assert evidence.read.bytes_per_s == best
    rows = {row.target.number: row for row in judge(TARGETS, evidence)}
    scored = rows["5"].found
    assert scored is not None
    assert scored.bytes is not None
    assert scored.floor == pytest.approx(scored.bytes / best * 1e6)
    assert scored.baseline is not None


def test_held_out_points_are_those_of_the_fit(inputs: dict[str, Path]) -> None:
    evidence = evidence_of(inputs)
    fit = evidence.fits["page_score"]
    assert fit.entry["residuals"]["holdout"]["n"] == int(fit.held.sum())
    held = [p for p in fit.points if is_held_out("page_score", p.axes)]
    assert all((evidence.prediction(point) or (0, False))[1] for point in held)


def test_public_rows_only_for_the_very_shape(inputs: dict[str, Path]) -> None:
    table = read_public(inputs["public"])
    assert table.best("gemm", "int4_wo", m=1.0, n=16384.0, k=4096.0) is not None
    assert table.best("gemm", "int4_wo", m=1.0, n=16384.0, k=4097.0) is None
    assert table.best("gemm", "bfloat16", m=1.0, n=16384.0, k=4096.0) is None


# ------------------------------------------------------------------------------ the loop
def test_the_loop_table_names_winner_and_prediction(inputs: dict[str, Path]) -> None:
    loops = Loops(evidence_of(inputs))
    place = (False, 1, 1024)
    assert loops.modes == ["resident", "graph", "host-c", "host-python"]
    assert loops.winner(place) is not None
    assert loops.winner(place)[0] == "resident"  # type: ignore[index]
    assert loops.error(loops.cells[place]["graph"]) == pytest.approx(0.1)
    rows = step_table(loops, sparse=False)
    assert "+10.0 %" in rows[2]
    assert len({row.count("|") for row in rows[:-1]}) == 1


def test_parts_of_a_step_sum_to_the_step(inputs: dict[str, Path]) -> None:
    loops = Loops(evidence_of(inputs))
    for mine in loops.cells.values():
        for mode in loops.modes:
            found = parts(loops, mine[mode])
            assert found is not None
            assert sum(found.values()) == pytest.approx(mine[mode].seconds)


# ------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("predicted", '[{"batch": 1}]', "each record needs"),
        ("predicted", "{", "not JSON"),
        ("profile", "[]", "no profile"),
        ("public", "op,impl,kernel\ngemm,x,y\n", "no public row"),
        ("samples", '{"kind": "odd"}\n', "kind 'odd' is unknown"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    inputs: dict[str, Path], tmp_path: Path, name: str, text: str, said: str
) -> None:
    bad = tmp_path / "bad"
    bad.write_text(text)
    with pytest.raises(SamplesError, match=said) as caught:
        report(inputs, tmp_path / "out", **{name: bad})
    assert "\n" not in str(caught.value)
    assert str(bad) in str(caught.value)


def test_the_command_ends_with_two_for_a_missing_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["report", "--samples", "none", "--profile", "none", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["kernels", *words])
    assert main() == 2
    assert capsys.readouterr().err.startswith("none:")


# ------------------------------------------------------------------------------ words
@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(1.0, 1e12), st.sampled_from(["us", "%", "GB/s", "x"]))
def test_numbers_have_no_powers(value: float, unit: str) -> None:
    for text in (number(value), figure_of(value, unit), size(value)):
        assert "e" not in text.lower()


def test_words() -> None:
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert table(["a", "b"], [["1", "x|y"]], "lr") == ["| a | b |", "|:--|--:|", "| 1 | x/y |", ""]
    assert size(35e6) == "35 MB"
