"""A bounded fuzzer over every reader: damaged files end in `InputError` or in valid chunks.

Deterministic and short by default. To look longer, and elsewhere:

    TRACE_FUZZ_EXAMPLES=20000 python -m pytest -n 0 tests/test_trace_fuzz.py --hypothesis-seed=1

with another seed each time; `-k weka` takes one format alone. A failure prints the bytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_samples import SAMPLES

from sim.errors import InputError
from sim.trace.bounds import MAX_SECONDS, MAX_TOKENS
from sim.trace.chunk import Chunk, Links, Tally
from sim.trace.detect import detect
from sim.trace.formats import lines_of, turns_of
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.rows import FAILED, MAX_FINDINGS, NO_PROMPT
from sim.trace.turns import Replay
from sim.trace.write import write

EXAMPLES = int(os.environ.get("TRACE_FUZZ_EXAMPLES", "0"))
FORMATS = sorted({*lines_of, *turns_of})
MOST_S = 5.0  # of one core, for a file of a few kilobytes

PACKERS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    bz2.compress,
    lzma.compress,
    lambda data: pa.Codec("zstd").compress(data, asbytes=True),
]
NUMBERS = [
    b"0", b"1", b"-1", b"2", b"1.5", b"-0.0", b"1e3", b"1e-320", b"1e400", b"-1e400", b"NaN",
    b"Infinity", b"nan", b"inf", b"9" * 25, b"9" * 5000, b"9223372036854775807",
    b"9223372036854775808", b"4294967296000", b"10000000", b"10000001", b"1_0", b"0x10", b"+3",
    b"null", b"true", b"[]", b"{}", b'""', b'"5"', b"[1,2]", b'{"a":1}', b"", b" ",
    "٣".encode(), b"2024-02-30 00:00:00", b"1970-01-01 00:00:00", b"2261-12-31T23:59:59Z",
]  # fmt: skip
PIECES = [
    b"\0", b"\n", b"\r", b"\r\n", b",", b'"', b"'", b"|", b"\\", b"\\ud800", b"\xff", b"\xc3",
    b"\xef\xbb\xbf", b"\x1f\x8b", b"{", b"}", b"[", b"]", b":", b"[" * 100_000, b'{"a":' * 5_000,
    b"x" * 3_000, b"\x1b[2J", b",,,,,,,,", b'{"timestamp":0}', "\u2028".encode(), b"1|2|3",
]  # fmt: skip
_NUMBER = re.compile(rb"-?[0-9][-0-9.:TZe ]*")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z_ ]*")  # keys, names of columns, texts

# each damage: data, a place in it from 0 to 1, a free choice
Damage = Callable[[bytes, float, int], bytes]


def _at(data: bytes, place: float) -> int:
    return int(place * len(data))


def flip(data: bytes, place: float, choice: int) -> bytes:
    i = _at(data, place)
    return data[:i] + bytes([data[i] ^ (1 + choice % 255)]) + data[i + 1 :] if data[i:] else data


def cut(data: bytes, place: float, choice: int) -> bytes:
    return data[: _at(data, place)] if choice % 2 else data[_at(data, place) :]


def drop(data: bytes, place: float, choice: int) -> bytes:
    i = _at(data, place)
    return data[:i] + data[i + 1 + choice % 40 :]


def insert(data: bytes, place: float, choice: int) -> bytes:
    i = _at(data, place)
    return data[:i] + PIECES[choice % len(PIECES)] + data[i:]


def number(data: bytes, place: float, choice: int) -> bytes:
    return _instead(_NUMBER, data, place, NUMBERS[choice % len(NUMBERS)])


def word(data: bytes, place: float, choice: int) -> bytes:
    others = _WORD.findall(data)
    return _instead(_WORD, data, place, others[choice % len(others)]) if others else data


def _instead(pattern: re.Pattern[bytes], data: bytes, place: float, piece: bytes) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data
    match = found[min(int(place * len(found)), len(found) - 1)]
    return data[: match.start()] + piece + data[match.end() :]


def repeat(data: bytes, place: float, choice: int) -> bytes:
    lines = data.splitlines(keepends=True)
    i = int(place * len(lines))
    return b"".join([*lines[:i], *lines[i : i + 1] * (2 + choice % 30), *lines[i + 1 :]])


def swap(data: bytes, place: float, choice: int) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        i, j = int(place * len(lines)) % len(lines), choice % len(lines)
        lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def splice(data: bytes, place: float, choice: int) -> bytes:
    others = [sample for name in FORMATS for sample in SAMPLES[name]]
    other = others[choice % len(others)]
    return data[: _at(data, place)] + other[_at(other, 1 - place) :]


def encode(data: bytes, place: float, choice: int) -> bytes:
    name = ("utf-16", "utf-32", "utf-16-le", "utf-8-sig", "utf-7")[choice % 5]
    return data.decode(errors="ignore").encode(name)


def pack(data: bytes, place: float, choice: int) -> bytes:
    return PACKERS[choice % len(PACKERS)](data)


DAMAGES: list[Damage] = [flip, cut, drop, insert, number, word, repeat, swap, splice, encode]
# most damage within values: a file that is broken as a whole is refused by its first line
STEPS = st.tuples(
    st.sampled_from([*DAMAGES, *[number] * 12, *[word] * 3, flip, flip, swap, repeat]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 2**16),
)
PACKED = st.none() | st.none() | st.none() | st.tuples(st.integers(0, 3), st.none() | STEPS)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 4),
        "sort": st.booleans(),
        "chunk_rows": st.integers(1, 3),
        "block_tokens": st.sampled_from([None, None, None, None, 1, 16, 64, 512, 65536]),
    },
)
REPLAYS = st.builds(
    Replay,
    sessions=st.sampled_from(["auto", "auto", "closed", "closed", "open"]),
    rate_per_s=st.sampled_from([0.5, 1e9, None]),
    shared_prefix=st.booleans(),
)


def check_chunk(chunk: Chunk, start: int, last_s: float) -> None:
    """The contract of `Chunk` for the requests from position *start* on, after *last_s*."""
    rows = len(chunk)
    assert rows > 0
    assert chunk.arrival_s.dtype == np.float64
    assert chunk.prompt_tokens.dtype == chunk.output_tokens.dtype == np.int64
    assert len(chunk.prompt_tokens) == len(chunk.output_tokens) == rows
    assert chunk.arrival_s[0] == 0.0 if start == 0 else chunk.arrival_s[0] >= last_s
    assert (np.diff(chunk.arrival_s) >= 0).all()
    assert 0 <= chunk.arrival_s[-1] <= MAX_SECONDS
    for counts in (chunk.prompt_tokens, chunk.output_tokens):
        assert counts.min() >= 1
        assert counts.max() <= MAX_TOKENS
    if chunk.block_ids is not None:
        assert len(chunk.block_ids) == rows
        assert chunk.block_ids.offsets[0] == 0
        assert chunk.block_ids.offsets[-1] == len(chunk.block_ids.values)
        assert (chunk.block_ids.lengths >= 0).all()
        assert (chunk.block_ids.values >= 0).all()
    if chunk.links is not None:
        check_links(chunk.links, rows, start)


def check_links(links: Links, rows: int, start: int) -> None:
    assert len(links.session) == len(links.after) == len(links.delay_s) == rows
    assert len(links.recorded_s) == rows
    assert all(name.isprintable() for name in links.session)
    for position, after in enumerate(links.after, start):
        assert all(0 <= other < position for other in after)
        assert len(set(after)) == len(after)
    assert np.isfinite(links.delay_s).all()
    assert (links.delay_s >= 0).all()
    assert (links.delay_s[links.after.lengths == 0] == 0).all()
    assert not np.isinf(links.recorded_s).any()


def parquet() -> bytes:
    """Our own Parquet, with blocks and sessions."""
    rows = 9
    after = Ragged.of([(), *((i,) for i in range(rows - 1))])
    delay_s = np.array([0.0, *[1.5] * (rows - 1)])
    links = Links(["a"] * rows, after, delay_s, np.arange(float(rows)))
    counts = np.full(rows, 600, dtype=np.int64)
    ids = Ragged.of([(i, i + 1) for i in range(rows)])
    chunk = Chunk(np.arange(float(rows)), counts, counts, ids, links)
    with tempfile.TemporaryDirectory() as folder:
        write([chunk], Path(folder) / "t", "parquet")
        return (Path(folder) / "t").read_bytes()


def read_whole(data: bytes, format: str, **options: object) -> tuple[int, Tally]:
    """Read *data* and check all that comes out; the number of requests, 0 if it is refused."""
    tally, rows, last_s = Tally(), 0, 0.0
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_bytes(data)
        began = time.process_time()
        try:
            for chunk in read(path, format, tally=tally, **options):  # type: ignore[arg-type]
                check_chunk(chunk, rows, last_s)
                rows += len(chunk)
                last_s = float(chunk.arrival_s[-1])
        except InputError as error:
            lines = error.lines
            assert lines
        else:
            assert rows == tally.rows > 0
        assert time.process_time() - began < MOST_S
    assert tally.skipped == sum(tally.reasons.values())
    if options.get("bad_rows") != "skip":
        assert set(tally.reasons) <= {FAILED, NO_PROMPT}
    said = [*lines, *tally.examples, *tally.notes]
    assert all(line.isprintable() and len(line) < 2000 for line in said), said
    assert max(len(lines) - 1, len(tally.examples)) <= MAX_FINDINGS
    return (0 if lines else rows), tally


@pytest.mark.parametrize("format", FORMATS)
def test_samples_are_good(format: str, tmp_path: Path) -> None:
    for sample in SAMPLES[format]:
        (tmp_path / "t").write_bytes(sample)
        told = detect(tmp_path / "t")
        assert told == ("mooncake-sessions" if format == "mooncake-delta" else format)
        for kind in PACKERS:
            for sessions in ("auto", "open", "closed"):
                if sessions == "open" and format in NO_TIMES:
                    continue
                rows, tally = read_whole(
                    kind(sample), format, replay=Replay(sessions=sessions, rate_per_s=1.0)
                )
                assert rows > 0, format
                assert set(tally.reasons) <= {FAILED}


# later turns have no recorded time at which they could be replayed
NO_TIMES = ("mooncake-sessions", "mooncake-delta", "applied-compute")


@pytest.mark.parametrize("format", [*FORMATS, "parquet"])
def test_damaged_files(format: str) -> None:
    samples = [parquet()] if format == "parquet" else SAMPLES[format]

    @settings(
        max_examples=EXAMPLES or 100,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(samples),
        st.lists(STEPS, min_size=1, max_size=3),
        PACKED,
        st.sampled_from(["skip", "skip", "error"]),
        st.sampled_from([format, format, "auto"]),
        OPTIONS,
        REPLAYS,
    )
    def damaged(
        sample: bytes,
        steps: list[tuple[Damage, float, int]],
        packed: tuple[int, tuple[Damage, float, int] | None] | None,
        bad_rows: str,
        asked: str,
        options: dict[str, object],
        replay: Replay,
    ) -> None:
        data = sample
        for damage, place, choice in steps:
            data = damage(data, place, choice)
        if packed is not None:
            data = pack(data, 0.0, packed[0])
            if packed[1] is not None:
                damage, place, choice = packed[1]
                data = damage(data, place, choice)
        read_whole(data, asked, bad_rows=bad_rows, replay=replay, **options)

    damaged()
