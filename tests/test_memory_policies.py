"""What moves KV between tiers, policy by policy: stories with times worked out by hand.

Ticks, units and links are those of `kv_stories`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from kv_runs import ids_of, link, remote
from kv_stories import SLOW, UNIT, prompt, serve, tiers, ttft
from toy import TICK, Ran, Turn, toy_scenario, write_profile

from sim.cost import Cost
from sim.memory.predict import Prefill
from sim.memory.units import Unit, stretches
from sim.profile import load_profile
from sim.steps import Load

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def moves(ran: Ran, *reasons: str) -> list[tuple[Any, ...]]:
    """Transfers for *reasons*: link, blocks, start and end in ticks."""
    rows: pd.DataFrame = ran.transfers[ran.transfers.reason.isin(reasons)]
    return [
        (row.link, row.blocks, round(row.start_s / TICK, 3), round(row.end_s / TICK, 3))
        for row in rows.itertuples()
    ]


# ---------------------------------------------------------------- preemption
def crowd(folder: Path, blocks: int, users: int, **links: dict[str, Any]) -> Ran:
    """Requests of so many blocks of prompt that outgrow memory for all of them by one block."""
    turns = [prompt(family, blocks, at=0, output=60, more=0) for family in range(users)]
    hardware = tiers(users * (blocks + 1) + 1, dram=100)
    hardware["links"] |= links
    kv = {"preemption": "cheaper", "prefix_cache": False}
    return serve(folder, turns, hardware, kv=kv, loop={"token_budget": 16 + users})


def test_cheaper_swaps_long_contexts_and_computes_short_ones(tmp_path: Path) -> None:
    """A copy takes 60 ticks and a tick a block. A block of prompt beside the other request that
    decodes makes an iteration 8 ticks longer, and keeps the request itself for 20."""
    way = {"h2d": link(UNIT, 60), "d2h": link(UNIT, 60)}
    short, long = (crowd(tmp_path, blocks, 2, **way) for blocks in (2, 12))
    # 3 blocks: 2 x 63 out and 63 in, against 3 x (8 + 20)
    assert short.summary["kv_swaps"] == 0
    assert short.summary["kv_swaps_dearer"] >= 1
    # 13 blocks: 2 x 73 out and 73 in, against 13 x (8 + 20)
    assert long.summary["kv_swaps"] >= 1
    assert long.summary["kv_swaps_dearer"] == 0


def test_the_way_in_counts_once_and_the_way_out_for_all(tmp_path: Path) -> None:
    """Four requests with 4 or 5 blocks each: computing one again costs at least 4 x (3 x 8 + 20)
    = 176 ticks."""
    fast, slow = link(1e9), link(1e9, 120)
    late_in = crowd(tmp_path, 4, 4, d2h=fast, h2d=slow)  # 120 for itself
    late_out = crowd(tmp_path, 4, 4, d2h=slow, h2d=fast)  # 4 x 120 for all
    assert late_in.summary["kv_swaps"] >= 1
    assert late_in.summary["kv_swaps_dearer"] == 0
    assert late_out.summary["kv_swaps"] == 0
    assert late_out.summary["kv_swaps_dearer"] >= 1


@pytest.mark.parametrize(
    ("loop", "ticks"),
    [
        # iterations of 24 instead of 16 ticks
        ({"mode": "graph"}, 8 + 8),
        # out and back in 2 + 3, and nothing decodes in 18 + 20
        ({"mode": "resident", "prefill": "exit"}, 5 + 18 + 20),
        # 29.5 instead of 15.5 ticks an iteration while 64 tokens are computed on half of the SMs
        ({"mode": "resident", "prefill": "partition"}, (1 - 15.5 / 29.5) * (20 + 20) * 2),
    ],
)
def test_what_prefill_takes_from_those_that_decode(
    tmp_path: Path, loop: dict[str, Any], ticks: float
) -> None:
    budget = 36 if loop["mode"] == "graph" else 32  # four requests decode
    scenario = toy_scenario(tmp_path, [(0, 1, 1)], loop=loop | {"token_budget": budget})
    cost = Cost(scenario, load_profile(scenario.hardware.profile))
    before = dict(cost.by_load), cost.most_tokens, cost.most_batch
    prefill = Prefill(cost, budget)
    assert prefill.taken_s(32, 96, 4, Load(4, 404)) / TICK == pytest.approx(ticks)
    assert (cost.by_load, cost.most_tokens, cost.most_batch) == before


# ---------------------------------------------------------------- backpressure
def three_at_once(folder: Path, limit: int, pcie: dict[str, Any]) -> Ran:
    """Three prompts of two units go down and are asked for again at once; H2D serves one at a
    time, and computing a unit takes 18 ticks or 20."""
    turns = [prompt(family, 2, at=200.0 * family) for family in range(3)]
    turns += [prompt(9, 8, at=1000)]
    turns += [prompt(family, 2, at=2000) for family in range(3)]
    hardware = tiers(9, dram=100, pcie=link(1e9))
    hardware["links"]["h2d"] = pcie | {"at_once": 1}
    kv = {"write_back": "eager", "queue_limit": limit}
    return serve(folder, turns, hardware, kv=kv, loop={"token_budget": 16})


def test_a_full_link_puts_admission_off(tmp_path: Path) -> None:
    """Two ticks a load: still sooner than computing two units, whoever is before."""
    free, tight = (three_at_once(tmp_path, limit, link(UNIT)) for limit in (32, 1))
    for ran in (free, tight):
        assert ran.requests.cached_dram_tokens.tolist()[4:] == [32] * 3
        assert moves(ran, "load") == [
            ("h2d", 2, 2000, 2002), ("h2d", 2, 2002, 2004), ("h2d", 2, 2004, 2006),
        ]  # fmt: skip
    assert free.ticks("admitted_s")[4:] == [2000, 2000, 2000]
    assert free.summary["kv_promotions_put_off"] == 0
    # One is served and one waits: the third is not let in before the first load has ended.
    assert tight.ticks("admitted_s")[4:6] == [2000, 2000]
    assert tight.ticks("admitted_s")[6] >= 2002
    assert tight.summary["kv_promotions_put_off"] == 1
    assert (tight.requests.status == "finished").all()


def test_who_would_wait_too_long_for_a_full_link_computes(tmp_path: Path) -> None:
    """60 ticks a load: behind two others it is later than 2 x 18 + 20 ticks of computing."""
    free, tight = (three_at_once(tmp_path, limit, link(UNIT / 30)) for limit in (32, 1))
    assert free.requests.cached_dram_tokens.tolist()[4:] == [32] * 3
    assert tight.requests.cached_dram_tokens.tolist()[4:] == [32, 32, 0]
    assert tight.summary["kv_promotions_put_off"] == 0
    assert (tight.requests.status == "finished").all()


# ---------------------------------------------------------------- prefetch
def queue(folder: Path, prefetch: str, output: int = 20, **kv: Any) -> Ran:
    """Family 1 has two of its four units left in HBM when it is asked for again, and has to wait
    until another request is done."""
    turns = [
        prompt(1, 4, at=0),
        prompt(2, 3, at=1000, more=49),
        prompt(3, 1, at=2000, output=output),
        prompt(1, 4, at=2001),
    ]
    kv = {"write_back": "eager", "prefetch": prefetch} | kv
    return serve(folder, turns, tiers(9, dram=100), kv=kv, loop={"max_batch": 1})


def test_lookahead_loads_while_the_request_waits(tmp_path: Path) -> None:
    none, ahead = (queue(tmp_path, how) for how in ("none", "lookahead"))
    end = 2020 + 19 * 16
    assert moves(none, "load", "prefetch") == [("h2d", 2, end, end + 20)]
    # From the first boundary after it has come.
    assert moves(ahead, "load", "prefetch") == [("h2d", 2, 2020, 2040)]
    assert ttft(none)[3] == end + 20 + 20 - 2001
    assert ttft(ahead)[3] == end + 20 - 2001
    assert ahead.requests.cached_hbm_tokens.iloc[3] == 64
    counts = [ahead.summary[f"kv_prefetched_units{how}"] for how in ("", "_used", "_wasted")]
    assert counts == [2, 2, 0]


def test_a_late_prefetch_is_waited_for_and_not_sent_again(tmp_path: Path) -> None:
    """The place is free at 2036, the two units are there at 2040."""
    ran = queue(tmp_path, "lookahead", output=2)
    assert moves(ran, "load", "prefetch") == [("h2d", 2, 2020, 2040)]
    assert ttft(ran)[3] == 2040 + 20 - 2001
    assert ran.summary["kv_prefetched_units_late"] == 2
    assert ran.summary["kv_prefetched_units_used"] == 0


def test_lookahead_looks_no_further_than_it_is_told(tmp_path: Path) -> None:
    """Another request, of which nothing is cached, waits before it."""
    turns = [
        prompt(1, 4, at=0), prompt(2, 6, at=1000, more=49), prompt(3, 1, at=2000, output=30),
        prompt(4, 1, at=2001), prompt(1, 4, at=2002),
    ]  # fmt: skip
    for most, units in ((1, 0), (2, 2)):
        kv = {"write_back": "eager", "prefetch": "lookahead", "lookahead": most}
        ran = serve(tmp_path, turns, tiers(12, dram=100), kv=kv, loop={"max_batch": 1})
        began = [move for move in moves(ran, "prefetch") if move[2] < 2480]
        assert sum(blocks for _, blocks, _, _ in began) == units


def chat(folder: Path, *, between: Turn | None = None, dram: int = 100, ssd: int = 0) -> Ran:
    """A session's first prompt of four units, half of which goes down when another comes; its next
    turn is due 4000 ticks after its answer, at 4038."""
    names = ids_of(1, 4, 0, 4)
    turns = [
        Turn(0, 65, 1, "chat", ids=names),
        prompt(2, 6, at=1000),
        Turn(0, 65, 1, "chat", (0,), 4000, ids=names),
    ]
    turns += [between] if between else []
    kv = {"write_back": "eager", "prefetch": "session"}
    hardware = tiers(9, dram=dram, ssd=ssd, disk=link(UNIT / 30) if ssd else None)
    return serve(folder, turns, hardware, kv=kv)


AHEAD = 0.5 / TICK
"""Ticks that a prefix comes before its turn, beside twice the time of its way."""


def test_session_loads_as_late_as_will_do(tmp_path: Path) -> None:
    ran = chat(tmp_path)
    start = 4038 - AHEAD - 2 * 20
    assert moves(ran, "prefetch") == [("h2d", 2, start, start + 20)]
    assert ttft(ran)[-1] == 20
    assert ran.summary["kv_prefetched_units_used"] == 2


def test_session_comes_up_a_tier_at_a_time(tmp_path: Path) -> None:
    """DRAM has room for eight: B's six units push the beginning of the session's out of it."""
    ran = chat(tmp_path, dram=8, ssd=100)
    ways = moves(ran, "prefetch")
    assert [(name, blocks) for name, blocks, _, _ in ways] == [("ssd_read", 2), ("h2d", 2)]
    (_, _, first, there), (_, _, second, _) = ways
    assert first == 4038 - AHEAD - 2 * 60  # of what is on disk, 30 ticks a unit
    assert there == first + 60
    assert second == 4038 - AHEAD - 2 * 20
    assert ttft(ran)[-1] == 20


def test_what_is_pushed_out_before_its_turn_was_wasted(tmp_path: Path) -> None:
    """A prompt of eight units needs all of HBM 200 ticks before the turn."""
    ran = chat(tmp_path, between=prompt(7, 8, at=3820))
    assert ran.summary["kv_prefetched_units_wasted"] >= 2
    assert moves(ran, "prefetch")[0][:2] == ("h2d", 2)
    assert (ran.requests.status == "finished").all()


def test_next_block_brings_what_followed_the_last_time(tmp_path: Path) -> None:
    """Three units of a text of four are asked for: the fourth comes along behind them."""
    turns = [
        prompt(1, 4, at=0),
        prompt(2, 6, at=1000),
        Turn(2000, 49, 1, ids=ids_of(1, 4, 0, 4)[:3]),
        prompt(1, 4, at=3000),
    ]
    plain, ahead = (
        serve(tmp_path, turns, tiers(9, dram=100), kv={"write_back": "eager", "prefetch": how})
        for how in ("none", "next_block")
    )
    assert moves(plain, "load", "prefetch") == [("h2d", 1, 2000, 2010), ("h2d", 1, 3000, 3010)]
    # At 2000 the link is the request's own.
    assert moves(ahead, "load") == [("h2d", 1, 2000, 2010)]
    assert moves(ahead, "prefetch") == [("h2d", 1, 2010, 2020)]
    assert (ttft(plain)[3], ttft(ahead)[3]) == (30, 20)


def test_a_prefetch_takes_a_link_for_a_tenth_of_a_second_at_most(tmp_path: Path) -> None:
    """A unit takes 40 ticks, so two at a time; who comes meanwhile waits for no more than that."""
    turns = [
        Turn(0, 129, 1, "chat", ids=ids_of(1, 8, 0, 8)),
        prompt(2, 30, at=1000),
        Turn(0, 129, 1, "chat", (0,), 9000, ids=ids_of(1, 8, 0, 8)),
    ]
    kv = {"write_back": "eager", "prefetch": "session"}
    hardware = tiers(32, dram=100, pcie=link(UNIT / 40), out=SLOW)
    ran = serve(tmp_path, turns, hardware, kv=kv)
    sent = moves(ran, "prefetch")
    assert [blocks for _, blocks, _, _ in sent] == [2] * (len(sent) - 1) + [sent[-1][1]]
    assert sum(blocks for _, blocks, _, _ in sent) >= 6
    assert all(end - start <= 0.1 / TICK for _, _, start, end in sent)
    ends = [end for _, _, _, end in sent]
    assert all(start >= end for (_, _, start, _), end in zip(sent[1:], ends, strict=False))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("tight", [False, True])
def test_no_prefetch_makes_a_busy_host_worse(tmp_path: Path, seed: int, tight: bool) -> None:
    """Sixty turns of twelve sessions in memory for a few of them, in bursts."""
    random = np.random.default_rng(seed)
    turns: list[Turn] = []
    for number in range(60):
        session = number % 12
        depth = 4 + 2 * (number // 12)
        after = (number - 12,) if number >= 12 else ()
        turns.append(
            Turn(
                float(random.integers(0, 3) * 800), 16 * depth + int(random.integers(1, 16)),
                int(random.integers(1, 40)), f"user {session}", after,
                float(random.integers(200, 4000)), ids_of(session, depth, 0, depth),
            )
        )  # fmt: skip
    hardware = tiers(40, dram=30 if tight else 60, ssd=400, disk=link(UNIT / 20, 5))
    found = {}
    for how in ("none", "next_block", "lookahead", "session"):
        kv = {"write_back": "eager", "prefetch": how, "promotion": "cost_aware"}
        ran = serve(tmp_path, turns, hardware, kv=kv, loop={"token_budget": 20})
        found[how] = float(np.mean(ttft(ran))), ran.summary["kv_prefix_hit_rate"]
    mean, rate = found.pop("none")
    for how, (other_mean, other_rate) in found.items():
        assert other_mean <= 1.05 * mean, (how, other_mean, mean)
        assert other_rate >= rate - 0.03, (how, other_rate, rate)


# ---------------------------------------------------------------- the further tier
STORY = [prompt(1, 4, at=0), prompt(2, 8, at=1000), prompt(3, 8, at=2000), prompt(1, 4, at=4000)]
"""With room for nine blocks in HBM, four in DRAM and on SSD, the first prompt goes all the way."""


def far(**other: Any) -> dict[str, Any]:
    return remote(100 * UNIT, UNIT / 5, 2) | other


@pytest.mark.parametrize("ssd", [0, 4])
@pytest.mark.parametrize("write_back", ["eager", "on_evict"])
def test_found_in_the_remote_tier_and_loaded_through_dram_s_link(
    tmp_path: Path, ssd: int, write_back: str
) -> None:
    hardware = tiers(9, dram=4, ssd=ssd, remote=far())
    ran = serve(tmp_path, STORY, hardware, kv={"write_back": write_back, "reserve": 0.5})
    assert ran.requests.cached_remote_tokens.iloc[3] == 64
    # Two ticks and five a unit, then ten a unit, once there is room.
    (_, _, start, _), (_, _, _, end) = way = moves(ran, "load")
    assert way == [
        ("remote_read", 4, start, start + 22), ("h2d", 4, start + 22, start + 62),
    ]  # fmt: skip
    assert ttft(ran)[3] == end + 20 - 4000
    # It got there from the tier above: from SSD, or from DRAM where there is none.
    down = [row.link for row in ran.transfers.itertuples() if row.link.startswith(("ssd", "rem"))]
    assert ("ssd_read" in down) == bool(ssd)
    assert "remote_write" in down
    assert ran.summary["kv_demoted_units_remote"] > 0
    assert (ran.summary["kv_demoted_units_ssd"] > 0) == bool(ssd)


def test_bandwidth_latency_and_places_of_the_remote_tier(tmp_path: Path) -> None:
    def load(**other: Any) -> float:
        ran = serve(
            tmp_path, STORY, tiers(9, dram=4, remote=far(**other)), kv={"write_back": "eager"}
        )
        (_, _, start, end), _ = moves(ran, "load")
        return float(end - start)

    assert load() == 2 + 4 * 5
    assert load(latency=f"{30 * TICK} s") == 30 + 4 * 5
    assert load(bandwidth=f"{UNIT / TICK} B/s") == 2 + 4


def test_a_direct_remote_tier_needs_no_other(tmp_path: Path) -> None:
    """A peer GPU's memory below HBM: its link alone carries KV out and back."""
    ran = serve(tmp_path, STORY, tiers(9, remote=far(direct=True)), kv={"write_back": "eager"})
    assert moves(ran, "load") == [("remote_read", 4, 4000, 4022)]
    assert set(ran.transfers.link) == {"remote_read", "remote_write"}
    assert ran.summary["kv_dram_bytes_capacity"] == 0


