"""KV over several tiers: stories with exact times, and what holds in every run.

Ticks, units and links are those of `kv_stories`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kv_runs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from kv_check import checked
from kv_runs import ids_of, link
from kv_stories import NEVER, SLOW, UNIT, prompt, serve, tiers, ttft
from toy import TICK, Ran, Turn, hbm, linked, play, toy_scenario

from sim.errors import InputError

if TYPE_CHECKING:
    from sim.trace.chunk import Chunk


# ---------------------------------------------------------------- HBM
def test_a_hit_in_hbm_saves_prefill(tmp_path: Path) -> None:
    """A budget of 32 tokens: four blocks and one token are three chunks, or one token is one."""
    turns = [prompt(1, 4, at=0), prompt(1, 4, at=1000)]
    loop = {"token_budget": 32}
    ran = serve(tmp_path, turns, tiers(20), loop=loop)
    assert ttft(ran) == [18 + 18 + 20, 20]
    assert ran.requests.cached_hbm_tokens.tolist() == [0, 64]
    assert ran.summary["kv_prefill_tokens_saved"] == 64
    assert ran.iterations.prefill_tokens.tolist() == [32, 32, 1, 1]


def test_a_whole_prompt_in_the_cache_leaves_a_token_to_compute(tmp_path: Path) -> None:
    turns = [prompt(1, 4, at=0, more=0), prompt(1, 4, at=1000, more=0)]
    ran = serve(tmp_path, turns, tiers(20))
    assert ran.requests.cached_hbm_tokens.tolist() == [0, 48]


def test_what_was_evicted_is_computed_again(tmp_path: Path) -> None:
    """Nine blocks: the second prompt needs all but four, so the first loses its end."""
    turns = [prompt(1, 4, at=0), prompt(2, 6, at=1000), prompt(1, 4, at=2000)]
    ran = serve(tmp_path, turns, tiers(9))
    # 7 blocks of 9 are needed, 5 are free: the two last units of the first go.
    assert ran.requests.cached_hbm_tokens.tolist() == [0, 0, 32]
    assert ran.summary["kv_evicted_units_hbm"] >= 2
    assert ran.summary["kv_dropped_unsaved_units"] == 0


def test_requests_at_the_same_time_share_what_both_compute(tmp_path: Path) -> None:
    turns = [prompt(1, 2, at=0, output=40), prompt(1, 2, at=0, output=40)]
    ran = serve(tmp_path, turns, tiers(20), loop={"token_budget": 200})
    assert ran.summary["kv_duplicate_units"] == 2
    assert ran.summary["kv_prefix_hit_units"] == 0
    # 2 shared, each has 33 + 39 tokens = 5 blocks, of which 2 are the shared ones
    assert ran.summary["kv_hbm_cached_blocks_end"] == 2


def test_without_the_cache_nothing_is_shared(tmp_path: Path) -> None:
    scenario = toy_scenario(
        tmp_path, [(0, 1, 1)], hardware={"hbm": hbm(20)}, kv={"prefix_cache": False}
    )
    ran = play(scenario, "leap", linked([prompt(1, 4, at=0), prompt(1, 4, at=1000)]), 16)
    assert ran.summary["loop_prefill_tokens"] == 130
    assert ran.summary["trace_prefix_ids_unused"]
    assert "kv_unit_tokens" not in ran.summary


def test_blocks_that_do_not_go_together_are_an_error(tmp_path: Path) -> None:
    scenario = toy_scenario(tmp_path, [(0, 1, 1)], kv={"block_tokens": 16})
    with pytest.raises(InputError, match=r"trace blocks of 24 tokens and kv\.block_tokens 16"):
        play(scenario, "leap", linked([prompt(1, 4, at=0)]), 24)


# ---------------------------------------------------------------- promotion
STORY = [prompt(1, 4, at=0), prompt(2, 6, at=1000), prompt(1, 4, at=2000)]
"""The second pushes the first's end out of nine blocks; the third asks for the first again."""


def test_promotion_takes_the_link_s_time_and_delays_the_first_token(tmp_path: Path) -> None:
    """Two units of the first went down to DRAM; the third waits 20 ticks for them and the others
    that had to make room."""
    ran = serve(tmp_path, STORY, tiers(9, dram=100))
    third = ran.requests.iloc[2]
    moved = int(third.cached_dram_tokens) // 16
    assert third.cached_hbm_tokens + third.cached_dram_tokens == 64
    loads = ran.transfers[ran.transfers.reason == "load"]
    assert loads.blocks.tolist() == [moved]
    start, end = float(loads.start_s.iloc[0]), float(loads.end_s.iloc[0])
    assert (end - start) / TICK == 10 * moved
    assert third.load_ms / 1e3 == end - start
    assert third.first_token_s == end + 20 * TICK


