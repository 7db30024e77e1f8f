"""Writing a trace: Mooncake JSON lines, plain or agentic, Vidur CSV, or our own Parquet.

One rule: the file appears whole or not at all (written beside its place, then renamed), and what
the format cannot hold is said.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from sim.errors import InputError, shown

from .blocks import check_size
from .names import WRITABLE
from .naming import said
from .writers import agentic, mooncake, parquet, vidur
from .writers.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .chunk import Chunk, Tally

    Format = Literal["mooncake", "agentic-mooncake", "vidur", "parquet"]

_WRITERS: dict[str, Callable[[Iterable[Chunk], IO[bytes], Target], int]] = {
    "mooncake": mooncake.write,
    "agentic-mooncake": agentic.write,
    "vidur": vidur.write,
    "parquet": parquet.write,
}


def write(
    chunks: Iterable[Chunk],
    path: Path,
    format: Format,
    *,
    block_tokens: int | None = None,
    tally: Tally | None = None,
    lost: list[str] | None = None,
) -> int:
    """Write *chunks* to *path* in *format*, replacing what is there; the number of requests.

    *block_tokens* are the prompt tokens of the ids that are written; None for 512 in a Mooncake
    file and for the source's in others. *tally* is the source's, filled while *chunks* are taken;
    without one, the source's ids are of *block_tokens* (or 512) already. What the format could not
    hold is added to *lost*, a line each. Raises `InputError` if the place cannot be written or if
    there are no requests.
    """
    if format not in _WRITERS:
        raise InputError(
            f"format: {shown(format)} cannot be written; write one of {', '.join(WRITABLE)}"
        )
    if block_tokens is not None:
        check_size("block tokens", block_tokens)
    path = Path(path)
    target = Target(format, block_tokens, tally)
    with replacing(path) as file:
        target.folder = path.resolve().parent
        rows = _WRITERS[format](chunks, file, target)
        if rows == 0:
            raise InputError(f"{said(path)}: no requests to write")
    if lost is not None:
        lost += target.lost
    return rows


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of *path* when the block ends well, and vanishes otherwise.

    A symbolic link stays, and what it leads to is replaced. Raises `InputError` for a place that
    cannot be written, and for a device or a pipe, which must never be replaced by a file.
    """
    target = _target(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(
            f"{said(path)}: cannot be written: {error.strerror}; check the folder"
        ) from error
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(
                f"{said(path)}: cannot be written: {error.strerror or error}"
            ) from error
        raise


def _target(path: Path) -> Path:
    """The file that *path* leads to, or where it is to be; raises `InputError`."""
    try:
        target = path.resolve()
        there, regular = target.exists(), target.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # no access, a loop of links, a NUL
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{said(path)}: cannot be written: {why}; name a file") from None
    if target.is_symlink():  # from Python 3.13 on, a loop of links resolves to itself
        raise InputError(f"{said(path)}: cannot be written: a loop of links; name a file")
    if target.is_dir():
        raise InputError(f"{said(path)}: is a directory; name a file")
    if there and not regular:
        raise InputError(f"{said(path)}: not a regular file; name a file")
    return target
