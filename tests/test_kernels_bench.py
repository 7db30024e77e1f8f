"""The benchmark driver on a made-up machine: what it writes, resumes, survives and leaves out."""

from __future__ import annotations

import gzip
import json
import sys
import time
from types import SimpleNamespace

import pytest

from kernels.__main__ import main
from kernels.bench import Bench, discover, is_repeated, on_file, plan
from kernels.bench_worker import plain, short
from kernels.fit.samples import SamplesError, read

GRID = """
import os, time
import numpy as np
from kernels.work import Work

def points():
    return [{"size": size, "how": HOW.get(size, "")} for size in range(40)]

def prepare(gpu, point, rng):
    how = point["how"]
    if how == "raises": raise ValueError("no room\\nfor it")
    if how == "dies": os._exit(7)
    check = (lambda: float("nan")) if how == "wrong" else (lambda: 1e-3)
    call = lambda: point["size"]
    return Work([call], check, np.float64(8.0 * point["size"]), 0.0, {"library": [call]})

def measure_constants(gpu):
    yield {"name": "node", "value": np.float64(1e-6)}
"""


class Made:
    """A machine that takes a microsecond a size."""

    def __init__(self):
        self.gpu = SimpleNamespace()

    def facts(self):
        return {"name": "made up", "sms": 4}

    def seconds(self, calls, samples):
        return [1e-6 * (1 + calls[0]())] * samples

    def clocks(self):
        return [1980, 1755, 1980]

    def cubins(self):
        return {"made-sm_90-0": "ff"}

    def tidy(self):
        pass


