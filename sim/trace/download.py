"""One file over HTTP, in as many attempts as it takes: what has come is kept and continued.

The one rule: what is continued is the same file. The server vouches for that by its validator
(If-Range), or a digest known beforehand will; without either the download starts over.
"""

from __future__ import annotations

import errno
import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

from sim import __version__
from sim.errors import InputError

from .naming import said
from .web import check_url, opened, why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message
    from http.client import HTTPResponse
    from pathlib import Path

_PIECE = 256 * 1024
_MOST_BYTES = 2**40
"""Of a file whose size nobody says."""
_SPARE_BYTES = 2**20
REMEDY = "check the network (HTTPS_PROXY is heeded), or run again later"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for data, how often to be sent on, how often to try and after what pause."""

    timeout_s: float = 30.0
    redirects: int = 5
    attempts: int = 3
    pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to download: the address, and the size and whether a digest is known beforehand."""

    url: str
    size_bytes: int | None = None
    has_digest: bool = False


class _CutError(Exception):
    """The connection broke on the way."""


class _StartOverError(Exception):
    """What has come cannot be continued."""


def download(
    wanted: Wanted,
    part: Path,
    agree: Callable[[int | None], None],
    progress: Callable[[int, int | None], None],
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Brings the file of *wanted* to *part*, from where an earlier attempt ended if it can.

    *agree* is called with the size (None: unknown) before anything is taken, and may raise;
    *progress* with the bytes so far and the size. Returns what the server said of the file: etag,
    last_modified. Raises `InputError`, one line; what has come is kept unless it says so.
    """
    limits = Limits() if limits is None else limits
    check_url(wanted.url)
    with _opened(part) as file:
        left, again = limits.attempts, True
        while True:
            before = file.seek(0, 2)
            try:
                return _attempt(wanted, part, file, agree, progress, limits)
            except _StartOverError:
                if not again:
                    raise InputError(f"{wanted.url}: sends parts that do not fit") from None
                file.truncate(0)
                again = False
            except _CutError as cut:
                have = file.seek(0, 2)
                left -= 1
                if left <= 0 or have <= before:
                    raise InputError(_kept(f"{wanted.url}: {cut}; {REMEDY}", have)) from None
                time.sleep(limits.pause_s)


def notes_of(part: Path) -> Path:
    """Where the facts about an unfinished download stand."""
    return part.with_name(part.name + ".json")


# ---------------------------------------------------------------- one attempt
def _attempt(
    wanted: Wanted,
    part: Path,
    file: IO[bytes],
    agree: Callable[[int | None], None],
    progress: Callable[[int, int | None], None],
    limits: Limits,
) -> dict[str, Any]:
    notes = _read_notes(part, wanted.url)
    have = file.seek(0, 2)
    validator = notes.get("validator")
    if wanted.size_bytes is not None and have == wanted.size_bytes and notes:
        return notes  # it was cut off after its last byte
    if have and not (notes and (validator or wanted.has_digest)):
        file.truncate(0)
        have = 0
    headers = {"User-Agent": f"residentsim/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with _response(Request(wanted.url, headers=headers), have, limits) as response:
        if response is None:  # no byte is left to be sent
            return notes
        start, size = _extent(response.status, response.headers, have)
        if start != have:
            file.truncate(0)
        if wanted.size_bytes is not None and size not in (None, wanted.size_bytes):
            raise InputError(
                f"{wanted.url}: the server's file has {size:,} bytes, not {wanted.size_bytes:,}; "
                "the publisher has changed it; --unverified takes it nevertheless"
            )
        agree(size)
        _check_space(part, (size or 0) - start)
        notes = _write_notes(part, wanted.url, response.headers)
        file.seek(start)
        _receive(response, file, start, size or wanted.size_bytes, progress, limits)
    return notes


def _receive(
    response: HTTPResponse,
    file: IO[bytes],
    have: int,
    size: int | None,
    progress: Callable[[int, int | None], None],
    limits: Limits,
) -> None:
    """Appends the body of *response* to *file*, which has *have* of *size* bytes."""
    while True:
        progress(have, size)
        try:
            data = response.read1(_PIECE)
        except TimeoutError:
            raise _CutError(f"no data for {limits.timeout_s:g} s") from None
        except (OSError, HTTPException) as error:
            raise _CutError(f"the connection broke: {why(error)}") from None
        if not data:
            break
        have += len(data)
        if have > (_MOST_BYTES if size is None else size):
            raise InputError(f"the server sends more than {size or _MOST_BYTES:,} bytes; {REMEDY}")
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            text = f"{said(str(file.name))}: {error.strerror}; make room and run again"
            raise InputError(_kept(text, file.tell())) from None
    if size is not None and have < size:
        raise _CutError(f"the connection ended after {have:,} of {size:,} bytes")


@contextmanager
def _response(request: Request, have: int, limits: Limits) -> Iterator[HTTPResponse | None]:
    """The answer to *request*; None if *have* is all there is. Raises `InputError`."""
    url = request.full_url
    try:
        response = opened(request, limits.timeout_s, limits.redirects)
    except HTTPError as error:
        with error:
            if error.code == 416 and have:
                total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
                if total == str(have):
                    yield None
                    return
                raise _StartOverError from None
            text = f"{url}: the server says {error.code} {why(error.reason)}"
            hint = "the publisher may have moved the file" if error.code in (404, 410) else REMEDY
            raise InputError(_kept(f"{text}; {hint}", have)) from None
    except URLError as error:
        text = f"{url}: cannot be reached: {why(error.reason)}; {REMEDY}"
        raise InputError(_kept(text, have)) from None
    except (OSError, HTTPException) as error:
        text = f"{url}: no answer: {why(error)}; {REMEDY}"
        raise InputError(_kept(text, have)) from None
    with response:
        yield response


def _extent(status: int, headers: Message, have: int) -> tuple[int, int | None]:
    """Where the body begins, and the size of the whole file where the server says it."""
    if headers.get("Content-Encoding", "identity") != "identity":
        raise InputError("the server packs the file on its way; it cannot be checked")
    if status == 206:
        place, _, total = (headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
        if place.partition("-")[0].strip() != str(have):
            raise _StartOverError
        return have, int(total) if total.isdecimal() else None
    length = headers.get("Content-Length") or ""
    return 0, int(length) if length.isdecimal() else None


def _kept(text: str, have: int) -> str:
    return f"{text} ({have:,} bytes are kept and will be continued)" if have else text


# ---------------------------------------------------------------- the part and its notes
@contextmanager
def _opened(part: Path) -> Iterator[IO[bytes]]:
    """*part* opened for reading and writing, for nobody else at the same time."""
    try:
        part.touch()
        file = part.open("r+b", buffering=0)  # so that a full disk is noticed at once
    except OSError as error:
        raise InputError(f"{said(part)}: cannot be written: {error.strerror}") from None
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks here
            pass
        except OSError:
            text = f"{said(part)}: another download writes it; wait for its end"
            raise InputError(text) from None
        try:
            yield file
        finally:
            if not file.seek(0, 2):
                part.unlink(missing_ok=True)
                notes_of(part).unlink(missing_ok=True)


def _read_notes(part: Path, url: str) -> dict[str, Any]:
    """What is known of the unfinished download, nothing if it is of another address."""
    try:
        notes = json.loads(notes_of(part).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) and notes.get("url") == url else {}


def _write_notes(part: Path, url: str, headers: Message) -> dict[str, Any]:
    etag, changed = headers.get("ETag"), headers.get("Last-Modified")
    strong = etag if etag and not etag.startswith("W/") else None
    notes = {"url": url, "etag": etag, "last_modified": changed, "validator": strong or changed}
    notes_of(part).write_text(json.dumps(notes, indent=2) + "\n")
    return notes


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed + _SPARE_BYTES > free:
        raise InputError(
            f"{said(part.parent)}: {needed:,} bytes are to come, and {free:,} are free; make room "
            "or name another folder with --to"
        )
