"""Inspecting traces: figures by hand, figures of the real files, pictures and the commands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.chunk import Chunk, Tally
from sim.trace.generate import generate
from sim.trace.inspect import Inspection
from sim.trace.measure import Gaps, Lengths, Timeline, Windows
from sim.trace.picture import draw
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.reuse import Reuse
from sim.trace.write import write

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
AZURE_CONV = TRACES / "azure-2023" / "AzureLLMInferenceTrace_conv.csv"
MOONCAKE = TRACES / "mooncake-fast25" / "conversation_trace.jsonl"

VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def summary(path: Path) -> dict[str, Any]:
    result = run("inspect", path, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return path


# the parts ----------------------------------------------------------------------------------


def test_quantiles_of_counted_lengths_are_numpys() -> None:
    values = np.random.default_rng(0).geometric(0.01, 1000)
    lengths = Lengths()
    for part in np.array_split(values, 7):
        lengths.add(part)
    for share in (0.0, 0.01, 0.37, 0.5, 0.99, 1.0):
        assert lengths.quantile(share) == pytest.approx(np.quantile(values, share))
    assert lengths.total == values.sum()


@pytest.mark.parametrize("exact", [10_000, 100])
def test_gaps_do_not_depend_on_the_chunks(exact: int) -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(0.3, 3000))
    gaps = Gaps(exact)
    for part in np.split(times, [1, 2, 700, 701, 2000]):
        gaps.add(part)
    expected = np.diff(times)
    assert gaps.count == 2999
    assert gaps.exact == (exact == 10_000)
    assert gaps.cv == pytest.approx(expected.std() / expected.mean())
    x, shares = gaps.sorted()
    at = x[np.searchsorted(shares, 0.9)]
    assert at == pytest.approx(np.quantile(expected, 0.9), rel=1e-2)


def test_windows_count_the_empty_ones() -> None:
    times = np.array([0.0, 0.1, 0.2, 3.5, 4.5, 5.25])
    expected = np.array([3, 0, 0, 1, 1])  # the window from 5 s is not whole
    for cut in range(1, 6):
        windows = Windows(1.0)
        windows.add(times[:cut])
        windows.add(times[cut:])
        assert windows.dispersion(5.25) == pytest.approx(expected.var() / expected.mean())
        assert windows.peak == 3
    assert windows.dispersion(5.25, least=6) is None


def test_the_time_line_widens_its_bins() -> None:
    timeline = Timeline(2)
    for start in range(0, 3000, 500):
        times = np.arange(start, start + 500, dtype=np.float64)
        timeline.add(times, np.ones(500, dtype=np.int64), np.full(500, 2))
    assert timeline.width_s == 1.0
    width_s, sums = timeline.bars(100)
    assert width_s == 30.0
    assert sums[0].tolist() == [30] * 100
    assert sums[1].sum() == 6000


def test_reuse_by_hand() -> None:
    reuse = Reuse(512)
    rows = Ragged.of([(0, 1), (0, 1, 2), (0, 7, 2)])
    prompts = np.array([1000, 1500, 1200])
    blocks, hits = reuse.add(rows.part(0, 2), prompts[:2])
    assert blocks.tolist() == [2, 3]
    assert hits.tolist() == [0, 2]
    _, hits = reuse.add(rows.part(2, 3), prompts[2:])
    assert hits.tolist() == [2]  # by membership, but only the first is a prefix
    assert (reuse.blocks, reuse.distinct) == (8, 4)
    assert reuse.hit_rate == 0.5
    assert reuse.saved_tokens == 2 * 512 + 512
    assert reuse.odd_rows == 0


def test_reuse_of_a_full_hit_saves_no_more_than_the_prompt() -> None:
    reuse = Reuse(512)
    reuse.add(Ragged.of([(0, 1), (0, 1), ()]), np.array([600, 600, 5]))
    assert reuse.saved_tokens == 600
    assert reuse.odd_rows == 1


def test_reuse_of_huge_ids_needs_no_huge_memory() -> None:
    reuse = Reuse(1)
    for _ in range(2):
        reuse.add(Ragged.of([(2**62, 5), (2**62 + 1,)]), np.array([2, 1]))
    assert (reuse.blocks, reuse.distinct) == (6, 3)


# the command --------------------------------------------------------------------------------


def test_figures_of_a_small_trace(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(VIDUR + "0,10,1\n1,20,2\n1,30,3\n2,0,5\n4,40,4\n")
    found = summary(path)
    assert found["format"] == "vidur"
    assert found["requests"] == 4
    assert found["duration_s"] == 4.0
    assert found["mean_rate_per_s"] == 0.75
    assert found["peak_requests_in_1s"] == 2
    assert found["peak_requests_in_60s"] == 4
    assert found["prompt_tokens"]["p50"] == 25
    assert found["output_tokens"]["mean"] == 2.5
    assert found["duplicate_times_share"] == 0.25
    assert found["index_of_dispersion"] == {
        "1s": pytest.approx(0.6875 / 0.75),
        "10s": None,
        "60s": None,
    }
    assert found["bad_rows"] == {"skipped": 1, "reasons": {"zero prompt tokens": 1}}
    assert found["prefix"] is None


def test_a_trace_of_one_request(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(VIDUR + "3,10,1\n")
    found = summary(path)
    assert found["mean_rate_per_s"] is None
    assert found["inter_arrival_cv"] is None


def test_real_azure_figures() -> None:
    found = summary(need(AZURE_CONV))
    assert found["requests"] == 19_366
    assert found["duration_s"] == pytest.approx(3501.72, abs=0.005)
    assert found["prompt_tokens"]["mean"] == pytest.approx(1154.7, abs=0.05)
    assert found["output_tokens"]["mean"] == pytest.approx(211.126, abs=5e-4)
    assert found["inter_arrival_cv"] == pytest.approx(1.09417, abs=5e-6)
    assert found["mean_rate_per_s"] == pytest.approx(5.53014, abs=5e-6)
    assert found["peak_requests_in_1s"] == 16
    assert found["peak_requests_in_60s"] == 507
    assert list(found["index_of_dispersion"].values()) == pytest.approx(
        [1.38514, 3.857, 16.1283], rel=1e-5
    )
    assert found["prompt_tokens"]["p90"] == 2734.5
    assert found["notes"] == []


def test_real_mooncake_figures() -> None:
    found = summary(need(MOONCAKE))
    assert found["requests"] == 12_031
    assert found["prefix"]["blocks"] == 288_500
    assert found["prefix"]["distinct_blocks"] == 182_790
    assert f"{found['prefix']['infinite_cache_hit_rate']:.3f}" == "0.366"
    assert found["prefix"]["saved_prompt_share"] == pytest.approx(0.373624, abs=5e-7)
    assert found["duplicate_times_share"] == pytest.approx(0.90192, abs=5e-6)
    (note,) = found["notes"]
    assert "grid of 3 s" in note
    assert "36.6 %" in run("inspect", MOONCAKE).output


def test_a_grid_of_whole_seconds_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    times = np.sort(np.random.default_rng(0).integers(0, 50, 100))
    path.write_text(VIDUR + "".join(f"{t},5,5\n" for t in times))
    assert "grid of 1 s" in summary(path)["notes"][0]
    times = np.sort(np.random.default_rng(0).uniform(0, 50, 100))
    path.write_text(VIDUR + "".join(f"{t},5,5\n" for t in times))
    assert summary(path)["notes"] == []


def test_a_block_size_that_does_not_fit_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = {"timestamp": 0, "input_length": 33, "output_length": 5, "hash_ids": [0, 1, 2]}
    path.write_text(json.dumps(row))
    assert "is the block size another?" in summary(path)["notes"][0]
    found = run("inspect", path, "--json", "--block-tokens", 16)
    assert json.loads(found.stdout)["notes"] == []


def test_text_for_a_pipe_has_no_boxes_and_no_colours(tmp_path: Path) -> None:
    path = tmp_path / "t[bold].csv"
    path.write_text(VIDUR + "0,10,1\n1,20,2\n1,0,2\n")
    result = run("inspect", path)
    assert result.exit_code == 0
    assert result.output.isascii()
    assert "\x1b" not in result.output
    assert "t[bold].csv: vidur" in result.output
    assert "zero prompt tokens" in result.output


def test_pictures_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    inspection = Inspection()
    for chunk in generate("mooncake-conversation-like", 2000, 0):
        inspection.add(chunk)
    for name in ("a.svg", "b.svg"):
        draw(inspection, "title", tmp_path / name)
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in svg


def test_pictures_of_odd_traces(tmp_path: Path) -> None:
    for number, times in enumerate(([0.0] * 5, [0.0, 1.0, 2.0, 3.0], [0.0, 1e9])):
        inspection = Inspection()
        ones = np.ones(len(times), dtype=np.int64)
        inspection.add(Chunk(np.array(times), ones, ones))
        inspection.summary(Tally())
        draw(inspection, "odd", tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_needs_a_known_ending(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(VIDUR + "0,10,1\n")
    result = run("inspect", path, "--picture", tmp_path / "p.gif")
    assert isinstance(result.exception, InputError)
    assert "end it with .png or .svg" in str(result.exception)


def test_generate_and_convert(tmp_path: Path) -> None:
    made, out = tmp_path / "made.parquet", tmp_path / "out.jsonl"
    result = run("generate", "mooncake-conversation-like", "--requests", 300, "--out", made)
    assert result.output == f"{made}: 300 requests\n"
    result = run("convert", made, out, "--to", "mooncake", "--limit", 200)
    assert result.output == f"{out}: 200 requests\n"
    (ours,) = read(out)
    (theirs,) = generate("mooncake-conversation-like", 200, 0)
    assert ours.block_ids == theirs.block_ids
    assert np.abs(ours.arrival_s - theirs.arrival_s).max() <= 0.00051


def test_generate_synthetic(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    result = run(
        *("generate", "synthetic", "--requests", 5, "--out", out, "--rate", 2),
        *("--arrivals", "constant", "--prompt", "fixed:9", "--output", "fixed:3"),
    )
    assert result.exit_code == 0, result.output
    assert out.read_text() == VIDUR + "0.0,9,3\n0.5,9,3\n1.0,9,3\n1.5,9,3\n2.0,9,3\n"


def test_convert_stops_at_bad_rows_unless_told_to_skip(tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", tmp_path / "o.csv"
    path.write_text(VIDUR + "0,10,1\n1,20,0\n")
    result = run("convert", path, out, "--to", "vidur")
    assert isinstance(result.exception, InputError)
    assert not out.exists()
    result = run("convert", path, out, "--to", "vidur", "--skip-bad")
    assert result.output == f"{out}: 1 requests, 1 bad rows left out\n"


def test_memory_does_not_grow_with_the_trace() -> None:
    import tracemalloc

    def peak(requests: int) -> int:
        tracemalloc.start()
        inspection = Inspection()
        inspection.gaps = Gaps(exact=1000)
        for chunk in generate("azure-conv-like", requests, 0):
            inspection.add(chunk)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1000)
    assert peak(400_000) < 1.3 * peak(100_000)


def test_a_converted_trace_has_the_same_figures(tmp_path: Path) -> None:
    write(generate("azure-conv-like", 3000, 2), tmp_path / "a", "parquet")
    write(read(tmp_path / "a"), tmp_path / "b", "vidur")
    ours, theirs = summary(tmp_path / "a"), summary(tmp_path / "b")
    for key in ("file", "format", "format_why"):
        ours.pop(key), theirs.pop(key)
    assert ours == theirs


SYNTHETIC = ("generate", "synthetic", "--rate", 2, "--prompt", "fixed:9", "--output", "fixed:3")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ("generate", "azure-conv-like", *SYNTHETIC[2:], "--arrivals", "gamma"),
            [
                f"--{name}: only with synthetic; remove it"
                for name in ("rate", "prompt", "output", "arrivals")
            ],
        ),
        (
            ("generate", "mooncake-conversation-like", "--arrivals", "poisson"),
            ["--arrivals: only with synthetic; remove it"],
        ),
        (
            ("generate", "azure-conv-like", "--burstiness", 1),
            ["--burstiness: only with synthetic; remove it"],
        ),
        (
            ("generate", "azure-conv-like", "--arrivals", "foo"),
            ["--arrivals: 'foo' is unknown; write one of poisson, gamma, constant"],
        ),
        (
            (*SYNTHETIC, "--arrivals", "foo"),
            ["--arrivals: 'foo' is unknown; write one of poisson, gamma, constant"],
        ),
        (
            (*SYNTHETIC, "--burstiness", 0.5),
            ["--burstiness: only with --arrivals gamma; remove it, or add that"],
        ),
        (
            (*SYNTHETIC, "--arrivals", "gamma", "--burstiness", 0),
            ["--burstiness: 0.0 is not in 0.001 to 1,000,000; correct it"],
        ),
        (
            (*SYNTHETIC, "--prompt", "fixed:2.5"),
            ["--prompt: length: 2.5 is not a whole number; correct it"],
        ),
        (
            (*SYNTHETIC, "--output", "exponential:0"),
            ["--output: mean: 0.0 is not in 1 to 10,000,000; correct it"],
        ),
        (
            (*SYNTHETIC, "--rate", 0),
            ["--rate: 0.0 is not in 1e-06 to 1,000,000,000; correct it"],
        ),
        (
            ("generate", "synthetic", "--output", "fixed:3"),
            [f"--{name}: missing; synthetic needs it" for name in ("rate", "prompt")],
        ),
        (
            ("generate", "foo", "--rate", 2),
            [
                "SOURCE: 'foo' is unknown; write one of azure-conv-like, "
                "mooncake-conversation-like, synthetic"
            ],
        ),
    ],
)
def test_options_that_generate_nothing(
    tmp_path: Path, arguments: tuple[object, ...], lines: list[str]
) -> None:
    result = run(*arguments, "--out", tmp_path / "t.csv")
    assert isinstance(result.exception, InputError)
    assert result.exception.lines == lines
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        (("inspect", "t", "--block-tokens", 10**23), "65536"),
        (("convert", "t", "o", "--to", "vidur", "--block-tokens", 65_537), "65536"),
        (("generate", "azure-conv-like", "--out", "o", "--requests", 10**8 + 1), "100000000"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[object, ...], bound: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert str(arguments[-2]) in result.output
    assert bound in result.output


def test_gamma_arrivals_take_the_burstiness(tmp_path: Path) -> None:
    made = []
    for name, options in (("a", ()), ("b", ("--burstiness", 1)), ("c", ("--burstiness", 0.1))):
        out = tmp_path / f"{name}.csv"
        assert run(*SYNTHETIC, "--arrivals", "gamma", *options, "--out", out).exit_code == 0
        made.append(out.read_bytes())
    assert made[0] == made[1] != made[2]


def test_a_picture_goes_where_a_link_leads_and_never_over_a_pipe(tmp_path: Path) -> None:
    path, link, pipe = tmp_path / "t.csv", tmp_path / "p.png", tmp_path / "pipe.png"
    path.write_text(VIDUR + "0,10,1\n1,10,1\n")
    link.symlink_to("real.png")
    os.mkfifo(pipe)
    assert run("inspect", path, "--picture", link).exit_code == 0
    assert link.is_symlink()
    assert (tmp_path / "real.png").read_bytes().startswith(b"\x89PNG")
    result = run("inspect", path, "--picture", pipe)
    assert str(result.exception) == f"{pipe}: not a regular file; name a file"
    assert pipe.is_fifo()
