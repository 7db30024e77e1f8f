"""All points of a study, each in a folder of its own; what is there already is not run again.

A point's folder appears complete or not at all, so the folders are the record of what is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InputError
from .profile import load_profile
from .result import new_folder, read_json, read_summary, write_json
from .simulate import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .load import Point
    from .quantiles import Summary
    from .scenario import Scenario


def point_id(scenario: Scenario) -> str:
    """Names a point by what decides its results: scenario and profile."""
    return f"{scenario.hash}-{load_profile(scenario.hardware.profile).hash}"


def run_points(
    points: Sequence[Point], folder: Path, jobs: int = 1, quiet: bool = False
) -> list[Summary]:
    """Runs what is missing, *jobs* at a time, and returns the summaries in the points' order."""
    import joblib

    ids = [point_id(point.scenario) for point in points]
    try:
        (folder / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    missing = {
        name: point.scenario
        for name, point in zip(ids, points, strict=True)
        if not is_done(folder / "points" / name)
    }
    write_json(folder / "study.json", _manifest(points, ids))
    tasks = (
        joblib.delayed(run_point)(scenario, folder / "points" / name)
        for name, scenario in missing.items()
    )
    parallel = joblib.Parallel(
        n_jobs=min(jobs, max(1, len(missing))), return_as="generator_unordered"
    )
    _show(parallel(tasks), len(points), len(missing), quiet)
    return [read_summary(folder / "points" / name) for name in ids]


def read_records(points: Sequence[Point], folder: Path) -> list[dict[str, Any]]:
    """What each point played, by its `trace.json`; runs of old have none."""
    paths = (folder / "points" / point_id(point.scenario) / "trace.json" for point in points)
    return [read_json(path) for path in paths if path.is_file()]


def is_done(path: Path) -> bool:
    """Whether a point's folder is there; `InputError` if it is damaged."""
    if not path.exists():
        return False
    if not (path / "summary.json").is_file():
        raise InputError(f"{path}: has no summary.json; delete this folder and sweep again")
    return True


def run_point(scenario: Scenario, path: Path) -> None:
    """One point into its folder, unless another sweep has put it there meanwhile."""
    try:
        with new_folder(path) as temporary:
            run(scenario, temporary)
    except InputError:
        if not is_done(path):
            raise


def _manifest(points: Sequence[Point], ids: Sequence[str]) -> dict[str, Any]:
    return {
        "name": points[0].scenario.name,
        "points": [
            {"id": name, "axes": point.axes} for name, point in zip(ids, points, strict=True)
        ],
    }


def _show(done: Any, total: int, missing: int, quiet: bool) -> None:
    """Drains *done* behind a progress bar, on a terminal."""
    import sys

    if quiet or not missing or not sys.stderr.isatty():
        for _ in done:
            pass
        return
    from rich.console import Console
    from rich.progress import track

    said = f"{missing} points" + (f", {total - missing} there already" if missing < total else "")
    for _ in track(done, description=said, total=missing, console=Console(stderr=True)):
        pass
