"""A sweep's sign of life in the study's folder: whose temporary folders are at work, whose dead.

The file `.sweep.TOKEN` is there as long as its sweep, locked by it and touched now and then; the
temporary folders of its points are called `.ID.TOKEN-xxxx`. A sweep that was killed leaves both,
and the next one clears them away. A sweep on this machine lives if its file is locked; one on
another lives if it has been touched lately, because not every network's file system shares locks.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import threading
from typing import TYPE_CHECKING, Any

from sim.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

TOUCH_S = 10.0
DEAD_S = 120.0
"""Seconds without a touch after which a sweep of another machine counts as dead."""
_LEASE = re.compile(r"\.sweep\.([0-9a-f]{8})")
_TEMPORARY = re.compile(r"\.[0-9a-f]+-[0-9a-f]+\.([0-9a-f]{8})-.+")


class Lease:
    """The sign of life of the sweep that holds it, as a context; *folder* is the study's."""

    def __init__(self, folder: Path) -> None:
        self.owner = secrets.token_hex(4)
        self._name = folder
        self.folder = folder.absolute()  # for workers, which may have started elsewhere
        self.path = self.folder / f".sweep.{self.owner}"
        self._file: Any = None
        self._over = threading.Event()
        self._toucher = threading.Thread(target=self._touch, daemon=True)

    def __enter__(self) -> Self:
        """Takes the lease; `InputError` if the folder cannot be written."""
        try:
            (self.folder / "points").mkdir(parents=True, exist_ok=True)
            new = self.path.with_name(f"{self.path.name}.new")
            self._file = new.open("w")
            locked = _lock(self._file)
            facts = {"host": socket.gethostname(), "pid": os.getpid(), "locked": locked}
            self._file.write(json.dumps(facts) + "\n")
            self._file.flush()
            new.rename(self.path)  # locked before anyone sees it
        except OSError as error:
            raise InputError(f"{self._name}: cannot be written: {error.strerror}") from None
        self._toucher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._toucher.join()
        self.clear({self.owner})
        self.path.unlink(missing_ok=True)
        self._file.close()

    def clear_dead(self) -> bool:
        """Clears away what dead sweeps have left; whether others are alive."""
        found = {owner for owner, _ in self._temporaries()}  # before the leases: those come first
        alive = {owner for owner in self._leases() if owner != self.owner}
        self.clear(found - alive - {self.owner})
        return bool(alive)

    def clear(self, owners: set[str]) -> None:
        """Removes the temporary folders of *owners*."""
        for owner, path in self._temporaries():
            if owner in owners:
                aside = path.with_name(f"{path.name}.old")
                try:
                    path.rename(aside)  # at once, so that no late worker renames half of it
                except OSError:
                    continue
                shutil.rmtree(aside, ignore_errors=True)

    def at_work(self) -> set[str]:
        """The ids of the points for which this sweep has a temporary folder."""
        found = self._temporaries()
        return {path.name[1:].partition(".")[0] for owner, path in found if owner == self.owner}

    def _temporaries(self) -> list[tuple[str, Path]]:
        """Owner and path of every temporary folder."""
        with os.scandir(self.folder / "points") as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".")]
        found = [(_TEMPORARY.fullmatch(name), name) for name in names]
        return [(match[1], self.folder / "points" / name) for match, name in found if match]

    def _leases(self) -> list[str]:
        """The owners whose sweeps are alive; the files of the dead are removed."""
        alive = []
        for path in self.folder.glob(".sweep.*"):
            match = _LEASE.fullmatch(path.name)
            if match is None:
                continue
            if match[1] == self.owner or self._is_alive(path):
                alive.append(match[1])
            else:
                path.unlink(missing_ok=True)
        return alive

    def _is_alive(self, path: Path) -> bool:
        try:
            with path.open("r+") as file:
                facts = json.loads(file.read() or "{}")
                if facts.get("host") == socket.gethostname() and facts.get("locked"):
                    return not _lock(file)
                os.utime(self.path)  # by the same clock as the other's
                return path.stat().st_mtime > self.path.stat().st_mtime - DEAD_S
        except FileNotFoundError:
            return False
        except (OSError, ValueError, AttributeError):
            return True  # not ours to judge

    def _touch(self) -> None:
        while not self._over.wait(TOUCH_S):
            try:
                os.utime(self.path)
            except OSError:
                continue  # the folder may come back


def _lock(file: Any) -> bool:
    """Whether *file* is now locked by its opener, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
