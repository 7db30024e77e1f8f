"""Links: exact times by hand, against a fluid simulation in fractions, bytes conserved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf, isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import Clock
from sim.errors import InputError
from sim.memory.links import Leg, Links, LinkSpec, Row, Slowdown
from sim.memory.movers import LINKS, MOVERS, PCIE, Given, moving
from sim.profile import Constant, Profile, load_profile


@dataclass
class Host:
    """Links at 100 B/s and with 0.5 s of latency unless said otherwise; all that they report."""

    specs: list[LinkSpec] = field(default_factory=lambda: [LinkSpec("h2d", 0.5, 100.0)])
    slowdown: Slowdown | None = None

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.rows: list[Row] = []
        self.changes: list[float] = []
        self.done: list[tuple[float, str]] = []
        self.links = Links(
            self.clock, self.specs, lambda: self.changes.append(self.clock.now), self.slowdown,
            self.rows.append,
        )  # fmt: skip

    def send(self, time: float, bytes: int, link: str = "h2d", pieces: int = 1) -> None:
        """Submits at *time*."""

        def submit(_: object) -> None:
            name = f"{link}{bytes}"
            self.links.submit(
                link, bytes, 1, "test", 7, lambda: self.done.append((self.clock.now, name)), pieces
            )

        event = self.clock.at(time)
        event.callbacks.append(submit)

    def spans(self) -> list[tuple[float, float, float]]:
        """Submission, start and end of each transfer in order of its end."""
        return [(row.queued_s, row.start_s, row.end_s) for row in self.rows]


def test_a_transfer_alone_takes_latency_and_bytes_over_bandwidth() -> None:
    host = Host()
    host.send(1.0, 200)
    host.clock.run()
    assert host.rows == [Row(1.0, 1.0, 3.5, "h2d", 200, 1, "test", 7)]
    assert host.done == [(3.5, "h2d200")]
    assert host.changes == [1.0, 3.5]
    assert host.specs[0].seconds(200) == 2.5


def test_two_transfers_share_the_bandwidth() -> None:
    host = Host()
    host.send(0.0, 200)  # flows alone from 0.5 to 1.5, by halves until 3.5
    host.send(1.0, 200)  # flows from 1.5 on: 100 B by 3.5, the rest alone by 4.5
    host.clock.run()
    assert host.spans() == [(0.0, 0.0, 3.5), (1.0, 1.0, 4.5)]
    assert host.links.use(4.5)[0].busy_s == 4.5


def test_a_short_transfer_overtakes_a_long_one_that_flows() -> None:
    host = Host()
    host.send(0.0, 1000)
    host.send(2.0, 50)  # flows from 2.5, when 200 B of the long one are gone, at 50 B/s
    host.clock.run()
    assert host.spans() == [(2.0, 2.0, 3.5), (0.0, 0.0, 11.0)]


def test_equal_transfers_end_together_in_the_order_of_submission() -> None:
    host = Host()
    for _ in range(3):
        host.send(0.0, 100)
    host.clock.run()
    assert [row.end_s for row in host.rows] == [3.5] * 3
    assert len(host.done) == 3
    assert host.changes == [0.0, 0.0, 0.0, 3.5]


def test_beyond_at_most_transfers_wait_first_in_first_out() -> None:
    host = Host([LinkSpec("h2d", 0.5, 100.0, at_most=1)])
    for bytes in (100, 50, 200):
        host.send(0.0, bytes)
    host.clock.run(until=2.0)
    assert [t.bytes for t in host.links.outstanding()] == [50, 200]
    host.clock.run()
    assert host.spans() == [(0.0, 0.0, 1.5), (0.0, 1.5, 2.5), (0.0, 2.5, 5.0)]
    use = host.links.use(10.0)[0]
    assert (use.busy_s, use.waited_s, use.most_waiting) == (5.0, 4.0, 2)
    assert (use.transfers, use.bytes, use.blocks) == (3, 350, 3)


def test_two_in_service_and_a_third_that_waits() -> None:
    host = Host([LinkSpec("h2d", 0.0, 100.0, at_most=2)])
    host.send(0.0, 100)
    host.send(0.0, 300)
    host.send(0.0, 100)
    host.clock.run()
    # 2 s by halves; then the third and the rest of the second by halves until both end
    assert host.spans() == [(0.0, 0.0, 2.0), (0.0, 2.0, 4.0), (0.0, 0.0, 5.0)]


def test_a_transfer_alone_may_not_fill_the_link() -> None:
    host = Host([LinkSpec("ssd_read", 0.0, 100.0, alone_bytes_per_s=60.0)])
    host.send(0.0, 180, "ssd_read")
    host.send(1.0, 60, "ssd_read")  # by then 60 B are gone; 50 B/s each until 2.2
    host.clock.run()
    assert [row.end_s for row in host.rows] == pytest.approx([2.2, 3.2], rel=1e-15)


def test_pieces_take_the_link_as_bytes_do() -> None:
    host = Host([LinkSpec("h2d", 0.5, 100.0, piece_s=0.1)])
    host.send(0.0, 100, pieces=6)
    host.clock.run()
    assert host.rows[0].end_s == 2.0
    assert host.rows[0].bytes == 100
    assert host.links.expected_s([Leg("h2d", 100, 1, 6)]) == 2.0


def test_nothing_to_move_takes_the_latency_alone() -> None:
    host = Host()
    host.send(1.0, 0)
    host.clock.run()
    assert host.spans() == [(1.0, 1.0, 1.5)]


def test_a_chain_goes_leg_by_leg_and_reports_once() -> None:
    host = Host([LinkSpec("ssd_read", 1.0, 10.0), LinkSpec("h2d", 0.5, 100.0)])
    legs = [Leg("ssd_read", 20, 2), Leg("h2d", 40, 2)]
    assert host.links.expected_s(legs) == pytest.approx(3.9)
    host.links.chain(legs, "promote", 3, lambda: host.done.append((host.clock.now, "all")))
    host.clock.run()
    assert host.rows == [
        Row(0.0, 0.0, 3.0, "ssd_read", 20, 2, "promote", 3),
        Row(3.0, 3.0, 3.9, "h2d", 40, 2, "promote", 3),
    ]
    assert host.done == [(3.9, "all")]


def test_a_transfer_on_an_idle_link_is_one_event() -> None:
    host = Host()
    for number in range(10):
        host.links.submit("h2d", 100, 1, "test", number, lambda: None)
        host.clock.run()
    assert host.clock.events() == 10
    assert [row.end_s for row in host.rows] == [1.5 * (n + 1) for n in range(10)]


def test_what_is_done_may_send_more_on_the_same_link() -> None:
    host = Host([LinkSpec("h2d", 0.0, 100.0, at_most=1)])
    host.links.chain([Leg("h2d", 100, 1)] * 3, "again", 1, lambda: host.send(3.0, 100))
    host.clock.run()
    assert [row.end_s for row in host.rows] == [1.0, 2.0, 3.0, 4.0]


def test_expected_seconds_count_what_is_under_way() -> None:
    host = Host([LinkSpec("h2d", 0.5, 100.0, at_most=1)])
    host.send(0.0, 200)
    host.send(0.0, 100)
    host.clock.run(until=1.5)  # 100 B of the first are left, then 0.5 s and 100 B
    assert host.links.expected_s([Leg("h2d", 300, 1)]) == 1.0 + 0.5 + 1.0 + 0.5 + 3.0
    host.send(1.5, 300)
    host.clock.run()
    assert host.rows[-1].end_s == 1.5 + 6.0


def test_slowdown_follows_the_links_in_service() -> None:
    specs = [LinkSpec(name, 0.0, 100.0, at_most=1) for name in ("h2d", "d2h", "remote_read")]
    host = Host(specs, Slowdown(1.1, 1.2, 1.25, {"remote_read": 2.0}))
    host.send(0.0, 200, "h2d")
    host.send(1.0, 200, "d2h")
    host.send(2.5, 100, "remote_read")
    factors = {}
    for time in (0.5, 1.5, 2.25, 2.75, 3.25, 4.0):
        host.clock.run(until=time)
        factors[time] = host.links.slowdown()
    assert factors == {0.5: 1.1, 1.5: 1.25, 2.25: 1.2, 2.75: 2.4, 3.25: 2.0, 4.0: 1.0}
    assert Host().links.slowdown() == 1.0


def test_a_change_is_told_when_the_state_has_changed() -> None:
    seen = []
    clock = Clock()
    links = Links(clock, [LinkSpec("h2d", 0.0, 100.0)], lambda: seen.append(links.busy("h2d")))
    links.submit("h2d", 100, 1, "test", 0, lambda: seen.append(links.busy("h2d")))
    clock.run()
    assert seen == [True, False, False]
    assert not links.busy("d2h")
    with pytest.raises(KeyError):
        links.submit("d2h", 1, 1, "test", 0, lambda: None)


# ---------------------------------------------------------------- against a fluid simulation
Job = tuple[int, int, int]
"""Time of submission in eighths of a second, bytes, pieces."""


def fluid(jobs: list[Job], spec: LinkSpec) -> list[tuple[Fraction, Fraction]]:
    """Start and end of each job, in fractions: steps from event to event over all jobs."""
    latency, total = Fraction(spec.latency_s), Fraction(spec.bytes_per_s)
    alone = total if spec.alone_bytes_per_s == inf else Fraction(spec.alone_bytes_per_s)
    left = {n: bytes + (pieces - 1) * Fraction(spec.piece_s) * min(alone, total)
            for n, (_, bytes, pieces) in enumerate(jobs)}  # fmt: skip
    coming = deque(sorted(range(len(jobs)), key=lambda n: (jobs[n][0], n)))
    waiting: deque[int] = deque()
    latent: dict[int, Fraction] = {}
    flowing: list[int] = []
    times: dict[int, list[Fraction]] = {n: [] for n in left}
    now = Fraction(0)
    while coming or waiting or latent or flowing:
        rate = min(alone, total / len(flowing)) if flowing else Fraction(1)
        ahead = [Fraction(jobs[coming[0]][0], 8)] if coming else []
        ahead += list(latent.values()) + [now + left[n] / rate for n in flowing]
        step = min(ahead) - now
        for n in flowing:
            left[n] -= step * rate
        now += step
        while True:
            ended = [n for n in flowing if not left[n]]
            flowing = [n for n in flowing if left[n]]
            for n in ended:
                times[n].append(now)
            while coming and Fraction(jobs[coming[0]][0], 8) == now:
                waiting.append(coming.popleft())
            while waiting and len(latent) + len(flowing) < spec.at_most:
                n = waiting.popleft()
                times[n].append(now)
                latent[n] = now + latency
            due = [n for n, time in latent.items() if time == now]
            for n in due:
                del latent[n]
            flowing += due
            if not due or all(left[n] for n in flowing):
                break
    return [(times[n][0], times[n][1]) for n in range(len(jobs))]


jobs_of = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 400), st.integers(1, 3)), min_size=1, max_size=25
)
specs_of = st.builds(
    LinkSpec,
    st.just("h2d"),
    st.sampled_from([0.0, 0.125, 0.3]),
    st.sampled_from([64.0, 100.0, 333.0]),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([inf, 50.0, 80.0]),
)


@given(jobs_of, specs_of)
@settings(max_examples=150, deadline=None)
def test_times_are_those_of_a_fluid_simulation(jobs: list[Job], spec: LinkSpec) -> None:
    jobs = sorted(jobs, key=lambda job: job[0])
    host = Host([spec])
    spans: dict[int, tuple[float, float]] = {}
    transfers = {}
    for number, (eighths, bytes, pieces) in enumerate(jobs):
        event = host.clock.at(eighths / 8)

        def submit(_: object, n: int = number, b: int = bytes, p: int = pieces) -> None:
            transfers[n] = host.links.submit("h2d", b, 1, "test", n, lambda: None, p)

        event.callbacks.append(submit)
    host.clock.run()
    for row in host.rows:
        spans[row.request_id] = row.start_s, row.end_s
    wanted = fluid(jobs, spec)
    for number, (start, end) in enumerate(wanted):
        assert spans[number] == pytest.approx((float(start), float(end)), rel=1e-12, abs=1e-12)
    assert sum(row.bytes for row in host.rows) == sum(bytes for _, bytes, _ in jobs)
    assert [row.end_s for row in host.rows] == sorted(row.end_s for row in host.rows)
    assert not host.links.outstanding()
    # nothing starts before one that came earlier, and no more than at_most are in service
    starts = [spans[n][0] for n in range(len(jobs))]
    assert starts == sorted(starts)
    for start in starts:
        assert sum(s <= start < e for s, e in spans.values()) <= spec.at_most


@given(jobs_of, specs_of, st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_every_byte_is_accounted_for_at_any_time(
    jobs: list[Job], spec: LinkSpec, eighths: int
) -> None:
    host = Host([spec])
    for time, bytes, pieces in jobs:
        host.send(time / 8, bytes, pieces=pieces)
    until = eighths / 8 + 1 / 16
    host.clock.run(until=until)
    submitted = sum(bytes for time, bytes, _ in jobs if time / 8 < until)
    under_way = host.links.outstanding()
    assert host.links.use(until)[0].bytes + sum(t.bytes for t in under_way) == submitted
    assert all(isnan(t.end_s) for t in under_way)
    # the work done so far fits into the time in service
    link = host.links.by_name["h2d"]
    asked = sum(spec.work(b, p) for time, b, p in jobs if time / 8 < until)
    moved = asked - link.backlog(until)
    assert -1e-6 <= moved <= spec.bytes_per_s * link.busy_s(until) + 1e-6


@given(jobs_of, specs_of)
@settings(max_examples=50, deadline=None)
def test_expected_seconds_are_an_upper_bound_without_latency(
    jobs: list[Job], spec: LinkSpec
) -> None:
    host = Host([replace(spec, latency_s=0.0)])
    for time, bytes, pieces in jobs:
        host.send(time / 8, bytes, pieces=pieces)
    host.clock.run(until=2.0)
    expected = host.links.expected_s([Leg("h2d", 100, 1)])
    start = host.clock.now
    own = host.links.submit("h2d", 100, 1, "own", -1, lambda: None)
    later = sum(time / 8 >= 2.0 for time, _, _ in jobs)
    host.clock.run()
    if not later:
        slow = host.specs[0].bytes_per_s / host.specs[0].rate(1)  # alone below what the link does
        assert own.end_s - start <= expected * max(1.0, slow) * (1 + 1e-9) + 1e-9


# ---------------------------------------------------------------- movers
@pytest.fixture(scope="module")
def h200() -> Profile:
    return load_profile("nvidia-h200")


def test_the_copy_engine_is_as_the_profile_has_it(h200: Profile) -> None:
    moved = moving(h200)
    assert [spec.name for spec in moved.specs] == ["h2d", "d2h", "ssd_read", "ssd_write"]
    h2d = moved.spec("h2d")
    assert h2d.bytes_per_s == h200.constant("h2d_bytes_per_s")
    assert h2d.seconds(2**20) == pytest.approx(2**20 / 55.4725e9 + 9.757e-6, rel=1e-4)
    assert moved.slowdown == Slowdown(1.06662, 1.01071, 1.07647, {})
    read = moved.spec("ssd_read")
    assert read.rate(1) == h200.constant("file_read_bytes_per_s")
    assert read.rate(2) * 2 == pytest.approx(h200.constant("file_read_best_bytes_per_s"))
    assert moved.estimated == ("h2d_piece_s", "d2h_piece_s")
    assert {"h2d_latency_s", "slowdown_copy_engine_both"} <= set(moved.uses)


def test_gather_goes_by_the_page_size_and_its_thread_blocks(h200: Profile) -> None:
    for page, word in ((1024, "4k"), (4096, "4k"), (40000, "16k"), (65536, "64k"), (2**20, "64k")):
        moved = moving(h200, PCIE, mover="gather", page_bytes=page)
        assert moved.spec("h2d").latency_s == h200.constant(f"h2d_gather_{word}_latency_s")
        assert moved.spec("d2h").bytes_per_s == h200.constant(f"d2h_gather_{word}_bytes_per_s")
        assert moved.estimated == ()
    few = moving(h200, PCIE, mover="gather", gather_blocks=8).slowdown
    assert (few.h2d, few.d2h) == (1.09129, 1.19107)
    assert few.both == few.h2d * few.d2h
    with pytest.raises(InputError, match=r"gather kernel of 5 blocks, h2d: not measured; .*32"):
        moving(h200, mover="gather", gather_blocks=5)


def test_many_pieces_are_dear_for_the_copy_engine_alone(h200: Profile) -> None:
    pages = 256
    seconds = {
        mover: moving(h200, mover=mover).spec("h2d").seconds(pages * 65536, pages)
        for mover in MOVERS
    }
    assert seconds["gather"] < seconds["batched"] < seconds["copy_engine"]
    # calibration: 311 us of the device for 256 pages of 64 KiB in a batch; 64 KiB from call to call
    assert seconds["batched"] == pytest.approx(311e-6, rel=0.15)
    assert seconds["copy_engine"] == pytest.approx(256 * 4.3e-6, rel=0.1)


def test_a_batched_line_of_the_profile_is_preferred(h200: Profile) -> None:
    constants = dict(h200.constants)
    for name, value in (("latency_s", 5e-6), ("bytes_per_s", 50e9), ("piece_s", 1e-7)):
        constants[f"h2d_batch_{name}"] = Constant(value, "s", "fitted", "run", "")
    own = moving(replace(h200, constants=constants), ["h2d"], mover="batched")
    assert own.spec("h2d") == LinkSpec("h2d", 5e-6, 50e9, 4, 1e-7)
    assert own.estimated == ()


def test_what_the_user_gives_goes_before_the_profile_and_counts_as_estimated(
    h200: Profile,
) -> None:
    given = {"ssd_read": Given(bytes_per_s=14e9), "h2d": Given(1e-6, 400e9, 2, 1.5)}
    moved = moving(h200, given=given)
    assert moved.spec("ssd_read").rate(1) == 14e9
    assert moved.spec("ssd_read").latency_s == h200.constant("file_read_latency_s")
    h2d = moved.spec("h2d")
    assert (h2d.latency_s, h2d.bytes_per_s, h2d.at_most) == (1e-6, 400e9, 2)
    assert moved.slowdown.h2d == 1.5
    assert moved.slowdown.both == 1.5 * moved.slowdown.d2h
    assert "links.ssd_read.bytes_per_s" in moved.estimated
    assert "links.h2d.slowdown" in moved.estimated
    assert "h2d_latency_s" not in moved.uses


def test_a_remote_tier_is_what_the_user_says(h200: Profile) -> None:
    links = ["h2d", "remote_read"]
    given = {"remote_read": Given(5e-6, 50e9, slowdown=1.02)}
    moved = moving(h200, links, given=given)
    assert moved.spec("remote_read").seconds(50_000_000) == pytest.approx(1.005e-3)
    assert moved.slowdown.others == {"remote_read": 1.02}
    assert "links.remote_read.latency_s" in moved.estimated
    with pytest.raises(InputError, match=r"links\.remote_read: no profile knows it; give"):
        moving(h200, links)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"h2d": Given(latency_s=-1.0)}, r"links\.h2d\.latency_s: -1.0 is out of range"),
        ({"h2d": Given(bytes_per_s=0.0)}, r"links\.h2d\.bytes_per_s: 0.0 is out of range"),
        ({"h2d": Given(bytes_per_s=inf)}, r"bytes_per_s: inf is out of range"),
        ({"h2d": Given(at_most=0)}, r"at_most: 0 is out of range; from 1 on"),
        ({"d2h": Given(slowdown=0.5)}, r"slowdown: 0.5 is out of range"),
        ({"usb": Given()}, r"links\.usb: no such link; there are: h2d"),
    ],
)
def test_numbers_that_make_no_sense_are_named(
    h200: Profile, given: dict[str, Given], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        moving(h200, given=given)


def test_a_profile_without_the_constants_says_so(h200: Profile) -> None:
    kept = {n: c for n, c in h200.constants.items() if not n.startswith(("h2d_", "file_"))}
    bare = replace(h200, constants=kept)
    with pytest.raises(InputError, match=r"constants\.h2d_latency_s: missing"):
        moving(bare, ["h2d"])
    with pytest.raises(InputError, match=r"h2d_gather_\*: missing; .* choose another mover"):
        moving(bare, ["h2d"], mover="gather")
    with pytest.raises(InputError, match="no such mover"):
        moving(h200, mover="teleport")  # type: ignore[arg-type]
    assert set(LINKS) > {spec.name for spec in moving(bare, ["d2h"]).specs}
    estimated = {n: replace(c, kind="estimated") for n, c in h200.constants.items()}
    named = moving(replace(h200, constants=estimated), ["h2d"]).estimated
    assert {"h2d_latency_s", "h2d_bytes_per_s", "slowdown_copy_engine_h2d"} <= set(named)
