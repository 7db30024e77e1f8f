"""Packed files as a stream of what is in them: gzip, xz, zstd and bzip2.

One rule: whatever the file holds, memory stays bounded and the only things raised are `OSError`,
`EOFError` and `InputError`. Members one after another (`cat a.xz b.xz`) read as one file.
"""

from __future__ import annotations

import gzip
import io
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

from sim.errors import InputError

from .naming import said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    **{bytes([0x50 + i, 0x2A, 0x4D, 0x18]): "zstd" for i in range(16)},  # a skippable frame
}
_ARCHIVES = {b"PK\x03\x04": ("zip", "unzip FILE"), b"7z\xbc\xaf'\x1c": ("7z", "7z x FILE")}
MAGIC_BYTES = 6
_READ_BYTES = 64 * 1024
_XZ_MEMORY_BYTES = 256 * 2**20  # xz -9 needs 65 MiB; a header may ask for 4 GiB
# Agent sessions, which repeat their prefix in every row, pack to 1 : 300 under xz; gzip cannot do
# better than 1 : 1,032, xz and zstd do 1 : 7,000 and more on nothing but zeros.
_BOMB_RATIO = 2_000
_BOMB_BYTES = 256 * 2**20


def packing(path: Path, magic: bytes) -> str | None:
    """How a file that begins with *magic* is packed, or None; refuses archives of files."""
    for start, (name, remedy) in _ARCHIVES.items():
        if magic.startswith(start):
            raise InputError(f"{said(path)}: a {name} archive; unpack it first: {remedy}")
    return next((name for start, name in _MAGIC.items() if magic.startswith(start)), None)


def unpacked(path: Path, kind: str) -> IO[bytes]:
    """The content of the file at *path*, packed as *kind* (from `packing`), as a file to read.

    Raises `InputError` if this Python cannot unpack it, and `OSError` if it cannot be opened.
    """
    file = path.open("rb")
    try:
        stream = _stream(path, kind, file)
        return cast("IO[bytes]", io.BufferedReader(_Unpacked(path, file, stream), _READ_BYTES))
    except BaseException:
        file.close()
        raise


def _stream(path: Path, kind: str, file: IO[bytes]) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    try:
        if kind == "zstd":
            import pyarrow as pa

            return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
        if kind == "bzip2":
            import bz2

            return _Members(file, bz2.BZ2Decompressor)
        import lzma  # a Python may be built without it, as without bz2

        return _Members(
            file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        )
    except ImportError:
        raise InputError(
            f"{said(path)}: compressed with {kind}, which this Python cannot unpack; "
            f"unpack it first: {kind} -d FILE"
        ) from None


class _Members:
    """Packed members one after another, zero bytes between and after them allowed."""

    def __init__(self, file: IO[bytes], start: Callable[[], Any]) -> None:
        self._file = file
        self._start = start
        self._unpack = start()
        self._rest = b""  # packed bytes not yet given to the decompressor

    def read(self, size: int) -> bytes:
        """At least one byte, at most *size*; none at the end."""
        while True:
            if self._unpack.eof:
                rest = self._unpack.unused_data.lstrip(b"\0")
                while not rest:
                    if not (packed := self._file.read(_READ_BYTES)):
                        return b""
                    rest = packed.lstrip(b"\0")
                self._unpack, self._rest = self._start(), rest
            packed, self._rest = self._rest, b""
            if not packed and self._unpack.needs_input:
                packed = self._file.read(_READ_BYTES)
                if not packed:
                    raise EOFError("the packed data end too early")
            data: bytes = self._unpack.decompress(packed, size)
            if data:
                return data

    def close(self) -> None:
        """Nothing to do: the file is closed by who opened it."""


class _Unpacked(io.RawIOBase):
    """A decompressor as a raw file, which counts what comes out."""

    def __init__(self, path: Path, file: IO[bytes], stream: Any) -> None:
        self._path = path
        self._file = file
        self._stream = stream
        self._left = max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, MemoryError):
            raise
        except Exception as error:  # zlib.error, LZMAError, ArrowException: nothing else in common
            raise OSError(str(error) or type(error).__name__) from error
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{said(self._path)}: unpacks to more than {_BOMB_RATIO:,} times its size, which "
                "no trace does; look into it, and unpack it by hand if it is one"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            with suppress(Exception):  # Arrow may say once more what it said when reading
                self._stream.close()
            self._file.close()
        super().close()
