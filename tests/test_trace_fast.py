"""Mooncake blocks read at once against the same lines read one by one, and ids numbered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.trace.chunk import Tally
from sim.trace.formats.csvlines import Header
from sim.trace.formats.mooncake import ALIASES, KEYS, Mooncake
from sim.trace.formats.table import AZURE, VIDUR, Table
from sim.trace.json_blocks import Plain
from sim.trace.json_digits import Form
from sim.trace.lines import Block
from sim.trace.numbering import Numbering
from sim.trace.ragged import Ragged
from sim.trace.read import careful, read
from sim.trace.rows import Findings

ROW = {"timestamp": 1, "input_length": 600, "output_length": 3, "hash_ids": [4, 50]}
LINE = json.dumps(ROW).encode()


def agree(data: bytes) -> bool:
    """Whether the fast way takes *data*; then the careful way must give the same."""
    fast = Mooncake().clean(data)
    if fast is None:
        return False
    findings = Findings(Path("x"), "error", Tally())
    slow = careful(Mooncake(), Block(1, data), findings)
    findings.check()
    for ours, theirs in zip(fast[:3], (slow.time, slow.prompt, slow.output), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert (fast[3] is None) == (slow.ids is None)
    assert fast[3] == slow.ids or fast[3] is None
    return True


# values, texts and bytes that a file may hold, good and bad -----------------------------------

_BIG = [2**53 + 1, 2**63 - 1, 2**63, 10**20, 2**32 * 1000, 2**32 * 1000 + 1, 12345678, 10**9 - 1]
_BAD = [
    "00",
    "07",
    "-0",
    "-1",
    "1.",
    ".5",
    "+1",
    "NaN",
    "Infinity",
    "-Infinity",
    "1 2",
    "",
    "1" * 400,
]
_ODD = [
    "1.0",
    "1e3",
    "1E2",
    "1e999",
    "3.5",
    "null",
    "true",
    '"1"',
    "[]",
    "{}",
    "[1]",
    "10000001",
    "0",
]
_NUMBERS = st.one_of(
    st.integers(0, 10**7).map(str), st.sampled_from([*map(str, _BIG), *_BAD, *_ODD])
)
_PLAIN = st.integers(1, 10**7).map(str)
_LISTS = st.one_of(
    st.lists(_PLAIN, min_size=1, max_size=4).map(lambda ids: f"[{', '.join(ids)}]"),
    st.lists(_NUMBERS, max_size=3).map(lambda ids: f"[{','.join(ids)}]"),
    st.sampled_from(
        ["[]", "null", "[,1 2]", "[1, , 2]", "[1 , 2]", "[ 1]", "[[1]]", "[null]", "5"]
    ),
)
_NAMES = st.sampled_from(
    [*KEYS, "hash_ids", *ALIASES.values(), "session_id", "priority", "tim\\u0065stamp", "x1"]
)
_OTHERS = st.sampled_from(
    ['"a"', '"a\\\\"', "NaN", "[[[1]]]", "[" * 99 + "]" * 99, "1" * 5000, '"}\\n{"', '"é"', "{}"]
)
_MARKS = st.sampled_from([(", ", ": "), (",", ":"), (" , ", ": "), (",  ", ":  ")])


@st.composite
def _lines(draw: st.DrawFn) -> bytes:
    """A few lines that are alike, or of which one is odd."""
    comma, colon = draw(_MARKS)
    names = list(draw(st.sampled_from([KEYS, KEYS[::-1], tuple(ALIASES.values())])))
    with_ids = draw(st.booleans())
    values = _PLAIN if draw(st.booleans()) else _NUMBERS
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        pairs = [(name, draw(values)) for name in names]
        if with_ids:
            pairs.append(("hash_ids", draw(_LISTS)))
        if draw(st.integers(0, 4)) == 0:
            pairs.insert(draw(st.integers(0, 4)), (draw(_NAMES), draw(st.one_of(_OTHERS, values))))
        lines.append("{" + comma.join(f'"{name}"{colon}{value}' for name, value in pairs) + "}")
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n", "\r", ""]))
    last = draw(st.sampled_from(["\n", "", "\r\n"]))
    return ((end if draw(st.integers(0, 3)) == 0 else "\n").join(lines) + last).encode()


@settings(max_examples=200, deadline=None)
@given(_lines())
def test_fast_rows_are_the_careful_rows(data: bytes) -> None:
    agree(data)


_EDIT = st.tuples(
    st.integers(0, 400),
    st.sampled_from(["replace", "insert", "delete", "swap"]),
    st.sampled_from(
        [bytes([c]) for c in b'0159 ,:[]{}"\n\r\t-.eE\\Naf\0\xff\xc3'] + [b"\n{", b"}{"]
    ),
)
_BASE = b"".join(
    json.dumps({**ROW, "timestamp": i, "hash_ids": list(range(i, i + 2))}).encode() + b"\n"
    for i in range(9, 12)
)


@settings(max_examples=250, deadline=None)
@given(st.lists(_EDIT, min_size=1, max_size=3), st.booleans())
def test_mutated_lines_are_never_read_more_leniently(
    edits: list[tuple[int, str, bytes]], compact: bool
) -> None:
    data = _BASE.replace(b": ", b":").replace(b", ", b",") if compact else _BASE
    for at, kind, text in edits:
        at %= len(data)
        cut = {"replace": 1, "insert": 0, "delete": 1, "swap": 2}[kind]
        new = {"delete": b"", "swap": data[at : at + 2][::-1]}.get(kind, text)
        data = data[:at] + new + data[at + cut :]
    if data:
        agree(data)


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (LINE, True),
        (LINE + b"\n" + LINE + b"\n", True),
        (LINE + b"\r\n" + LINE + b"\r\n", True),
        (LINE.replace(b" ", b""), True),
        (LINE.replace(b', "hash_ids": [4, 50]', b""), True),
        (LINE.replace(b"[4, 50]", b"[]"), True),
        (LINE.replace(b"[4, 50]", b"null"), True),
        (LINE + b"\n" + LINE.replace(b', "hash_ids": [4, 50]', b""), True),
        (LINE.replace(b"1,", b"1.5,", 1), True),
        (LINE.replace(b"timestamp", b"created_time").replace(b"length", b"tokens"), True),
        (LINE.replace(b"{", b'{"priority": 7, "note": "a, b", '), True),
        (LINE.replace(b"1,", b"123456789012,", 1), True),
        (LINE.replace(b"50", b"9223372036854775807"), True),
        (LINE.replace(b"50", b"9223372036854775808"), False),
        (LINE.replace(b"50", b"050"), False),
        (LINE.replace(b"50", b"-50"), False),
        (LINE.replace(b"[4, 50]", b"[,4 50]"), False),
        (LINE + LINE + b"\n\n", False),
        (LINE[:-1] + b"\n}", False),
        (LINE.replace(b"{", b'{"x": NaN, '), False),
        (LINE.replace(b"{", b'{"x": ' + b"1" * 5000 + b", "), False),
        (LINE.replace(b"{", b'{"x": ' + b"[" * 80 + b"]" * 80 + b", "), False),
        (LINE.replace(b"{", b'{"timestamp": 5, '), False),
        (LINE.replace(b"{", b'{"created_time": 1, '), False),
        (LINE.replace(b"600", b"0"), False),
        (b"\n" + LINE, False),
        (b"[1]\n", False),
    ],
)
def test_what_the_fast_way_takes(data: bytes, taken: bool) -> None:
    try:
        assert agree(data) is taken
    except InputError:
        pytest.fail("read, but a bad row")


def test_lines_that_are_alike_are_read_digit_by_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "_by_arrow", lambda *_: pytest.fail("by Arrow"))
    for text in (LINE, LINE.replace(b" ", b""), b'{"output_tokens": 1, "created_time": 2, '
                 b'"input_tokens": 3}', LINE.replace(b"[4, 50]", b"[4]")):  # fmt: skip
        assert Mooncake().clean(text + b"\n" + text + b"\n") is not None
    long = LINE.replace(b"1,", b"1700000000000,", 1).replace(b"50", b"1234567890123456")
    found = Mooncake().clean(LINE + b"\n" + long)
    assert found is not None
    assert found[0].tolist() == [1.0, 1700000000000.0]
    assert found[3] == Ragged.of([(4, 50), (4, 1234567890123456)])


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"{1}", LINE[:-1], LINE.replace(b"[4", b"[[4"), LINE.replace(b"timestamp", b"ts2"),
     LINE.replace(b"hash_ids", b"hashes"), LINE.replace(b", 50", b" , 50")],
)  # fmt: skip
def test_lines_without_a_form(line: bytes) -> None:
    assert Form.of(line, KEYS, "hash_ids") is None


def test_keys_that_are_not_used_are_noted_in_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for bad in (b"", b"\n\n"):  # blank lines: one by one
        tally = Tally()
        path.write_bytes(LINE.replace(b"{", b'{"priority": 1, "delay": 2, ') + b"\n" + bad + LINE)
        list(read(path, "mooncake", tally=tally))
        noted = [note for note in tally.notes if "not used" in note]
        assert noted == [
            "key 'delay' is not used; --format mooncake-sessions or agentic-mooncake uses it",
            "key 'priority' is not used",
        ]


def test_aliases_are_read_and_two_names_of_one_thing_are_not(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text('{"created_time": 5, "input_tokens": 6, "output_tokens": 7}\n')
    (chunk,) = read(path, "mooncake")
    assert (chunk.prompt_tokens[0], chunk.output_tokens[0]) == (6, 7)
    path.write_text('{"created_time": 5, "timestamp": 5, "input_tokens": 6, "output_tokens": 7}\n')
    with pytest.raises(InputError, match=r"t:1: timestamp: there is also created_time; delete one"):
        list(read(path, "mooncake"))
    path.write_text('{"created_time": -5, "input_tokens": 6, "output_tokens": 7}\n')
    with pytest.raises(InputError, match=r"t:1: created_time: -5 is negative"):
        list(read(path, "mooncake"))


# numbering ------------------------------------------------------------------------------------

_KEYS = st.one_of(st.integers(-4, 12), st.integers(2**62, 2**62 + 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.tuples(_KEYS, st.booleans()), max_size=12), max_size=4), st.booleans())
@example([[(0, False), (1, False)], [(0, False), (2, False)], [(1, True)]], True)
def test_numbers_are_given_in_order_of_first_appearance(
    parts: list[list[tuple[int, bool]]], some_fresh: bool
) -> None:
    numbering = Numbering(table=8)
    known: dict[int, int] = {}
    count = 0
    for part in parts:
        expected = []
        for key, flag in part:
            fresh = flag and some_fresh
            expected.append(count if fresh else known.setdefault(key, count))
            count += expected[-1] == count
        keys = np.array([key for key, _ in part], dtype=np.int64)
        flags = np.array([flag for _, flag in part], dtype=np.bool_) if some_fresh else None
        assert numbering.of(keys, flags).tolist() == expected
    assert numbering.count == count


def test_many_hashed_keys() -> None:
    numbering = Numbering()
    keys = np.random.default_rng(0).permutation(20_000).astype(np.int64) * 2**48 + 2**40
    for part in np.split(keys, 4):
        numbering.of(part)
    assert numbering.of(keys).tolist() == list(range(20_000))
    assert numbering.of(keys[::-1]).tolist() == list(range(19_999, -1, -1))


# tables ---------------------------------------------------------------------------------------

_STAMP = "2023-11-16 18:15:46"
_STAMPS = [
    _STAMP,
    _STAMP + ".5",
    _STAMP + ".1234567",
    _STAMP.replace(" ", "T"),
    _STAMP + "Z",
    _STAMP + "+00:00",
    _STAMP + "+01:00",
    "2023-11-16",
    "2023-11-16 18:15",
    "2023-02-29 00:00:00",
    " " + _STAMP,
    "20231116T181546",
    _STAMP + ".",
    "2023-11-16 24:00:00",
    "2023-11-16 18:15:60",
]
_SECONDS = [
    "0",
    "0.5",
    "1e5",
    "nan",
    "inf",
    "-1",
    "+1",
    " 1 ",
    "0x10",
    ".5",
    "5.",
    "1_0",
    "1e400",
    "4294967296",
    "4294967297",
    "",
    "1d0",
    "١",
]
_TOKENS = [
    "1",
    "007",
    "600",
    "0",
    "-1",
    "+3",
    " 4",
    "4 ",
    "1.0",
    "1e2",
    "0x1F",
    "",
    "NA",
    "null",
    "1_0",
    '"5"',
    "10000000",
    "10000001",
    "9" * 30,
    "\x00",
    "5\r",
    "True",
]


@settings(max_examples=150, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(st.integers(0, 14), st.sampled_from(_TOKENS), st.sampled_from(_TOKENS)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["\n", "\r\n", "\n\n", ",\n", "\n\r\n", ""]),
)
def test_fast_tables_are_the_careful_tables(
    azure: bool, cells: list[tuple[int, str, str]], end: str
) -> None:
    names, times = (AZURE, _STAMPS) if azure else (VIDUR, _SECONDS)
    table = Table.of(names, Header(names))
    text = "\n".join(",".join((times[i], *rest)) for i, *rest in cells) + end
    fast = table._at_once(text.encode())
    if fast is None:
        return
    findings = Findings(Path("x"), "error", Tally())
    slow = careful(table, Block(1, text.encode()), findings)
    findings.check()
    for ours, theirs in zip(fast, (slow.time, slow.prompt, slow.output), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_plain_tables_are_read_at_once() -> None:
    azure, vidur = (Table.of(names, Header(names)) for names in (AZURE, VIDUR))
    for line in (_STAMP, _STAMP + ".1234567", _STAMP + ".5Z", _STAMP + "+00:00"):
        assert azure._at_once(f"{line},5,6\r\n{line},7,8\r\n".encode()) is not None
    assert vidur._at_once(b"0.25,5,6\n1e-05,7,8") is not None
    images = Table.of(AZURE, Header(("TIMESTAMP", "NumImages", *AZURE[1:])))
    assert images._at_once(f"{_STAMP},0,5,6\n".encode()) is not None
    assert images._at_once(f"{_STAMP},{'x' * 2**20},5,6\n".encode()) is None
