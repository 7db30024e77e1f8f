"""Generated traces: the contract of every workload, its knobs, and what it is shaped like."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sim.errors import InputError
from sim.trace.chunk import Chunk, Tally
from sim.trace.compare import compare
from sim.trace.generate import SOURCES, generate
from sim.trace.lengths import Length, knots_of
from sim.trace.lengths_text import parse_length
from sim.trace.look.inspection import Inspection
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.transforms.dither import Dither, dither
from sim.trace.workloads import agent, agent_session
from sim.trace.workloads.catalog import KNOBS, POPULATIONS, PROFILES, WORKLOADS
from sim.trace.workloads.diurnal import hourly
from sim.trace.workloads.knobs import Knobs

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
NEEDED: dict[str, Any] = {
    "rate_per_s": 2.0,
    "burstiness": 0.25,
    "on_s": 5.0,
    "off_s": 20.0,
    "prompt": Length("exponential", mean=300),
    "output": Length("uniform", low=3, high=9),
}
EXAMPLES = NEEDED | {
    "arrivals": "constant",
    "rank_correlation": 0.5,
    "diurnal": 0.5,
    "start_hour": 3.0,
    "clients": Path("clients.csv"),
    "population": "m-mid",
    "sub_agents": 0.5,
    "shared_prefix": True,
}
PLAIN = {name: NEEDED[name] for name in ("rate_per_s", "prompt", "output")}
WITH_IDS = {
    "mooncake-conversation-like": (512, "partial"),
    "mooncake-synthetic-like": (512, "partial"),
    "agent-like": (64, "full"),
}


def needed(source: str) -> dict[str, Any]:
    return {name: NEEDED[name] for name in WORKLOADS[source].needs}


def whole(source: str, n: int, seed: int = 0, **given: Any) -> Chunk:
    """The trace as one chunk."""
    chunks = list(generate(source, n, seed, **(needed(source) | given)))
    ids = [c.block_ids for c in chunks if c.block_ids is not None]
    links = [c.links for c in chunks if c.links is not None]
    joined = Chunk(
        np.concatenate([c.arrival_s for c in chunks]),
        np.concatenate([c.prompt_tokens for c in chunks]),
        np.concatenate([c.output_tokens for c in chunks]),
        Ragged.joined(ids) if ids else None,
    )
    if not links:
        return joined
    first = links[0]
    all_links = type(first)(
        [name for link in links for name in link.session],
        Ragged.joined([link.after for link in links]),
        np.concatenate([link.delay_s for link in links]),
        np.concatenate([link.recorded_s for link in links]),
    )
    return Chunk(
        joined.arrival_s, joined.prompt_tokens, joined.output_tokens, joined.block_ids, all_links
    )


def same(a: Chunk, b: Chunk) -> bool:
    """Whether both are the same requests, to the last bit."""

    def columns(chunk: Chunk) -> list[Any]:
        found: list[Any] = [chunk.arrival_s, chunk.prompt_tokens, chunk.output_tokens]
        for rows in (chunk.block_ids, chunk.links.after if chunk.links else None):
            if rows is not None:
                found += [rows.lengths, rows.values[rows.offsets[0] : rows.offsets[-1]]]
        if chunk.links is not None:
            found += [np.array(chunk.links.session), chunk.links.delay_s, chunk.links.recorded_s]
        return found

    pairs = zip(columns(a), columns(b), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def hits(chunk: Chunk) -> float:
    """Share of the blocks that an infinite cache has."""
    assert chunk.block_ids is not None
    return 1.0 - len(np.unique(chunk.block_ids.values)) / len(chunk.block_ids.values)


def inspect(chunk: Chunk, block_tokens: int = 512) -> Inspection:
    inspection = Inspection(block_tokens)
    inspection.add(chunk)
    return inspection


# the contract -------------------------------------------------------------------------------

# short and long: the first ends behind a boundary between what is drawn at once
SIZES: dict[str, tuple[int, int, dict[str, Any]]] = {
    source: (17_000, 20_000, {}) for source in SOURCES
} | {
    "agent-like": (1800, 2300, {}),
    "servegen": (17_000, 20_000, {"rate_per_s": 5.0}),
    "reasoning-like": (17_000, 36_000, {}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_seeds_prefixes_and_chunk_sizes(source: str) -> None:
    short, long, given = SIZES[source]
    ours, theirs = whole(source, short, 3, **given), whole(source, long, 3, **given)
    assert (len(ours), len(theirs)) == (short, long)
    assert same(ours, theirs.part(0, short))
    assert same(ours, whole(source, short, 3, **given))
    assert same(ours, whole(source, short, 3, chunk_rows=777, **given))
    other = whole(source, short, 4, **given)
    assert not np.array_equal(ours.prompt_tokens, other.prompt_tokens)
    if source != "constant":
        assert not np.array_equal(ours.arrival_s, other.arrival_s)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_traces_of_a_few_requests(source: str, n: int) -> None:
    tiny = whole(source, n, 3, **SIZES[source][2])
    assert same(tiny, whole(source, 40, 3, **SIZES[source][2]).part(0, n))
    assert tiny.arrival_s[0] == 0.0


@pytest.mark.parametrize("source", SOURCES)
def test_chunks_keep_the_contract(source: str) -> None:
    n, _, given = SIZES[source]
    tally = Tally()
    found = list(generate(source, n, 1, chunk_rows=1000, tally=tally, **needed(source) | given))
    assert sum(map(len, found)) == n
    assert max(map(len, found)) <= 1000
    for chunk in found:
        assert chunk.arrival_s.dtype == np.float64
        assert chunk.prompt_tokens.dtype == chunk.output_tokens.dtype == np.int64
        assert len(chunk.arrival_s) == len(chunk.prompt_tokens) == len(chunk.output_tokens)
        assert (chunk.block_ids is None) == (source not in WITH_IDS)
        assert (chunk.links is None) == (source != "agent-like")
    trace = whole(source, n, 1, **given)
    assert trace.arrival_s[0] == 0.0
    assert np.isfinite(trace.arrival_s).all()
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert min(trace.prompt_tokens.min(), trace.output_tokens.min()) >= 1
    if source not in WITH_IDS:
        assert tally.block_tokens is None
        return
    block_tokens, last = WITH_IDS[source]
    assert (tally.block_tokens, tally.last_block) == (block_tokens, last)
    ids = trace.block_ids
    assert ids is not None
    full = trace.prompt_tokens // block_tokens
    partial = trace.prompt_tokens % block_tokens > 0
    assert np.array_equal(ids.lengths, full + partial if last == "partial" else full)
    # dense from 0, in the order of their first appearance
    distinct, first = np.unique(ids.values, return_index=True)
    assert np.array_equal(distinct, np.arange(len(distinct)))
    assert (np.diff(first) > 0).all()


def test_agents_wait_for_turns_of_their_own_session() -> None:
    trace = whole("agent-like", 3000, 2, sub_agents=0.05)
    links = trace.links
    assert links is not None
    assert len(links.session) == len(links.after) == len(links.delay_s) == len(trace)
    heard, forks, joins = set(), 0, 0
    for at, (name, after, delay_s) in enumerate(
        zip(links.session, links.after, links.delay_s.tolist(), strict=True)
    ):
        assert name
        assert all(0 <= other < at for other in after)
        assert {links.session[other] for other in after} <= {name}
        # the first of a session waits for nobody, all others for somebody
        assert bool(after) == (name in heard)
        heard.add(name)
        if after:
            earliest = max(trace.arrival_s[other] for other in after) + delay_s
            assert trace.arrival_s[at] == pytest.approx(earliest, abs=1e-6)
        else:
            assert delay_s == 0.0
        joins += len(after) > 1
    waits = np.bincount(links.after.values, minlength=len(trace))
    forks = int((waits > 1).sum())
    assert forks > 20
    assert joins > 20
    assert (links.delay_s >= 0).all()
    assert (links.recorded_s >= trace.arrival_s - 1e-6).all()


@pytest.mark.parametrize(
    "source", ["mooncake-conversation-like", "mooncake-synthetic-like", "agent-like"]
)
def test_what_prompts_have_in_common_is_a_prefix(source: str) -> None:
    ids = whole(source, 500 if source == "agent-like" else 1500, 0).block_ids
    assert ids is not None
    seen: set[int] = set()
    parents: set[tuple[int, int]] = set()  # (id, the id before it)
    for row in ids:
        pairs = set(zip(row, (-1, *row), strict=False))
        fresh = [number for number in row if number not in seen]
        assert list(row[len(row) - len(fresh) :]) == fresh
        if source != "agent-like":  # an edit there cuts a prompt anywhere, a fork joins none
            assert {pair for pair in pairs if pair[0] in seen} <= parents
        parents |= pairs
        seen.update(row)


# what each is shaped like -------------------------------------------------------------------


def test_mooncake_like_reuse_is_near_that_of_the_trace() -> None:
    made = [whole("mooncake-conversation-like", 12_031, seed) for seed in range(3)]
    rates = [inspect(trace).reuse.hit_rate for trace in made]
    assert np.mean(rates) == pytest.approx(0.3664, abs=0.015)
    assert rates == pytest.approx([0.3664] * 3, abs=0.03)


def test_mooncake_synthetic_like_hit_rates_by_cache_size() -> None:
    curve = inspect(whole("mooncake-synthetic-like", 3993, 0)).curve()
    assert curve is not None
    found = [curve.hit_rate(blocks) for blocks in (1000, 10_000, 100_000)]
    assert found == pytest.approx([0.084, 0.424, 0.640], abs=0.05)


def test_azure_like_bursts_are_those_of_the_trace() -> None:
    inspection = inspect(whole("azure-conv-like", 19_366 * 3, 0))
    dispersion = inspection.dispersion()
    assert inspection.mean_rate_per_s == pytest.approx(5.53, rel=0.02)
    assert inspection.gaps.cv == pytest.approx(1.094, abs=0.02)
    assert dispersion[1.0] == pytest.approx(1.385, abs=0.08)
    assert dispersion[10.0] == pytest.approx(3.857, abs=0.4)
    assert dispersion[60.0] == pytest.approx(16.13, abs=2.5)
    assert not inspection.on_off


@pytest.mark.parametrize("seed", [0, 1])
def test_azure_code_like_stops_and_bursts(seed: int) -> None:
    inspection = inspect(whole("azure-code-like", 17_000, seed))
    dispersion, empty = inspection.dispersion(), inspection.empty_windows()
    assert inspection.on_off
    assert inspection.mean_rate_per_s == pytest.approx(2.566, rel=0.1)
    assert dispersion[1.0] == pytest.approx(13.19, rel=0.25)
    assert dispersion[10.0] == pytest.approx(71.6, rel=0.25)
    assert dispersion[60.0] == pytest.approx(164, rel=0.25)
    assert empty[1.0] == pytest.approx(0.734, abs=0.03)
    assert empty[10.0] == pytest.approx(0.563, abs=0.04)
    output = whole("azure-code-like", 17_000, seed).output_tokens
    assert np.percentile(output, [25, 50, 75, 99]) == pytest.approx([9, 13, 24, 251], rel=0.1)


def test_agents_find_96_percent_of_their_prompts_cached() -> None:
    # few sessions at once, so that most of them are seen to their end
    rates = [hits(whole("agent-like", 3000, seed, rate_per_s=0.002)) for seed in (1, 2)]
    assert np.mean(rates) == pytest.approx(0.96, abs=0.015)
    turns = [
        turn
        for session in agent.whole_sessions(0, 300, Knobs())
        for turn in session.turns
        if turn.context == agent_session.MAIN
    ]
    blocks = sum(turn.prompt // agent.BLOCK_TOKENS for turn in turns)
    assert sum(turn.keep for turn in turns) / blocks == pytest.approx(0.96, abs=0.01)
    assert np.percentile([turn.output for turn in turns], [50, 95]) == pytest.approx(
        [217, 1528], rel=0.15
    )


def test_reasoning_like_answers_are_long_and_of_two_kinds() -> None:
    output = whole("reasoning-like", 20_000).output_tokens
    assert output.mean() > 1000
    assert output.max() > 20_000
    assert np.percentile(output, 99) > 8000
    near_400, between, near_1300 = (
        ((low <= output) & (output < low + 200)).mean() for low in (350, 750, 1200)
    )
    assert min(near_400, near_1300) > 1.3 * between


def test_on_off_is_silent_in_off_periods() -> None:
    trace = whole("on-off", 40_000, rate_per_s=4.0, on_s=10.0, off_s=30.0)
    inspection = inspect(trace)
    assert inspection.on_off
    assert inspection.mean_rate_per_s == pytest.approx(4.0, rel=0.15)
    # within on periods 16 a second: a second is empty if it lies in an off period
    assert inspection.empty_windows()[1.0] == pytest.approx(0.75, abs=0.06)
    assert inspection.dispersion()[10.0] > 20
    longer = inspect(whole("on-off", 40_000, rate_per_s=4.0, on_s=10.0, off_s=90.0))
    assert longer.empty_windows()[1.0] > 0.83
    short = inspect(whole("on-off", 40_000, rate_per_s=4.0, on_s=10.0, off_s=1.0))
    assert short.empty_windows()[1.0] < 0.15


# rates and gaps -----------------------------------------------------------------------------


def gaps_of(source: str = "synthetic", n: int = 30_000, **given: Any) -> np.ndarray:
    return np.diff(whole(source, n, 5, **given).arrival_s)


def test_poisson_gamma_and_constant_gaps() -> None:
    for gaps in (gaps_of(), gaps_of("poisson"), gaps_of(arrivals="gamma", burstiness=1.0)):
        assert stats.kstest(gaps, "expon", args=(0, 0.5)).pvalue > 1e-3
    for bursty in (gaps_of(arrivals="gamma", burstiness=0.25), gaps_of("gamma")):
        assert stats.kstest(bursty, "gamma", args=(0.25, 0, 2.0)).pvalue > 1e-3
        assert stats.kstest(bursty, "expon", args=(0, 0.5)).pvalue < 1e-9
    for even in (gaps_of(arrivals="constant"), gaps_of("constant")):
        assert even == pytest.approx(0.5)


@pytest.mark.parametrize("source", ["poisson", "gamma", "servegen", "reasoning-like", "on-off"])
def test_the_rate_is_the_one_asked_for(source: str) -> None:
    # of servegen it is that of a whole day
    for rate in (0.1, 0.2) if source in ("servegen", "reasoning-like") else (1.0, 50.0):
        n = round(rate * 86_400) if rate < 1 else 30_000
        given = {"on_s": 0.2, "off_s": 0.5} if source == "on-off" else {}
        mean_s = gaps_of(source, n, rate_per_s=rate, **given).mean()
        assert 1 / mean_s == pytest.approx(rate, rel=0.1)


def test_burstiness_of_on_off_is_that_within_on_periods() -> None:
    smooth, bursty = (
        gaps_of("on-off", burstiness=shape, on_s=1e4, off_s=1e-3) for shape in (1.0, 0.1)
    )
    assert smooth.std() / smooth.mean() == pytest.approx(1.0, abs=0.05)
    assert bursty.std() / bursty.mean() == pytest.approx(10**0.5, rel=0.1)


def session_starts(**given: Any) -> np.ndarray:
    trace = whole("agent-like", 300, 5, **given)
    assert trace.links is not None
    return np.asarray(trace.arrival_s[trace.links.after.lengths == 0])


def test_sessions_of_agents_begin_by_the_process_asked_for() -> None:
    every_2_s = session_starts(rate_per_s=0.5, arrivals="constant")
    assert np.diff(every_2_s) == pytest.approx(2.0)
    usual, fast = session_starts(rate_per_s=0.05), session_starts(rate_per_s=50.0)
    assert len(fast) > 2 * len(usual)
    gaps = np.diff(session_starts(rate_per_s=50.0, arrivals="gamma", burstiness=0.05))
    assert gaps.std() / gaps.mean() > 2
    assert np.diff(fast).std() / np.diff(fast).mean() < 1.5


# the shape of a day -------------------------------------------------------------------------


def by_hour(trace: Chunk, start_hour: float = 0.0) -> np.ndarray:
    """Requests in each hour of the day relative to the mean, of whole days."""
    days = int(trace.arrival_s[-1] // 86_400)
    times = trace.arrival_s[trace.arrival_s < days * 86_400] / 3600 + start_hour
    found = np.bincount((times % 24).astype(int), minlength=24)
    return np.asarray(found / found.mean())


@pytest.mark.parametrize("diurnal", [*PROFILES, 0.8, [0.0] * 8 + [5.0] * 16])
def test_requests_follow_the_shape_of_the_day(diurnal: Any) -> None:
    given = {"rate_per_s": 0.25, "diurnal": diurnal}
    trace = whole("poisson", 70_000, **given)
    assert by_hour(trace) == pytest.approx(hourly(diurnal), abs=0.1)
    days = int(trace.arrival_s[-1] // 86_400)
    in_days = np.searchsorted(trace.arrival_s, days * 86_400.0)
    assert in_days / (days * 86_400) == pytest.approx(0.25, rel=0.02)
    later = whole("poisson", 70_000, start_hour=9.5, **given)
    assert by_hour(later, 9.5) == pytest.approx(hourly(diurnal), abs=0.1)
    plain = whole("poisson", 70_000, rate_per_s=0.25)
    assert np.array_equal(plain.prompt_tokens, trace.prompt_tokens)


def test_the_amplitude_is_that_of_a_cosine_with_its_peak_in_the_afternoon() -> None:
    rates = hourly(0.8)
    assert rates.mean() == pytest.approx(1.0)
    assert rates.argmax() in (14, 15)
    assert rates.max() / rates.min() == pytest.approx(9.0, rel=0.05)
    assert hourly(0.0) == pytest.approx(1.0)
    mine = [float(hour + 1) for hour in range(24)]
    assert hourly(mine) == pytest.approx(np.array(mine) / 12.5)


@pytest.mark.parametrize("source", [s for s in SOURCES if "diurnal" in WORKLOADS[s].knobs])
def test_a_day_shape_moves_requests_and_changes_none(source: str) -> None:
    night = [1.0] * 6 + [0.0] * 17 + [1.0]
    n = 300
    plain, moved = whole(source, n), whole(source, n, diurnal=night, start_hour=5.9)
    assert moved.arrival_s[0] == 0.0
    assert (np.diff(moved.arrival_s) >= 0).all()
    assert not np.array_equal(plain.arrival_s, moved.arrival_s)
    if source == "agent-like":
        assert moved.links is not None
        moved = moved.at(np.where(moved.links.after.lengths == 0, moved.arrival_s, 0.0))
    else:
        assert np.array_equal(plain.prompt_tokens, moved.prompt_tokens)
        assert np.array_equal(plain.output_tokens, moved.output_tokens)
    hours = (moved.arrival_s / 3600 + 5.9) % 24
    assert ((hours <= 6.0 + 1e-9) | (hours >= 23.0 - 1e-9)).all()


# lengths ------------------------------------------------------------------------------------


def drawn(length: Length, n: int = 30_000) -> np.ndarray:
    return whole("synthetic", n, 6, prompt=length).prompt_tokens


def test_lengths() -> None:
    assert set(drawn(Length("fixed", mean=7))) == {7}
    geometric = drawn(Length("exponential", mean=4))
    assert geometric.min() == 1
    assert geometric.mean() == pytest.approx(4, rel=0.03)
    assert np.mean(geometric == 1) == pytest.approx(0.25, abs=0.01)
    uniform = drawn(Length("uniform", low=2, high=4))
    assert [np.mean(uniform == k) for k in (2, 3, 4)] == pytest.approx([1 / 3] * 3, abs=0.015)
    logs = np.log(drawn(Length("lognormal", median=1000, sigma=0.5)))
    assert stats.kstest(logs, stats.norm(np.log(1000), 0.5).cdf).pvalue > 1e-3
    capped = drawn(Length("lognormal", median=1000, sigma=2, cap=1500))
    assert capped.max() == 1500
    assert capped.min() >= 1
    assert drawn(Length("lognormal", median=10**6, sigma=9)).max() == 10_000_000
    pareto = drawn(Length("pareto", low=100, alpha=1.5))
    assert pareto.min() == 100
    assert [(pareto >= x).mean() for x in (200, 1000)] == pytest.approx(
        [2**-1.5, 10**-1.5], abs=0.01
    )


def test_lengths_made_of_lengths() -> None:
    mixture = drawn(parse_length("p", "3*fixed:5+1*uniform:100:199"))
    assert (mixture == 5).mean() == pytest.approx(0.75, abs=0.01)
    assert set(mixture[mixture != 5]) <= set(range(100, 200))
    tail = drawn(parse_length("p", "fixed:50,tail=0.1:1"))
    assert (tail > 50).mean() == pytest.approx(0.1, abs=0.01)
    assert (tail >= 500).mean() == pytest.approx(0.01, abs=0.004)
    within = drawn(parse_length("p", "lognormal:300:2,within=100:200"))
    assert (within.min(), within.max()) == (100, 200)
    both = drawn(parse_length("p", "0.5*pareto:10:1,cap=40+0.5*lognormal:9:1,within=2:5"))
    assert both.max() == 40
    assert (both <= 5).mean() == pytest.approx(0.5, abs=0.01)
    assert (both == 40).mean() == pytest.approx(0.125, abs=0.01)
    knots = drawn(knots_of([(10, 0.0), (20, 0.9), (31, 1.0)]))
    assert (knots.min(), knots.max()) == (10, 30)
    assert (knots < 20).mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "tokens,weight\n7,3\n 90 ,1e0\n7,3\n"),
        ("t.csv", "\ufeffTokens\n" + "7\n" * 6 + "90.0\n"),
        ("t.json", '{"7": 6, "90": "1"}'),
    ],
)
def test_lengths_of_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = drawn(parse_length("p", f"table:{tmp_path / name}"))
    assert set(found) == {7, 90}
    assert (found == 7).mean() == pytest.approx(6 / 7, abs=0.01)
    assert set(drawn(parse_length("p", f"table:{tmp_path / name},cap=50"))) == {7, 50}
    mixed = drawn(parse_length("p", f"1*table:{tmp_path / name}+1*fixed:3"))
    assert (mixed == 3).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("tokens,weight\n", "no length with a weight above 0"),
        ("tokens,weight\n5,0\n", "no length with a weight above 0"),
        ("tokens,weight\n5,-1\n", ":2: weight: '-1' is no weight"),
        ("tokens,weight\n5,nan\n", ":2: weight: 'nan' is no weight"),
        ("tokens,weight\n5\n", ":2: 1 cells, 2 columns"),
        ("tokens\nabc\n", ":2: tokens: 'abc' is no number of tokens"),
        ("tokens\n5.5\n", ":2: tokens: '5.5' is no number of tokens"),
        ("tokens\ninf\n", ":2: tokens: 'inf' is no number of tokens"),
        ("tokens\n0\n", ":2: tokens: '0' is no number of tokens"),
        ("tokens\n" + "9" * 5000, ":2: tokens: '999"),
        ("tokens\n5\0\n", ":2: "),
        ("length\n5\n", ":1: the columns are 'length'"),
        ('{"5": 1', "not JSON"),
        ('{"5": NaN}', "weight: nan is no weight"),
        ('{"5": 1' + "0" * 400 + "}", "is no weight"),
        ('{"5": true}', "weight: True is no weight"),
        ('{"5": [1]}', "weight: [1] is no weight"),
        ('{"5": ' + "[" * 100_000, "not JSON"),
        ('{"x": 1}', "tokens: 'x' is no number of tokens"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        parse_length("--prompt", f"table:{path}")
    (line,) = caught.value.lines
    assert line.startswith(str(path))
    assert expected in line
    assert len(line) < 400


def test_files_of_lengths_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"tokens\n5\xff\n")
    for name, expected in (("latin", "not UTF-8"), ("none", "no such file"), (".", "directory")):
        with pytest.raises(InputError, match=expected):
            parse_length("--prompt", f"table:{tmp_path / name}")


def test_lengths_as_text() -> None:
    assert parse_length("--prompt", "fixed:5") == Length("fixed", mean=5)
    lognormal = Length("lognormal", median=300, sigma=0.8)
    assert parse_length("--prompt", "lognormal:300:0.8") == lognormal
    assert parse_length("--prompt", "pareto:30:1.2,cap=90") == Length(
        "pareto", low=30, alpha=1.2, cap=90
    )
    mixed = parse_length("--prompt", "0.7*lognormal:300:0.8+.3*fixed:20")
    assert mixed.parts == ((0.7, lognormal), (0.3, Length("fixed", mean=20)))


@pytest.mark.parametrize(
    "text",
    [
        *("fixed", "fixed:5:6", "gauss:5", "uniform:a:b", "", "fixed:nan", "fixed:inf", "table"),
        *("fixed:2.5", "uniform:1.5:3", "uniform:1:2.5", "fixed:0", "exponential:1e8", ":", "+"),
        *("pareto:5:0.01", "pareto:0:1", "lognormal:300:nan", "lognormal:300:11", "uniform:5:4"),
        *("fixed:5,cap=0", "fixed:5,cap=nan", "fixed:5,cap=", "fixed:5,tail=0:1", "fixed:5,x=1"),
        *("fixed:5,within=7:9", "fixed:5,within=9:7", "fixed:5,within=1:2:3", "fixed:5,kind=1"),
        *("fixed:5,cap=3,cap=4", "fixed:5,tail=2:1", "fixed:5,tail=0.1:nan", "fixed:1e400"),
        *("0*fixed:3", "1e999*fixed:3", "e*fixed:3", "1*1*fixed:3", "1*fixed:3+fixed:4"),
        "+".join(["1*fixed:3"] * 33),
    ],
)
def test_texts_that_are_no_length(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_length("--prompt", text)
    (line,) = caught.value.lines
    assert line.startswith("--prompt: ")
    assert len(line) < 400


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.3, 0.9])
def test_rank_correlation_leaves_the_lengths_themselves(correlation: float) -> None:
    law = Length("lognormal", median=500, sigma=1)
    given: dict[str, Any] = {"prompt": law, "output": law}
    trace = whole("poisson", 20_000, rank_correlation=correlation, **given)
    plain = whole("poisson", 20_000, **given)
    for name in ("prompt_tokens", "output_tokens"):
        assert stats.ks_2samp(getattr(trace, name), getattr(plain, name)).statistic < 0.02
    found = stats.spearmanr(trace.prompt_tokens, trace.output_tokens).statistic
    assert found == pytest.approx(correlation, abs=0.02)
    assert stats.spearmanr(plain.prompt_tokens, plain.output_tokens).statistic == pytest.approx(
        0, abs=0.03
    )


# knobs of single workloads ------------------------------------------------------------------


def test_sub_agents() -> None:
    alone, some, many = (
        whole("agent-like", 1500, 1, sub_agents=share).links for share in (0.0, 0.05, 1.0)
    )
    assert alone is not None
    assert some is not None
    assert many is not None
    assert alone.after.lengths.max() == 1  # no joins, and no forks:
    assert np.bincount(alone.after.values).max() == 1
    joins = [(links.after.lengths > 1).sum() for links in (some, many)]
    assert 0 < joins[0] < joins[1]
    assert many.after.lengths.max() <= 4


def test_a_shared_prefix_is_shared_by_all_sessions() -> None:
    own, shared = (whole("agent-like", 500, 1, shared_prefix=share) for share in (False, True))
    assert np.array_equal(own.prompt_tokens, shared.prompt_tokens)
    assert hits(shared) > hits(own)
    for trace, expected in ((own, False), (shared, True)):
        assert trace.links is not None
        assert trace.block_ids is not None
        starts = np.flatnonzero(trace.links.after.lengths == 0)
        held = [*trace.block_ids]
        rows = [held[at] for at in starts[:8]]
        assert ({row[:40] for row in rows} == {rows[0][:40]}) is expected
        assert len({row[-1] for row in rows}) == len(rows)


def test_populations_have_lengths_and_rates_of_their_own() -> None:
    found = {name: whole("servegen", 5000, population=name) for name in POPULATIONS}
    medians = {name: float(np.median(trace.prompt_tokens)) for name, trace in found.items()}
    assert len(set(medians.values())) == len(POPULATIONS)
    assert same(found["m-large"], whole("servegen", 5000))
    reasoning = whole("reasoning-like", 5000)
    assert same(found["deepseek-r1"], reasoning)


def test_servegen_takes_lengths_instead_of_its_own() -> None:
    prompt, output = Length("fixed", mean=7), Length("uniform", low=2, high=3)
    trace = whole("servegen", 3000, prompt=prompt, output=output)
    assert set(trace.prompt_tokens) == {7}
    assert set(trace.output_tokens) == {2, 3}
    assert np.array_equal(trace.arrival_s, whole("servegen", 3000).arrival_s)


def test_servegen_starts_at_the_hour_asked_for() -> None:
    at_2, at_12 = (whole("reasoning-like", 5000, start_hour=hour) for hour in (2.0, 12.0))
    # by the hour 2.03 and 0.45 of the mean rate
    assert 2.5 < at_12.arrival_s[-1] / at_2.arrival_s[-1] < 6


# what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_knobs_that_mean_nothing_or_lack(source: str) -> None:
    workload = WORKLOADS[source]
    for name in KNOBS:
        if name in workload.knobs:
            continue
        with pytest.raises(InputError) as caught:
            generate(source, 5, 0, **needed(source) | {name: EXAMPLES[name]})
        (line,) = caught.value.lines
        assert line.startswith(f"{name}: means nothing to {source}, which takes ")
    for name in workload.needs:
        given = needed(source)
        del given[name]
        with pytest.raises(InputError) as caught:
            generate(source, 5, 0, **given)
        (line,) = caught.value.lines
        assert line.startswith(f"{name}: missing; {source} needs it")


def test_every_knob_is_taken_by_a_workload_and_has_an_example_here() -> None:
    assert {name for workload in WORKLOADS.values() for name in workload.knobs} == {*KNOBS}
    assert {*EXAMPLES} == {*KNOBS}
    assert (*WORKLOADS,) == SOURCES


@pytest.mark.parametrize(
    ("source", "changes", "expected"),
    [
        ("azure", {}, "source: 'azure' is unknown; write one of azure-conv-like"),
        ("synthetic", {"rate_per_s": 0.0}, "rate_per_s: 0.0 is not in"),
        ("synthetic", {"rate_per_s": float("nan")}, "rate_per_s: nan is not in"),
        ("synthetic", {"rate_per_s": float("inf")}, "rate_per_s: inf is not in"),
        ("synthetic", {"arrivals": "weibull"}, "arrivals: 'weibull' is unknown"),
        ("synthetic", {"arrivals": "gamma", "burstiness": 0.0}, "burstiness: 0.0 is not in"),
        ("gamma", {"burstiness": -1.0}, "burstiness: -1.0 is not in"),
        ("on-off", {"burstiness": 1e9}, "burstiness: 1000000000.0 is not in"),
        ("on-off", {"on_s": 0.0}, "on_s: 0.0 is not in"),
        ("on-off", {"off_s": float("nan")}, "off_s: nan is not in"),
        ("on-off", {"on_s": 1e-3, "off_s": 1e-3, "rate_per_s": 0.1}, "make them longer"),
        ("poisson", {"rank_correlation": 1.1}, "rank_correlation: 1.1 is not in -1 to 1"),
        ("poisson", {"rank_correlation": float("nan")}, "rank_correlation: nan is not in"),
        ("poisson", {"diurnal": "mars"}, "diurnal: 'mars' is unknown; write one of servegen-m-"),
        ("poisson", {"diurnal": 1.5}, "diurnal: an amplitude of 1.5 is not in 0 to 1"),
        ("poisson", {"diurnal": float("nan")}, "diurnal: an amplitude of nan is not in"),
        ("poisson", {"diurnal": [1.0] * 23}, "diurnal: 23 numbers; write 24"),
        ("poisson", {"diurnal": [0.0] * 24}, "diurnal: a rate that is negative or not finite"),
        ("poisson", {"diurnal": [-1.0] + [1.0] * 23}, "diurnal: a rate that is negative"),
        ("poisson", {"diurnal": [float("inf")] * 24}, "diurnal: a rate that is negative"),
        ("poisson", {"diurnal": 0.5, "start_hour": 24.0}, "start_hour: 24.0 is not in 0 to"),
        ("poisson", {"diurnal": 0.5, "start_hour": -1.0}, "start_hour: -1.0 is not in 0 to"),
        ("poisson", {"start_hour": 3.0}, "start_hour: means nothing without diurnal"),
        ("agent-like", {"rate_per_s": 0.0}, "rate_per_s: 0.0 is not in"),
        ("agent-like", {"sub_agents": 1.1}, "sub_agents: 1.1 is not in 0 to 1"),
        ("agent-like", {"sub_agents": float("nan")}, "sub_agents: nan is not in"),
        ("agent-like", {"burstiness": 0.5}, "burstiness: only with arrivals: gamma"),
        ("agent-like", {"arrivals": "foo"}, "arrivals: 'foo' is unknown"),
        ("servegen", {"population": "gpt"}, "population: 'gpt' is unknown; write one of m-large"),
        ("servegen", {"rate_per_s": -1.0}, "rate_per_s: -1.0 is not in"),
        ("servegen", {"rate_per_s": 1e8}, "requests in ten minutes, 20,000,000 is the most"),
        ("servegen", {"start_hour": 24.0}, "start_hour: 24.0 is not in 0 to below 24"),
        ("servegen", {"start_hour": float("nan")}, "start_hour: nan is not in 0 to below 24"),
        ("servegen", {"prompt": NEEDED["prompt"]}, "prompt: means nothing without output"),
        (
            "servegen",
            {"clients": Path("x"), "population": "m-mid"},
            "population: means nothing beside clients; remove one",
        ),
        ("synthetic", {"prompt": Length("fixed", mean=0.5)}, "prompt: length: 0.5 is not in"),
        ("synthetic", {"output": Length("uniform", low=5, high=4)}, "largest length: 4 is not in"),
        ("synthetic", {"output": Length("zipf")}, "output: 'zipf' is no kind of length"),  # type: ignore[arg-type]
        ("synthetic", {"output": Length("fixed", mean=5, cap=0)}, "output: cap: 0 is not in"),
        ("synthetic", {"output": Length("table")}, "output: a table has either atoms or knots"),
        (
            "synthetic",
            {"output": Length("table", atoms=((5, 0.0),))},
            "output: all weights are 0",
        ),
        (
            "synthetic",
            {"output": knots_of([(5, 0.0), (4, 1.0)])},
            "output: the knots do not ascend",
        ),
        ("synthetic", {"prompt": Length("fixed", mean=2.5)}, "prompt: length: 2.5 is not a whole"),
        ("synthetic", {"prompt": Length("fixed", mean=1e8)}, "is not in 1 to 10,000,000"),
        ("synthetic", {"requests": 0}, "requests: 0 is not in 1 to 100,000,000"),
        ("synthetic", {"requests": 10**8 + 1}, "requests: 100000001 is not in 1 to 100,000,000"),
        ("synthetic", {"seed": -1}, "seed: -1 is negative"),
    ],
)
def test_arguments_that_make_no_trace(source: str, changes: dict[str, Any], expected: str) -> None:
    given = (needed(source) if source in WORKLOADS else {}) | changes
    requests, seed = given.pop("requests", 5), given.pop("seed", 0)
    with pytest.raises(InputError) as caught:
        list(generate(source, requests, seed, **given))
    (line,) = caught.value.lines
    assert expected in line


def test_a_trace_that_lasts_too_long_is_refused() -> None:
    slow = {"rate_per_s": 1e-6, "arrivals": "constant"}
    assert len(list(generate("synthetic", 1000, 0, **(PLAIN | slow)))) == 1
    with pytest.raises(
        InputError, match=r"after more than 1,000,000,000 s \(31 years\); ask for fewer"
    ):
        list(generate("synthetic", 1002, 0, **(PLAIN | slow)))


@pytest.mark.parametrize("seed", [2**64, 10**40])
def test_large_seeds_are_seeds(seed: int) -> None:
    assert not same(whole("poisson", 5, seed), whole("poisson", 5, 0))


# the real files -----------------------------------------------------------------------------


@lru_cache(maxsize=2)
def real(name: str, step_s: float | None) -> Inspection:
    path = next(iter(sorted(TRACES.rglob(name))), None)
    if path is None:
        pytest.skip(f"{name} is not under {TRACES}")
    chunks = read(path)
    if step_s is not None:
        chunks = dither(chunks, Dither(step_s), 0, Tally())
    inspection = Inspection()
    for chunk in chunks:
        inspection.add(chunk)
    return inspection


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("source", "name", "step_s"),
    [
        ("azure-conv-like", "AzureLLMInferenceTrace_conv.csv", None),
        ("mooncake-conversation-like", "conversation_trace.jsonl", 3.0),
    ],
)
def test_distances_to_the_real_traces(
    source: str, name: str, step_s: float | None, seed: int
) -> None:
    theirs = real(name, step_s)
    rows = compare(theirs, inspect(whole(source, theirs.requests, seed)))["rows"]
    assert rows["prompt_tokens"]["difference"] < 0.02
    assert rows["output_tokens"]["difference"] < 0.02
    assert rows["inter_arrival_s"]["difference"] < 0.03
    outside = {key for key, row in rows.items() if row["within"] is False}
    assert not outside