class Slow(Made):
    def tidy(self):
        time.sleep(0.4)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of kernels, named anew for each test; HOW says which sizes go wrong."""
    name = f"made_{tmp_path.name}".replace("-", "_")

    def make(**folders):
        for folder, how in folders.items():
            place = tmp_path / name / folder
            place.mkdir(parents=True)
            (place.parent / "__init__.py").touch()
            (place / "__init__.py").touch()
            (place / "bench.py").write_text(f"HOW = {how!r}\n{GRID}")
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def measured(package, file, machine=Made, budget=60.0):
    """Does what *file* lacks and reads it back."""
    folders = plan(package, discover(package), on_file(file))
    Bench(file, budget, package, machine, {"commit": "abc"}).measure(folders)
    return folders, read(file)


def test_a_grid_is_measured_once_and_a_tenth_twice(package, tmp_path, capsys):
    file = tmp_path / "s.jsonl"
    name = package(alpha={})
    _, samples = measured(name, file)
    assert len(samples.points) == 40
    twice = {key for key in samples.points if is_repeated("alpha", json.loads(key[1]))}
    assert samples.repeats.keys() == twice
    assert 0 < len(twice) < 15
    point = samples.of("alpha")[3]
    assert point.bytes == 8.0 * point.axes["size"]
    assert point.seconds == (short(1e-6 * (1 + point.axes["size"])),) * 30
    assert point.baselines["library"] == point.seconds[:10]
    assert samples.runs[0]["device"]["name"] == "made up"
    assert samples.runs[0]["commit"] == "abc"
    assert samples.cubins == {"made-sm_90-0": "ff"}
    assert samples.named("alpha") == [{"name": "node", "value": 1e-6}]
    assert "alpha" in capsys.readouterr().out
    before = file.read_bytes()
    folders, _ = measured(name, file)
    assert [folder.left for folder in folders] == [0]
    assert file.read_bytes() == before


def test_order_is_drawn_and_the_same_each_time(package, tmp_path):
    name = package(alpha={})
    jobs = plan(name, ["alpha"], on_file(tmp_path / "none"))[0].jobs
    sizes = [job.point["size"] for job in jobs if job.point and not job.again]
    assert sorted(sizes) == list(range(40))
    assert sizes != sorted(sizes)
    assert plan(name, ["alpha"], on_file(tmp_path / "none"))[0].jobs == jobs
    assert jobs[0].measure == "measure_constants"


def test_what_goes_wrong_is_noted_and_the_rest_goes_on(package, tmp_path, capsys):
    file = tmp_path / "s.jsonl"
    name = package(alpha={3: "raises", 5: "dies", 30: "dies", 7: "wrong"}, beta={})
    (tmp_path / name / "gamma").mkdir()
    (tmp_path / name / "gamma" / "bench.py").write_text("import nowhere\n")
    folders, samples = measured(name, file)
    assert [folder.left for folder in folders] == [0, 0, 0]
    assert len(samples.points) == 36 + 40
    why = {json.loads(key[1])["size"]: text for key, text in samples.failed.items()}
    assert why[3].startswith("ValueError: no room for it")
    assert why[5] == why[30] == "its process ended with code 7"
    assert "no relative error" in why[7]
    assert "gamma                BROKEN: ModuleNotFoundError" in capsys.readouterr().err


def test_nothing_unchecked_is_timed(package, tmp_path):
    _, samples = measured(package(alpha={7: "wrong"}), tmp_path / "s.jsonl")
    assert not any(json.loads(key[1])["size"] == 7 for key in samples.points)


def test_the_budget_stops_and_the_next_command_goes_on(package, tmp_path):
    file, name = tmp_path / "s.jsonl", package(alpha={})
    folders, first = measured(name, file, Slow, budget=4.0)
    assert 0 < len(first.points) < 40
    assert folders[0].left > 0
    with file.open("a") as broken:
        broken.write('{"kind":"point","ker')
    assert len(read(file).points) == len(first.points)
    _, second = measured(name, file)
    assert len(second.points) == 40
    assert len(second.runs) == 2
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_hanging_point_is_stopped(package, tmp_path, monkeypatch):
    name = package(alpha={})
    bench = tmp_path / name / "alpha" / "bench.py"
    bench.write_text(
        bench.read_text().replace(
            "how = point", "time.sleep(60 * (point['size'] == 4)); how = point"
        )
    )
    monkeypatch.setattr("kernels.bench.POINT_LIMIT_S", 2.0)
    folders, samples = measured(name, tmp_path / "s.jsonl")
    assert len(samples.points) == 39
    assert list(samples.failed.values()) == ["no answer within 2 s"]
    assert folders[0].left == 0


GOOD = {
    "kind": "point", "kernel": "alpha", "point": {"size": 1}, "again": False, "bytes": 8.0,
    "flops": 0.0, "error": 0.0, "calls": 1, "clock_mhz": [], "seconds": [1e-6], "baselines": {},
    "took": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seconds": []}, "seconds: no sample"),
        ({"seconds": [1e-6, float("nan")]}, "seconds: nan is no time"),
        ({"seconds": [-1e-6]}, "seconds: -1e-06 is no time"),
        ({"seconds": [10**400]}, "is no time"),
        ({"seconds": 3}, "seconds: not a list"),
        ({"bytes": -1}, "bytes: -1 is no number >= 0"),
        ({"bytes": True}, "bytes: True is no number"),
        ({"kernel": "../x"}, "kernel '../x' is no name"),
        ({"kernel": None}, "kernel 'None' is no name"),
        ({"point": [1]}, "point: not an object"),
        ({"point": {"a": [1]}}, "point.a: no scalar"),
        ({"kind": "pint"}, "kind 'pint' is unknown"),
        ({"baselines": {"x": [0]}}, "seconds: 0 is no time"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, what):
    file = tmp_path / "s.jsonl"
    file.write_text("\n".join(json.dumps(entry) for entry in (GOOD, GOOD | change, GOOD)) + "\n")
    with pytest.raises(SamplesError, match=r"s\.jsonl:2: ") as caught:
        read(file)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_field_is_named(tmp_path, key):
    if key in ("calls", "clock_mhz"):
        return
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps({k: v for k, v in GOOD.items() if k != key}) + "\n{}\n")
    with pytest.raises(SamplesError, match=rf"s\.jsonl:1: field '{key}'"):
        read(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.jsonl", b"\xff\xfe"),
        ("s.jsonl", b"nonsense\n{}\n"),
        ("s.jsonl", b"[1]\n"),
        ("s.jsonl", b"[" * 100_000 + b"\n\n"),
        ("s.jsonl.gz", b"no gzip"),
        ("s.jsonl.gz", gzip.compress(json.dumps(GOOD).encode() * 9)[:-12]),
        ("s.jsonl", b""),
    ],
)
def test_hostile_files_end_with_two(tmp_path, capsys, monkeypatch, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    out = tmp_path / "p.json"
    words = ["kernels", "bench", "--fit-only", "--samples", str(file), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--out FILE is missing"),
        (["--fit-only", "--out", "p.json"], "p.samples.jsonl: no such file"),
        (["--plan", "--measure-only", "--samples", "s.gz"], "s.gz: packed"),
        (["--plan", "--out", "p.json", "--only", "nothing"], "--only nothing: no such folder"),
    ],
)
def test_wrong_options_end_with_two(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kernels", "bench", *words])
    assert main() == 2
    assert said in capsys.readouterr().err


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError, match="set cannot stand"):
        plain({"a": {1}})
    with pytest.raises(ValueError, match="inf is no time"):
        plain([float("inf")])
