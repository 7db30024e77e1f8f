"""Sweeps by worker processes: who is killed, what goes on, and what comes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sweeps import command, environment, litter, points, study_file, tries, until, written

from sim.study import load_study
from sim.sweeping import Local, point_id, run_points, run_study

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fresh_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Worker processes that live by the stories it is given, and end with the test."""
    from joblib.externals.loky import get_reusable_executor

    def end() -> None:
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)

    def told(stories: dict[int, dict[str, float]]) -> None:
        for name, value in environment(tmp_path / "told", stories).items():
            monkeypatch.setenv(name, value)

    end()
    yield told
    end()


def test_any_number_of_workers_writes_the_same_bytes(
    tmp_path: Path, fresh_pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the workers have started does not matter."""
    wanted = points(tmp_path, [1, 2, 3, 4, 5])
    run_points(wanted[:1], tmp_path / "first", backend=Local(1), quiet=True)
    monkeypatch.chdir(tmp_path)
    folders = {jobs: Path(f"out{jobs}") for jobs in (0, 1, 2)}
    for jobs, folder in folders.items():
        backend = Local(jobs) if jobs else None
        outcome = run_points(wanted, folder, backend=backend, quiet=True)
        assert outcome.done == [point_id(point.scenario) for point in wanted]
        assert litter(folder) == []
    assert written(folders[1]) == written(folders[2]) == written(folders[0])


def test_the_culprit_is_named_and_nobody_else_suffers(tmp_path: Path, fresh_pool) -> None:
    """Seed 3 kills its process whenever it is tried, seed 2 the first time only."""
    fresh_pool({3: {"kill": 99}, 2: {"kill": 1}})
    wanted = points(tmp_path, [2, 3, 1])
    outcome = run_points(wanted, tmp_path / "out", backend=Local(2), quiet=True)
    (failure,) = outcome.failed
    assert failure.axes == {"seed": 3}
    assert failure.what.startswith("ProcessLost: its process was ended by SIGKILL; does it need")
    assert len(outcome.done) == 2
    assert outcome.exit_code == 1
    assert len(set(tries(tmp_path / "told", 3))) == failure.attempts == 4
    assert litter(tmp_path / "out") == []


def test_a_killed_sweep_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    """The driver dies by SIGKILL while seeds 3 and 4 are at work; 1 and 2 are done."""
    study_file(tmp_path, [1, 2, 3, 4])
    told = environment(tmp_path / "told", {3: {"sleep": 60}, 4: {"sleep": 60}})
    options = ["sweep", "study.yaml", "--out", "out", "--no-plots", "-q", "--jobs", "2"]
    child = subprocess.Popen(command(*options), cwd=tmp_path, env=told)
    ends = {seed: tmp_path / "told" / f"tries-{seed}" for seed in (3, 4)}
    until(lambda: all(path.exists() and path.read_text() for path in ends.values()))
    child.kill()
    child.wait()
    workers = [tries(tmp_path / "told", seed)[0] for seed in (3, 4)]
    until(lambda: not any(alive(pid) for pid in workers))
    done = {path.name for path in (tmp_path / "out" / "points").iterdir() if path.name[0] != "."}
    assert len(done) == 2
    assert len(litter(tmp_path / "out")) == 3  # two half points and the sign of life

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("points/[!.]*/*")}
    found = load_study(tmp_path / "study.yaml")
    assert run_study(found, tmp_path / "out", quiet=True).exit_code == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert litter(tmp_path / "out") == []
    run_study(found, tmp_path / "whole", quiet=True)
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_sweep_leaves_whole_points_and_nothing_else(
    tmp_path: Path, number: int, code: int
) -> None:
    study_file(tmp_path, [1, 2, 3])
    told = environment(tmp_path / "told", {2: {"sleep": 60}, 3: {"sleep": 60}})
    options = ["sweep", "study.yaml", "--out", "out", "--no-plots", "-q", "--jobs", "2"]
    child = subprocess.Popen(
        command(*options),
        cwd=tmp_path,
        env=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: bool(tries(tmp_path / "told", 2) and tries(tmp_path / "told", 3)))
    begin = time.monotonic()
    os.killpg(child.pid, number)  # as a terminal does
    out, err = child.communicate(timeout=60)
    assert time.monotonic() - begin < 20
    assert child.returncode == code
    assert out == ""
    assert err == "stopped; finished points stay in out: sweep again to go on\n"
    assert len(list((tmp_path / "out" / "points").iterdir())) == 1
    assert litter(tmp_path / "out") == []
    workers = [tries(tmp_path / "told", seed)[0] for seed in (2, 3)]
    until(lambda: not any(alive(pid) for pid in workers))
