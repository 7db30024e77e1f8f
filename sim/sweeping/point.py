"""Which points there are: a point's name, and whether its folder stands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.profile import load_profile
from sim.result import new_folder, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sim.scenario import Scenario


def point_id(scenario: Scenario) -> str:
    """Names a point by what decides its results: scenario and profile."""
    return f"{scenario.hash}-{load_profile(scenario.hardware.profile).hash}"


def is_done(path: Path) -> bool:
    """Whether a point's folder is there; `InputError` if it is damaged."""
    if not path.exists():
        return False
    if not (path / "summary.json").is_file():
        raise InputError(f"{path}: has no summary.json; delete this folder and sweep again")
    return True


def done_of(ids: Iterable[str], points: Path) -> set[str]:
    """Those of *ids* whose folders are in *points*; `InputError` if one is damaged."""
    there = set(os.listdir(points))  # asked once: a network's folder may remember what it lacked
    return {name for name in ids if name in there and is_done(points / name)}


def fill(path: Path, files: dict[str, bytes], owner: str) -> None:
    """Writes the *files* of a point into its folder *path*, unless another has done so."""
    try:
        with new_folder(path, owner=owner) as temporary:
            for name, content in files.items():
                (temporary / os.path.basename(name)).write_bytes(content)
    except InputError:
        if not is_done(path):
            raise


def read_records(ids: Iterable[str], folder: Path) -> Iterator[dict[str, Any]]:
    """What each point played, by its `trace.json`; runs of old have none."""
    for name in ids:
        path = folder / "points" / name / "trace.json"
        if path.is_file():
            yield read_json(path)
