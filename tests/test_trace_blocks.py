"""Block sizes: found out by the ids, stated or given, and every row checked against them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.blocks import Blocks, id_count, usual
from sim.trace.chunk import Chunk, Tally
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.write import write

if TYPE_CHECKING:
    from pathlib import Path


def rows_of(prompts: list[int], size: int, last: str = "partial") -> list[dict[str, Any]]:
    counts = [int(id_count(prompt, size, last)) for prompt in prompts]  # type: ignore[arg-type]
    return [
        {"timestamp": i, "input_length": prompt, "output_length": 1, "hash_ids": list(range(count))}
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]


def put(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids_of(prompts: list[int], size: int, last: str = "partial") -> Ragged:
    return Ragged.of([tuple(row["hash_ids"]) for row in rows_of(prompts, size, last)])


PROMPTS = [100, 1000, 1024, 1025, 5000, 77]


def test_the_usual_sizes() -> None:
    assert usual("mooncake") == usual("agentic-mooncake") == (512, "partial")
    assert usual("bailian") == (16, "partial")
    assert usual("weka") == (64, "full")


@pytest.mark.parametrize("size", [512, 64, 16, 1, 4096])
def test_a_mooncake_files_size_is_found_out(tmp_path: Path, size: int) -> None:
    tally = Tally()
    (chunk,) = read(put(tmp_path / "t", rows_of(PROMPTS, size)), tally=tally)
    assert chunk.block_ids == ids_of(PROMPTS, size)
    assert (tally.block_tokens, tally.last_block) == (size, "partial")
    how = "usual, and the ids fit" if size == 512 else "told by how many there are"
    assert tally.notes == [f"a block id stands for {size:,} prompt tokens: {how}"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(200, 20_000), min_size=8, max_size=20),
    st.integers(3, 9).map(lambda power: 2**power),
    st.sampled_from(["partial", "full"]),
    st.sampled_from(["mooncake", "bailian", "weka", "parquet"]),
)
def test_any_power_of_two_is_found_out(
    prompts: list[int], size: int, last: str, format: str
) -> None:
    if format != "parquet":
        last = usual(format)[1]
    tally = Tally(format=format)
    blocks = Blocks("x", tally)  # type: ignore[arg-type]
    ids = ids_of(prompts, size, last)
    try:
        wrong = blocks.wrong(np.array(prompts), ids)
    except InputError as error:
        found = error.lines[0]
    else:
        found = ""
        assert not wrong.any()
    assert "alike" in found or not found  # sometimes the rows cannot tell sizes apart
    if not found and size < 256:
        assert tally.block_tokens == size


def test_a_size_that_is_no_power_of_two_must_be_given(tmp_path: Path) -> None:
    path = put(tmp_path / "t", rows_of(PROMPTS, 100))
    expected = r"t: hash_ids: the numbers of ids fit no block size; .* say the size with --block-t"
    with pytest.raises(InputError, match=expected):
        list(read(path))
    with pytest.raises(InputError, match=expected):
        list(read(path, bad_rows="skip"))
    tally = Tally()
    list(read(path, block_tokens=100, tally=tally))
    assert tally.block_tokens == 100


def test_sizes_that_fit_alike_must_be_told_apart(tmp_path: Path) -> None:
    path = put(tmp_path / "t", rows_of([600, 700], 1024))
    sizes = "1024, 2048, 4096, 8192, 16384, 32768, 65536"
    with pytest.raises(InputError, match=f"t: hash_ids: .* fit blocks of {sizes} tokens alike"):
        list(read(path))
    assert len(list(read(path, block_tokens=4096))) == 1
    one = {"timestamp": 0, "input_length": 6, "output_length": 1, "hash_ids": [0, 1]}
    tally = Tally()
    list(read(put(path, [one]), tally=tally))
    assert tally.block_tokens == 4


@pytest.mark.parametrize("blank", ["", "\n"])
@pytest.mark.parametrize("format", ["mooncake", "parquet"])
def test_a_wrong_number_of_ids_is_a_bad_row(tmp_path: Path, format: str, blank: str) -> None:
    rows = rows_of(PROMPTS * 2, 512)
    for i, row in enumerate(rows):
        row["timestamp"] = i
    rows[3]["hash_ids"] = [1, 2]
    rows[5]["hash_ids"] = []  # a prefix that is not known
    path = put(tmp_path / "t", rows)
    path.write_text(blank + path.read_text())
    key, place = "hash_ids", ":5" if blank else ":4"
    if format == "parquet":
        chunk = Chunk(
            np.arange(12.0), np.array(PROMPTS * 2), np.ones(12, dtype=np.int64),
            Ragged.of([tuple(row["hash_ids"]) for row in rows]),
        )  # fmt: skip
        write([chunk], path, "parquet")
        key, place = "block_ids", ":row 4"
    expected = (
        f"{path}{place}: {key}: 2 ids for a prompt of 1,025 tokens, which has 3 blocks of 512; "
        "correct the row, or say the size with --block-tokens (trace.block_tokens)"
    )
    with pytest.raises(InputError) as caught:
        list(read(path))
    assert caught.value.lines == [expected]
    tally = Tally()
    (chunk,) = read(path, bad_rows="skip", tally=tally)
    assert len(chunk) == 11
    assert chunk.block_ids is not None
    assert chunk.block_ids[4] == ()
    assert tally.reasons == {"wrong number of hash_ids": 1}
    assert tally.examples == [expected]


def test_the_limit_ends_the_checks_too(tmp_path: Path) -> None:
    rows = rows_of([600] * 6, 512)
    rows[1]["hash_ids"] = [7]
    rows[4]["hash_ids"] = [7]
    for text in ("", "\n"):
        path = put(tmp_path / "t", rows)
        path.write_text(text + path.read_text())
        tally = Tally()
        chunks = list(read(path, limit=3, bad_rows="skip", tally=tally))
        assert sum(map(len, chunks)) == 3
        assert tally.skipped == 1
        assert sum(map(len, read(path, limit=5, bad_rows="skip"))) == 4
        with pytest.raises(InputError) as caught:
            list(read(path, limit=3))
        assert len(caught.value.lines) == 1
        assert sum(map(len, read(path, limit=1))) == 1


def test_the_first_rows_decide_whatever_the_limit(tmp_path: Path) -> None:
    path = put(tmp_path / "t", rows_of(PROMPTS, 64))
    for text in ("", "\n"):
        path.write_text(text + path.read_text())
        tally = Tally()
        list(read(path, limit=1, tally=tally))
        assert tally.block_tokens == 64


def test_a_given_size_goes_before_what_the_ids_say(tmp_path: Path) -> None:
    path = put(tmp_path / "t", rows_of(PROMPTS, 64))
    with pytest.raises(InputError, match=r"2 ids for a prompt of 100 tokens, which has 1 blocks"):
        list(read(path, block_tokens=128))
    tally = Tally()
    list(read(path, block_tokens=64, tally=tally))
    assert (tally.block_tokens, tally.notes) == (64, [])
    for size in (0, 65_537, 10**30):
        with pytest.raises(InputError, match=f"block tokens: {size} is no size; write 1 to 65536"):
            read(path, block_tokens=size)


def test_a_parquet_file_says_its_size_and_rounding(tmp_path: Path) -> None:
    prompts = np.array([100, 640, 1000])
    for size, last in ((64, "full"), (64, "partial"), (48, "full")):
        ids = ids_of(prompts.tolist(), size, last)
        chunk = Chunk(np.arange(3.0), prompts, np.ones(3, dtype=np.int64), ids)
        source = Tally(block_tokens=size, last_block=last)  # type: ignore[arg-type]
        write([chunk], tmp_path / "t", "parquet", tally=source)
        tally = Tally()
        (back,) = read(tmp_path / "t", tally=tally)
        assert back.block_ids == ids
        assert (tally.block_tokens, tally.last_block) == (size, last)
        assert tally.notes == [f"a block id stands for {size} prompt tokens: the file says so"]
        with pytest.raises(InputError, match="correct the row, or say the size"):
            list(read(tmp_path / "t", block_tokens=512))


@pytest.mark.parametrize(("size", "last"), [(64, "full"), (64, "partial"), (16, "full")])
def test_a_parquet_file_that_does_not_say_it(tmp_path: Path, size: int, last: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {
        "arrival_s": [0.0] * 6, "prompt_tokens": PROMPTS, "output_tokens": [1] * 6,
        "block_ids": [list(row) for row in ids_of(PROMPTS, size, last)],
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "t")
    tally = Tally()
    list(read(tmp_path / "t", tally=tally))
    assert (tally.block_tokens, tally.last_block) == (size, last)
    tally = Tally()
    list(read(tmp_path / "t", tally=tally, block_tokens=size))
    assert tally.last_block == last


def test_the_commands_find_it_out(tmp_path: Path) -> None:
    path = put(tmp_path / "t", rows_of(PROMPTS, 64))
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert json.loads(result.stdout)["prefix"]["block_tokens"] == 64
    out = tmp_path / "o"
    for flags, counts in (
        ([], [1, 2, 2, 3, 10, 1]),  # Mooncake's 512
        (["--to-block-tokens", "128"], [1, 8, 8, 9, 40, 1]),
        (["--block-tokens", "64"], [2, 16, 16, 17, 79, 2]),
    ):
        result = CliRunner().invoke(
            app, ["convert", str(path), str(out), "--to", "mooncake", *flags]
        )
        assert result.exit_code == 0, result.output
        found = [len(json.loads(line)["hash_ids"]) for line in out.read_text().splitlines()]
        assert found == counts