def test_a_direct_remote_tier_below_dram(tmp_path: Path) -> None:
    hardware = tiers(9, dram=4, remote=far(direct=True))
    ran = serve(tmp_path, STORY, hardware, kv={"write_back": "eager"})
    assert moves(ran, "load") == [("remote_read", 4, 4000, 4022)]
    assert set(ran.transfers.link) == {"d2h", "remote_read", "remote_write"}


@pytest.mark.parametrize("direct", [False, True])
def test_prefetch_from_the_remote_tier(tmp_path: Path, direct: bool) -> None:
    """Through DRAM it comes up in two steps, and otherwise in one."""
    turns = [*STORY[:3], prompt(4, 1, at=4000, output=30), prompt(1, 4, at=4001)]
    kv = {"write_back": "eager", "prefetch": "lookahead"}
    hardware = tiers(16, dram=5, remote=far(direct=direct))
    ran = serve(tmp_path, turns, hardware, kv=kv, loop={"max_batch": 1})
    ways = [name for name, _, _, _ in moves(ran, "prefetch")]
    assert set(ways) == ({"remote_read"} if direct else {"remote_read", "h2d"})
    assert ran.summary["kv_prefetched_units_used"] > 0


# ---------------------------------------------------------------- formats and pieces
BACK = [prompt(1, 2, at=0), prompt(2, 8, at=1000), prompt(1, 2, at=2000)]
"""Two units go down whole and come back."""


