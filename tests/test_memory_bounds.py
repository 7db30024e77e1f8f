"""What is remembered about KV follows what the tiers hold, not how long the trace is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sim.memory.manager import Memory
from sim.memory.ranked import CostAware, Lfu
from sim.memory.units import HBM
from sim.scenario import Scenario
from sim.simulate import Simulation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.request import Request

HARDWARE = {
    "hbm": {"capacity": "22 GiB"}, "dram": {"capacity": "6 GiB"}, "ssd": {"capacity": "16 GiB"}
}  # fmt: skip
PROMPT = 300
"""More units than any prompt that HBM has room for."""


def bookkeeping(memory: Memory) -> dict[str, int]:
    """How many things each of the lists and maps of *memory* has."""
    prefetching, order = memory.prefetching, memory.rooms.orders[HBM]
    sizes = {
        "units": len(memory.index),
        "brought up": len(prefetching.unused),
        "followers": len(prefetching._next),
        "wanted": len(prefetching._wanted),
        "on their way": len(memory.promotion.flying),
        "waiting for a link": len(memory.patient),
        "ended": len(memory.ended),
    }
    if isinstance(order, Lfu | CostAware):
        sizes["ranks"] = len(order._heap) + len(order._front)
    if isinstance(order, CostAware):
        sizes["floors"] = len(order._floor)
    return sizes


def peaks(monkeypatch: pytest.MonkeyPatch, requests: int, **kv: Any) -> tuple[dict[str, int], int]:
    """The most there was of each at any boundary, and how many units the tiers have room for."""
    most: dict[str, int] = {}
    tend = Memory.tend

    def watched(self: Memory, waiting: Sequence[Request], reserved: int) -> None:
        tend(self, waiting, reserved)
        for name, size in bookkeeping(self).items():
            most[name] = max(size, most.get(name, 0))

    monkeypatch.setattr(Memory, "tend", watched)
    trace = {"source": "mooncake-conversation-like", "requests": requests}
    data = {"trace": trace, "model": "llama-3.1-8b", "hardware": HARDWARE, "kv": kv}
    simulation = Simulation(Scenario.model_validate(data))
    simulation.run()
    (memory,) = simulation.fleet.memories
    assert memory.counts["lookup_units"] > 4 * requests
    assert memory.counts["evicted_ssd"] > 0, "the tiers were never full"
    rooms = memory.rooms
    room = memory.pool.capacity // rooms.blocks
    return most, room + sum(tier.capacity // tier.unit_bytes for tier in rooms.tiers.values())


@pytest.mark.parametrize(
    ("eviction", "prefetch"), [("lru", "lookahead"), ("lfu", "none"), ("cost_aware", "next_block")]
)
def test_memory_is_bounded_by_what_the_tiers_hold(
    monkeypatch: pytest.MonkeyPatch, eviction: str, prefetch: str
) -> None:
    for requests in (150, 450):
        most, room = peaks(
            monkeypatch, requests, eviction=eviction, prefetch=prefetch, write_back="eager",
            preemption="swap",
        )  # fmt: skip
        assert 0 < most["units"] <= room
        for name in ("brought up", "on their way", "wanted", "waiting for a link", "ended"):
            assert most[name] <= room, name
        assert most["followers"] <= 2 * room + 1024 + PROMPT
        assert max(most.get("ranks", 0), most.get("floors", 0)) <= 2 * room + 64 + PROMPT
