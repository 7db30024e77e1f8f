"""Stories of KV over several tiers: small hardware, prompts by family, and a run that is checked.

A tick, the toy GPU and its iterations are those of `toy`: in graph mode a prefill that ends its
prompt takes 20 ticks, one that does not 18, a decode iteration 16, and 24 with a prefill in it. A
unit is a block of 16 tokens; links move a unit in 10 ticks unless said otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kv_check import checked
from kv_runs import ids_of, link, links
from toy import KV_BYTES, TICK, Ran, Turn, hbm, linked, play, toy_scenario

if TYPE_CHECKING:
    from pathlib import Path

UNIT = 16 * KV_BYTES
SLOW = link(UNIT / 10)
NEVER = link(UNIT / 1e5)


def tiers(
    blocks: int, dram: int = 0, ssd: int = 0, pcie: Any = SLOW, disk: Any = None, out: Any = None,
    remote: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`hardware` with so many blocks of HBM, units of DRAM and SSD, and a *remote* tier."""
    found: dict[str, Any] = {"hbm": hbm(blocks)}
    if dram:
        found |= {"dram": {"capacity": f"{dram * UNIT} B"}}
        found["links"] = links(pcie, disk or (SLOW if ssd else None), out)
    if ssd:
        found |= {"ssd": {"capacity": f"{ssd * UNIT} B"}}
    return found | ({"remote": remote} if remote else {})


def serve(folder: Path, turns: list[Turn], hardware: dict[str, Any], **sections: Any) -> Ran:
    """Plays *turns* with blocks of 16 tokens in the trace and in the engine, every boundary
    checked."""
    kv = {"block_tokens": 16, "promotion": "always", "reserve": 0.0} | sections.pop("kv", {})
    scenario = toy_scenario(folder, [(0, 1, 1)], hardware=hardware, kv=kv, **sections)
    with checked() as count:
        ran = play(scenario, "step", linked(turns), 16)
    assert count[0] > 0
    return ran


def prompt(family: int, blocks: int, *, at: float, output: int = 1, more: int = 1) -> Turn:
    """A prompt of whole blocks of a family and *more* tokens."""
    return Turn(at, 16 * blocks + more, output, ids=ids_of(family, blocks, 0, blocks))


def ttft(ran: Ran) -> list[float]:
    """In ticks."""
    return [float(ms) / 1e3 / TICK for ms in ran.requests.ttft_ms]
