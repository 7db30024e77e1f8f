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
from sim.trace.look.inspection import Inspection
from sim.trace.look.lengths import Lengths, Pairs
from sim.trace.look.picture import draw
from sim.trace.look.reuse import Reuse
from sim.trace.look.seen import Seen
from sim.trace.look.spread import Spread
from sim.trace.look.summary import summary as make_summary
from sim.trace.look.times import Gaps, Hours, Timeline, Windows
from sim.trace.ragged import Ragged
from sim.trace.read import read
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


def test_reuse_of_a_full_hit_saves_no_more_than_the_prompt() -> None:
    reuse = Reuse(512)
    reuse.add(Ragged.of([(0, 1), (0, 1), ()]), np.array([600, 600, 5]))
    assert reuse.saved_tokens == 600


def test_a_block_twice_in_its_first_request_is_no_hit() -> None:
    rows = [(5, 5), (7, 5, 7), (7,)]
    for cut in range(3):
        reuse = Reuse(1)
        reuse.add(Ragged.of(rows[:cut]), np.ones(cut, dtype=np.int64))
        reuse.add(Ragged.of(rows[cut:]), np.ones(3 - cut, dtype=np.int64))
        assert (reuse.blocks, reuse.distinct, reuse.misses) == (6, 2, 4)


def test_reuse_of_huge_ids_needs_no_huge_memory() -> None:
    reuse = Reuse(1)
    for _ in range(2):
        reuse.add(Ragged.of([(2**62, 5), (2**62 + 1,)]), np.array([2, 1]))
    assert (reuse.blocks, reuse.distinct) == (6, 3)


def test_seen_remembers_small_large_and_negative_ids() -> None:
    rng, seen, known = np.random.default_rng(0), Seen(), set[int]()
    for _ in range(30):
        ids = np.unique(rng.choice([-(2**50), 0, 2**26 - 20, 2**40], 40) + rng.integers(0, 40, 40))
        assert seen.has(ids).tolist() == [i in known for i in ids.tolist()]
        seen.add(ids[~seen.has(ids)])
        known |= set(ids.tolist())
    assert not seen.full


def test_too_many_large_ids_end_the_count_but_not_the_figures() -> None:
    inspection = Inspection(16)
    inspection.reuse._seen = Seen(sparse=100)
    ids = 2**40 + np.arange(400, dtype=np.int64)
    rows = Ragged(np.concatenate([ids, ids]), np.arange(0, 801, 2))
    times, tokens = np.arange(400.0), np.full(400, 32)
    for start in (0, 100):
        stop = 100 if start == 0 else 400
        part = slice(start, stop)
        inspection.add(Chunk(times[part], tokens[part], tokens[part], rows.part(start, stop)))
    assert not inspection.reuse.exact
    prefix = make_summary(inspection, Tally())["prefix"]
    assert prefix["infinite_cache_hit_rate"] == 0.5  # by the curve, which has all references
    assert prefix["distinct_blocks"] == 400
    assert prefix["saved_prompt_share"] == pytest.approx(0.5)
    notes = make_summary(inspection, Tally())["notes"]
    assert any("are estimates" in note for note in notes)


def test_the_spread_of_values_above_its_bound_is_within_a_bin() -> None:
    values = np.random.default_rng(0).lognormal(0.0, 2.0, 20_000)
    exact, binned = Spread(), Spread(exact=10)
    for part in np.array_split(values, 9):
        exact.add(part)
        binned.add(part)
    assert exact.exact
    assert not binned.exact
    ours, theirs = binned.summary(), exact.summary()
    assert ours == pytest.approx(theirs, rel=0.012)
    assert theirs is not None
    assert theirs["p90"] == pytest.approx(np.quantile(values, 0.9), rel=1e-3)
    assert Spread().summary() is None


def test_lengths_beyond_the_array_are_counted_too() -> None:
    values = np.array([1, 9_999_999, 2**18, 2**18 - 1, 2**18, 5])
    lengths = Lengths()
    for value in values:
        lengths.add(np.array([value]))
    assert lengths.cdf()[0].tolist() == [1, 5, 2**18 - 1, 2**18, 9_999_999]
    assert (lengths.total, lengths.count) == (values.sum(), 6)
    assert lengths.quantile(0.5) == np.quantile(values, 0.5)


def test_densities_hold_every_request_once() -> None:
    values = np.random.default_rng(0).geometric(0.001, 5000)
    lengths = Lengths()
    lengths.add(values)
    edges, counts = lengths.density()
    assert len(edges) == len(counts) + 1
    assert counts.tolist() == np.histogram(values, edges * (1 - 1e-12))[0].tolist()


@pytest.mark.parametrize("most", [100_000, 500])
def test_rank_correlation_is_scipys_and_its_sample_bounded(most: int) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    prompt = rng.geometric(0.05, 20_000)
    output = prompt // 3 + rng.geometric(0.05, 20_000)
    pairs = Pairs(most)
    for start in range(0, 20_000, 777):
        pairs.add(prompt[start : start + 777], output[start : start + 777])
    stride = pairs._stride
    assert 20_000 / stride <= most
    expected = spearmanr(prompt[::stride], output[::stride]).statistic
    assert pairs.spearman() == pytest.approx(expected, abs=1e-12)


def test_no_rank_correlation_where_nothing_varies() -> None:
    pairs = Pairs()
    assert pairs.spearman() is None
    pairs.add(np.array([1, 2, 3]), np.array([5, 5, 5]))
    assert pairs.spearman() is None


