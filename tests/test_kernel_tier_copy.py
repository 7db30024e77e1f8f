"""Page moves on the CPU, the file tier on this machine's disk, and the measurements' own logic."""

from __future__ import annotations

import ctypes
import math
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.checking import CheckError, poisoned
from kernels.tier_copy import bench, check, copies, files, interference, launch, movers, reference
from kernels.tier_copy.held import Held, wall_seconds

if TYPE_CHECKING:
    from pathlib import Path

CPU = Cpu()


# ---------------------------------------------------------------------------- the kernel
@pytest.mark.parametrize("case", list(check.cases(small=True)), ids=str)
def test_small_cases(case: dict[str, object]) -> None:
    assert check.check(CPU, case, np.random.default_rng(1)) == 0.0


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    page_words=st.integers(1, 700),
    pages=st.integers(1, 12),
    data=st.data(),
    blocks=st.integers(1, 5),
    threads=st.sampled_from([32, 96, 256]),
)
def test_pages_arrive_whole_and_nothing_else_changes(
    page_words: int, pages: int, data: st.DataObject, blocks: int, threads: int
) -> None:
    count = data.draw(st.integers(0, pages))
    rng = np.random.default_rng(page_words)
    source = rng.integers(0, 256, (pages, page_words * 16), np.uint8)
    target = poisoned(CPU, source.shape, np.uint8)
    first = rng.integers(0, pages, count).astype(np.int32)  # a source page may be read twice
    second = rng.permutation(pages)[:count].astype(np.int32)
    want = reference.move_pages(source, target, first, second)
    launch.move_pages(CPU, source, target, first, second, blocks, threads)
    assert (target == want).all()


def test_bad_arguments_are_named() -> None:
    pool, pages = np.zeros((4, 32), np.uint8), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="source uint16"):
        launch.move_pages(CPU, pool.view(np.uint16), pool, pages, pages)
    with pytest.raises(ValueError, match="target uint8"):
        launch.move_pages(CPU, pool, pool[:, ::2], pages, pages)
    with pytest.raises(ValueError, match="pages of 32 and 16 bytes"):
        launch.move_pages(CPU, pool, pool[:, :16].copy(), pages, pages)
    with pytest.raises(ValueError, match="target_pages int32"):
        launch.move_pages(CPU, pool, pool, pages, pages[:1])
    with pytest.raises(ValueError, match="source_pages int64"):
        launch.move_pages(CPU, pool, pool, pages.astype(np.int64), pages)
    with pytest.raises(ValueError, match="0 blocks"):
        launch.move_pages(CPU, pool, pool, pages, pages, blocks=0)
    with pytest.raises(ValueError, match="hold: flag uint32"):
        launch.hold(CPU, np.zeros(2, np.uint32), 1.0)


def test_a_hold_ends_at_its_limit() -> None:
    start = time.perf_counter()
    launch.hold(CPU, np.zeros(1, np.uint32), limit_s=0.05)
    assert 0.05 <= time.perf_counter() - start < 5.0


# ---------------------------------------------------------------------------- measurements
class Event:
    """An event that remembers when it was recorded."""

    def record(self, stream: Any) -> None:
        self.at = stream.now()

    def synchronize(self) -> None:
        """Everything is synchronous here."""


class Stream:
    """A stream on which everything is done when it is queued."""

    ptr = 0

    def __init__(self, non_blocking: bool = False) -> None:
        self.now = time.perf_counter

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None: ...

    def wait_event(self, event: Event) -> None: ...

    def begin_capture(self) -> None: ...

    def end_capture(self) -> Any:
        return SimpleNamespace(upload=lambda stream: None, launch=lambda stream: None)


