"""A run's folder: written beside its place and renamed, so a folder that exists is complete."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which takes the place *path* when all went well and vanishes otherwise.

    Raises `InputError` if *path* exists, unless it is a run to *replace*.
    """
    if path.exists() and not (replace and (path / "summary.json").is_file()):
        if replace:
            raise InputError(f"{path}: is not a run's folder, and stays; choose another --out")
        raise InputError(f"{path}: exists already; choose another --out, or add --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """*data* as indented JSON; `nan` and infinities are defects of ours."""
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


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