def load_ticks(folder: Path, hardware: dict[str, Any] | None = None, **kv: Any) -> float:
    """From the start of the load until what it was for may begin."""
    hardware = tiers(9, dram=100) | (hardware or {})
    ran = serve(folder, BACK, hardware, kv={"write_back": "eager"} | kv)
    assert moves(ran, "load")[0][1] == 2
    return ttft(ran)[2] - 20


def test_a_narrower_format_is_sooner_there_and_has_to_be_converted(tmp_path: Path) -> None:
    """A unit takes a tick to copy in HBM: reading half of one and writing one, 1.5."""
    write_profile(tmp_path / "toy.json", {"hbm_copy_bytes_per_s": UNIT / TICK})
    assert load_ticks(tmp_path) == 20
    assert load_ticks(tmp_path, tier_dtypes={"dram": "fp8"}) == pytest.approx(10 + 2 * 1.5)
    assert load_ticks(tmp_path, tier_dtypes={"dram": "int4"}) == pytest.approx(5 + 2 * 1.25)


def test_a_format_takes_its_share_of_a_tier(tmp_path: Path) -> None:
    """DRAM for eight units of bf16 holds ten in fp8."""
    turns = [prompt(1, 10, at=0)]
    kept = {}
    for name in ("bf16", "fp8"):
        kv = {"write_back": "eager", "tier_dtypes": {"dram": name}}
        kept[name] = serve(tmp_path, turns, tiers(12, dram=8), kv=kv).summary
    assert kept["bf16"]["kv_demoted_units_dram"] == 8
    assert kept["bf16"]["kv_no_room_units_dram"] == 2
    assert kept["fp8"]["kv_demoted_units_dram"] == 10
    assert kept["fp8"]["kv_dram_bytes_peak"] == 5 * UNIT