class Toy(Cpu):
    """The CPU with as much of CuPy around it as the measurements call."""

    def __init__(self) -> None:
        super().__init__()

        def copy(target: int, source: int, nbytes: int, kind: int, stream: int = 0) -> None:
            assert kind == 4, "the direction follows from the pointers"
            ctypes.memmove(target, source, nbytes)

        cuda = SimpleNamespace(
            Stream=Stream,
            Event=Event,
            get_current_stream=Stream,
            get_elapsed_time=lambda start, end: (end.at - start.at) * 1e3,
            runtime=SimpleNamespace(memcpy=copy, memcpyAsync=copy),
        )
        self.xp = SimpleNamespace(**vars(np), cuda=cuda)

    def function(self, folder: str, kernel: str, defines: Any = ()) -> Any:
        if kernel == "hold":  # nothing runs behind it here, so it would wait for itself
            return lambda *_: None
        return super().function(folder, kernel, defines)


@pytest.fixture
def pools() -> copies.Pools:
    return copies.Pools(Toy(), np.random.default_rng(5), 1 << 18)


def test_pools_hold_different_bytes_and_lists_have_no_target_twice(pools: copies.Pools) -> None:
    assert (pools.host != pools.device).mean() > 0.9
    for pair in pools.lists(4096, 30, 3):
        assert pair.shape == (2, 30)
        assert len(set(pair[1].tolist())) == 30


@pytest.mark.parametrize("direction", ["h2d", "d2h"])
def test_copies_are_measured_and_verified(pools: copies.Pools, direction: str) -> None:
    with Held(pools.gpu) as held:
        records = [
            copies.contiguous(pools, held, direction, 16384, 4),
            copies.paged(pools, held, "copy_engine_pages", direction, 4096, 9),
            copies.gathered(pools, held, direction, 4096, (2, 64), 9),
            copies.both_ways(pools, held, 65536),
        ]
    assert [r["name"] for r in records] == [
        "copy_engine",
        "copy_engine_pages",
        "gather",
        "copy_engine",
    ]
    assert [r["bytes"] for r in records] == [16384, 9 * 4096, 9 * 4096, 2 * 65536]
    for record in records:
        assert len(record["seconds"]) == copies.SAMPLES
        assert all(s > 0 for s in record["seconds"])
    assert records[1]["held"]
    assert len(records[1]["submit_seconds"]) == len(records[1]["wall_seconds"]) == copies.SAMPLES


def test_wrong_bytes_are_noticed(pools: copies.Pools) -> None:
    (pair,) = pools.lists(4096, 8, 1)
    source, target = pools.ends("h2d", 4096)
    movers.engine(pools.gpu, source, target, *pair)
    pools.verify("h2d", 4096, pair)
    target[pair[1, 5], 17] ^= 1
    with pytest.raises(CheckError, match=f"h2d page {pair[1, 5]} of 4096 bytes"):
        pools.verify("h2d", 4096, pair)


def test_every_axis_of_copies_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(name: str) -> Any:
        return lambda pools, held, *axes, **more: {"name": name, "axes": axes, **more}

    for name in ("gathered", "contiguous", "both_ways", "paged"):
        monkeypatch.setattr(copies, name, named(name))
    monkeypatch.setattr(movers, "why_no_batch", lambda: None)
    found = [str(record) for record in copies._records(None, None)]  # type: ignore[arg-type]
    assert len(set(found)) == len(found)
    for page_bytes in copies.PAGES:
        for grid in copies.GRIDS:
            pages = 64 * copies.MIB // page_bytes
            for way in ("h2d", "d2h"):
                assert str({"name": "gathered", "axes": (way, page_bytes, grid, pages)}) in found
    monkeypatch.setattr(movers, "why_no_batch", lambda: "no driver")
    *_, last = copies._records(None, None)  # type: ignore[arg-type]
    assert last == {"name": "copy_batch", "reason": "no driver", "seconds": []}


def test_wall_seconds_keeps_every_sample_but_the_warm_up() -> None:
    seen: list[int] = []
    assert len(wall_seconds(Toy(), seen.append, samples=4, warm=3)) == 4
    assert seen == list(range(7))


def test_a_mover_that_ends_too_early_is_an_error(
    pools: copies.Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interference, "CHUNK_BYTES", 65536)
    victim = interference.Victim(pools.gpu, [lambda: time.sleep(1e-3)])
    assert 1 <= victim.count <= 4
    with pytest.raises(RuntimeError, match="copy_engine both ended before"):
        interference.disturbed(pools, victim, "copy_engine", "both", (0, 0))


