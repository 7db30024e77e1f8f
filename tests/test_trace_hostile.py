"""Files that are no traces: each gets one clear line, never a traceback and never the memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.trace.chunk import Chunk, Tally
from sim.trace.formats import lines_of, turns_of
from sim.trace.lines import blocks
from sim.trace.read import read
from sim.trace.write import write

AZ = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
VI = b"arrived_at,num_prefill_tokens,num_decode_tokens\n"
MO = b'{"timestamp": 0, "input_length": 6, "output_length": 5}\n'


def put(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "t"
    path.write_bytes(data)
    return path


def mooncake(**changes: object) -> bytes:
    row = {"timestamp": 0, "input_length": 6, "output_length": 5} | changes
    return json.dumps(row).encode() + b"\n"


CASES: dict[str, tuple[bytes, str]] = {
    # bytes
    "empty": (b"", "t: the file is empty"),
    "blank": (b"\n \n", "t: nothing but blank lines"),
    "utf-16": ("arrived_at".encode("utf-16"), "t:1: the file is UTF-16, not UTF-8"),
    "utf-32": ("arrived_at".encode("utf-32"), "t:1: the file is UTF-32"),
    "random": (b"\x93\x00\x01", "t:1: unknown trace format"),
    "latin-1": (VI + b"0,1,1\n1,\xe9,1\n", "t:3:3: byte 0xe9 is not UTF-8"),
    "latin-1 json": (MO + b'{"a": "\xe9"}', "t:2:8: byte 0xe9 is not UTF-8"),
    "latin-1 header": (VI[:-1] + b",\xe9\n0,1,1,1", "t:1:49: header: byte 0xe9"),
    "nul": (VI + b"0,1,1\n1,1\0,1\n", "t:3:4: a NUL byte"),
    "nul json": (MO + b"\0\n", "t:2:1: a NUL byte"),
    "old mac": (VI.replace(b"\n", b"\r") + b"0,1,1\r", "t:1:48: header: a carriage return"),
    "carriage return": (VI + b"0,1\r,1\n", "t:2:4: a carriage return inside the line"),
    # headers
    "header only": (VI, "t: no requests in the file"),
    "header only azure": (AZ.strip(), "t: no requests in the file"),
    "no header": (
        b"2023-11-16 18:15:46.68,374,44\n",
        "unknown trace format, the first line is '2023",
    ),
    "twice": (VI[:-1] + b",arrived_at\n0,1,1,0\n", "t:1: header: column arrived_at occurs more"),
    "wide": (VI[:-1] + b",x" * 500_000 + b"\n", "t:1: header: 500,003 columns, no trace has more"),
    "lengths only": (VI.partition(b",")[2] + b"1,1\n", "t:1: header: no arrived_at column"),
    "semicolons": (VI.replace(b",", b";") + b"0;1;1\n", "t:1: columns are separated by ';'"),
    "tabs": (AZ.replace(b",", b"\t"), "t:1: columns are separated by '\\t'; convert to commas"),
    "some semicolons": (VI.replace(b",num_d", b";num_d"), "t:1: unknown trace format"),
    # columns
    "cut off": (VI + b"0,1,1\n1,1", "t:3: 2 columns where the header has 3"),
    "too many": (VI + b"0,1,1,9\n", "t:2: 4 columns where the header has 3"),
    "open quote": (VI + b'0,1,"1\n', "t:2: not CSV: unexpected end of data"),
    "long field": (VI + b'0,1,"' + b"1" * 200_000 + b'"\n', "t:2: not CSV: field larger"),
    # numbers
    "empty cell": (VI + b"0,,1\n", "t:2:3: num_prefill_tokens: is empty"),
    "word": (VI + b"0,1,many\n", "t:2:5: num_decode_tokens: 'many' is not a whole number"),
    "fraction": (VI + b"0,1.5,1\n", "t:2:3: num_prefill_tokens: '1.5' is not a whole number"),
    "underscore": (VI + b"0,1_0,1\n", "'1_0' is not a whole number"),
    "boolean": (VI + b"0,True,1\n", "'True' is not a whole number"),
    "nan tokens": (VI + b"0,nan,1\n", "'nan' is not a whole number"),
    "negative": (VI + b"0,-5,1\n", "t:2:3: num_prefill_tokens: -5 is negative"),
    "zero prompt": (VI + b"0,0,1\n", "num_prefill_tokens: 0 tokens, a prompt has at least 1"),
    "zero output": (VI + b"0,1,0\n", "t:2:5: num_decode_tokens: 0 tokens, a failed request"),
    "too large": (VI + b"0,10000001,1\n", "10000001 is above 10,000,000 tokens"),
    "huge": (VI + b"0," + b"9" * 5000 + b",1\n", "num_prefill_tokens: '9999"),
    "time nan": (VI + b"nan,1,1\n", "t:2:1: arrived_at: nan is not a finite, plausible time"),
    "time inf": (VI + b"inf,1,1\n", "arrived_at: inf is not a finite"),
    "time 1e400": (VI + b"1e400,1,1\n", "arrived_at: inf is not a finite"),
    "time huge": (
        VI + b"1e13,1,1\n",
        "is not a plausible time, 1e+13 s and above 4,2",
    ),
    "time late": (
        VI + b"0,1,1\n1e9,1,1\n1000000001,1,1\n",
        "t:4: arrived_at: 1,000,000,001 s after the first request, a trace spans at most 1,000,0",
    ),
    "stamp late": (
        AZ + b"1970-01-01 00:00:00,1,1\n2023-01-01 00:00:00,1,1\n",
        "t:3: TIMESTAMP: 1,672,531,200 s after the first request",
    ),
    "json time late": (
        MO + mooncake(timestamp=2 * 10**12),
        "t:2: timestamp: 2,000,000,000 s after the",
    ),
    "time negative": (VI + b"-0.5,1,1\n", "arrived_at: -0.5 is negative"),
    "time word": (VI + b"now,1,1\n", "arrived_at: 'now' is not a number of seconds"),
    "time back": (VI + b"1,1,1\n0.5,1,1\n", "t:3: arrived_at: line 3 arrives before line 2; sort"),
    "stamp": (AZ + b"16.11.2023,1,1\n", "t:2:1: TIMESTAMP: '16.11.2023' is no time stamp"),
    "stamp date": (AZ + b"2023-02-30 00:00:00,1,1\n", "is no date of 1970 to 2261"),
    "stamp hour": (AZ + b"2023-02-20 24:00:00,1,1\n", "is no date of 1970 to 2261"),
    "stamp year": (AZ + b"9999-02-20 00:00:00,1,1\n", "is no date of 1970 to 2261"),
    "stamp leap": (AZ + b"2016-12-31 23:59:60,1,1\n", "is no date of 1970 to 2261"),
    "stamp back": (
        AZ + b"2023-01-01 00:00:01,1,1\n2023-01-01 00:00:00.9999999,1,1\n",
        "t:3: TIMESTAMP: line 3 arrives before line 2",
    ),
    # JSON lines
    "json cut": (MO + MO[:30] + b"\n", "t:2:"),
    "json cut first": (
        b'{"timestamp": 0, "input_length": 6, "output_length": 5',
        "t:1:55: not JSON",
    ),
    "json two": (MO + MO[:-1] + MO, "t:2:56: not JSON: Extra data"),
    "json list": (MO + b"[1, 2]\n", "t:2: a list is no JSON object; write one a line"),
    "json deep": (MO + b"[" * 100_000 + b"\n", "t:2: nested too deeply"),
    "json deep first": (b'{"a":' * 100_000, "unknown trace format"),
    "json digits": (
        mooncake(timestamp=0) + b'{"timestamp": ' + b"1" * 9000 + b"}",
        "too many digits",
    ),
    "json nan": (mooncake(timestamp=float("nan")), "t:1: the value NaN is no JSON number"),
    "json infinity": (mooncake(input_length=float("inf")), "the value Infinity is no JSON number"),
    "json 1e999": (MO.replace(b'p": 0', b'p": 1e999'), "timestamp: inf is not a finite"),
    "json huge": (mooncake(timestamp=10**400), "timestamp: 1000"),
    "json keys": (MO + b'{"timestamp": 0}\n', "t:2: input_length: not there, only 'timestamp'"),
    "json float": (mooncake(input_length=6.5), "t:1: input_length: 6.5 is not a whole number"),
    "json bool": (mooncake(input_length=True), "input_length: True is not a whole number"),
    "json bool time": (mooncake(timestamp=False), "timestamp: False is not a number"),
    "json null": (mooncake(output_length=None), "output_length: None is not a whole number"),
    "json string": (mooncake(output_length="5"), "output_length: '5' is not a whole number"),
    "json nested": (mooncake(output_length=[[5]]), "output_length: a list is not a whole number"),
    "json zero": (mooncake(output_length=0), "output_length: 0 tokens, a failed request"),
    "json negative": (mooncake(input_length=-1), "input_length: -1 is negative"),
    "json large": (mooncake(input_length=10**30), "is above 10,000,000 tokens"),
    "json time negative": (mooncake(timestamp=-1), "timestamp: -1 is negative"),
    "json back": (mooncake(timestamp=9) + MO, "t:2: timestamp: line 2 arrives before line 1"),
    "ids object": (mooncake(hash_ids={"a": 1}), "hash_ids: a dict is not a list"),
    "ids word": (mooncake(hash_ids=[0, "a"]), "hash_ids: 'a' is not a whole number"),
    "ids bool": (mooncake(hash_ids=[0, True]), "hash_ids: True is not a whole number"),
    "ids negative": (mooncake(hash_ids=[0, -3]), "hash_ids: -3 is not in 0 to 2^63 - 1"),
    "ids huge": (mooncake(hash_ids=[2**63]), "is not in 0 to 2^63 - 1"),
    "other keys": (b'{"foo": 1}', "t:1: unknown trace format, the first object has the keys 'foo'"),
    "other publisher": (
        b'{"chat_id": 1, "timestamp": 0.5}',
        "t:1: parent_chat_id: not there, only 'chat_id, timestamp'",
    ),
    "text": (b'{"timestamp": 1, "input": "hi", "output": "ho"}', "t:1: prompts as text without"),
    "servegen rates": (b"0,1.5,2.0,Gamma,0.5,0.1\n", "t:1: ServeGen's rates of a client"),
    "servegen silence": (b"600,0,0,,0,0\n", "t:1: ServeGen's rates of a client"),
    "servegen lengths": (
        b'{\n  "0": {\n    "input_tokens": "{18: 1.0}"\n  }\n}\n',
        "t:1: ServeGen's lengths of a client",
    ),
    "json array": (b"[\n" + MO[:-1] + b"]", "JSON that is not one object a line; write it so: jq"),
    "json pretty": (b'{\n"timestamp": 0}', "write it so: jq -c . FILE"),
    # compressed and columnar
    "gzip cut": (b"\x1f\x8b\x08\x00" + b"\0" * 6 + b"\x03", "cannot be read"),
    "gzip broken": (b"\x1f\x8b\x08\x00" + b"\xff" * 60, "cannot be read"),
    "xz cut": (b"\xfd7zXZ\0\0", "t: cannot be read: the packed data end too early"),
    "xz broken": (b"\xfd7zXZ\0\0" + b"\xff" * 60, "t: cannot be read"),
    "xz and more": (lzma.compress(VI + b"0,1,1\n") + b"more", "t: cannot be read"),
    "zstd cut": (b"\x28\xb5\x2f\xfd\x04", "t: cannot be read: Truncated"),
    "zstd broken": (b"\x28\xb5\x2f\xfd" + b"\xff" * 60, "t: cannot be read"),
    "bzip2 cut": (b"BZh91AY", "t: cannot be read: the packed data end too early"),
    "bzip2 broken": (b"BZh91AY&SY" + b"\xff" * 60, "t: cannot be read"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "t: a zip archive; unpack it first: unzip FILE"),
    "gzip parquet": (
        gzip.compress(b"PAR1" + b"\0" * 50 + b"PAR1"),
        "t: compressed with gzip, but Parquet is read in place; unpack it first: gzip -d FILE",
    ),
    "parquet": (b"PAR1" + b"\0" * 50 + b"PAR1", "t: cannot be read"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_file_gets_one_clear_line(tmp_path: Path, name: str) -> None:
    data, expected = CASES[name]
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        list(read(put(tmp_path, data)))
    (line,) = caught.value.lines
    assert line.startswith(str(tmp_path / "t") + ":")
    assert ";" in line, "says how to mend it"
    assert len(line) < 400 + len(str(tmp_path))
    assert line.isprintable()


def test_columns_missing_for_the_named_format(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"t:1: header: no column TIMESTAMP.*there are 'arrived_at"
    ):
        list(read(put(tmp_path, VI + b"0,1,1\n"), "azure"))
    with pytest.raises(InputError, match=r"format: 'xml' is unknown; write auto or one of"):
        read(put(tmp_path, MO), "xml")
    with pytest.raises(InputError, match=r"t:1: columns are separated by ';'; convert to commas"):
        list(read(put(tmp_path, VI.replace(b",", b";")), "vidur"))
    for format in [*lines_of, *turns_of]:
        with pytest.raises(InputError, match="t: cannot be read: the packed data end too early"):
            list(read(put(tmp_path, b"\xfd7zXZ\0\0"), format))


def test_places_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match="no such file"):
        read(Path("a\0b"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_access(tmp_path: Path) -> None:
    path = put(tmp_path, MO)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read(path)


def test_ten_bad_rows_come_together_and_no_more(tmp_path: Path) -> None:
    path = put(tmp_path, VI + b"0,1,1\n" + b"1,1,0\n" * 3)
    with pytest.raises(InputError) as caught:
        list(read(path))
    assert [line.split(":")[1] for line in caught.value.lines] == ["3", "4", "5"]
    with pytest.raises(InputError) as caught:
        list(read(put(tmp_path, VI + b"1,1,0\n" * 50)))
    assert len(caught.value.lines) == 11
    assert caught.value.lines[-1] == "... stopped after 10"


def test_all_rows_skipped_is_still_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no requests in the file, 4 bad rows skipped"):
        list(read(put(tmp_path, VI + b"1,1,0\n" * 4), bad_rows="skip"))


def test_skipping_does_not_cover_times_that_go_back(tmp_path: Path) -> None:
    path = put(tmp_path, VI + b"5,1,1\n6,x,1\n4,1,1\n")
    with pytest.raises(InputError, match="line 4 arrives before line 2"):
        list(read(path, bad_rows="skip"))
    (chunk,) = read(path, bad_rows="skip", sort=True)
    assert chunk.arrival_s.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("head", "limit"), [(VI, "1 MiB"), (MO, "16 MiB")])
def test_a_line_without_end_costs_a_message_not_the_memory(
    tmp_path: Path, head: bytes, limit: str
) -> None:
    path = tmp_path / "t"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 120 * 2**20)  # sparse: nothing but NUL
    with path.open("ab") as file:
        file.write(b"\n" + (b"7,1,1\n" if head == VI else MO))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"t:2: the line is longer than {limit}"):
            list(read(path))
        (chunk,) = [c for c in read(path, bad_rows="skip") if len(c)][-1:]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert chunk.prompt_tokens[-1] in (1, 6)
    assert peak < 80 * 2**20


PACK = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("kind", PACK)
def test_packed_files_read_whole(tmp_path: Path, kind: str) -> None:
    first, second = VI + b"0,1,1\n1,2,2\n", b"3,3,3\n" * 20_000
    path = put(tmp_path, PACK[kind](first) + PACK[kind](b"") + PACK[kind](second))
    assert sum(int(chunk.prompt_tokens.sum()) for chunk in read(path)) == 3 + 3 * 20_000
    packed = path.read_bytes()
    for cut in (9, len(packed) // 2, len(packed) - 1):
        with pytest.raises(InputError, match="t: cannot be read: ") as caught:
            list(read(put(tmp_path, packed[:cut])))
        assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("kind", "unit"), [("bzip2", b"\0"), ("xz", b"\n"), ("zstd", b"1,1,1\n"), ("zstd", b"\0")]
)
def test_a_bomb_costs_a_message_not_the_memory(tmp_path: Path, kind: str, unit: bytes) -> None:
    part = PACK[kind](unit * (2**22 // len(unit)))
    path = put(tmp_path, PACK[kind](VI) + part * 70)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"t: unpacks to more than 2,000 times its size"):
            for _ in blocks(path, 2**20):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * 2**20


def test_an_xz_header_that_asks_for_gigabytes_gets_none(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
    packed = bytearray(lzma.compress(VI + b"0,1,1\n", filters=filters))
    at = packed.index(b"\x21\x01") + 2  # LZMA2, one byte of properties: the dictionary's size
    packed[at] = 40  # 4 GiB - 1
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")  # of the block header
    with pytest.raises(InputError, match="t: cannot be read: Memory usage limit exceeded"):
        list(read(put(tmp_path, bytes(packed))))


def test_times_may_count_from_1970(tmp_path: Path) -> None:
    path = put(tmp_path, VI + b"1700000000.25,1,1\n1700000001.5,1,1\n")
    (chunk,) = read(path)
    assert chunk.arrival_s.tolist() == [0.0, 1.25]


@pytest.mark.parametrize("data", [b"", b"\n", VI, VI + b"0,1,0\n", b"foo", b"{}", b"\xfd7zXZ\0"])
def test_a_line_end_in_a_name_does_not_split_the_message(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a\nb"
    for make in (lambda: path.write_bytes(data), path.unlink, path.mkdir):
        make()
        with pytest.raises(InputError) as caught:
            list(read(path))
        (line,) = caught.value.lines
        assert line.isprintable()
        assert "a\\nb'" in line


# our own Parquet ----------------------------------------------------------------------------


def table(tmp_path: Path, **columns: object) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = {"arrival_s": [0.0, 1.0], "prompt_tokens": [1, 2], "output_tokens": [3, 4]}
    pq.write_table(pa.table(base | columns), tmp_path / "t")
    return tmp_path / "t"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"arrival_s": [0.0, float("nan")]}, "t:row 2: arrival_s: nan is not a finite"),
        ({"arrival_s": [-1.0, 0.0]}, "t:row 1: arrival_s: -1.0 is negative"),
        ({"arrival_s": [1.0, 0.5]}, "t:row 2: arrival_s: row 2 arrives before row 1"),
        ({"arrival_s": [0.0, 1e10]}, "t:row 2: arrival_s: 10000000000.0 is not a plausible time"),
        ({"arrival_s": [0.0, 2e9]}, "t:row 2: arrival_s: 2,000,000,000 s after the first request"),
        ({"arrival_s": ["a", "b"]}, "arrival_s: has the wrong type"),
        ({"prompt_tokens": [1, None]}, "t:row 2: prompt_tokens: no value"),
        ({"prompt_tokens": [1.0, 2.0]}, "prompt_tokens: has the wrong type"),
        ({"output_tokens": [0, 1]}, "t:row 1: output_tokens: 0 tokens, a failed request"),
        ({"output_tokens": [10**8, 1]}, "is above 10,000,000 tokens"),
        ({"block_ids": [[1], [-2]]}, "t:row 2: block_ids: a missing or negative id"),
        ({"block_ids": [[1], None]}, "t:row 2: block_ids: no value"),
        ({"block_ids": [1, 2]}, "block_ids: has the wrong type"),
    ],
)
def test_bad_parquet(tmp_path: Path, columns: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        list(read(table(tmp_path, **columns)))


def test_parquet_without_a_column_and_without_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"arrival_s": [0.0]}), tmp_path / "t")
    with pytest.raises(InputError, match="prompt_tokens: no such column; there are"):
        list(read(tmp_path / "t"))
    none = pa.array([], pa.int64())
    path = table(tmp_path, arrival_s=none, prompt_tokens=none, output_tokens=none)
    with pytest.raises(InputError, match="no requests in the file"):
        list(read(path))


def test_cut_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t"
    chunk = Chunk(np.arange(9.0), np.full(9, 5), np.full(9, 5))
    write([chunk], path, "parquet")
    whole = path.read_bytes()
    for size in range(4, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="cannot be read"):
            list(read(path))


def test_parquet_with_broken_names(tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"arrival_s", b"arriv\xff\xfe_s"))
    with pytest.raises(InputError, match="cannot be read"):
        list(read(path))


# anything at all ----------------------------------------------------------------------------


def valid_or_input_error(data: bytes, format: str) -> None:
    last, tally = 0.0, Tally()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_bytes(data)
        try:
            for chunk in read(path, format, bad_rows="skip", tally=tally):
                assert len(chunk) > 0
                assert chunk.arrival_s[0] >= last
                assert (np.diff(chunk.arrival_s) >= 0).all()
                assert chunk.prompt_tokens.min() >= 1
                assert chunk.output_tokens.min() >= 1
                last = float(chunk.arrival_s[-1])
        except InputError as error:
            lines = error.lines
        else:
            lines = []
    assert all(line.isprintable() for line in lines)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["auto", *lines_of]))
def test_random_bytes(data: bytes, format: str) -> None:
    valid_or_input_error(data, format)


_ATOMS = st.sampled_from(
    [
        b"0",
        b"1",
        b"-1",
        b"1.5",
        b"1e9",
        b"nan",
        b"",
        b'"',
        b"true",
        b"null",
        b"[1]",
        b"\xff",
        b" ",
        b"2023-11-16 18:15:46.6",
        b"2023-11-16T18:15:46Z",
        b"\r",
        b"\n",
        b"9" * 25,
        b"{}",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(_ATOMS, min_size=2, max_size=4), min_size=1, max_size=6),
    st.sampled_from([AZ, VI]),
)
def test_random_tables(cells: list[list[bytes]], head: bytes) -> None:
    valid_or_input_error(head + b"\n".join(b",".join(row) for row in cells), "auto")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_ATOMS, _ATOMS, _ATOMS, _ATOMS), min_size=1, max_size=6))
def test_random_objects(values: list[tuple[bytes, ...]]) -> None:
    line = b'{"timestamp": %b, "input_length": %b, "output_length": %b, "hash_ids": %b}'
    valid_or_input_error(b"\n".join(line % row for row in values), "mooncake")
