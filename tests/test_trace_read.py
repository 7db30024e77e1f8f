"""Reading traces: every format with exact values, and the fast path against the careful one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.trace.chunk import Chunk, Tally
from sim.trace.detect import detect, explain
from sim.trace.formats.csvlines import Header
from sim.trace.formats.table import AZURE, VIDUR, Table
from sim.trace.lines import Block
from sim.trace.ragged import Ragged
from sim.trace.read import careful, read
from sim.trace.rows import Findings

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
AZURE_CONV = TRACES / "azure-2023" / "AzureLLMInferenceTrace_conv.csv"
MOONCAKE = TRACES / "mooncake-fast25" / "conversation_trace.jsonl"
VIDUR_CONV = TRACES / "vidur-processed" / "splitwise_conv.csv"
VIDUR_LENGTHS = "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv"


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return path


def whole(chunks: list[Chunk]) -> Chunk:
    return Chunk(
        np.concatenate([c.arrival_s for c in chunks]),
        np.concatenate([c.prompt_tokens for c in chunks]),
        np.concatenate([c.output_tokens for c in chunks]),
    )


def rows(path: Path, **options: object) -> list[tuple[float, int, int]]:
    trace = whole(list(read(path, **options)))  # type: ignore[arg-type]
    assert trace.arrival_s.dtype == np.float64
    assert trace.prompt_tokens.dtype == trace.output_tokens.dtype == np.int64
    columns = (trace.arrival_s, trace.prompt_tokens, trace.output_tokens)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def put(tmp_path: Path, text: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_azure_2023_has_seven_digits_crlf_and_no_last_line_end(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 23:59:59.9799600,374,44\r\n"
        "2023-11-17 00:00:00.0000001,396,109\r\n"
        "2023-11-17 00:01:00.9799600,879,55",
    )
    assert detect(path) == "azure"
    assert rows(path) == [(0.0, 374, 44), (0.0200401, 396, 109), (61.0, 879, 55)]


def test_azure_2024_has_a_zone_and_no_fraction_on_whole_seconds(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-12 00:00:00+00:00,10,1\n"
        "2024-05-12 00:00:00.250000+00:00,11,2\n",
    )
    assert rows(path) == [(0.0, 10, 1), (0.25, 11, 2)]


def test_azure_2025_has_images_second_and_z(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2024-10-15T12:00:00.269Z,0,770,491\n"
        "2024-10-15T12:00:05.819Z,1,949,126\n",
    )
    assert rows(path) == [(0.0, 770, 491), (5.55, 949, 126)]


def test_a_zone_other_than_utc_counts(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-01-01 01:00:00+01:00,1,1\n"
        "2023-12-31 19:00:01-05:00,1,1\n",
    )
    assert rows(path) == [(0.0, 1, 1), (1.0, 1, 1)]


def test_columns_are_found_by_name_and_quotes_are_csv(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        '"num_decode_tokens",note,arrived_at,num_prefill_tokens\n7,"a, b",1.5,30\n\n8,,"2.0",31\n',
    )
    assert detect(path) == "vidur"
    assert rows(path) == [(0.0, 30, 7), (0.5, 31, 8)]


def test_mooncake_times_are_milliseconds_and_ids_are_kept(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        '{"timestamp": 500, "input_length": 6, "output_length": 5, "hash_ids": [0, 3]}\n'
        '{"timestamp": 1750.5, "input_length": 7, "output_length": 9, "priority": "x"}\n',
    )
    (chunk,) = read(path)
    assert chunk.arrival_s.tolist() == [0.0, 1.2505]
    assert chunk.block_ids == Ragged.of([(0, 3), ()])


def test_mooncake_without_ids_has_none(tmp_path: Path) -> None:
    path = put(tmp_path, '{"timestamp": 0, "input_length": 6, "output_length": 5}\n')
    (chunk,) = read(path)
    assert chunk.block_ids is None


def test_a_utf8_mark_blank_lines_and_gzip_are_fine(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf\n\n" + ",".join(VIDUR).encode() + b"\n\n0.5,1,2\n\n"
    assert rows(put(tmp_path, text)) == [(0.0, 1, 2)]
    assert rows(put(tmp_path, gzip.compress(text), "trace.gz")) == [(0.0, 1, 2)]


def test_limit_and_chunk_rows(tmp_path: Path) -> None:
    path = put(tmp_path, ",".join(VIDUR) + "\n" + "".join(f"{i},1,1\n" for i in range(10)))
    assert [len(chunk) for chunk in read(path, chunk_rows=4)] == [4, 4, 2]
    assert [len(chunk) for chunk in read(path, chunk_rows=4, limit=6)] == [4, 2]
    # what comes after the limit is not looked at
    bad = put(tmp_path, ",".join(VIDUR) + "\n0,1,1\n1,1,1\n0,x,x\n")
    assert len(rows(bad, limit=2)) == 2
    with pytest.raises(InputError, match="limit: 0"):
        read(path, limit=0)


def test_sort_is_stable_and_starts_at_zero(tmp_path: Path) -> None:
    path = put(tmp_path, ",".join(VIDUR) + "\n5,1,1\n3,2,1\n5,3,1\n3,4,1\n")
    with pytest.raises(InputError, match=r"trace:3: arrived_at: line 3 arrives before line 2;"):
        list(read(path))
    assert rows(path, sort=True) == [(0.0, 2, 1), (0.0, 4, 1), (2.0, 1, 1), (2.0, 3, 1)]
    assert rows(path, sort=True, limit=3)[-1] == (2.0, 1, 1)


def test_order_is_checked_from_block_to_block(tmp_path: Path) -> None:
    lines = [f"{i},1000000,1000000\n" for i in range(40_000)]  # more than one block
    text = ",".join(VIDUR) + "\n" + "".join(lines)
    path = put(tmp_path, text)
    trace = whole(list(read(path)))
    assert np.array_equal(trace.arrival_s, np.arange(40_000))
    at = text.index("\n", 262_144) + 1  # just after the first block
    path = put(tmp_path, text[:at] + "0,1,1\n" + text[at:])
    number = text[:at].count("\n") + 1
    with pytest.raises(InputError, match=f"line {number} arrives before line {number - 1}"):
        list(read(path))


def test_skip_counts_by_reason(tmp_path: Path) -> None:
    path = put(tmp_path, ",".join(VIDUR) + "\n0,1,0\n1,1,0\n2,x,1\n3,9,9\n")
    tally = Tally()
    assert rows(path, bad_rows="skip", tally=tally) == [(0.0, 9, 9)]
    assert (tally.rows, tally.skipped) == (1, 3)
    assert tally.reasons == {"zero output tokens": 2, "not a whole number": 1}


def test_formats_are_told_apart_by_content(tmp_path: Path) -> None:
    path = put(tmp_path, '{"timestamp": 0, "input_length": 6, "output_length": 5}', "x.csv")
    assert explain(path) == (
        "mooncake",
        "line 1 is a JSON object with timestamp, input_length, output_length",
    )


AZURE_TABLE = Table.of(AZURE, Header(AZURE))
VIDUR_TABLE = Table.of(VIDUR, Header((VIDUR[2], "note", VIDUR[1], VIDUR[0])))

# the fast path ------------------------------------------------------------------------------

_CELLS = st.sampled_from(
    [
        "0",
        "1",
        "12",
        "007",
        "10000000",
        "10000001",
        "99999999",
        "123456789",
        "-1",
        "+4",
        " 5",
        "1.5",
        "1e3",
        "",
        "x",
        "nan",
        "1_0",
        '"3"',
        "٣",
        "1\x002",
        "3\r",
    ]
)
_STAMPS = st.sampled_from(
    [
        "2023-11-16 18:15:46.6805900",
        "2023-11-16T18:15:46",
        "2023-02-29 00:00:00",
        "2024-05-12 00:00:00+00:00",
        "2024-05-12 24:00:00",
        "2024-05-12 00:00:60Z",
        "2023-11-16",
        "2024-05-12 00:00:00.123456789Z",
        "2024-05-12 00:00:00+01:00",
        "2099-12-31 23:59:59.9",
        "1969-12-31 00:00:00",
        "9999-12-31 00:00:00",
        "2024-13-01 00:00:00",
        "2024-00-10 00:00:00",
    ]
)
_SECONDS = st.one_of(
    st.floats(0, 1e13).map(repr),
    st.sampled_from(["0", "1e5", "1e400", "-1", "inf", ".5", "5.", ""]),
)


def _agree(table: Table, lines: list[str]) -> None:
    data = "\n".join(lines).encode()
    fast = table.clean(data)
    if fast is None:
        return
    slow = careful(table, Block(1, data), Findings(Path("x"), "error", Tally()))
    for ours, theirs in zip(fast[:3], (slow.time, slow.prompt, slow.output), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_STAMPS, _CELLS, _CELLS), min_size=1, max_size=3))
def test_fast_azure_rows_are_the_careful_rows(cells: list[tuple[str, ...]]) -> None:
    _agree(AZURE_TABLE, [",".join(row) for row in cells])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_CELLS, _CELLS, _CELLS, _SECONDS), min_size=1, max_size=3))
def test_fast_vidur_rows_are_the_careful_rows(cells: list[tuple[str, ...]]) -> None:
    _agree(VIDUR_TABLE, [",".join(row) for row in cells])


def test_the_fast_path_is_taken_for_plain_files() -> None:
    azure = b"2023-11-16 18:15:46.6805900,374,44\r\n2024-05-12 00:00:00+00:00,1,2"
    assert AZURE_TABLE.clean(azure)
    assert VIDUR_TABLE.clean(b"44,x,374,0.0\n1,y,2,1e-05\n")


# the real files -----------------------------------------------------------------------------


def test_real_azure_conv() -> None:
    trace = whole(list(read(need(AZURE_CONV))))
    assert len(trace) == 19_366
    assert trace.arrival_s[-1] == pytest.approx(3501.721937, abs=1e-6)
    assert trace.prompt_tokens.sum() == 22_361_870
    assert trace.output_tokens.sum() == 4_088_665


def test_real_vidur_is_the_same_trace() -> None:
    ours, theirs = whole(list(read(need(AZURE_CONV)))), whole(list(read(need(VIDUR_CONV))))
    assert np.array_equal(ours.prompt_tokens, theirs.prompt_tokens)
    assert np.abs(ours.arrival_s - theirs.arrival_s).max() < 2e-6


def test_real_mooncake() -> None:
    path = need(MOONCAKE)
    chunks = list(read(path))
    trace = whole(chunks)
    assert len(trace) == 12_031
    assert trace.prompt_tokens.sum() == 144_793_823
    ids = [row for chunk in chunks for row in chunk.block_ids or []]
    with path.open() as file:
        assert ids[7] == tuple(json.loads(file.readlines()[7])["hash_ids"])
    assert {row[0] for row in ids} == {0}


@pytest.mark.parametrize(
    ("name", "last_s"),
    [
        ("azure_2024_code_quoted_rows.csv", 604799.919571),
        ("azure_2024_conv_quoted_rows.csv", 604799.994297),
        ("azure_2025_multimodal_quoted_rows.csv", 604799.695),
    ],
)
def test_quoted_azure_rows(name: str, last_s: float) -> None:
    trace = whole(list(read(need(TRACES / "format-samples" / name))))
    assert len(trace) == 10
    assert trace.arrival_s[-1] == pytest.approx(last_s, abs=1e-6)


def test_real_vidur_lengths_have_no_times() -> None:
    with pytest.raises(InputError, match="no arrived_at column"):
        list(read(need(TRACES / "vidur-processed" / VIDUR_LENGTHS)))
