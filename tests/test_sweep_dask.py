"""Sweeps on a real Dask scheduler with worker processes of its own, one of them killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sweeps import bad_point, environment, litter, points, tries, until, written

from sim.cli_sweep import failures
from sim.errors import InputError
from sim.sweeping import dask_cluster, driver, run_points
from sim.sweeping.dask_cluster import Dask
from sim.sweeping.release import release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("distributed")
WORKERS = 3


class Cluster:
    """A scheduler on this machine and its workers, which live by *stories* of seeds."""

    def __init__(self, folder: Path, stories: dict[int, dict[str, float]], *options: str) -> None:
        self.told = folder / "told"
        self._environment = environment(self.told, stories)
        self._environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "1"
        self._folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        log = folder / "scheduler.log"
        self._start(log, "scheduler", "--host", "127.0.0.1", "--port", "0")
        found: list[str] = []

        def listens() -> bool:
            found[:] = re.findall(r"Scheduler at:\s+(tcp://\S+)", log.read_text())
            return bool(found)

        until(listens)
        self.address = found[0]
        for n in range(WORKERS):
            scratch = ("--local-directory", str(folder), "--memory-limit", "0")
            at = ("worker", self.address, "--host", "127.0.0.1", "--nthreads", "1")
            self._start(folder / f"worker{n}.log", *at, *scratch, *options)

    def _start(self, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        with log.open("wb") as file:
            self.children.append(
                subprocess.Popen(
                    command, stdout=file, stderr=file, env=self._environment, cwd=self._folder
                )
            )

    def end(self) -> None:
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers, of which two are left after the first test."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), {3: {"sleep": 2.0}}, "--no-nanny")
    yield made
    made.end()


def test_a_cluster_computes_the_same_bytes_though_a_worker_is_killed(
    tmp_path: Path, cluster: Cluster
) -> None:
    """The worker of seed 3 is killed in its first try; Dask computes the point again."""
    wanted = points(tmp_path, [1, 2, 3, 4, 5, 6])
    run_points(wanted, tmp_path / "here", quiet=True)

    def kill() -> None:
        until(lambda: bool(tries(cluster.told, 3)))
        os.kill(tries(cluster.told, 3)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    shared = run_points(wanted, tmp_path / "shared", backend=Dask(cluster.address), quiet=True)
    killer.join()
    assert shared.exit_code == 0
    assert len(set(tries(cluster.told, 3))) == 2
    assert written(tmp_path / "shared") == written(tmp_path / "here")
    assert litter(tmp_path / "shared") == []


def test_gathered_results_are_the_same_bytes(tmp_path: Path, cluster: Cluster) -> None:
    wanted = points(tmp_path, [1, 2, 4])
    run_points(wanted, tmp_path / "here", quiet=True)
    gather = Dask(cluster.address, gather=True)
    before = {path.stat().st_ino for path in tmp_path.rglob("*")}
    assert run_points(wanted, tmp_path / "away", backend=gather, quiet=True).exit_code == 0
    assert written(tmp_path / "away") == written(tmp_path / "here")
    assert not before & {path.stat().st_ino for path in (tmp_path / "away").rglob("*")}
    assert not list(cluster.told.parent.glob("**/residentsim-*"))


def test_a_failing_point_is_recorded_with_its_traceback(tmp_path: Path, cluster: Cluster) -> None:
    wanted = [bad_point(tmp_path), *points(tmp_path, [1])]
    outcome = run_points(wanted, tmp_path / "out", backend=Dask(cluster.address), quiet=True)
    assert outcome.exit_code == 2
    assert len(outcome.done) == 1
    assert "no KV block beside" in outcome.failed[0].message
    assert "fleet.py" in outcome.failed[0].traceback


def test_a_worker_of_another_release_is_named(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = (*release()[:-1], "pydantic 1.0")
    monkeypatch.setattr(driver, "release", lambda: ours)
    wanted = points(tmp_path, [1, 2])
    outcome = run_points(wanted, tmp_path / "out", backend=Dask(cluster.address), quiet=True)
    assert outcome.exit_code == 2
    first = failures(outcome.failed, 2, tmp_path)[0]
    assert first.startswith("failed: seed=1 and 1 more: worker ")
    assert "pydantic 1.0; install the same on both" in first


def test_versions_that_disagree_are_one_line(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    found = distributed.Client.get_versions

    def older(self):
        versions = found(self)
        versions["scheduler"]["packages"]["distributed"] = "2020.1"
        return versions

    monkeypatch.setattr(distributed.Client, "get_versions", older)
    with pytest.raises(InputError) as told:
        run_points(points(tmp_path, [1]), tmp_path / "out", backend=Dask(cluster.address))
    (line,) = told.value.lines
    assert line.startswith(f"--dask {cluster.address}: distributed is ")
    assert line.endswith(" here, but 2020.1 on the scheduler; install the same on both")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://no such host", "x://y", "a:b:c"])
def test_no_scheduler_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 0.3)
    with pytest.raises(InputError) as told:
        run_points(points(tmp_path, [1]), tmp_path / "out", backend=Dask(address))
    (line,) = told.value.lines
    assert line.startswith(f"--dask '{address}': no scheduler answers there (")
    assert litter(tmp_path / "out") == []


def test_what_goes_to_a_worker_opens_without_the_simulator() -> None:
    """So a worker that lacks it can say so."""
    import cloudpickle

    code = "import pickle, sys; sys.modules['sim'] = None; "
    code += "print(pickle.loads(bytes.fromhex(sys.argv[1])).__name__)"
    sent = cloudpickle.dumps(dask_cluster.opener()).hex()
    told = subprocess.run([sys.executable, "-c", code, sent], capture_output=True, check=True)
    assert told.stdout == b"opened\n"


@pytest.mark.slow
def test_a_point_that_kills_every_worker_is_found_and_named(tmp_path: Path) -> None:
    """Nannies start the killed workers again."""
    stories = {2: {"kill": 99.0}}
    made = Cluster(tmp_path, stories, "--nanny")
    try:
        wanted = points(tmp_path, [1, 2, 3, 4])
        outcome = run_points(wanted, tmp_path / "out", backend=Dask(made.address), quiet=True)
    finally:
        made.end()
    (failure,) = outcome.failed
    assert failure.axes == {"seed": 2}
    assert "SIGKILL" in failure.message
    assert len(outcome.done) == 3


@pytest.mark.slow
def test_a_sweep_waits_for_workers_and_ends_with_its_scheduler(tmp_path: Path, capsys) -> None:
    made = Cluster(tmp_path, {1: {"sleep": 60.0}}, "--no-nanny")
    try:
        scheduler, *workers = made.children
        for child in workers:
            child.kill()
            child.wait()

        def stop() -> None:
            time.sleep(3)
            scheduler.terminate()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(InputError, match="the scheduler is gone; finished points are kept"):
            run_points(points(tmp_path, [1]), tmp_path / "out", backend=Dask(made.address))
        stopper.join()
    finally:
        made.end()
    assert capsys.readouterr().err == f"{made.address} has no workers; waiting for some\n"
    assert litter(tmp_path / "out") == []
