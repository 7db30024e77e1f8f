"""A public trace brought here, checked, and put in its place with a note of where it comes from.

The one rule: under its name a file is whole and checked. Until then it is NAME.part.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shown
from sim.node import suggestion

from .download import Limits, Wanted, download, notes_of
from .naming import said
from .public_sets import SETS, PublicSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LFS = b"version https://git-lfs"
_PAGE = (b"<!doctype html", b"<html")
_NOTE_BYTES = 2**20


def public_set(name: str) -> PublicSet:
    """The set of that name; raises `InputError` with the nearest one."""
    if name not in SETS:
        raise InputError(f"{shown(name)}: no such trace; {suggestion(name, SETS, 'known')}")
    return SETS[name]


def target_of(one: PublicSet, folder: Path) -> Path:
    """Where the file of *one* goes; raises `InputError` for a place that leads elsewhere."""
    target = folder / one.file
    for path in (target, part_of(target), notes_of(part_of(target)), note_of(target)):
        if path.parent != folder or path.is_symlink():
            raise InputError(f"{said(path)}: leads out of the folder; remove the link")
    return target


def part_of(target: Path) -> Path:
    """The unfinished download of *target*."""
    return target.with_name(target.name + ".part")


def note_of(target: Path) -> Path:
    """Where it stands where *target* comes from."""
    return target.with_name(target.name + ".origin.json")


def fetch(
    one: PublicSet,
    folder: Path,
    agree: Callable[[int | None], None],
    progress: Callable[[int, int | None], None],
    *,
    unverified: bool = False,
    limits: Limits | None = None,
) -> tuple[Path, str]:
    """The file of *one* in *folder*, and in words how it was checked.

    A file that is there already is checked and left alone. What is checked is the digest that is
    known, else that of the last time, by the note beside the file; *unverified* takes whatever
    comes. A download that does not check out is removed, since to continue it would not mend it.
    Raises `InputError`; see `download` for *agree* and *progress*.
    """
    if one.url is None:
        raise InputError(f"{one.name}: no single file to fetch; {one.how}")
    target = target_of(one, folder)
    known, by = _known(one, target)
    if unverified:
        known = None
    try:
        if target.exists():
            return target, _there(target, known, by)
        part = part_of(target)
        wanted = Wanted(one.url, None if unverified else one.size_bytes, known is not None)
        with _made(folder):
            notes = download(wanted, part, agree, progress, limits)
        _check_kind(one, part)
        size, digest = part.stat().st_size, _digest(part)
        if known not in (None, digest) or wanted.size_bytes not in (None, size):
            _remove(part)
            raise InputError(
                f"{one.url}: got {size:,} bytes with SHA-256 {digest}, not {known} ({by}); it was "
                "removed; run again, or with --unverified if the publisher has changed the file"
            )
        _write_note(one, target, size, digest, notes)
        part.replace(target)
        notes_of(part).unlink(missing_ok=True)
    except OSError as error:
        where = said(str(error.filename or target))
        raise InputError(f"{where}: {error.strerror or error}; check the folder") from None
    if known is None:
        return target, f"SHA-256 {digest}: nothing to check it against; noted for the next time"
    return target, f"SHA-256 {digest}: as it should be ({by})"


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """*folder* there; gone again if it was not before and nothing came into it."""
    was = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not was:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _known(one: PublicSet, target: Path) -> tuple[str | None, str]:
    """The digest that the file is to have, and by whom."""
    if one.sha256 is not None:
        return one.sha256, one.told_by
    try:
        path = note_of(target)
        note = json.loads(path.read_text()) if path.stat().st_size < _NOTE_BYTES else {}
        if note["url"] == one.url and isinstance(note["sha256"], str):
            return note["sha256"], f"as fetched before, by {said(path)}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None, ""


def _there(target: Path, known: str | None, by: str) -> str:
    if not target.is_file():
        raise InputError(f"{said(target)}: not a regular file; remove it")
    digest = _digest(target)
    if known is None:
        return f"was there already; SHA-256 {digest}, nothing to check it against"
    if known != digest:
        raise InputError(
            f"{said(target)}: was there already, with SHA-256 {digest}, not {known} ({by}); "
            "remove it and fetch again"
        )
    return f"was there already; SHA-256 {digest}: as it should be ({by})"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_kind(one: PublicSet, part: Path) -> None:
    """Raises `InputError`, and removes *part*, if it is plainly not the file."""
    head = b""
    if part.exists():
        with part.open("rb") as file:
            head = file.read(1024)
    if head.startswith(_LFS):
        what = "a Git LFS pointer, not the file; clone the repository with git lfs instead"
    elif head.lstrip().lower().startswith(_PAGE):
        what = "a web page, not the file; is there a login between here and the publisher?"
    elif not head:
        what = "an empty file; run again later"
    else:
        return
    _remove(part)
    raise InputError(f"{one.url}: got {what} ({one.source})")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    notes_of(part).unlink(missing_ok=True)


def _write_note(
    one: PublicSet, target: Path, size: int, digest: str, notes: dict[str, Any]
) -> None:
    note = {
        "name": one.name, "what": one.what, "source": one.source, "licence": one.licence,
        "version": one.version, "url": one.url, "bytes": size, "sha256": digest,
        "etag": notes.get("etag"), "last_modified": notes.get("last_modified"),
    }  # fmt: skip
    note_of(target).write_text(json.dumps(note, indent=2) + "\n")
