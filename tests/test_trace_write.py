"""Writing traces: what is written reads back, and a file appears whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.errors import InputError
from sim.trace.chunk import Chunk, Tally
from sim.trace.formats.columns import block_tokens
from sim.trace.generate import generate
from sim.trace.names import WRITABLE
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.write import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def chunk_of(times_ms: list[int], ids: bool) -> Chunk:
    n = len(times_ms)
    start = np.sort(np.array(times_ms, dtype=np.int64))
    prompt = 1 + 700 * np.arange(n, dtype=np.int64)
    rows = Ragged.of(range(-(-p // 512)) for p in prompt.tolist()) if ids else None
    return Chunk((start - start[0]) / 1e3, prompt, 5 + np.arange(n, dtype=np.int64), rows)


def test_mooncake_lines_and_fresh_ids(tmp_path: Path) -> None:
    chunk = Chunk(np.array([0.0, 1.2346]), np.array([513, 512]), np.array([1, 2]))
    write([chunk.part(0, 1), chunk.part(1, 2)], tmp_path / "t", "mooncake")
    assert [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()] == [
        {"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [0, 1]},
        {"timestamp": 1235, "input_length": 512, "output_length": 2, "hash_ids": [2]},
    ]


def test_parquet_keeps_the_block_size(tmp_path: Path) -> None:
    chunk = chunk_of([0, 5], ids=True)
    write([chunk], tmp_path / "t", "parquet", tally=Tally(block_tokens=256))
    assert block_tokens(tmp_path / "t") == 256
    write([chunk], tmp_path / "t", "parquet", block_tokens=512)
    assert block_tokens(tmp_path / "t") == 512
    assert [len(c) for c in read(tmp_path / "t", chunk_rows=1)] == [1, 1]


def test_the_same_trace_gives_the_same_bytes(tmp_path: Path) -> None:
    for format in WRITABLE:
        for name in "ab":
            write(generate("azure-conv-like", 50, 1), tmp_path / name, format)  # type: ignore[arg-type]
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("format", WRITABLE)
def test_nothing_is_left_when_the_source_fails(tmp_path: Path, format: str) -> None:
    path = tmp_path / "t"
    path.write_text("before")

    def broken() -> Iterator[Chunk]:
        yield chunk_of([0, 1], ids=False)
        raise InputError("line 3")

    with pytest.raises(InputError, match="line 3"):
        write(broken(), path, format)  # type: ignore[arg-type]
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_places_and_formats_that_cannot_be_written(tmp_path: Path) -> None:
    chunks = [chunk_of([0], ids=False)]
    with pytest.raises(InputError, match="is a directory"):
        write(chunks, tmp_path, "vidur")
    with pytest.raises(InputError, match=r"cannot be written: No such file"):
        write(chunks, tmp_path / "no" / "t", "vidur")
    with pytest.raises(InputError, match="'azure' cannot be written; write one of"):
        write(chunks, tmp_path / "t", "azure")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no requests to write"):
        write([], tmp_path / "t", "parquet")
    assert not (tmp_path / "t").exists()


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    chunks = [chunk_of([0, 1000], ids=False)]
    (tmp_path / "deep").mkdir()
    real, link = tmp_path / "deep" / "real", tmp_path / "link"
    real.write_text("before")
    link.symlink_to("deep/real")
    assert write(chunks, link, "vidur") == 2
    assert link.is_symlink()
    assert (
        real.read_text() == "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,1,5\n1.0,701,6\n"
    )
    real.unlink()  # a link that leads to nothing yet
    write(chunks, link, "vidur")
    assert link.is_symlink()
    assert real.is_file()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "link", "real"]


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    chunks = [chunk_of([0], ids=False)]
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(InputError) as caught:
            write(chunks, path, "vidur")
        assert caught.value.lines == [f"{path}: not a regular file; name a file"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match="cannot be written"):
        write(chunks, tmp_path / "a", "vidur")
    with pytest.raises(InputError, match=r"a\\x00b': cannot be written"):
        write(chunks, tmp_path / "a\0b", "vidur")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "link", "pipe"]


def test_a_line_end_in_a_name_does_not_split_the_message(tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(InputError, match="is a directory") as caught:
        write([chunk_of([0], ids=False)], tmp_path / "a\nb", "vidur")
    assert len(caught.value.lines) == 1


def test_block_sizes_that_cannot_be_written(tmp_path: Path) -> None:
    for size in (0, 65_537, 10**23):
        with pytest.raises(InputError, match=f"block tokens: {size} is no size; write 1 to 65536"):
            write([chunk_of([0], ids=False)], tmp_path / "t", "mooncake", block_tokens=size)
