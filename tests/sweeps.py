"""Small studies for the tests of sweeps, and what their folders hold."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from toy import hbm, toy_scenario

from sim.study import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0
TRACE = {
    "source": "synthetic", "requests": 20, "rate": "40 /s", "prompt_tokens": 30,
    "output_tokens": 12,
}  # fmt: skip


def points(folder: Path, seeds: Sequence[int], **sections) -> list[Point]:
    """A point a seed; all play the toy profile in *folder*."""
    given = {"trace": TRACE} | sections
    return [Point({"seed": n}, toy_scenario(folder, **given, seed=n)) for n in seeds]


def bad_point(folder: Path) -> Point:
    """One whose memory holds no block: the user's fault."""
    return Point(
        {"hardware.hbm": "none"}, toy_scenario(folder, trace=TRACE, hardware={"hbm": hbm(0)})
    )


def written(folder: Path) -> dict[str, bytes]:
    """All files of a study's points by name, without those that hold wall-clock facts."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "points").rglob("*"))
        if path.is_file() and path.name != "environment.json"
    }


def litter(folder: Path) -> list[str]:
    """What is hidden in a study's folder: leases and temporary folders."""
    return sorted(path.name for path in folder.rglob(".*"))


def environment(folder: Path, stories: Mapping[int, Mapping[str, float]]) -> dict[str, str]:
    """The variables that bring *stories* by seed into every new process; see point_hooks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stories.json"
    path.write_text(json.dumps({str(seed): story for seed, story in stories.items()}))
    hooks = str(Path(__file__).parent / "point_hooks")
    paths = os.pathsep.join([hooks, str(ROOT)])
    return os.environ | {"POINT_STORIES": str(path), "PYTHONPATH": paths}


def tries(folder: Path, seed: int) -> list[int]:
    """The processes that have tried the point of *seed*, in order."""
    path = folder / f"tries-{seed}"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def study_file(folder: Path, seeds: Sequence[int]) -> Path:
    """A study of *seeds* as a file beside the toy profile in *folder*."""
    points(folder, [0])  # writes the profile
    from toy import MODEL

    study = {
        "trace": TRACE, "model": MODEL, "hardware": {"profile": "./toy.json"},
        "loop": {"max_batch": 4, "token_budget": 64}, "sweep": {"seed": list(seeds)},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(json.dumps(study))
    return path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sim", *arguments]


def until(condition: Callable[[], bool]) -> None:
    """Waits for *condition*."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
