"""Several replicas of one host: who gets which request, and what they find of one another's KV.

A tick, the toy GPU and its iterations are those of `toy`: in graph mode a prefill that ends its
prompt takes 20 ticks, one that does not 18, a decode iteration 16. A unit is a block of 16 tokens;
PCIe and disk move a unit in 10 ticks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kv_runs
import pytest
from hypothesis import HealthCheck, given, settings
from kv_check import checked
from kv_runs import ids_of, link, links
from toy import KV_BYTES, TICK, Ran, Turn, hbm, linked, play, toy_scenario

from sim.errors import InputError
from sim.feasible import faults
from sim.load import load
from sim.scenario import Scenario

if TYPE_CHECKING:
    from sim.trace.chunk import Chunk

UNIT = 16 * KV_BYTES
SLOW = link(UNIT / 10)


def hardware(blocks: int = 20, dram: int = 0, ssd: int = 0) -> dict[str, Any]:
    """So many blocks of HBM each, and units of DRAM and SSD of the host."""
    found: dict[str, Any] = {"hbm": hbm(blocks)}
    if dram:
        found |= {"dram": {"capacity": f"{dram * UNIT} B"}, "links": links(SLOW, SLOW)}
    if ssd:
        found |= {"ssd": {"capacity": f"{ssd * UNIT} B"}}
    return found


def serve(folder: Path, turns: list[Turn], engine: str = "step", **sections: Any) -> Ran:
    """Plays *turns* on two replicas that write back eagerly, unless *sections* say otherwise."""
    kv = {"block_tokens": 16, "promotion": "always", "reserve": 0.0, "write_back": "eager"}
    sections = {"hardware": hardware()} | sections
    sections["kv"] = kv | sections.get("kv", {})
    sections["replicas"] = {"count": 2} | sections.get("replicas", {})
    scenario = toy_scenario(folder, [(0, 1, 1)], **sections)
    if engine == "leap":
        return play(scenario, engine, linked(turns), 16)
    with checked() as count:
        ran = play(scenario, engine, linked(turns), 16)
    assert count[0] > 0
    return ran


def prompt(family: int, blocks: int, *, at: float, output: int = 1) -> Turn:
    """A prompt of whole blocks of a family and a token."""
    return Turn(at, 16 * blocks + 1, output, ids=ids_of(family, blocks, 0, blocks))


def ttft(ran: Ran) -> list[float]:
    """In ticks."""
    return [float(ms) / 1e3 / TICK for ms in ran.requests.ttft_ms]


def sent(ran: Ran) -> list[int]:
    """Which replica each request went to."""
    found: list[int] = ran.requests.replica.tolist()
    return found


# ---------------------------------------------------------------- tiers of all, tiers of each
TWICE = [prompt(1, 4, at=0), prompt(1, 4, at=1000)]
"""The same prompt for one replica and, long after, for the other."""


def test_what_one_replica_wrote_another_finds_below(tmp_path: Path) -> None:
    """Four units come up in 40 ticks, and a token is left to compute."""
    ran = serve(tmp_path, TWICE, hardware=hardware(dram=100))
    assert sent(ran) == [0, 1]
    assert ran.requests.cached_dram_tokens.tolist() == [0, 64]
    assert ttft(ran) == [38, 40 + 20]
    down, up = (ran.transfers[ran.transfers.reason == r] for r in ("write_back", "load"))
    assert down.replica.tolist() == [0]  # what is below already is not written again
    assert up.replica.tolist() == [1]
    assert ran.summary["kv_dram_bytes_end"] == 4 * UNIT
    assert ran.summary["kv_dram_bytes_capacity"] == 100 * UNIT
    assert ran.summary["kv_hbm_cached_blocks_end"] == 8  # in both HBMs


def test_with_tiers_of_their_own_it_is_not_found(tmp_path: Path) -> None:
    ran = serve(tmp_path, TWICE, hardware=hardware(dram=100), replicas={"tiers": "own"})
    assert ran.requests.cached_dram_tokens.tolist() == [0, 0]
    assert ttft(ran) == [38, 38]
    assert ran.transfers.replica.tolist() == [0, 1]
    assert ran.summary["kv_dram_bytes_end"] == 8 * UNIT  # twice
    assert ran.summary["kv_dram_bytes_capacity"] == 100 * UNIT  # half of it each


def test_tiers_of_their_own_are_equal_parts(tmp_path: Path) -> None:
    """Six units of the host are three for each, and a prompt has four."""
    own = serve(tmp_path, TWICE, hardware=hardware(dram=6), replicas={"tiers": "own"})
    assert own.summary["kv_no_room_units_dram"] == 2
    assert own.summary["kv_dram_bytes_end"] == 6 * UNIT
    shared = serve(tmp_path, TWICE, hardware=hardware(dram=6))
    assert shared.summary["kv_no_room_units_dram"] == 0


@pytest.mark.parametrize(("late", "lost"), [(1, 4), (500, 0)])
def test_nothing_goes_while_another_replica_reads_it(
    tmp_path: Path, late: float, lost: int
) -> None:
    """DRAM has room for one prompt. Replica 1 loads it in 40 ticks, while replica 0 wants to write
    another in its place: not before it has been read."""
    turns = [*TWICE, prompt(2, 4, at=1000 + late)]
    ran = serve(tmp_path, turns, hardware=hardware(dram=4))
    assert sent(ran) == [0, 1, 0]
    assert ran.requests.cached_dram_tokens.tolist() == [0, 64, 0]
    assert ran.summary["kv_no_room_units_dram"] == lost
    assert ran.summary["kv_evicted_units_dram"] == 4 - lost


def test_pcie_is_each_one_s_and_the_disk_is_common(tmp_path: Path) -> None:
    """Two prompts go down at once: over PCIe in 40 ticks each, and then to disk in 80."""
    turns = [prompt(1, 4, at=0), prompt(2, 4, at=0)]
    for tiers in ("shared", "own"):
        ran = serve(
            tmp_path, turns, hardware=hardware(dram=100, ssd=100), replicas={"tiers": tiers}
        )
        ticks = (ran.transfers.end_s - ran.transfers.start_s) / TICK
        assert ticks[ran.transfers.link == "d2h"].tolist() == [40, 40]
        assert ticks[ran.transfers.link == "ssd_write"].tolist() == [80, 80]
        assert ran.summary["kv_ssd_write_busy_s"] == 80 * TICK  # one link
        assert ran.summary["kv_d2h_busy_s"] == 80 * TICK  # two


def test_a_replica_drops_what_another_has_written_down(tmp_path: Path) -> None:
    """Replica 1 has a prompt in HBM that it never wrote: it may go for another without loss."""
    turns = [prompt(1, 4, at=0), prompt(1, 4, at=500), prompt(3, 1, at=1000), prompt(2, 6, at=1500)]
    ran = serve(tmp_path, turns, hardware=hardware(9, dram=100))
    assert sent(ran) == [0, 1, 0, 1]
    assert ran.summary["kv_dropped_unsaved_units"] == 0
    assert ttft(ran)[3] == 38  # at once


# ---------------------------------------------------------------- routers
def test_round_robin_takes_turns_whatever_the_load(tmp_path: Path) -> None:
    turns = [prompt(1, 1, at=10 * i, output=200 if i == 0 else 1) for i in range(5)]
    assert sent(serve(tmp_path, turns)) == [0, 1, 0, 1, 0]
    assert sent(serve(tmp_path, turns, replicas={"count": 3})) == [0, 1, 2, 0, 1]


def test_least_loaded_looks_at_who_waits_and_runs(tmp_path: Path) -> None:
    """The first is long; each of the others has ended when the next arrives."""
    turns = [prompt(1, 1, at=100 * i, output=200 if i == 0 else 1) for i in range(4)]
    assert sent(serve(tmp_path, turns, replicas={"router": "least_loaded"})) == [0, 1, 1, 1]


FAMILIES = [
    prompt(1, 4, at=0), prompt(2, 4, at=1),
    *(prompt(2, 4, at=1000 + i, output=50) for i in range(4)),
]  # fmt: skip
"""A prompt for each replica, and then the second again and again while it is at work."""


def test_prefix_goes_where_the_prompt_is_in_hbm(tmp_path: Path) -> None:
    ran = serve(tmp_path, FAMILIES, replicas={"router": "prefix"})
    assert sent(ran) == [0, 1, 1, 1, 1, 1]
    assert ran.requests.cached_hbm_tokens.tolist() == [0, 0, 64, 64, 64, 64]


def test_slack_says_how_much_longer_a_queue_may_be(tmp_path: Path) -> None:
    """With one more at most, the third of the four goes to the other, the fourth comes back."""
    ran = serve(tmp_path, FAMILIES, replicas={"router": "prefix", "slack": 1})
    assert sent(ran) == [0, 1, 1, 1, 0, 1]
    ran = serve(tmp_path, FAMILIES, replicas={"router": "prefix", "slack": 0})
    assert sent(ran) == [0, 1, 1, 0, 1, 0]


def test_a_session_goes_over_all_replicas_and_is_brought_up_where_it_will_go(
    tmp_path: Path,
) -> None:
    """Three turns, each a while after the answer; in turn, or where the prefix is."""
    ids = ids_of(1, 4, 0, 4)
    later = (Turn(0, 65, 1, "chat", (number,), 500, ids=ids) for number in range(3))
    turns = [prompt(1, 4, at=0), *later]
    assert sent(serve(tmp_path, turns)) == [0, 1, 0, 1]
    kv = {"prefetch": "session"}
    there = serve(
        tmp_path, turns, hardware=hardware(dram=100), kv=kv, replicas={"router": "prefix"}
    )
    assert sent(there) == [0, 0, 0, 0]
    assert there.summary["requests_finished"] == 4


# ---------------------------------------------------------------- at the same instant
BOTH = pytest.mark.parametrize("engine", ["step", "leap"])


def admitted(folder: Path, engine: str, turns: list[Turn]) -> float:
    """When that of *turns* that waits for another is admitted, in ticks; two replicas get them in
    turn."""
    scenario = toy_scenario(folder, [(0, 1, 1)], replicas={"count": 2})
    ran = play(scenario, engine, linked(turns))
    return ran.ticks("admitted_s")[ran.requests.waited_for.tolist().index(1)]


@BOTH
def test_what_a_later_replica_leads_to_is_seen_a_boundary_later(
    tmp_path: Path, engine: str
) -> None:
    """Both come to a boundary at 84; replica 1 answers then, and the next turn is for replica 0,
    which has had its turn."""
    turns = [Turn(0, 8, 100), Turn(0, 8, 5), Turn(after=(1,))]
    assert admitted(tmp_path, engine, turns) == 84 + 16


@BOTH
def test_what_an_earlier_replica_leads_to_is_seen_at_once(tmp_path: Path, engine: str) -> None:
    """Replica 0 answers at 20 + 19 * 16 = 324, a boundary of replica 1 since 64 + 20. A request
    that nobody can serve lets the next turn be for replica 1."""
    turns = [Turn(0, 8, 20), Turn(64, 8, 100), Turn(65, 200_000), Turn(after=(0,))]
    assert admitted(tmp_path, engine, turns) == 324


@BOTH
def test_the_router_sees_what_has_gone_meanwhile(tmp_path: Path, engine: str) -> None:
    """Replica 0 keeps four units of a family, replica 1 three. While replica 0 decodes, it takes
    blocks from two of its four; so the next of the family is for replica 1."""
    turns = [
        prompt(1, 4, at=0), prompt(1, 3, at=1),
        Turn(1000, 17, 100, ids=ids_of(3, 1, 0, 1)), prompt(1, 4, at=1000 + 20 + 16 * 85),
    ]  # fmt: skip
    ran = serve(tmp_path, turns, engine, hardware=hardware(9), replicas={"router": "prefix"})
    assert sent(ran) == [0, 1, 0, 1]
    early = [*turns[:3], prompt(1, 4, at=1000 + 20 + 16 * 40)]
    ran = serve(tmp_path, early, engine, hardware=hardware(9), replicas={"router": "prefix"})
    assert sent(ran) == [0, 1, 0, 0]


# ---------------------------------------------------------------- records
def test_records_say_which_replica(tmp_path: Path) -> None:
    turns = [prompt(1, 2, at=0, output=3), prompt(2, 2, at=5, output=2), prompt(3, 2, at=9)]
    ran = serve(tmp_path, turns, hardware=hardware(dram=100))
    rows = ran.iterations
    assert rows.replica.is_monotonic_increasing  # one after the other
    for _, part in rows.groupby("replica"):
        assert part.start_s.is_monotonic_increasing
    each = ran.summary["replicas"]
    assert [one["replica"] for one in each] == [0, 1]
    assert [one["requests_in"] for one in each] == [2, 1]
    for name in ("loop_iterations", "loop_prefill_tokens", "kv_prefill_tokens_saved"):
        assert sum(one[name] for one in each) == ran.summary[name]
    assert [one["loop_iterations"] for one in each] == rows.groupby("replica").size().tolist()
    assert ran.summary["kv_blocks_capacity"] == 40
    busy = [one["loop_gpu_busy_fraction"] for one in each]
    assert ran.summary["loop_gpu_busy_fraction"] == pytest.approx(sum(busy) / 2)


def test_one_replica_leaves_no_mark(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"hardware": hardware(dram=100), "kv": {"write_back": "eager"}}
    plain = toy_scenario(tmp_path, [(0, 1, 1)], **sections)
    one = toy_scenario(tmp_path, [(0, 1, 1)], replicas={"count": 1}, **sections)
    assert plain.hash == one.hash
    assert "replicas" not in plain.resolved()
    assert Scenario.from_resolved(plain.resolved()).replicas.count == 1
    first, second = (play(scenario, "leap", linked(TWICE), 16) for scenario in (plain, one))
    assert first.summary == second.summary
    assert "replicas" not in first.summary
    for table in (first.requests, first.iterations, first.transfers):
        assert "replica" not in table.columns


@pytest.mark.parametrize(
    "keys", [{}, {"router": "least_loaded"}, {"router": "prefix", "slack": 3}, {"tiers": "own"}]
)
def test_each_key_is_in_the_hash_and_comes_back(tmp_path: Path, keys: dict[str, Any]) -> None:
    three = toy_scenario(tmp_path, [(0, 1, 1)], replicas={"count": 3})
    other = toy_scenario(tmp_path, [(0, 1, 1)], replicas={"count": 3} | keys)
    assert (three.hash == other.hash) == (not keys)
    resolved = other.resolved()["replicas"]
    assert resolved == {"count": 3} | keys


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("count: 0", "a.yaml:3:19: replicas.count"),
        ("count: 2.0", "a.yaml:3:19: replicas.count"),
        ("count: 2, router: random", "a.yaml:3:30: replicas.router"),
        ("count: 2, slack: -1", "a.yaml:3:29: replicas.slack"),
        ("count: 2, tiers: mine", "a.yaml:3:29: replicas.tiers"),
        ("number: 2", "a.yaml:3:12: replicas.number: no such field"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    least = "trace: {source: agent-like, requests: 10, rate: 0.1 /s}\nmodel: llama-3.2-1b\n"
    Path("a.yaml").write_text(f"{least}replicas: {{{text}}}\n")
    with pytest.raises(InputError) as caught:
        load("a.yaml", (), faults)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(fault)


@pytest.mark.parametrize(
    ("keys", "kv", "key"),
    [
        ({"router": "prefix"}, {}, "replicas.router"),
        ({"count": 2, "slack": 3}, {}, "replicas.slack"),
        ({"count": 2, "tiers": "own"}, {}, "replicas.tiers"),
        ({"count": 2}, {"prefetch": "session"}, "kv.prefetch"),
    ],
)
def test_keys_without_effect_are_named(
    tmp_path: Path, keys: dict[str, Any], kv: dict[str, Any], key: str
) -> None:
    dram = {"dram": {"capacity": "1 MiB"}} if kv else {}
    scenario = toy_scenario(
        tmp_path, [(0, 1, 1)], replicas=keys, kv=kv, hardware={"hbm": hbm(9)} | dram
    )
    lines = scenario.warnings()
    assert len(lines) == 1
    assert lines[0].startswith(f"{key}: has no effect here; only with ")


# ---------------------------------------------------------------- any run
Run = tuple[list["Chunk"], int, dict[str, Any]]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(run=kv_runs.crowds())
def test_engines_agree_on_any_run(run: Run) -> None:
    chunks, block_tokens, sections = run
    with tempfile.TemporaryDirectory() as folder:
        scenario = toy_scenario(Path(folder), [(0, 1, 1)], **sections)
        step, leap = (play(scenario, engine, chunks, block_tokens) for engine in ("step", "leap"))
    for name in ("requests", "iterations", "transfers"):
        assert getattr(step, name).equals(getattr(leap, name)), name
    assert step.summary == leap.summary


@settings(max_examples=14, deadline=None, suppress_health_check=list(HealthCheck))
@given(run=kv_runs.crowds())
def test_rooms_and_accounts_hold_at_every_boundary(run: Run) -> None:
    chunks, block_tokens, sections = run
    with tempfile.TemporaryDirectory() as folder, checked():
        scenario = toy_scenario(Path(folder), [(0, 1, 1)], **sections)
        ran = play(scenario, "step", chunks, block_tokens)
    summary, statuses = ran.summary, ran.requests.status
    ended = sum(summary[f"requests_{s}"] for s in ("finished", "rejected", "unfinished"))
    assert summary["requests_in"] == ended == len(statuses)
    assert sum(one["requests_in"] for one in summary["replicas"]) == ended
    if sections["stop"]["at"] is None:
        assert len(statuses) == sum(len(chunk) for chunk in chunks)
        assert statuses.isin(["finished", "rejected"]).all()
    for name, rows in ran.transfers.groupby("link", observed=True) if len(ran.transfers) else ():
        assert rows.bytes.sum() == summary[f"kv_{name}_bytes"]
    for tier in ("dram", "ssd"):
        assert summary[f"kv_{tier}_bytes_peak"] <= summary[f"kv_{tier}_bytes_capacity"]
