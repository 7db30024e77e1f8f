"""What a sweep leaves behind: whole points, recorded failures, and nothing of the dead."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import bad_point, litter, points, study_file, written
from toy import toy_scenario, write_profile

from sim.cli import main
from sim.cli_sweep import failures
from sim.errors import InputError
from sim.result import read_json
from sim.study import Point, load_study
from sim.sweeping import Failure, Here, Outcome, driver, point_id, run_points, run_study
from sim.sweeping.backend import handed_out
from sim.sweeping.lease import DEAD_S, Lease
from sim.sweeping.task import Reply, lost
from sim.sweeping.worker import compute


class Fake(Here):
    """Computes here; *say* may answer a task in its own way, and None leaves it unanswered."""

    def __init__(self, say, *, remote: bool = False) -> None:
        self.say = say
        self.remote = remote
        self.gather = remote
        self.rounds: list[list[int]] = []

    def run(self, tasks, lease, note):
        self.rounds.append([])
        for task in tasks:
            self.rounds[-1].append(-task.scenario.seed if task.guarded else task.scenario.seed)
            reply = self.say(replace(task, guarded=False))
            if reply is not None:
                yield reply


# ---------------------------------------------------------------- what is missing
def test_a_sweep_runs_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    study = tmp_path / "study"
    first = run_points(points(tmp_path, [1, 2]), study, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in study.glob("points/*/*")}
    assert len(before) == 2 * 6
    wanted = points(tmp_path, [1, 3, 2])
    more = run_points(wanted, study, quiet=True)
    after = {path: path.stat().st_mtime_ns for path in study.glob("points/*/*")}
    assert len(after) == 3 * 6
    assert after | before == after
    assert more.done == [point_id(point.scenario) for point in wanted]
    assert [more.done[0], more.done[2]] == first.done
    assert more.exit_code == 0
    assert litter(study) == []


def test_a_damaged_point_is_named_and_stays(tmp_path: Path) -> None:
    (found,) = points(tmp_path, [1])
    place = tmp_path / "study" / "points" / point_id(found.scenario)
    place.mkdir(parents=True)
    with pytest.raises(InputError, match="delete this folder and sweep again"):
        run_points([found], tmp_path / "study", quiet=True)
    assert place.is_dir()
    assert litter(tmp_path / "study") == []


def test_a_point_of_another_profile_is_another_point(tmp_path: Path) -> None:
    scenario = toy_scenario(tmp_path, trace={"source": "azure-conv-like", "requests": 1})
    before = point_id(scenario)
    write_profile(tmp_path / "toy.json", {"graph_launch_s": 1.0})
    assert point_id(scenario) != before


def test_ten_thousand_points_are_named_at_once(tmp_path: Path) -> None:
    (found,) = points(tmp_path, [1])
    scenarios = [
        found.scenario.model_copy(update={"seed": n, "hash": f"{n:012x}"}) for n in range(10_000)
    ]
    begin = time.process_time()
    assert len({point_id(scenario) for scenario in scenarios}) == 10_000
    assert time.process_time() - begin < 2


# ---------------------------------------------------------------- failures
def test_a_failing_point_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    study = tmp_path / "study"
    bad = bad_point(tmp_path)
    outcome = run_points([bad, *points(tmp_path, [1, 2])], study, quiet=True)
    assert len(outcome.done) == 2
    (failure,) = outcome.failed
    assert failure.is_input
    assert outcome.exit_code == 2
    record = read_json(study / "failures" / f"{point_id(bad.scenario)}.json")
    assert list(record) == [
        "id", "axes", "replication", "error", "message", "traceback", "attempts",
    ]  # fmt: skip
    assert record["axes"] == {"hardware.hbm": "none"}
    assert record["error"] == "InputError"
    assert "no KV block beside" in record["message"]
    assert record["traceback"].startswith("Traceback")
    assert record["attempts"] == 1
    assert litter(study) == []


def test_what_failed_is_tried_again_and_forgotten_when_it_is_done(tmp_path: Path) -> None:
    study = tmp_path / "study"
    wanted = points(tmp_path, [1, 2])

    def boom(task):
        if task.scenario.seed == 2:
            return Reply(task.id, "failed", "KeyError", "'x'", "Traceback\nKeyError: 'x'\n")
        return compute(task)

    outcome = run_points(wanted, study, backend=Fake(boom), quiet=True)
    assert outcome.exit_code == 1
    assert len(list((study / "failures").iterdir())) == 1
    assert run_points(wanted, study, quiet=True).exit_code == 0
    assert not (study / "failures").exists()


def test_the_exit_code_is_the_inputs_only_if_all_failures_are() -> None:
    input_, ours = (Failure("x", {}, 0, error, "", "") for error in ("InputError", "KeyError"))
    assert Outcome(["a"], []).exit_code == 0
    assert Outcome([], [input_, input_]).exit_code == 2
    assert Outcome([], [input_, ours]).exit_code == 1


def test_failures_are_said_by_cause_in_one_line_each(tmp_path: Path) -> None:
    failed = [
        Failure("1", {"a.b": 1}, 0, "InputError", "t.csv: no such file", ""),
        Failure("2", {"a.b": 2}, 1, "InputError", "t.csv: no such file", ""),
        Failure("3", {"a.b": "x\n\x1b[31m"}, 2, "ValueError", "two\nlines", ""),
    ]
    assert failures(failed, 9, Path("s")) == [
        "failed: a.b=1 and 1 more: t.csv: no such file",
        "failed: a.b=x  [31m, replication 2: ValueError: two; lines",
        "3 of 9 points failed; tracebacks are in s/failures; sweep again to try them again",
    ]
    many = [replace(failed[0], message=str(n)) for n in range(30)]
    assert len(failures(many, 30, Path("s"))) == 22
    assert failures([], 9, Path("s")) == []


def test_the_command_names_what_failed_and_shows_the_rest(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    from sim import cli_sweep
    from sim.sweeping import worker

    def run(scenario, folder):
        if scenario.seed == 2:
            raise KeyError("layer")
        return real(scenario, folder)

    real = worker.run
    monkeypatch.setattr(worker, "run", run)
    monkeypatch.setattr(cli_sweep, "backend_of", lambda *_: Here())
    monkeypatch.chdir(study_file(tmp_path, [1, 2]).parent)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "study.yaml", "--out", "out", "--no-plots"])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-2:] == [
        "failed: seed=2: KeyError: 'layer'",
        "1 of 2 points failed; tracebacks are in out/failures; sweep again to try them again",
    ]
    assert "│ 1 " in said.out
    assert "│ 2 " not in said.out
    assert said.out.splitlines()[-1] == "out"


def test_a_table_of_many_points_shows_the_first(tmp_path: Path, monkeypatch, capsys) -> None:
    from sim import cli_sweep

    monkeypatch.setattr(cli_sweep, "backend_of", lambda *_: Here())
    monkeypatch.setattr(cli_sweep, "MOST_ROWS", 2)
    monkeypatch.chdir(study_file(tmp_path, [1, 2, 3]).parent)
    with pytest.raises(SystemExit):
        main(["sweep", "study.yaml", "--out", "out", "--no-plots"])
    said = capsys.readouterr().out
    assert "│ 2 " in said
    assert "│ 3 " not in said
    assert said.splitlines()[-2] == "and 1 more points; `residentsim report out` is about them all"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--jobs", "2", "--dask", "tcp://x:1"], "--jobs: not together with --dask; choose one"),
        (["--dask", "tcp://x:1", "--ray", "auto"], "--dask: not together with --ray; choose one"),
        (["--gather"], "--gather: only with --dask or --ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, monkeypatch, capsys, options: list[str], line: str
) -> None:
    monkeypatch.chdir(study_file(tmp_path, [1]).parent)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "study.yaml", "--out", "out", *options])
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("extra", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch, capsys, extra: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(study_file(tmp_path, [1]).parent)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "study.yaml", "-q", "--no-plots", f"--{extra}", "tcp://x:1"])
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"pip install 'residentsim[{extra}]'" in said


def test_progress_says_done_failed_left_and_rate(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    run_points([bad_point(tmp_path), *points(tmp_path, [1])], tmp_path / "study")
    said = capsys.readouterr().err
    assert "2 points" in said
    assert "1 done, 1 failed, 0 left, " in said
    assert "points/s" in said
    run_points(points(tmp_path, [1]), tmp_path / "study")
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- lost workers
def test_what_was_at_work_goes_last_under_guard_and_at_the_end_alone(tmp_path: Path) -> None:
    def say(task):
        return lost(task.id) if task.scenario.seed in (1, 2) else compute(task)

    fake = Fake(say)
    outcome = run_points(points(tmp_path, [1, 2, 3]), tmp_path / "study", backend=fake, quiet=True)
    assert fake.rounds == [[1, 2, 3], [-1, -2], [-1, -2], [-1], [-2]]
    assert [(failure.error, failure.attempts) for failure in outcome.failed] == [
        ("ProcessLost", 4), ("ProcessLost", 4),
    ]  # fmt: skip
    assert len(outcome.done) == 1


def test_the_innocent_are_computed_before_a_suspect_is_tried_again(tmp_path: Path) -> None:
    began: list[int] = []

    def say(task):
        """Seed 1 takes the whole round down the first time."""
        began.append(task.scenario.seed)
        if began == [1]:
            return lost(task.id)
        return None if len(began) <= 3 else compute(task)

    fake = Fake(say)
    outcome = run_points(points(tmp_path, [1, 2, 3]), tmp_path / "study", backend=fake, quiet=True)
    assert fake.rounds == [[1, 2, 3], [2, 3, -1]]
    assert len(outcome.done) == 3


def test_after_three_rounds_without_news_every_point_is_tried_alone(tmp_path: Path) -> None:
    fake = Fake(lambda task: compute(task) if len(fake.rounds) == 4 else None)
    outcome = run_points(points(tmp_path, [1, 2]), tmp_path / "study", backend=fake, quiet=True)
    assert fake.rounds == [[1, 2]] * 3 + [[-1], [-2]]
    (failure,) = outcome.failed
    assert failure.what == "ProcessLost: the worker that computed it died"
    assert len(outcome.done) == 1


def test_no_more_than_there_is_room_for_is_handed_out() -> None:
    pending: dict[object, int] = {}
    out = []
    with ThreadPoolExecutor(4) as pool:

        def submit(task: int) -> Future[int]:
            out.append(len(pending))
            return pool.submit(abs, task)

        found = handed_out(range(20), submit, lambda: 3, pending=pending)
        assert sorted(task for task, future in found if future.result() == task) == [*range(20)]
    assert max(out) == 2


def test_a_point_that_is_said_to_be_done_and_is_not_there_has_failed(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(driver, "SEEN_S", 0.1)
    fake = Fake(lambda task: Reply(task.id, "done"))
    outcome = run_points(points(tmp_path, [1]), tmp_path / "study", backend=fake, quiet=True)
    assert outcome.done == []
    assert outcome.failed[0].what.startswith("FileNotFoundError: a worker has written it, but")


# ---------------------------------------------------------------- two sweeps, and the dead
def test_two_sweeps_at_once_share_the_work(tmp_path: Path) -> None:
    study = tmp_path / "study"
    wanted = points(tmp_path, [1, 2, 3])
    second = Fake(compute)
    outcomes = []

    def say(task):
        if not outcomes:
            outcomes.append(run_points(wanted, study, backend=second, quiet=True))
        return compute(task)

    outcomes.append(run_points(wanted, study, backend=Fake(say), quiet=True))
    assert second.rounds == [[3, 2, 1]]
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0].done) == 3
    assert litter(study) == []


def test_a_point_that_another_sweep_finishes_first_counts(tmp_path: Path, monkeypatch) -> None:
    (found,) = points(tmp_path, [1])
    from sim.sweeping import worker

    real = worker.run

    def slow(scenario, folder):
        monkeypatch.setattr(worker, "run", real)
        run_points([found], tmp_path / "study", quiet=True)
        return real(scenario, folder)

    monkeypatch.setattr(worker, "run", slow)
    assert run_points([found], tmp_path / "study", quiet=True).exit_code == 0
    assert litter(tmp_path / "study") == []


def temporary(lease: Lease, name: str = "ab-cd") -> Path:
    path = lease.folder / "points" / f".{name}.{lease.owner}-x1_y"
    path.mkdir()
    (path / "half").write_text("")
    return path


def test_what_the_dead_left_is_cleared_and_what_the_living_have_stays(tmp_path: Path) -> None:
    foreign = tmp_path / "points" / ".mine"
    with Lease(tmp_path) as living, Lease(tmp_path) as second:
        at_work = temporary(living)
        dead = Lease(tmp_path)
        left = temporary(dead)
        dead.path.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "locked": True}))
        foreign.mkdir()
        assert second.clear_dead()
        assert at_work.is_dir()
        assert living.at_work() == {"ab-cd"}
        assert second.at_work() == set()
        assert not left.exists()
        assert not dead.path.exists()
    assert not at_work.exists()
    assert foreign.exists()
    with Lease(tmp_path) as third:
        assert not third.clear_dead()


def test_a_sweep_of_another_machine_lives_as_long_as_it_touches_its_lease(tmp_path: Path) -> None:
    with Lease(tmp_path) as own:
        other = Lease(tmp_path)
        at_work = temporary(other)
        other.path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "locked": True}))
        assert own.clear_dead()
        assert at_work.is_dir()
        long_ago = time.time() - DEAD_S - 60
        os.utime(other.path, (long_ago, long_ago))
        assert not own.clear_dead()
        assert not at_work.exists()


def test_a_runs_folder_takes_no_study(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run; give the study another folder"):
        run_study(load_study(study_file(tmp_path, [1, 2])), tmp_path)
    assert not (tmp_path / "study.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: ") as told:
        run_points(points(tmp_path, [1]), tmp_path / "file", quiet=True)
    assert len(told.value.lines) == 1


# ---------------------------------------------------------------- workers elsewhere
def test_gathered_results_are_the_bytes_of_those_in_place(tmp_path: Path) -> None:
    wanted = points(tmp_path, [1, 2])
    run_points(wanted, tmp_path / "here", quiet=True)
    away = Fake(lambda task: compute(task, str(tmp_path)), remote=True)
    outcome = run_points(wanted, tmp_path / "away", backend=away, quiet=True)
    assert outcome.exit_code == 0
    assert written(tmp_path / "away") == written(tmp_path / "here")
    assert not list(tmp_path.glob("residentsim-*"))
    assert litter(tmp_path / "away") == []


def test_a_worker_that_sees_the_folder_writes_into_it_and_another_sends(tmp_path: Path) -> None:
    sent = []

    def say(task):
        reply = compute(task if task.scenario.seed == 1 else replace(task, lease="/nowhere"))
        sent.append(sorted(reply.files or ()))
        return reply

    fake = Fake(say, remote=True)
    fake.gather = False
    run_points(points(tmp_path, [1, 2]), tmp_path / "study", backend=fake, quiet=True)
    assert sent[0] == []
    assert "summary.json" in sent[1]
    assert len(list((tmp_path / "study" / "points").iterdir())) == 2


def failing(folder: Path, point: Point, change) -> str:
    """The message of the only failure when a worker elsewhere gets the task through *change*."""
    away = Fake(lambda task: compute(change(task)), remote=True)
    (failure,) = run_points([point], folder / "study", backend=away, quiet=True).failed
    assert failure.is_input
    return failure.what


def test_a_worker_of_another_release_computes_nothing(tmp_path: Path) -> None:
    def older(task):
        return replace(task, release=(*task.release[:-1], "pydantic 1.0"))

    told = failing(tmp_path, *points(tmp_path, [1]), older)
    assert told.startswith(f"worker {socket.gethostname()}: runs pydantic ")
    assert told.endswith(", but the sweep was started with pydantic 1.0; install the same on both")


def test_a_worker_without_the_trace_says_so(tmp_path: Path) -> None:
    point = Point({}, toy_scenario(tmp_path, [(0, 8, 2)]))

    def gone(task):
        (tmp_path / "trace.jsonl").unlink()
        return task

    told = failing(tmp_path, point, gone)
    assert f"'{tmp_path}/trace.jsonl': cannot be read there; put it where every" in told


def test_a_worker_with_another_trace_of_that_name_says_so(tmp_path: Path) -> None:
    point = Point({}, toy_scenario(tmp_path, [(0, 8, 2)]))

    def other(task):
        toy_scenario(tmp_path, [(0, 8, 200)])
        return task

    assert "has another trace or profile" in failing(tmp_path, point, other)