def test_layout_and_mover_say_what_pieces_cost(tmp_path: Path) -> None:
    """Keys and values of two layers: a paged block is four pieces, two blocks are eight."""
    write_profile(tmp_path / "toy.json", {
        "h2d_piece_s": TICK, "d2h_piece_s": TICK, "h2d_batch_piece_s": TICK / 4,
        "d2h_batch_piece_s": TICK / 4, "h2d_gather_4k_latency_s": 3 * TICK,
        "d2h_gather_4k_latency_s": 3 * TICK, "h2d_gather_4k_bytes_per_s": 1.0,
        "d2h_gather_4k_bytes_per_s": 1.0, "slowdown_gather_h2d_32": 1.0,
        "slowdown_gather_d2h_32": 1.0,
    })  # fmt: skip
    assert load_ticks(tmp_path) == 20
    assert load_ticks(tmp_path, layout="paged") == pytest.approx(20 + 7)
    batched, gather = ({"mover": mover} for mover in ("batched", "gather"))
    assert load_ticks(tmp_path, batched, layout="paged") == pytest.approx(20 + 7 / 4)
    # A kernel that moves pages does not care how many; its own latency, unless the link says.
    quick = {"bandwidth": f"{UNIT / TICK / 10} B/s", "slowdown": 1.0}
    own = gather | {"links": {"h2d": quick, "d2h": quick}}
    assert load_ticks(tmp_path, own, layout="paged") == pytest.approx(20 + 3)


def test_neighbours_are_one_piece(tmp_path: Path) -> None:
    """Two units of a prompt go down as one piece, two prompts of a unit as two."""
    write_profile(tmp_path / "toy.json", {"h2d_piece_s": 5 * TICK, "d2h_piece_s": 5 * TICK})
    same = [prompt(1, 2, at=0), prompt(2, 8, at=1000)]
    apart = [prompt(1, 1, at=0), prompt(3, 1, at=500), prompt(2, 8, at=1000)]
    for turns, ticks in ((same, 20), (apart, 25)):
        ran = serve(tmp_path, turns, tiers(9, dram=100))
        assert moves(ran, "evict")[0] == ("d2h", 2, 1000, 1000 + ticks)


def test_stretches_are_counted_in_any_order() -> None:
    chain = [Unit(i, i - 1 if i else None, i) for i in range(5)]
    assert stretches(chain) == 1
    assert stretches(chain[::-1]) == 1
    assert stretches([chain[0], chain[1], chain[3], chain[4]]) == 2
    branch = Unit(9, 1, 2)
    assert stretches([*chain[:3], branch]) == 2
    assert stretches([branch, chain[2]]) == 2
    assert stretches([]) == 0
