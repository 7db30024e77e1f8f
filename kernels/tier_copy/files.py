"""How long reads and writes of a file take past the page cache, by size and queue depth.

One rule: what is read is checked, by the number that every 4 KiB block carries; the last few reads
of each thread, after the timing.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 4096
FILE_BYTES = 2 << 30
SIZES = (4096, 16384, 65536, 131072, 262144, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
DEPTHS = (1, 4, 16)
POINT_S, LEAST = 0.15, 4
"""A point lasts this long, and does at least so many operations."""
MOST = 4000
KEPT = 400
RING_BYTES = 16 << 20
"""Buffers of a thread, so that not one piece of memory is always in the cache."""
Buffer = np.ndarray[Any, Any]


def measure(
    folder: Path,
    deadline: float,
    file_bytes: int = FILE_BYTES,
    sizes: tuple[int, ...] = SIZES,
    depths: tuple[int, ...] = DEPTHS,
    point_s: float = POINT_S,
) -> Iterator[dict[str, Any]]:
    """Records of reads and writes at random places of a file made in *folder*, until *deadline*.

    `seconds` is the latency of each operation, or of `KEPT` of them, evenly taken; `wall_seconds`
    the time of all `operations` together.
    The file is removed at the end. Raises `CheckError` if a read brings the wrong bytes.
    """
    path = folder / f"tier-{os.getpid()}.bin"
    label = disk_of(folder)
    try:
        with Target(path, file_bytes) as target:
            made = target.make()
            yield {"name": "file_make", **label, "direct": target.direct, **made}
            for size in sizes:
                for depth in depths:
                    for name in ("file_read", "file_write"):
                        if time.time() > deadline:
                            return
                        found = target.run(name == "file_write", size, depth, point_s)
                        axes = {"bytes": size, "depth": depth, "direct": target.direct}
                        yield {"name": name, **axes, **label, **found}
    finally:
        path.unlink(missing_ok=True)


class Target:
    """A file whose blocks carry their numbers, opened past the page cache where that works."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path, self.blocks = path, nbytes // BLOCK
        self.rng = np.random.default_rng(3)

    def __enter__(self) -> Target:
        flags = os.O_RDWR | os.O_CREAT
        try:
            self.file, self.direct = os.open(self.path, flags | os.O_DIRECT, 0o600), True
        except OSError:  # a file system such as an older tmpfs refuses; records then say so
            self.file, self.direct = os.open(self.path, flags, 0o600), False
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)

    def make(self) -> dict[str, Any]:
        """Writes the whole file in pieces of 16 MiB."""
        count = min(self.blocks, (16 << 20) // BLOCK)
        buffer, seconds = self.buffer(count), []
        begin = time.perf_counter()
        for first in range(0, self.blocks, count):
            part = buffer[: min(count, self.blocks - first)]
            stamp(part, first)
            start = time.perf_counter()
            if os.pwritev(self.file, [part.data], first * BLOCK) != part.nbytes:
                raise OSError(f"{self.path}: short write; is the disk full?")
            seconds.append(time.perf_counter() - start)
        os.fsync(self.file)
        wall = time.perf_counter() - begin
        return {"bytes": buffer.nbytes, "depth": 1, "seconds": seconds, "wall_seconds": wall}

    def buffer(self, blocks: int) -> Buffer:
        """Page-aligned memory [blocks, 512] of random uint64, touched."""
        memory = mmap.mmap(-1, blocks * BLOCK)
        array: Buffer = np.frombuffer(memory, np.uint64).reshape(blocks, -1)
        array[...] = self.rng.integers(0, 2**63, (1, BLOCK // 8), np.uint64)
        return array

    def run(self, write: bool, size: int, depth: int, point_s: float) -> dict[str, Any]:
        """Operations of *size* bytes from *depth* threads for about *point_s*."""
        workers = [Worker(self, write, size // BLOCK, rng) for rng in self.rng.spawn(depth)]
        end = time.perf_counter() + point_s
        threads = [threading.Thread(target=worker.work, args=(end,)) for worker in workers]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if write:
            os.fdatasync(self.file)
        wall = time.perf_counter() - begin
        for worker in workers:
            if worker.error:
                raise worker.error
            if not write:
                worker.verify()
        seconds = [taken for worker in workers for taken in worker.seconds]
        kept = seconds[:: -(-len(seconds) // KEPT)]
        return {"seconds": kept, "wall_seconds": wall, "operations": len(seconds)}


class Worker:
    """One thread's operations: buffers and places are made before, and checked after the timing.

    Little Python runs between two operations, since all threads share one interpreter.
    """

    def __init__(self, target: Target, write: bool, blocks: int, rng: np.random.Generator) -> None:
        self.file, self.write = target.file, write
        ring = max(1, min(256, RING_BYTES // (blocks * BLOCK)))
        self.buffers = [target.buffer(blocks) for _ in range(ring)]
        places = rng.integers(0, max(1, target.blocks // blocks), ring if write else MOST)
        self.firsts = (places * blocks).tolist()
        self.seconds: list[float] = []
        self.error: BaseException | None = None
        for buffer, first in zip(self.buffers, self.firsts, strict=False):
            stamp(buffer, first if write else -1 - len(buffer))

    def work(self, end: float) -> None:
        """Operates until *end* (of `time.perf_counter`), or for `MOST` operations."""
        ring, count = len(self.buffers), len(self.firsts)
        views = [[buffer.data] for buffer in self.buffers]
        operate, clock = os.pwritev if self.write else os.preadv, time.perf_counter
        size = self.buffers[0].nbytes
        try:
            now = clock()
            for index in range(MOST):
                if now > end and index >= LEAST:
                    break
                start = clock()
                done = operate(self.file, views[index % ring], self.firsts[index % count] * BLOCK)
                now = clock()
                self.seconds.append(now - start)
                if done != size:
                    raise OSError(f"moved {done} of {size} bytes")
        except BaseException as error:
            self.error = error

    def verify(self) -> None:
        """Raises `CheckError` unless the last reads brought what their places hold."""
        done, ring = len(self.seconds), len(self.buffers)
        for index in range(max(0, done - ring), done):
            verify(self.buffers[index % ring], self.firsts[index])


def stamp(buffer: Buffer, first: int) -> None:
    """Writes the numbers of the blocks from *first* on into *buffer*."""
    numbers = np.arange(first, first + len(buffer)).astype(np.uint64)
    buffer[:, 0] = numbers + np.uint64(1)
    buffer[:, -1] = ~numbers


def verify(buffer: Buffer, first: int) -> None:
    """Raises `CheckError` unless *buffer* holds the blocks from *first* on."""
    numbers = np.arange(first, first + len(buffer), dtype=np.uint64)
    wrong = (buffer[:, 0] != numbers + np.uint64(1)) | (buffer[:, -1] != ~numbers)
    if wrong.any():
        raise CheckError(f"file: block {first + int(wrong.argmax())} holds another's bytes")


def disk_of(folder: Path, root: Path = Path("/")) -> dict[str, str]:
    """What *folder* lies on: `disk` (a label), `device` and `filesystem`, as the kernel tells."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    filesystem = "unknown"
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[2] == number:
            filesystem = words[words.index("-") + 1]
    link = root / "sys/dev/block" / number
    if not link.exists():
        kind = "RAM disk" if filesystem in ("tmpfs", "ramfs") else "no block device"
        return {"disk": kind, "device": "none", "filesystem": filesystem}
    place = link.resolve()
    name = place.name
    disk = place if (place / "queue").exists() else place.parent
    virtual = any(word in str(place) for word in ("virtio", "/virtual/", "xen", "vmbus"))
    kind = "hard disk" if _word(disk / "queue" / "rotational") == "1" else "SSD"
    label = "virtual disk" if virtual else f"{kind} {_word(disk / 'device' / 'model')}".strip()
    return {"disk": label, "device": name, "filesystem": filesystem}


def _word(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