def test_always_loads_what_cost_aware_computes(tmp_path: Path) -> None:
    """A link of 100,000 ticks a unit: loading all the same, or computing."""
    hardware = tiers(9, dram=100, pcie=NEVER, out=SLOW)
    computed = serve(tmp_path, STORY, hardware, kv={"promotion": "cost_aware"})
    loaded = serve(tmp_path, STORY, hardware, kv={"promotion": "always"})
    assert computed.requests.cached_dram_tokens.tolist() == [0, 0, 0]
    assert ttft(computed)[2] < 100
    assert loaded.requests.cached_dram_tokens[2] > 0
    assert ttft(loaded)[2] > 1e5


def test_two_requests_wait_for_the_same_load(tmp_path: Path) -> None:
    turns = [*STORY[:2], prompt(1, 4, at=2000), prompt(1, 4, at=2003)]
    ran = serve(tmp_path, turns, tiers(9, dram=100))
    loads = ran.transfers[ran.transfers.reason == "load"]
    assert len(loads) == 1
    assert ran.requests.cached_dram_tokens.iloc[2] == ran.requests.cached_dram_tokens.iloc[3] > 0


def test_from_ssd_over_both_links(tmp_path: Path) -> None:
    """A DRAM of one unit: what is pushed out of it lies on the disk."""
    ran = serve(tmp_path, STORY, tiers(9, dram=1, ssd=100, disk=link(UNIT / 30)))
    assert ran.requests.status.tolist() == ["finished"] * 3
    assert ran.summary["kv_demoted_units_dram"] > 0
    assert ran.summary["kv_dram_bytes_peak"] == UNIT


