"""Random runs with KV over several tiers, for tests of what must hold in all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from toy import KV_BYTES, TICK, Turn, hbm, linked

if TYPE_CHECKING:
    from sim.trace.chunk import Chunk

LENGTHS = st.one_of(st.integers(1, 8), st.integers(1, 40))
GAPS = st.sampled_from([0, 0, 0, 1, 15, 16, 16.5, 20, 37, 100, 400])


def link(bandwidth: float, latency: float = 0.0, slowdown: float = 1.0) -> dict[str, Any]:
    """A link of *bandwidth* bytes a tick and *latency* ticks."""
    return {
        "bandwidth": f"{bandwidth / TICK} B/s", "latency": f"{latency * TICK} s",
        "slowdown": slowdown,
    }  # fmt: skip


def links(
    pcie: dict[str, Any], disk: dict[str, Any] | None = None, out: dict[str, Any] | None = None
) -> dict[str, Any]:
    """`hardware.links` with the same for both directions, or another one *out* of HBM."""
    found = {"h2d": pcie, "d2h": out or pcie}
    return found | ({"ssd_read": disk, "ssd_write": disk} if disk else {})


def remote(
    capacity: float, bandwidth: float, latency: float = 0.0, *, direct: bool = False
) -> dict[str, Any]:
    """`hardware.remote` of *capacity* bytes, *bandwidth* bytes a tick and *latency* ticks."""
    return {
        "capacity": f"{capacity} B", "bandwidth": f"{bandwidth / TICK} B/s",
        "latency": f"{latency * TICK} s", "direct": direct,
    }  # fmt: skip


def ids_of(family: int, shared: int, number: int, blocks: int) -> tuple[int, ...]:
    """Ids of a prompt of *blocks* blocks that shares its first *shared* with its family."""
    own = 1_000_000 + 1000 * number
    return tuple(1000 * family + i if i < shared else own + i for i in range(blocks))


@st.composite
def turns(draw: Any, trace_block: int, closed: bool) -> list[Turn]:
    """Requests that share prefixes; some wait for others if *closed*."""
    found: list[Turn] = []
    for number in range(draw(st.integers(1, 16))):
        prompt = draw(LENGTHS)
        names = ids_of(
            draw(st.integers(0, 2)), draw(st.integers(0, 12)), number, -(-prompt // trace_block)
        )
        turn = Turn(draw(GAPS) * draw(st.integers(0, 3)), prompt, draw(LENGTHS), ids=names)
        if closed and number and draw(st.booleans()):
            after = (draw(st.integers(max(0, number - 4), number - 1)),)
            turn = replace(turn, after=after, delay=draw(GAPS), session=draw(st.sampled_from("ab")))
        found.append(turn)
    return found


@st.composite
def schedules(draw: Any) -> dict[str, Any]:
    """Keys of `schedule` that go with tiers; often none."""
    if draw(st.integers(0, 2)):
        return {}
    return {
        "order": draw(st.sampled_from(["decode_first", "prefill_first", "prefill_alone"])),
        "free_margin": draw(st.sampled_from([0.0, 0.2, 0.5])),
    }


@st.composite
def sections(draw: Any, block: int, unit: int) -> dict[str, Any]:
    """All sections of a scenario but the trace, with little memory in every tier."""
    unit_bytes = unit * KV_BYTES
    size = draw(st.integers(1, 60)) // block + 1
    pcie, out = (
        link(
            draw(st.sampled_from([1e-1, 2.0, 50.0, 1e6])) * unit_bytes,
            draw(st.sampled_from([0, 0.5, 3])),
            draw(st.sampled_from([1, 1.25, 2])),
        )
        for _ in range(2)
    )
    disk = link(draw(st.sampled_from([0.05, 1.0, 1e5])) * unit_bytes, draw(st.integers(0, 9)))
    hardware: dict[str, Any] = {"hbm": hbm(size, block)}
    dtypes: dict[str, str] = {}
    if draw(st.integers(0, 5)):
        there = draw(st.booleans())
        capacity = draw(st.sampled_from([1, 2, 3, 5, 8, 40])) * unit_bytes
        hardware |= {"dram": {"capacity": f"{capacity} B"}}
        hardware["links"] = links(pcie, disk if there else None, out)
        dtypes["dram"] = draw(st.sampled_from(["bf16", "bf16", "fp8"]))
        if there:
            bytes = draw(st.sampled_from([1, 2, 6, 80])) * unit_bytes
            hardware |= {"ssd": {"capacity": f"{bytes} B"}}
            dtypes["ssd"] = draw(st.sampled_from(["fp8", "int4"]))
    dram = "dram" in hardware
    if draw(st.integers(0, 2)) == 0:
        direct = draw(st.booleans())
        if dram or direct:
            hardware["remote"] = remote(
                draw(st.sampled_from([1, 3, 20])) * unit_bytes,
                draw(st.sampled_from([0.05, 3.0, 1e5])) * unit_bytes,
                draw(st.sampled_from([0, 2])),
                direct=direct,
            )
    most = draw(st.integers(1, 5))
    stop = draw(st.one_of(st.none(), st.none(), st.sampled_from([20, 36, 100.25, 700])))
    mode = draw(st.sampled_from(["host", "graph", "control", "resident"]))
    return {
        "schedule": draw(schedules()),
        "hardware": hardware,
        "loop": {
            "mode": mode,
            "prefill": draw(st.sampled_from(["exit", "partition"])),
            "max_batch": most,
            "token_budget": most + draw(st.integers(0, 30)),
        },
        "kv": {
            "block_tokens": block,
            "eviction": draw(
                st.sampled_from(["lru", "lfu", "cost_aware", "draft_first_lru", "h2o", "streaming"])
            ),
            "promotion": draw(st.sampled_from(["always", "cost_aware"])),
            "prefetch": draw(st.sampled_from(["none", "next_block", "lookahead", "session"])),
            "lookahead": draw(st.sampled_from([1, 8])),
            "write_back": draw(st.sampled_from(["on_evict", "eager"])),
            "reserve": draw(st.sampled_from([0.0, 0.05, 0.3])),
            "queue_limit": draw(st.sampled_from([1, 32])),
            "layout": draw(st.sampled_from(["contiguous", "paged"])),
            "preemption": draw(st.sampled_from(["recompute", "swap", "cheaper"])),
            "tier_dtypes": dtypes,
        },
        "stop": {"at": None if stop is None else f"{stop * TICK} s"},
    }


@st.composite
def crowds(draw: Any) -> tuple[list[Chunk], int, dict[str, Any]]:
    """As `runs`, with several replicas and much to do for them: prefixes that come again and again
    in memory for few, at times that often coincide."""
    block = draw(st.sampled_from([1, 2, 4]))
    trace_block = draw(st.sampled_from([2, 4]))
    closed = draw(st.booleans())
    found: list[Turn] = []
    for number in range(draw(st.integers(12, 30))):
        prompt = draw(st.integers(6, 40))
        names = ids_of(draw(st.integers(0, 2)), draw(st.integers(2, 12)), number, prompt)
        turn = Turn(
            draw(GAPS), prompt, draw(st.integers(1, 40)), ids=names[: -(-prompt // trace_block)]
        )
        if closed and number and draw(st.booleans()):
            turn = replace(turn, after=(draw(st.integers(max(0, number - 4), number - 1)),))
            turn = replace(turn, delay=draw(GAPS), session=draw(st.sampled_from("ab")))
        elif found:
            turn = replace(turn, at=found[-1].at + turn.at)
        found.append(turn)
    chunks = linked(found)
    if not closed:
        chunks = [replace(chunk, links=None) for chunk in chunks]
    unit = max(block, trace_block)
    parts: dict[str, Any] = draw(sections(block, unit))
    parts["hardware"]["hbm"] = hbm(draw(st.integers(20, 45)) // block + 1, block)
    parts["replicas"] = {
        "count": draw(st.integers(2, 3)),
        "router": draw(st.sampled_from(["round_robin", "least_loaded", "prefix"])),
        "slack": draw(st.sampled_from([0, 2, 16])),
        "tiers": draw(st.sampled_from(["shared", "shared", "own"])),
    }
    return chunks, trace_block, parts


@st.composite
def runs(draw: Any) -> tuple[list[Chunk], int, dict[str, Any]]:
    """A trace with ids, the tokens of its blocks, and the sections of a scenario to play it."""
    block = draw(st.sampled_from([1, 2, 4]))
    trace_block = draw(st.sampled_from([1, 2, 4, 8]))
    closed = draw(st.booleans())
    chunks = linked(draw(turns(trace_block, closed)))
    if not closed:
        chunks = [replace(chunk, links=None) for chunk in chunks]
    return chunks, trace_block, draw(sections(block, max(block, trace_block)))