def test_the_movers_rate_counts_chunks_inside_the_work() -> None:
    gpu = Toy()
    marks = [SimpleNamespace(at=0.5 * i) for i in range(20)]
    events = [SimpleNamespace(at=t) for t in (0.0, 1.0, 2.1, 3.0, 6.2)]
    want = 7 * interference.CHUNK_BYTES / 3.5  # from 2.5 to 6.0
    assert math.isclose(interference._rate(gpu, marks, events), want)
    assert interference._rate(gpu, marks[:3], events) == 0.0


def test_batched_copies_give_a_reason_where_there_is_no_driver() -> None:
    reason = movers.why_no_batch()
    assert reason is None or "no batched copies" in reason


# ---------------------------------------------------------------------------- files
def test_files_are_read_back_as_written(tmp_path: Path) -> None:
    records = list(files.measure(tmp_path, math.inf, 1 << 20, (4096, 65536), (1, 3), 0.01))
    assert not list(tmp_path.iterdir()), "the file is removed"
    assert [(r["name"], r["bytes"], r["depth"]) for r in records[1:]] == [
        (name, size, depth)
        for size in (4096, 65536)
        for depth in (1, 3)
        for name in ("file_read", "file_write")
    ]
    for record in records:
        assert record["disk"]
        assert isinstance(record["direct"], bool)
        assert all(0 < s <= record["wall_seconds"] for s in record["seconds"])
    for record in records[1:]:
        assert record["operations"] >= files.LEAST
        assert min(record["operations"], files.KEPT) / 2 <= len(record["seconds"]) <= files.KEPT


def test_a_wrong_block_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.Target(path, 1 << 16) as target:
        target.make()
        raw = bytearray(path.read_bytes())
        raw[4096:8192] = raw[8192:12288]
        path.write_bytes(raw)
        with pytest.raises(CheckError, match="block 1 holds another's bytes"):
            target.run(False, 1 << 16, 1, 0.01)


def test_files_stop_at_the_deadline(tmp_path: Path) -> None:
    records = list(files.measure(tmp_path, 0.0, 1 << 16))
    assert [r["name"] for r in records] == ["file_make"]
    assert next(iter(bench.measure_files(folder=tmp_path, deadline=0.0)))["name"] == "file_make"


def test_disks_are_labelled(tmp_path: Path) -> None:
    device, folder = tmp_path.stat().st_dev, tmp_path / "sys/dev/block"
    number = f"{os.major(device)}:{os.minor(device)}"
    (tmp_path / "proc/self").mkdir(parents=True)
    mounts = tmp_path / "proc/self/mountinfo"
    mounts.write_text(f"30 1 {number} / /data rw shared:1 - xfs /dev/sda1 rw\n")
    folder.mkdir(parents=True)
    want = {"device": "sda1", "filesystem": "xfs"}

    def disk(bus: str, rotational: str) -> str:
        part = tmp_path / f"sys/devices/{bus}/block/sda/sda1"
        part.mkdir(parents=True)
        (part.parent / "queue").mkdir()
        (part.parent / "queue/rotational").write_text(rotational)
        (part.parent / "device").mkdir()
        (part.parent / "device/model").write_text("Fast 9000 \n")
        (folder / number).unlink(missing_ok=True)
        (folder / number).symlink_to(part)
        found = files.disk_of(tmp_path, tmp_path)
        assert {key: found[key] for key in want} == want
        return found["disk"]

    assert disk("pci0/nvme", "0\n") == "SSD Fast 9000"
    assert disk("pci0/ata1", "1\n") == "hard disk Fast 9000"
    assert disk("pci0/virtio2", "1\n") == "virtual disk"
    (folder / number).unlink()
    assert files.disk_of(tmp_path, tmp_path)["disk"] == "no block device"
    mounts.write_text(f"30 1 {number} / /data rw - tmpfs none rw\n")
    assert files.disk_of(tmp_path, tmp_path)["disk"] == "RAM disk"
