"""A trace file as blocks of whole lines, whatever is in the file.

One rule: never hold more than a block and one line of bounded length, so a file without line
ends, or a gigabyte on one line, costs a message and not the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from sim.errors import InputError

from .naming import said
from .packed import MAGIC_BYTES, packing, unpacked
from .rows import BadRowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK_BYTES = 256 * 1024
_ENDLESS_BYTES = 2**30  # a line that goes on for so long is not read to its end
_BOMS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file; `first` is the number of the first one, counted from 1."""

    first: int
    data: bytes

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Each line without its line end, with its number."""
        lines = self.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for number, line in enumerate(lines, self.first):
            yield number, line.removesuffix(b"\r")


def check_file(path: Path) -> None:
    """Raise `InputError` unless *path* is a regular file with something in it."""
    try:
        if path.is_dir():
            raise InputError(f"{said(path)}: is a directory; name a trace file in it")
        if not path.exists():
            raise InputError(f"{said(path)}: no such file; check the path")
        if not path.is_file():
            raise InputError(f"{said(path)}: not a regular file; copy the trace into one")
        if path.stat().st_size == 0:
            raise InputError(f"{said(path)}: the file is empty; fetch or write it again")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The finding for a file that the system or a decompressor will not give out."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    why = said(text.splitlines()[0][:300])
    return InputError(
        f"{said(path)}: cannot be read: {why}; check access rights and the file itself"
    )


def open_bytes(path: Path) -> IO[bytes]:
    """*path* opened for reading, unpacked if it is packed; raises `InputError`."""
    check_file(path)
    kind = packed_as(path)
    try:
        return path.open("rb") if kind is None else unpacked(path, kind)
    except OSError as error:
        raise unreadable(path, error) from error


def packed_as(path: Path) -> str | None:
    """How the file is packed (gzip, xz, zstd, bzip2), or None if it is not; raises `InputError`."""
    try:
        with path.open("rb") as file:
            return packing(path, file.read(MAGIC_BYTES))
    except OSError as error:
        raise unreadable(path, error) from error


def head(path: Path, size: int = 64 * 1024) -> bytes:
    """The first bytes of the (unpacked) file, at most *size*, without a UTF-8 mark."""
    with open_bytes(path) as file:
        return strip_bom(path, _guarded_read(path, file, size))


def read_text(path: Path, most: int, doubt: str, remedy: str) -> str:
    """All of a small file, unpacked if it is packed: UTF-8 of at most *most* bytes.

    Raises `InputError`, which asks *doubt* of a larger file and gives the *remedy* for another
    encoding.
    """
    with open_bytes(path) as file:
        try:
            data = file.read(most + 1)
        except (OSError, EOFError, MemoryError) as error:
            raise unreadable(path, error) from error
    if len(data) > most:
        raise InputError(f"{said(path)}: more than {most // 2**20} MiB; {doubt}")
    try:
        return strip_bom(path, data).decode()
    except UnicodeDecodeError:
        raise InputError(f"{said(path)}: not UTF-8; {remedy}") from None


def strip_bom(path: Path, data: bytes) -> bytes:
    """*data* without a UTF-8 byte order mark; raises `InputError` at any other mark."""
    for bom, name in _BOMS.items():
        if data.startswith(bom):
            raise InputError(
                f"{said(path)}:1: the file is {name}, not UTF-8; "
                f"convert it: iconv -f {name} -t UTF-8 IN > OUT"
            )
    return data.removeprefix(_UTF8_BOM)


def _guarded_read(path: Path, file: IO[bytes], size: int, *, line: bool = False) -> bytes:
    try:
        return file.readline(size) if line else file.read(size)
    except (OSError, EOFError, MemoryError) as error:
        raise unreadable(path, error) from error


def blocks(path: Path, line_limit: int) -> Iterator[Block]:
    """The lines of *path* in blocks; of a line above *line_limit* only its head is kept.

    What is kept of such a line is longer than *line_limit*, so that the caller can tell. Blocks
    of nothing but blank lines are left out.
    """
    with open_bytes(path) as file:
        number = 1
        while data := _guarded_read(path, file, BLOCK_BYTES):
            if number == 1:
                data = strip_bom(path, data)
            if not data.endswith(b"\n"):
                data += _guarded_read(path, file, line_limit + 1, line=True)
                if not data.endswith(b"\n"):  # too long, or the end of the file
                    data += _line_end(path, file, number + data.count(b"\n"))
            if data and not data.isspace():
                yield Block(number, data)
            number += data.count(b"\n")


def _line_end(path: Path, file: IO[bytes], number: int) -> bytes:
    """Read on to the end of line *number*: the line end, or nothing at the end of the file."""
    left = _ENDLESS_BYTES
    while rest := _guarded_read(path, file, BLOCK_BYTES, line=True):
        if rest.endswith(b"\n"):
            return b"\n"
        left -= len(rest)
        if left < 0:
            raise InputError(
                f"{said(path)}:{number}: the line is longer than 1 GiB; "
                "is this a trace, one request a line?"
            )
    return b""


def text_of(line: bytes, limit: int) -> str:
    """*line* decoded; raises `BadRowError` for what no text line may hold."""
    if len(line) > limit:
        raise BadRowError(
            "line too long",
            f"the line is longer than {limit // 2**20} MiB; is this a trace, one request a line?",
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise BadRowError(
            "not UTF-8",
            f"byte 0x{line[error.start]:02x} is not UTF-8; convert the file with iconv",
            error.start + 1,
        ) from None
    if "\0" in text:
        raise BadRowError(
            "NUL byte", "a NUL byte; the file is binary or damaged", text.index("\0") + 1
        )
    return text
