"""A run's folder: written beside its place and renamed, so a folder that exists is complete."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


OURS = {
    "scenario.json", "summary.json", "trace.json", "environment.json", "requests.parquet",
    "iterations.parquet", "transfers.parquet", "figures", "report.html",
}  # fmt: skip
"""What a run's folder may hold; nothing else is ever deleted."""


@contextmanager
def new_folder(path: Path, replace: bool = False, owner: str = "") -> Iterator[Path]:
    """A folder to fill, which takes the place *path* when all went well and vanishes otherwise.

    Raises `InputError` if *path* exists, unless it is a run to *replace*, and if it cannot be
    written. A run that is replaced is kept until the new one stands in its place. The temporary
    folder is `.NAME.xxxx` beside it, or `.NAME.OWNER-xxxx`; its files are on the disk before it
    takes its place, so that not even a power cut leaves a folder of empty files.
    """
    prefix = f".{owner}-" if owner else "."
    place = Path(os.path.realpath(path))  # so that a link or `..` is not what gets replaced
    try:
        _check_free(path, replace)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}{prefix}", dir=place.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        _flush(temporary)
        if not _take_place(temporary, place, replace):
            raise InputError(f"{path}: exists already, since just now; choose another --out")
    except OSError as error:
        if error.errno != errno.ENOSPC and "No space left" not in str(error):
            raise
        raise InputError(f"{path}: cannot be written: no space left on device") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Waits until the files of *folder* are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _check_free(path: Path, replace: bool) -> None:
    """Raises `InputError` unless a run may take the place *path*."""
    if not path.exists():
        return
    if not replace:
        raise InputError(f"{path}: exists already; choose another --out, or add --force")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    if "summary.json" not in names or names - OURS:
        raise InputError(f"{path}: is not just a run's folder, and stays; choose another --out")


def _take_place(temporary: Path, path: Path, replace: bool) -> bool:
    """Whether *temporary* now stands at *path*, where another run may have appeared meanwhile."""
    aside = None
    if replace and path.exists():
        aside = temporary.with_name(f"{temporary.name}.old")
        path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        if aside is not None:
            aside.rename(path)
        return False
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def write_json(path: Path, data: dict[str, Any]) -> None:
    """*data* as indented JSON; `nan` and infinities are defects of ours."""
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def replace_json(path: Path, data: dict[str, Any]) -> None:
    """*data* as in `write_json` at *path*, where another may be read meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        write_json(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in *path*; `InputError` if it is missing or no JSON object."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: is not JSON; was it made by `residentsim run`?") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: {shown(data)} is no run's summary")
    return data


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of the run in *folder*; `InputError` if it is missing or not whole."""
    summary = read_json(folder / "summary.json")
    if "loop_mode" not in summary or "cost_extrapolated" not in summary:
        raise InputError(f"{folder}/summary.json: is damaged; delete {folder} and run it again")
    return summary


def environment(wall_s: float, events: int) -> dict[str, Any]:
    """Wall-clock facts of a run, which two equal runs do not share."""
    from importlib.metadata import version

    names = ("residentsim", "simpy", "numpy", "pyarrow")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except ImportError:
            versions[name] = "from a checkout"
    return {
        "wall_s": wall_s,
        "simpy_events": events,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "versions": versions,
    }
