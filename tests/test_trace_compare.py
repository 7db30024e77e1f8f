"""Comparison of two traces: distances, bars and verdicts, and the command on two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.chunk import Chunk
from sim.trace.compare import KS_BAR, KS_BAR_ON_OFF, compare, ks_distance
from sim.trace.look.inspection import Inspection
from sim.trace.look.lengths import Lengths
from sim.trace.look.spread import Spread
from sim.trace.look.times import Gaps
from sim.trace.ragged import Ragged

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
AZURE_CONV = TRACES / "azure-2023" / "AzureLLMInferenceTrace_conv.csv"
MOONCAKE = TRACES / "mooncake-fast25" / "conversation_trace.jsonl"

VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def made(
    seed: int = 0,
    requests: int = 4000,
    *,
    gap_s: float = 0.5,
    prompt: float = 300.0,
    burst: int = 1,
    fresh: float | None = None,
) -> Inspection:
    """A trace of Poisson arrivals, *burst* at a time; *fresh* is the share of new blocks."""
    rng = np.random.default_rng(seed)
    times = np.repeat(np.cumsum(rng.exponential(gap_s * burst, requests // burst)), burst)
    ids = None
    if fresh is not None:
        known = rng.integers(0, 1000, 4 * requests)
        new = rng.random(4 * requests) < fresh
        values = np.where(new, 1000 + np.arange(4 * requests), known)
        ids = Ragged(values, np.arange(0, 4 * requests + 1, 4))
    inspection = Inspection()
    inspection.add(
        Chunk(
            times - times[0],
            1 + rng.exponential(prompt, len(times)).astype(np.int64),
            1 + rng.exponential(100.0, len(times)).astype(np.int64),
            ids,
        )
    )
    return inspection


def judged(found: dict[str, Any]) -> dict[str, bool]:
    rows = found["rows"].items()
    return {key: row["within"] for key, row in rows if row["within"] is not None}


# distances ----------------------------------------------------------------------------------


@given(
    a=st.lists(st.integers(0, 20), min_size=1, max_size=40),
    b=st.lists(st.integers(0, 20), min_size=1, max_size=40),
)
def test_the_distance_of_lengths_is_that_of_their_shares(a: list[int], b: list[int]) -> None:
    sides = []
    for values in (a, b):
        lengths = Lengths()
        lengths.add(np.array(values))
        sides.append(lengths.cdf())
    below = [[sum(x <= at for x in values) / len(values) for at in range(21)] for values in (a, b)]
    expected = max(abs(x - y) for x, y in zip(*below, strict=True))
    assert ks_distance(sides[0], sides[1]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("exact", [10_000, 10])
def test_the_distance_of_gaps_is_scipys(exact: int) -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    a, b = rng.exponential(1.0, 3000), rng.exponential(1.2, 2000)
    sides = []
    for values, limit in ((a, 10_000), (b, exact)):
        spread = Spread(limit)
        spread.add(values)
        sides.append(spread.sorted())
    distance = ks_distance(sides[0], sides[1])
    # of binned gaps each value is off by 0.6 % at most, and the exponential's share by 0.3 %
    assert distance == pytest.approx(
        ks_2samp(a, b).statistic, abs=1e-12 if exact == 10_000 else 0.006
    )


# verdicts -----------------------------------------------------------------------------------


def test_a_trace_against_itself_is_within_everything() -> None:
    found = compare(made(fresh=0.5), made(fresh=0.5))
    assert found["within"]
    assert all(judged(found).values())
    lengths = {"prompt_tokens", "output_tokens"}
    arrivals = {"inter_arrival_s", *(f"index_of_dispersion_{n}s" for n in (1, 10, 60))}
    reuse = {f"lru_hit_rate_{n}_blocks" for n in (1000, 10_000, 100_000)}
    assert set(judged(found)) == lengths | arrivals | reuse
    assert all(not row["difference"] for row in found["rows"].values())
    assert found["rows"]["prompt_tokens"]["verdict"] == "within 0.05"
    assert found["rows"]["index_of_dispersion_1s"]["verdict"] == "within 25 %"
    assert found["rows"]["lru_hit_rate_1000_blocks"]["verdict"] == "within 3 points"


@pytest.mark.parametrize(
    ("other", "beyond"),
    [
        ({"prompt": 400.0}, {"prompt_tokens"}),
        ({"gap_s": 0.7}, {"inter_arrival_s"}),
        ({"fresh": 0.6}, {f"lru_hit_rate_{n}_blocks" for n in (1000, 10_000, 100_000)}),
        (
            {"burst": 4},
            {"inter_arrival_s", *(f"index_of_dispersion_{n}s" for n in (1, 10, 60))},
        ),
    ],
)
def test_each_difference_is_told_by_its_own_rows(other: dict[str, Any], beyond: set[str]) -> None:
    found = compare(
        made(fresh=0.5, requests=20_000), made(**{"fresh": 0.5, "requests": 20_000} | other)
    )
    assert {key for key, within in judged(found).items() if not within} == beyond
    assert not found["within"]
    for key in beyond:
        assert found["rows"][key]["verdict"].startswith("beyond")


def test_gaps_of_traffic_that_stops_have_a_wider_bar() -> None:
    a, b = made(), made(gap_s=0.6)
    distance = compare(a, b)["rows"]["inter_arrival_s"]["difference"]
    assert KS_BAR < distance < KS_BAR_ON_OFF
    assert compare(a, b, on_off=False)["rows"]["inter_arrival_s"]["within"] is False
    found = compare(a, b, on_off=True)
    assert found["on_off"]
    assert found["rows"]["inter_arrival_s"]["within"] is True
    assert found["rows"]["prompt_tokens"]["bar"] == KS_BAR


def test_what_only_one_trace_has_is_said_and_not_judged() -> None:
    found = compare(made(fresh=0.5), made())
    row = found["rows"]["lru_hit_rate_1000_blocks"]
    assert row["within"] is row["difference"] is row["b"] is None
    assert row["verdict"] == "only in A"
    assert found["within"]
    assert (
        compare(made(), made(fresh=0.5))["rows"]["lru_hit_rate_infinite"]["verdict"] == "only in B"
    )
    assert not any(key.startswith("lru") for key in compare(made(), made())["rows"])


def test_blocks_of_different_sizes_are_noted() -> None:
    a, b = made(fresh=0.5), made(fresh=0.5)
    assert compare(a, b)["notes"] == []
    b.reuse.block_tokens = 16
    (note,) = compare(a, b)["notes"]
    assert note.startswith("a block is 512 tokens in A and 16 in B")


def test_binned_gaps_are_noted() -> None:
    binned = made()
    binned.gaps = Gaps(exact=10)
    binned.gaps.add(np.arange(100.0))
    assert compare(made(), binned)["notes"] == [
        "gaps of B are binned, 1.2 % wide each, for their distribution"
    ]


def test_a_trace_of_one_request_compares() -> None:
    one = Inspection()
    one.add(Chunk(np.zeros(1), np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64)))
    rows = compare(one, made())["rows"]
    assert rows["inter_arrival_s"]["verdict"] == "only in B"
    assert rows["mean_rate_per_s"]["a"] is None
    assert compare(one, one)["rows"]["index_of_dispersion_1s"]["verdict"] == "in neither"


# the command --------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["inspect", *(str(argument) for argument in arguments)])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    paths = (tmp_path / "a.csv", tmp_path / "b.csv")
    for path, scale in zip(paths, (1.0, 2.0), strict=True):
        times = np.cumsum(rng.exponential(scale, 300))
        path.write_text(VIDUR + "".join(f"{t},{10 + i % 7},5\n" for i, t in enumerate(times)))
    return paths


def test_two_files_side_by_side(files: tuple[Path, Path]) -> None:
    result = run(*files)
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii()
    assert "within 0.05" in result.stdout
    assert "beyond 0.05" in result.stdout
    found = json.loads(run(*files, "--json").stdout)
    assert set(found) == {"a", "b", "comparison"}
    assert found["a"]["requests"] == found["b"]["requests"] == 300
    row = found["comparison"]["rows"]["inter_arrival_s"]
    assert row["measure"] == "ks"
    assert row["within"] is False
    assert found["comparison"]["rows"]["prompt_tokens"]["difference"] == 0.0


def test_bad_rows_and_notes_of_each_side_are_named(files: tuple[Path, Path]) -> None:
    with files[1].open("a") as file:
        file.write("nonsense,1,2\n")
    out = run(*files).stdout
    assert "rows left out of B" in out
    assert "rows left out of A" not in out
    assert f"{files[1].name}:302" in out


def test_each_side_may_have_its_own_format(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "b.jsonl"
    other.write_text('{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [0]}\n')
    result = run(files[0], other, "--format", "vidur", "--other-format", "mooncake", "--json")
    found = json.loads(result.stdout)
    assert [found[side]["format"] for side in "ab"] == ["vidur", "mooncake"]
    result = run(files[0], other, "--format", "vidur")
    assert isinstance(result.exception, InputError)


def test_dithering_takes_a_grid_off(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 900, 3000))
    paths = (tmp_path / "grid.csv", tmp_path / "free.csv")
    for path, written in zip(paths, (times // 3 * 3, times), strict=True):
        path.write_text(VIDUR + "".join(f"{t},9,5\n" for t in written))
    for option, within in (((), False), (("--dither", "auto"), True), (("--dither", "3"), False)):
        rows = json.loads(run(*paths, *option, "--json").stdout)["comparison"]["rows"]
        # 3 s spread the free times out as well, which is asked for, but no good
        keys = ("inter_arrival_s", "index_of_dispersion_1s")
        if option != ("--dither", "3"):
            assert [rows[key]["within"] for key in keys] == [within, within]
    found = json.loads(run(paths[0], "--dither", "3", "--json").stdout)
    assert found["inter_arrival_cv"] == pytest.approx(1.0, abs=0.05)
    assert any(note.startswith("dither") for note in found["notes"])


@pytest.mark.parametrize("step", ["0", "-1", "nan", "inf", "x", "1e10"])
def test_no_step_to_dither_by(files: tuple[Path, Path], step: str) -> None:
    result = run(files[0], "--dither", step)
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith(f"--dither: '{step}' is no step")


def test_real_files_against_each_other() -> None:
    for path in (AZURE_CONV, MOONCAKE):
        if not path.exists():
            pytest.skip(f"{path.name} is not in {path.parent}")
    result = run(MOONCAKE, AZURE_CONV, "--json", "--dither", "auto")
    rows = json.loads(result.stdout)["comparison"]["rows"]
    assert rows["index_of_dispersion_60s"]["b"] == pytest.approx(16.1283, rel=1e-5)
    assert rows["lru_hit_rate_10000_blocks"]["a"] == pytest.approx(0.211598, abs=5e-7)
    assert rows["prompt_tokens"]["difference"] == pytest.approx(0.6545, abs=5e-5)