def test_conversion_and_narrow_formats(tmp_path: Path) -> None:
    """Half the bits are half the bytes on the way and in DRAM."""
    kv = {"tier_dtypes": {"dram": "fp8"}}
    ran = serve(tmp_path, STORY, tiers(9, dram=100), kv=kv)
    out = ran.transfers[ran.transfers.link == "d2h"]
    assert (out.bytes == out.blocks * UNIT // 2).all()


# ---------------------------------------------------------------- write-back
def test_eager_write_back_makes_room_at_once(tmp_path: Path) -> None:
    """Copies are there when room is needed: nobody waits for D2H, whereas on_evict has to."""
    late = serve(tmp_path, STORY[:2], tiers(9, dram=100))
    early = serve(tmp_path, STORY[:2], tiers(9, dram=100), kv={"write_back": "eager"})
    assert ttft(early)[1] == 38  # 97 tokens with a budget of 64
    assert ttft(late)[1] == 38 + 20  # two units out first
    assert early.transfers.reason.tolist() == ["write_back"] * 2
    assert late.transfers.reason.tolist() == ["evict"]


def test_a_reserve_is_written_out_before_it_is_needed(tmp_path: Path) -> None:
    """Half of nine blocks are to be at hand: units go down while nothing else happens."""
    ran = serve(tmp_path, STORY[:2], tiers(9, dram=100), kv={"reserve": 0.5})
    assert ttft(ran)[1] == 38 + 20
    ran = serve(tmp_path, [prompt(1, 7, at=0), STORY[1]], tiers(9, dram=100), kv={"reserve": 0.5})
    assert ran.transfers.end_s.iloc[0] < 1000 * TICK


def test_all_tiers_full_and_still_progress(tmp_path: Path) -> None:
    turns = [prompt(family, 4, at=100.0 * family, output=20) for family in range(12)]
    ran = serve(tmp_path, turns, tiers(9, dram=2, ssd=1))
    assert (ran.requests.status == "finished").all()
    assert ran.summary["kv_dropped_unsaved_units"] > 0
    assert ran.summary["kv_no_room_units_dram"] > 0


# ---------------------------------------------------------------- preemption
def crowd(preemption: str, folder: Path, pcie: dict[str, Any]) -> Ran:
    """Two requests of 2 blocks that grow to 6, in memory for eight."""
    turns = [prompt(family, 2, at=0, output=60) for family in (1, 2)]
    hardware = tiers(8, dram=100, pcie=pcie)
    kv = {"preemption": preemption, "prefix_cache": True}
    return serve(folder, turns, hardware, kv=kv, loop={"token_budget": 16})


def test_swap_moves_what_recompute_computes_again(tmp_path: Path) -> None:
    again, swapped = (crowd(how, tmp_path, SLOW) for how in ("recompute", "swap"))
    for ran in (again, swapped):
        assert ran.requests.preemptions.tolist() == [0, 1]
        assert (ran.requests.status == "finished").all()
    assert swapped.summary["kv_swaps"] == 1
    assert swapped.summary["loop_prefill_tokens"] == 66  # nothing twice
    assert again.summary["loop_prefill_tokens"] > 66
    out, back = (swapped.transfers[swapped.transfers.reason == f"swap_{w}"] for w in ("out", "in"))
    assert out.blocks.tolist() == back.blocks.tolist()
    blocks = int(out.blocks.iloc[0])
    assert swapped.summary["kv_stall_swap_s"] / TICK == 10 * blocks
    assert swapped.summary["kv_dram_bytes_end"] % UNIT == 0


def test_the_cheaper_way_out(tmp_path: Path) -> None:
    assert crowd("cheaper", tmp_path, link(1e9)).summary["kv_swaps"] == 1
    dear = crowd("cheaper", tmp_path, link(UNIT / 1e4))
    assert dear.summary["kv_swaps"] == 0
    assert dear.summary["kv_swaps_dearer"] == 1


# ---------------------------------------------------------------- slowdown
def test_decode_beside_a_transfer_takes_longer(tmp_path: Path) -> None:
    """Twice as long on the GPU: 14 of an iteration's 16 ticks are its work."""
    turns = [prompt(1, 4, at=0, output=30)]
    kv = {"write_back": "eager"}
    ran = serve(tmp_path, turns, tiers(20, dram=9, pcie=link(UNIT / 20, slowdown=2)), kv=kv)
    decode = ran.iterations[ran.iterations.kind == "decode"]
    assert (decode.duration_s / TICK).tolist() == [30] * 3 + [16] * 26  # 80 ticks of transfer
    assert (decode.gpu_busy_s / TICK).tolist()[:4] == [28] * 3 + [14]


# ---------------------------------------------------------------- prefetch
def test_a_session_s_next_turn_is_brought_up(tmp_path: Path) -> None:
    """Its prefix was pushed down; while the user thinks it comes up again."""
    names = ids_of(1, 4, 0, 4)
    turns = [
        Turn(0, 65, 1, "chat", ids=names),
        Turn(100, 129, 1, ids=ids_of(2, 8, 0, 8)),
        Turn(300, 33, 1, "chat", (0,), 2000, ids=names[:2]),
        Turn(0, 65, 1, "chat", (2,), 2000, ids=names),
    ]
    plain, session = (
        serve(tmp_path, turns, tiers(10, dram=100, out=link(1e9)), kv={"prefetch": how})
        for how in ("none", "session")
    )
    assert plain.summary["kv_prefetched_units"] == 0
    assert session.summary["kv_prefetched_units"] > 0
    assert session.summary["kv_prefetched_units_used"] > 0
    # HBM has room for one unit of two; the other is there still, and a token more needs a block.
    assert ttft(session)[2] == pytest.approx(20, abs=0.01)
    assert ttft(plain)[2] == pytest.approx(30, abs=0.01)


# ---------------------------------------------------------------- any run
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(run=kv_runs.runs())
def test_rooms_and_accounts_hold_at_every_boundary(
    run: tuple[list[Chunk], int, dict[str, Any]],
) -> None:
    chunks, block_tokens, sections = run
    with tempfile.TemporaryDirectory() as folder, checked():
        scenario = toy_scenario(Path(folder), [(0, 1, 1)], **sections)
        ran = play(scenario, "step", chunks, block_tokens)
    statuses = ran.requests.status
    if sections["stop"]["at"] is None:
        assert len(statuses) == sum(len(chunk) for chunk in chunks)
        assert statuses.isin(["finished", "rejected"]).all()
    assert ran.requests.generated_tokens.sum() == ran.summary["tokens_committed"]
    for name, rows in ran.transfers.groupby("link", observed=True) if len(ran.transfers) else ():
        assert rows.bytes.sum() == ran.summary[f"kv_{name}_bytes"]
        assert (rows.end_s >= rows.start_s).all()
        assert np.all(rows.start_s >= rows.queued_s)