def test_hours_of_a_day_by_hand() -> None:
    hours = Hours()
    # two requests in hour 0 of the first day, one in hour 1 of the second
    hours.add(np.array([0.0, 10.0, 90_001.0]))
    assert hours.profile(80_000.0) is None
    found = hours.profile(93_600.0)  # a day and two hours
    assert found is not None
    mean = 3 / 93_600.0
    assert found[0] == pytest.approx(2 / 7200 / mean)
    assert found[1] == pytest.approx(1 / 7200 / mean)
    assert found[2:].sum() == 0


def test_traffic_that_stops_is_told_from_traffic_that_is_slow() -> None:
    rng = np.random.default_rng(0)
    ones = np.ones(3000, dtype=np.int64)
    slow = np.cumsum(rng.exponential(30.0, 3000))
    burst = np.cumsum(rng.exponential(0.2, 3000)) + 200.0 * (np.arange(3000) // 300)
    for times, expected in ((slow, False), (burst, True)):
        inspection = Inspection()
        inspection.add(Chunk(times, ones, ones))
        assert inspection.on_off == expected


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
    assert found["bad_rows"]["skipped"] == 1
    ((reason, count),) = found["bad_rows"]["reasons"].items()
    assert "prompt tokens" in reason
    assert count == 1
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
    assert found["prompt_output_spearman"] == pytest.approx(0.0727509, abs=5e-8)
    assert found["empty_windows_share"] == pytest.approx(
        {"1s": 0.010854, "10s": 0.0, "60s": 0.0}, abs=5e-7
    )
    assert not found["on_off_traffic"]
    assert found["notes"] == []


def test_real_mooncake_figures() -> None:
    found = summary(need(MOONCAKE))
    assert found["requests"] == 12_031
    assert found["prefix"]["blocks"] == 288_500
    assert found["prefix"]["distinct_blocks"] == 182_790
    assert f"{found['prefix']['infinite_cache_hit_rate']:.3f}" == "0.366"
    assert found["prefix"]["saved_prompt_share"] == pytest.approx(0.373624, abs=5e-7)
    assert found["duplicate_times_share"] == pytest.approx(0.90192, abs=5e-6)
    (note,) = (note for note in found["notes"] if "grid" in note)
    assert "grid of 3 s" in note
    lru = found["prefix"]["lru"]
    assert lru["method"] == "exact"
    rates = [lru["hit_rate_by_capacity_blocks"][size] for size in ("1000", "10000", "100000")]
    assert rates == pytest.approx([0.0445303, 0.211598, 0.363688], abs=5e-7)
    assert found["prefix"]["reuse_time_s"]["p50"] == pytest.approx(113.999)
    assert found["prefix"]["used_once_blocks_share"] == pytest.approx(0.758499, abs=5e-7)
    assert found["prefix"]["references_per_block"]["max"] == 12_031
    assert "36.64 %" in run("inspect", MOONCAKE).stdout


def test_a_grid_of_whole_seconds_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    times = np.sort(np.random.default_rng(0).integers(0, 50, 100))
    path.write_text(VIDUR + "".join(f"{t},5,5\n" for t in times))
    assert "grid of 1 s" in summary(path)["notes"][0]
    times = np.sort(np.random.default_rng(0).uniform(0, 50, 100))
    path.write_text(VIDUR + "".join(f"{t},5,5\n" for t in times))
    assert summary(path)["notes"] == []


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
        draw([("trace", inspection)], "title", tmp_path / name)
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in svg


def test_pictures_of_odd_traces(tmp_path: Path) -> None:
    for number, times in enumerate(([0.0] * 5, [0.0, 1.0, 2.0, 3.0], [0.0, 1e9])):
        inspection = Inspection()
        ones = np.ones(len(times), dtype=np.int64)
        inspection.add(Chunk(np.array(times), ones, ones))
        make_summary(inspection, Tally())
        draw([("trace", inspection)], "odd", tmp_path / f"{number}.png")
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
    assert result.stdout == f"{out}: 200 requests\n"
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
    result = run("convert", path, out, "--to", "vidur", "--on-error", "skip")
    assert result.stdout == f"{out}: 1 requests, 1 rows left out\n"
    assert f"{path}: 1 rows left out: 1 zero output tokens\n" in result.stderr
    assert f"{path}:3:6: num_decode_tokens: 0 tokens" in result.stderr


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
                f"--{name}: means nothing to azure-conv-like, which takes --diurnal, "
                "--start-hour; remove it"
                for name in ("rate", "arrivals", "prompt", "output")
            ],
        ),
        (
            ("generate", "azure-conv-like", "--burstiness", 1),
            [
                "--burstiness: means nothing to azure-conv-like, which takes --diurnal, "
                "--start-hour; remove it"
            ],
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
            [
                "--rate: missing; synthetic needs it: requests a second (agent-like: sessions), "
                "e.g. 6 /s",
                "--prompt: missing; synthetic needs it: lengths of prompts, e.g. 1024",
            ],
        ),
        (
            ("generate", "foo", "--rate", 2),
            [
                "NAME: 'foo' is unknown; write one of azure-conv-like, azure-code-like, "
                "mooncake-conversation-like, mooncake-synthetic-like, agent-like, reasoning-like, "
                "servegen, poisson, gamma, constant, on-off, synthetic"
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
