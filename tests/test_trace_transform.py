"""Changing traces: each change does what it says, alike for any size of chunks, and says so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cli import main
from sim.errors import InputError
from sim.trace.chunk import Chunk, Links, Tally
from sim.trace.generate import generate
from sim.trace.ragged import Ragged
from sim.trace.read import read
from sim.trace.transforms import (
    Clip,
    Dither,
    Replica,
    Source,
    Steps,
    clip_prompt,
    dither,
    limit,
    merge,
    rate_scale,
    replica,
    thin,
    time_scale,
    window,
)
from sim.trace.transforms.dither import grid_s
from sim.trace.transforms.held import components, joined
from sim.trace.transforms.record import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


def trace(times: Sequence[float], **columns: Any) -> Chunk:
    """Requests at *times*; the prompt of number i has 100 + i tokens, the output 10 + i."""
    n = len(times)
    return Chunk(
        np.array(times, dtype=np.float64),
        np.array(columns.get("prompt", np.arange(100, 100 + n)), dtype=np.int64),
        np.array(columns.get("output", np.arange(10, 10 + n)), dtype=np.int64),
        Ragged.of(columns["ids"]) if "ids" in columns else None,
        columns.get("links"),
    )


def links(*rows: tuple[str, tuple[int, ...], float]) -> Links:
    """Links of (session, after, delay) rows; recorded 100 s after an unknown time each."""
    return Links(
        [row[0] for row in rows],
        Ragged.of(row[1] for row in rows),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.full(len(rows), 100.0),
    )


def two_sessions() -> Chunk:
    """A: 0, then 2 s later, then 3 s; B: begins at 4, then 1 s; a request alone at 6."""
    rows = [("A", (), 0), ("A", (0,), 2), ("B", (), 0), ("A", (1,), 3), ("B", (2,), 1), ("", (), 0)]
    return trace([0, 2, 4, 5, 5, 6], links=links(*rows))


def whole(chunks: Iterator[Chunk]) -> Chunk:
    parts = list(chunks)
    assert all(len(part) for part in parts)
    return joined(parts)


def rows_of(chunk: Chunk) -> list[tuple[Any, ...]]:
    none = [()] * len(chunk)
    own = chunk.links
    return list(
        zip(
            chunk.arrival_s.tolist(), chunk.prompt_tokens.tolist(), chunk.output_tokens.tolist(),
            none if chunk.block_ids is None else chunk.block_ids,
            none if own is None else own.session, none if own is None else own.after,
            none if own is None else own.delay_s.tolist(), strict=True,
        )
    )  # fmt: skip


def valid(chunk: Chunk) -> None:
    assert (np.diff(chunk.arrival_s) >= 0).all()
    assert (chunk.prompt_tokens >= 1).all()
    assert (chunk.output_tokens >= 1).all()
    if chunk.links is None:
        return
    for position, after in enumerate(chunk.links.after):
        assert all(0 <= other < position for other in after)
    waits = chunk.links.after.lengths > 0
    assert (chunk.links.delay_s[~waits] == 0).all()
    nominal = [
        max((chunk.arrival_s[other] for other in after), default=0.0) + delay
        for after, delay in zip(chunk.links.after, chunk.links.delay_s, strict=True)
    ]
    assert (chunk.arrival_s >= np.array(nominal) - 1e-6).all()


@st.composite
def traces(draw: st.DrawFn, linked: bool | None = None) -> Chunk:
    """Any small trace: on a grid or not, with ids or not, with links or not."""
    n = draw(st.integers(1, 24))
    seed = draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    step = draw(st.sampled_from([1.0, 3.0, 0.01]))
    times = np.sort(random.integers(0, 12, n) * step)
    times -= times[0]
    prompt = random.integers(1, 90, n)
    columns: dict[str, Any] = {"prompt": prompt, "output": random.integers(1, 60, n)}
    if draw(st.booleans()):
        columns["ids"] = [random.integers(0, 40, -(-p // 16)).tolist() for p in prompt.tolist()]
    if draw(st.booleans()) if linked is None else linked:
        rows: list[tuple[str, tuple[int, ...], float]] = []
        for i in range(n):
            before = [j for j in range(i) if times[j] < times[i]]
            after = tuple(random.choice(before, min(2, len(before)), replace=False).tolist())
            after = after if random.random() < 0.5 else ()
            gap = float(times[i] - max((times[j] for j in after), default=0.0))
            session = f"s{random.integers(0, 5)}" if random.random() < 0.6 else ""
            rows.append((session, after, gap * random.choice([0.5, 1.0]) if after else 0.0))
        columns["links"] = links(*rows)
    return trace(times.tolist(), **columns)


Change = Any  # (chunks, tally) -> chunks
CHANGES: dict[str, Callable[[Iterator[Chunk], Tally], Iterator[Chunk]]] = {
    "window": lambda c, t: window(c, 1.0, 20.0, t),
    "to the end": lambda c, t: window(c, 0.0, None, t),
    "time_scale": lambda c, t: time_scale(c, 2.5, t),
    "rate_scale": lambda c, t: rate_scale(c, 3.0, t),
    "thin": lambda c, t: thin(c, 0.6, 7, t),
    "round_robin": lambda c, t: replica(c, Replica(0, 2), 7, t),
    "random": lambda c, t: replica(c, Replica(1, 2, "random"), 7, t),
    "dither": lambda c, t: dither(c, Dither(), 7, t),
    "dither 2 s": lambda c, t: dither(c, Dither(2.0), 7, t),
    "first": lambda c, t: clip_prompt(c, Clip(40, "first"), t),
    "last": lambda c, t: clip_prompt(c, Clip(40, "last"), t),
    "limit": lambda c, t: limit(c, 5, t),
    "merge": lambda c, t: merged_with_itself(list(c), t),
    "all": lambda c, t: Steps(
        Dither(1.0), (0.0, 30.0), 2.0, 0.5, 0.9, Replica(0, 1), Clip(50), 9
    ).apply(c, 7, t),
}  # fmt: skip


def merged_with_itself(parts: list[Chunk], tally: Tally) -> Iterator[Chunk]:
    other = generate("synthetic", 30, 3, rate_per_s=2.0, prompt=FIXED, output=FIXED)
    held = list(other)
    sources = [Source("a", 1, lambda _: iter(parts)), Source("b", 2, lambda _: iter(held))]
    sources += [Source("c", 1.5, lambda _: iter(parts))]
    return merge(sources, 5, tally)


def _fixed() -> Any:
    from sim.trace.lengths import Length

    return Length("fixed", mean=20.0)


FIXED = _fixed()


@pytest.mark.parametrize("name", CHANGES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_chunks_may_end_anywhere(name: str, data: st.DataObject) -> None:
    given_trace = data.draw(traces())
    rows = data.draw(st.integers(1, 9))
    results: list[Any] = []
    for size in (len(given_trace), rows):
        tally = Tally(block_tokens=16)
        try:
            changed = whole(CHANGES[name](given_trace.split(size), tally))
        except InputError as error:
            results.append((str(error), None))
            continue
        valid(changed)
        for change in tally.changes:
            assert change["complete"] or name in ("all", "limit", "window")
            assert change["requests_out"] <= change["requests_in"]
        results.append((rows_of(changed), json.dumps(tally.changes[-1])))
    assert results[0] == results[1]


# ---------------------------------------------------------------- times
def test_window_starts_again_at_0_and_frees_who_waited_for_those_before() -> None:
    tally = Tally()
    cut = whole(window(two_sessions().split(2), 2.0, 6.0, tally))
    assert cut.arrival_s.tolist() == [0, 2, 3, 3]
    assert cut.prompt_tokens.tolist() == [101, 102, 103, 104]
    assert cut.links is not None
    assert list(cut.links.after) == [(), (), (0,), (1,)]
    assert cut.links.delay_s.tolist() == [0, 0, 3, 1]
    assert cut.links.recorded_s.tolist() == [98.0] * 4
    (change,) = tally.changes
    assert change["change"] == "window"
    assert change["parameters"] == {"from_s": 2.0, "to_s": 6.0}
    assert change["requests_changed"] == 1  # was second in its session, and is free
    assert change["requests_out"] == 4


def test_window_reads_no_further_than_it_needs() -> None:
    read: list[int] = []

    def chunks() -> Iterator[Chunk]:
        for part in trace(range(100)).split(10):
            read.append(len(part))
            yield part

    assert len(whole(window(chunks(), 5.0, 15.0, Tally()))) == 10
    assert len(read) == 2


@pytest.mark.parametrize("linked", [True, False])
def test_an_empty_result_is_an_error(linked: bool) -> None:
    given_trace = two_sessions() if linked else replace(two_sessions(), links=None)
    with pytest.raises(InputError, match=r"window \(from_s 90.0, to_s 99.0\) leaves none of 6 req"):
        list(window(iter([given_trace]), 90.0, 99.0, Tally()))


def test_time_scale_is_for_delays_too() -> None:
    slow = whole(time_scale(iter([two_sessions()]), 2.0, Tally()))
    assert slow.arrival_s.tolist() == [0, 4, 8, 10, 10, 12]
    assert slow.links is not None
    assert slow.links.delay_s.tolist() == [0, 4, 0, 6, 2, 0]
    assert slow.links.recorded_s.tolist() == [200.0] * 6


def test_rate_scale_without_links_divides_times() -> None:
    fast = whole(rate_scale(trace([0, 1, 5]).split(1), 2.0, Tally()))
    assert fast.arrival_s.tolist() == [0, 0.5, 2.5]


def test_rate_scale_leaves_delays_and_puts_the_trace_in_order_again() -> None:
    fast = whole(rate_scale(two_sessions().split(4), 4.0, Tally()))
    assert fast.arrival_s.tolist() == [0, 1, 1.5, 2, 2, 5]  # A at 0, B at 1, alone at 1.5
    assert fast.prompt_tokens.tolist() == [100, 102, 105, 101, 104, 103]
    assert fast.links is not None
    assert fast.links.session == ["A", "B", "", "A", "B", "A"]
    assert list(fast.links.after) == [(), (), (), (0,), (1,), (3,)]
    assert fast.links.delay_s.tolist() == [0, 0, 0, 2, 1, 3]
    assert fast.links.recorded_s.tolist() == [100, 97, 95.5, 100, 97, 100]  # as far as they moved


@settings(max_examples=50, deadline=None)
@given(traces(linked=True), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_rate_scale_there_and_back(given_trace: Chunk, factor: float) -> None:
    there = rate_scale(iter([given_trace]), factor, Tally())
    back = whole(rate_scale(there, 1 / factor, Tally()))
    assert np.allclose(back.arrival_s, given_trace.arrival_s)
    assert Counter(back.prompt_tokens.tolist()) == Counter(given_trace.prompt_tokens.tolist())


def test_who_may_not_come_before_a_time_of_its_own_keeps_its_distance() -> None:
    rows = [("", (), 0), ("", (0,), 1)]
    late = trace([4, 10], links=links(*rows))  # ready at 5, but not before 10
    fast = whole(rate_scale(iter([late]), 2.0, Tally()))
    assert fast.arrival_s.tolist() == [2, 8]


# ---------------------------------------------------------------- fewer
def test_thin_keeps_its_share_and_whole_sessions() -> None:
    many = whole(generate("azure-conv-like", 20000, 1))
    tally = Tally()
    some = whole(thin(many.split(700), 0.3, 4, tally))
    assert len(some) == pytest.approx(6000, rel=0.03)
    assert tally.changes[0]["requests_in"] == 20000
    assert tally.changes[0]["requests_out"] == len(some)
    assert tally.changes[0]["prompt_tokens_out"] == int(some.prompt_tokens.sum())
    again, other = (whole(thin(iter([many]), 0.3, seed, Tally())) for seed in (4, 5))
    assert rows_of(again) == rows_of(some) != rows_of(other)
    # each on its own time, and chosen by position alone
    assert np.isin(some.arrival_s, many.arrival_s).all()


@settings(max_examples=60, deadline=None)
@given(traces(linked=True), st.integers(0, 50))
def test_thin_takes_what_hangs_together_or_leaves_it(given_trace: Chunk, seed: int) -> None:
    numbered = replace(given_trace, prompt_tokens=np.arange(1, len(given_trace) + 1))
    try:
        kept = whole(thin(iter([numbered]), 0.5, seed, Tally()))
    except InputError:
        return
    there = np.isin(numbered.prompt_tokens, kept.prompt_tokens)
    roots = components(numbered)
    assert (there == there[roots]).all()
    assert kept.links is not None
    assert numbered.links is not None
    assert kept.links.after.lengths.tolist() == numbered.links.after.lengths[there].tolist()


@pytest.mark.parametrize("by", ["round_robin", "random", "session"])
@settings(max_examples=40, deadline=None)
@given(given_trace=traces(linked=True), of=st.integers(1, 5))
def test_the_replicas_make_up_the_trace(by: Any, given_trace: Chunk, of: int) -> None:
    counts: Counter[Any] = Counter()
    homes: dict[str, int] = {}
    for index in range(of):
        try:
            part = whole(replica(iter([given_trace]), Replica(index, of, by), 3, Tally()))
        except InputError as error:
            if "no sessions" in str(error):
                return
            continue  # a server that gets none
        counts += Counter(row[:5] for row in rows_of(part))
        assert part.links is not None
        for name in part.links.session:
            assert not name or homes.setdefault(name, index) == index
    assert counts == Counter(row[:5] for row in rows_of(given_trace))


def test_round_robin_deals_out_in_turns() -> None:
    parts = [whole(replica(trace(range(7)).split(2), Replica(i, 3), 0, Tally())) for i in range(3)]
    assert [part.arrival_s.tolist() for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]
    linked = [whole(replica(iter([two_sessions()]), Replica(i, 2), 0, Tally())) for i in range(2)]
    assert [part.links.session for part in linked if part.links] == [["A", "A", "A", ""], ["B"] * 2]


def test_a_session_stays_on_its_server_whatever_else_is_in_the_trace() -> None:
    names = [f"user {i}" for i in range(400)]

    def homes(chosen: list[str]) -> dict[str, int]:
        found = {}
        given_trace = trace(range(len(chosen)), links=links(*((n, (), 0.0) for n in chosen)))
        for index in range(4):
            part = whole(replica(iter([given_trace]), Replica(index, 4, "session"), 0, Tally()))
            assert part.links is not None
            found |= dict.fromkeys(part.links.session, index)
        return found

    everybody, some = homes(names), homes(names[::3])
    assert some == {name: everybody[name] for name in some}
    assert all(70 < count < 130 for count in Counter(everybody.values()).values())


def test_replica_by_session_needs_sessions() -> None:
    with pytest.raises(InputError, match="no sessions; deal out by round_robin"):
        list(replica(iter([trace([0, 1])]), Replica(0, 2, "session"), 0, Tally()))


def test_limit_stops_reading() -> None:
    parts = iter(trace(range(9)).split(3))
    assert whole(limit(parts, 4, Tally())).arrival_s.tolist() == [0, 1, 2, 3]
    assert len(next(parts)) == 3


# ---------------------------------------------------------------- dither
def test_dither_spreads_a_grid_over_its_step_and_keeps_the_order() -> None:
    stamps = np.repeat(np.arange(0, 600, 3.0), 10)
    tally = Tally()
    spread = whole(dither(trace(stamps.tolist()).split(64), Dither(), 1, tally))
    moved = spread.arrival_s - stamps
    assert ((moved >= 0) & (moved < 3.0)).all()
    assert np.quantile(moved, [0.1, 0.5, 0.9]) == pytest.approx([0.3, 1.5, 2.7], abs=0.15)
    assert spread.prompt_tokens.tolist() == sorted(spread.prompt_tokens.tolist())
    assert np.unique(spread.arrival_s).size == len(stamps)
    assert tally.changes[0]["step_s"] == 3.0
    assert "grid of 3 s" in said(tally.changes[0])
    # Poisson-like now: the counts of single seconds vary as much as their mean
    counts = np.bincount(spread.arrival_s.astype(int))
    assert counts.var() / counts.mean() < 1.2


def test_dither_follows_a_grid_that_is_not_even() -> None:
    ticks = np.cumsum(np.tile([2.997, 3.003, 3.0], 20))
    ticks -= ticks[0]
    stamps = np.repeat(ticks, 4)
    spread = whole(dither(iter([trace(stamps.tolist())]), Dither(), 1, Tally()))
    assert (np.diff(spread.arrival_s) >= 0).all()
    for low, high in pairwise(ticks):
        assert ((spread.arrival_s >= low) & (spread.arrival_s <= high)).sum() >= 4


def test_dither_leaves_alone_what_is_not_plainly_a_grid() -> None:
    poisson = whole(generate("synthetic", 500, 1, rate_per_s=5.0, prompt=FIXED, output=FIXED))
    tally = Tally()
    assert rows_of(whole(dither(poisson.split(100), Dither(), 1, tally))) == rows_of(poisson)
    assert tally.changes[0]["step_s"] is None
    assert "no grid" in said(tally.changes[0])
    assert grid_s(np.zeros(50)) is None
    assert grid_s(np.zeros(0)) is None
    assert grid_s(np.array([0.0, 0.0, 1.0])) is None


def test_dither_by_a_step_that_is_given() -> None:
    spread = whole(dither(iter([trace([0, 0, 1, 5])]), Dither(2.0), 1, Tally()))
    assert (spread.arrival_s >= [0, 0, 1, 5]).all()
    assert (spread.arrival_s <= [1, 1, 3, 7]).all()  # never beyond the next stamp


def test_dither_moves_sessions_as_a_whole() -> None:
    rows = [(f"s{i}", (), 0.0) for i in range(4)] + [(f"s{i}", (i,), 3.0) for i in range(4)]
    grid = trace([0, 0, 3, 3, 3, 3, 6, 6], links=links(*rows))
    spread = whole(dither(iter([grid]), Dither(3.0), 1, Tally()))
    valid(spread)
    assert spread.links is not None
    for row, after in enumerate(spread.links.after):
        for other in after:
            assert spread.arrival_s[row] - spread.arrival_s[other] == pytest.approx(3.0)


# ---------------------------------------------------------------- clip
def test_clip_makes_room_for_the_output_and_counts() -> None:
    given_trace = trace([0, 1, 2, 3], prompt=[100, 300, 50, 8], output=[20, 50, 400, 10])
    tally = Tally()
    clipped = whole(clip_prompt(iter([given_trace]), Clip(200), tally))
    assert clipped.prompt_tokens.tolist() == [100, 150, 1, 8]
    assert clipped.output_tokens.tolist() == [20, 50, 199, 10]
    (change,) = tally.changes
    assert (change["requests_changed"], change["prompts_cut"], change["outputs_cut"]) == (2, 2, 1)
    assert change["prompt_tokens_in"] - change["prompt_tokens_out"] == 199
    assert "2 changed" in said(change)


@pytest.mark.parametrize(("last_block", "left"), [("partial", 3), ("full", 2)])
def test_clip_keeps_the_first_ids_by_the_rule_of_the_file(last_block: Any, left: int) -> None:
    prompt = [16 * 6 + 5]
    ids = [list(range(7 if last_block == "partial" else 6))]
    given_trace = trace([0], prompt=prompt, output=[10], ids=ids)
    tally = Tally(block_tokens=16, last_block=last_block)
    clipped = whole(clip_prompt(iter([given_trace]), Clip(50, "first"), tally))  # 40 are left
    assert clipped.block_ids is not None
    assert clipped.block_ids[0] == tuple(range(left))
    assert tally.changes[0]["block_ids_out"] == left


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5), st.integers(1, 12)), min_size=1),
    st.sampled_from(["partial", "full"]),
    st.sampled_from(["first", "last"]),
)
def test_clipped_prompts_share_blocks_only_where_their_text_agrees(
    shapes: list[tuple[int, int, int]], last_block: Any, keep: Any
) -> None:
    """Against the definition: texts, cut, and each block known by the text up to its end."""
    size, context = 4, 20
    # a text is all alike up to where it branches, so that prompts share true prefixes
    texts = [
        tuple([0] * min(n, 4 * branch) + [branch + 1] * (n - 4 * branch)) for n, branch, _ in shapes
    ]
    names: dict[tuple[int, ...], int] = {}

    def blocks(text: tuple[int, ...]) -> list[tuple[int, ...]]:
        ends = range(size, len(text) + 1, size)
        found = [text[:end] for end in ends]
        return found + ([text] if last_block == "partial" and len(text) % size else [])

    ids = [[names.setdefault(b, len(names)) for b in blocks(text)] for text in texts]
    prompt, output = [len(text) for text in texts], [shape[2] for shape in shapes]
    given_trace = trace(range(len(texts)), prompt=prompt, output=output, ids=ids)
    tally = Tally(block_tokens=size, last_block=last_block)
    clipped = whole(clip_prompt(iter([given_trace]), Clip(context, keep), tally))
    assert clipped.block_ids is not None
    seen: dict[int, tuple[int, ...]] = {}
    fits = clipped.prompt_tokens + clipped.output_tokens <= context
    assert fits.all()
    for text, left, own in zip(
        texts, clipped.prompt_tokens.tolist(), clipped.block_ids, strict=True
    ):
        cut = text[len(text) - left :] if keep == "last" else text[:left]
        assert len(own) == len(blocks(cut)) == len(set(own))
        for i, name in enumerate(own):
            full = cut[: (i + 1) * size]
            if len(full) == (i + 1) * size:  # a last block that is cut short is never looked up
                known = seen.setdefault(name, full)
                assert known == full


# ---------------------------------------------------------------- merge
def source(name: str, weight: float, chunk: Chunk, rows: int = 50, **tally: Any) -> Source:
    def read(own: Tally) -> Iterator[Chunk]:
        for key, value in tally.items():
            setattr(own, key, value)
        own.rows = len(chunk)
        return chunk.split(rows)

    return Source(name, weight, read)


def poisson(n: int, rate: float, seed: int, prompt: int) -> Chunk:
    found = whole(generate("synthetic", n, seed, rate_per_s=rate, prompt=FIXED, output=FIXED))
    return replace(found, prompt_tokens=np.full(n, prompt))


def test_merge_gives_each_source_the_share_of_its_weight() -> None:
    sources = [source("a", 0.2, poisson(6000, 10, 1, 1)), source("b", 0.5, poisson(3000, 4, 2, 2)),
               source("c", 0.3, poisson(9000, 20, 3, 3))]  # fmt: skip
    tally = Tally()
    both = whole(merge(sources, 1, tally))
    valid(both)
    share = {kind: float((both.prompt_tokens == kind).mean()) for kind in (1, 2, 3)}
    assert share == pytest.approx({1: 0.2, 2: 0.5, 3: 0.3}, abs=0.02)
    (change,) = tally.changes
    assert change["parameters"]["weights"] == pytest.approx([0.2, 0.5, 0.3])
    end = 450  # where c, the shortest, ends; nearly
    assert change["end_s"] == pytest.approx(end, rel=0.05)
    assert both.arrival_s[-1] <= change["end_s"]
    kept = [part["kept_share"] for part in change["sources"]]
    assert kept[1] == 1.0  # the one short of requests gives all
    assert [p["requests_out"] for p in change["sources"]] == [
        int((both.prompt_tokens == kind).sum()) for kind in (1, 2, 3)
    ]
    assert change["sources"][0]["requests_after_end"] > 0
    # the shares hold from begin to end
    half = both.arrival_s < end / 2
    assert float((both.prompt_tokens[half] == 2).mean()) == pytest.approx(0.5, abs=0.03)


def test_merge_keeps_ids_and_sessions_of_sources_apart() -> None:
    one = trace(
        [0, 1, 2],
        ids=[[0, 1], [0, 1, 2], [2**60]],
        links=links(("A", (), 0), ("A", (0,), 1), ("B", (), 0)),
    )
    other = trace(
        [0, 1, 2],
        ids=[[0, 1], [0], [2**60]],
        links=links(("A", (), 0), ("A@1", (), 0), ("C", (1,), 1)),
    )
    tally = Tally()
    both = whole(merge([source("x", 1, one), source("y", 1, other)], 0, tally))
    valid(both)
    assert both.block_ids is not None
    assert both.links is not None
    kinds = [0, 1, 0, 1, 0, 1]  # the first source first where times are equal
    names: dict[int, int] = {}
    for kind, ids in zip(kinds, both.block_ids, strict=True):
        assert all(names.setdefault(i, kind) == kind for i in ids)
    assert both.block_ids[0] == both.block_ids[2][:2]  # still a prefix within its source
    assert both.links.session == ["A", "A@1.2", "A", "A@1", "B", "C"]
    assert list(both.links.after) == [(), (), (0,), (), (), (3,)]
    assert tally.changes[0]["sources"][1]["sessions_renamed"] == 1


@settings(max_examples=40, deadline=None)
@given(traces(), traces(), st.integers(1, 9))
def test_merged_requests_wait_for_the_same_as_before(one: Chunk, other: Chunk, rows: int) -> None:
    both = whole(merge([source("x", 1, one, rows), source("y", 1, other, rows)], 0, Tally()))
    valid(both)
    if both.links is None:
        assert one.links is None
        assert other.links is None
    found = Counter(_edges(both))
    assert not found - (Counter(_edges(one)) + Counter(_edges(other)))


def _edges(chunk: Chunk) -> Iterator[tuple[Any, ...]]:
    key = list(zip(chunk.arrival_s.tolist(), chunk.output_tokens.tolist(), strict=True))
    for row, after in enumerate([] if chunk.links is None else chunk.links.after):
        for other in after:
            yield key[row], key[other]


def test_merge_adds_up_what_the_sources_say() -> None:
    tally = Tally()
    a = source("a", 1, trace([0, 1], ids=[[1], [2]]), block_tokens=512, skipped=2, reasons={"x": 2})
    b = source("b", 1, trace([0, 1]), skipped=1, reasons={"x": 1}, notes=["odd"])
    assert len(whole(merge([a, b], 0, tally))) == 4
    assert tally.reasons == {"x": 3}
    assert tally.notes == ["b: odd"]
    assert (tally.skipped, tally.block_tokens, tally.format) == (3, 512, "merge")


def test_merge_refuses_blocks_of_two_sizes() -> None:
    a = source("a.jsonl", 1, trace([0], ids=[[1]]), block_tokens=512)
    b = source("b.jsonl", 1, trace([0], ids=[[1]]), block_tokens=16)
    with pytest.raises(InputError, match=r"a.jsonl has 512 and b.jsonl has 16 tokens a block id"):
        list(merge([a, b], 0, Tally()))


# ---------------------------------------------------------------- all of them
def test_the_order_is_fixed_and_recorded() -> None:
    steps = Steps(Dither(1.0), (0, 50), 2.0, 4.0, 0.9, Replica(1, 2), Clip(120), 10)
    tally = Tally()
    changed = whole(steps.apply(trace(range(100)).split(7), 0, tally))
    assert len(changed) == 10
    names = [change["change"] for change in tally.changes]
    assert names == ["dither", "window", "time_scale", "rate_scale", "thin", "replica",
                     "clip_prompt", "limit"]  # fmt: skip
    for before, after in pairwise(tally.changes):
        assert before["requests_out"] == after["requests_in"]
        assert before["prompt_tokens_out"] == after["prompt_tokens_in"]
    assert json.loads(json.dumps(tally.changes)) == tally.changes
    assert all("\n" not in said(change) for change in tally.changes)


def test_nothing_asked_for_changes_nothing() -> None:
    tally, chunks = Tally(), iter([trace([0, 1])])
    assert Steps().apply(chunks, 0, tally) is chunks
    assert tally.changes == []


# ---------------------------------------------------------------- residentsim trace convert
@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Converts a trace of 200 requests on a grid of 2 s; gives exit code, requests, errors."""
    rows = [
        {"timestamp": 2000 * (i // 4), "input_length": 100 + i, "output_length": 9}
        for i in range(200)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "o.csv").write_text(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n"
        + "".join(f"{i},7,3\n" for i in range(90))
    )

    def command(*options: str) -> tuple[Any, Chunk | None, str]:
        texts = [text.replace("DIR", str(tmp_path)) for text in options]
        arguments = ["trace", "convert", str(tmp_path / "t.jsonl"), str(tmp_path / "out")]
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--to", "vidur", *texts])
        errors = capsys.readouterr().err
        if ended.value.code:
            return ended.value.code, None, errors
        return 0, whole(read(tmp_path / "out")), errors

    return command


def test_convert_changes_and_says_so(convert: Any) -> None:
    _, plain, errors = convert()
    assert "changed" not in errors
    code, cut, errors = convert("--from", "10s", "--until", "0.5min")
    assert code == 0
    assert cut.prompt_tokens.tolist() == plain.prompt_tokens[20:60].tolist()
    assert cut.arrival_s.tolist() == (plain.arrival_s[20:60] - 10).tolist()
    assert "changed: window (from_s 10, to_s 30): 60 to 40 requests" in errors
    assert len(convert("--from", "90s")[1]) == 20
    assert convert("--time-scale", "2")[1].arrival_s.tolist() == (plain.arrival_s * 2).tolist()
    assert convert("--rate-scale", "2")[1].arrival_s.tolist() == (plain.arrival_s / 2).tolist()
    assert len(np.unique(convert("--dither", "auto")[1].arrival_s)) == 200
    assert convert("--dither", "1s")[1].arrival_s.max() < 99
    assert len(convert("--replica", "1/4")[1]) == 50
    thin = [convert("--thin", "0.5", "--seed", seed)[1].prompt_tokens.tolist() for seed in "001"]
    assert thin[0] == thin[1] != thin[2]
    for option in ("150", "150:first"):
        _, clipped, errors = convert("--clip-prompt", option)
        assert (clipped.prompt_tokens + clipped.output_tokens).max() == 150
        assert "158 changed" in errors


def test_convert_merges(convert: Any) -> None:
    code, both, errors = convert("--merge", "DIR/o.csv:0.25", "--seed", "3")
    assert code == 0
    assert (both.prompt_tokens == 7).mean() == pytest.approx(0.25, abs=0.08)
    assert "o.csv: read as vidur" in errors
    assert "changed: merge (weights 0.75 : 0.25, seed 3)" in errors
    assert len(convert("--merge", "DIR/o.csv:0.25", "--limit", "30")[1]) == 30


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--from 10", "--from: '10' has no unit; write e.g. '100 ms'"),
        ("--until 1GB", "--until: '1GB' is an amount of memory, not a time; units that fit"),
        ("--from 20s --until 20s", "--until: 20 s is not after --from, 20 s; raise it"),
        ("--from 9h", "trace: window (from_s 32400.0, to_s None) leaves none of 200 requests"),
        ("--thin nan", "--thin: must be 1e-09 to 1, got nan"),
        ("--rate-scale 0", "--rate-scale: must be 1e-06 to 1e+06, got 0"),
        ("--time-scale inf", "--time-scale: must be 1e-06 to 1e+06, got inf"),
        ("--replica 4/4", "--replica: '4/4' is no server's part; write e.g. 0/4 or 3/4:session"),
        ("--replica 0/4:hash", "--replica: '0/4:hash' is no server's part"),
        ("--replica 0/2:session", "trace: replica by session: the trace has no sessions; deal out"),
        ("--dither 0s", "--dither: a step of 0 s spreads nothing"),
        ("--clip-prompt 1", "--clip-prompt: '1' is no context; write 2 to"),
        ("--merge DIR/o.csv", "--merge: "),
        ("--merge DIR/o.csv:1", "--merge: "),
        ("--merge DIR/o.csv:0.6 --merge DIR/o.csv:0.6", "--merge: the shares of 2 files make 1.2"),
        ("--merge DIR/none.csv:0.6", "DIR/none.csv: no such file"),
    ],
)
def test_convert_refuses(convert: Any, tmp_path: Path, options: str, line: str) -> None:
    code, _, errors = convert(*options.split())
    assert code == 2
    assert errors.splitlines()[-1].startswith(line.replace("DIR", str(tmp_path)))
    assert not (tmp_path / "out").exists()
