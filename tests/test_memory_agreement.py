"""`trace inspect` and the simulator count the same hits where they can be compared.

That is where everything that was computed is kept and requests do not overlap (`max_batch: 1`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pytest
from toy import Turn, hbm, linked, play, toy_scenario
from typer.testing import CliRunner

from sim import workload
from sim.cli_trace import app
from sim.load import load
from sim.memory import tails
from sim.memory.eviction import POLICIES
from sim.memory.held import Held
from sim.memory.offline import replay
from sim.memory.tails import Tails
from sim.memory.units import DRAM, HBM, Index
from sim.models import PRESETS
from sim.simulate import Simulation
from sim.trace.chunk import Tally
from sim.trace.generate import generate
from sim.trace.look.inspection import Inspection
from sim.trace.look.summary import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sim.trace.chunk import Chunk

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
MOONCAKE = TRACES / "mooncake-fast25" / "conversation_trace.jsonl"


def inspected(chunks: Iterable[Chunk], block_tokens: int = 512) -> dict[str, Any]:
    """What `trace inspect` says about prefixes."""
    found = Inspection(block_tokens)
    for chunk in chunks:
        found.add(chunk)
    prefix: dict[str, Any] = summary(found, Tally())["prefix"]
    return prefix


def assert_agrees(ran: dict[str, Any], prefix: dict[str, Any]) -> None:
    """Blocks found, of all and of whole ones, and the tokens not computed, are the same."""
    assert ran["requests_finished"] == ran["requests_in"]
    assert ran["kv_prefix_lookup_blocks"] == prefix["blocks"]
    assert ran["kv_prefix_block_hit_rate"] == pytest.approx(
        prefix["infinite_cache_hit_rate"], abs=1e-12
    )
    assert ran["kv_prefix_lookup_units"] == prefix["whole_blocks"]
    whole = prefix["infinite_cache_whole_block_hit_rate"]
    assert ran["kv_prefix_unit_hit_rate"] == pytest.approx(whole, abs=1e-12)
    assert ran["kv_prefix_hit_tokens"] == prefix["saved_in_whole_blocks_tokens"]
    assert ran["kv_prefill_tokens_saved"] == ran["kv_prefix_hit_tokens"]


def simulated(folder: Path, trace: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """A run of a small model with memory for everything, one request at a time."""
    data = {
        "trace": trace, "model": "llama-3.2-1b", "hardware": {"hbm": {"capacity": "16 TB"}},
        "loop": {"max_batch": 1, "token_budget": 65536}, "record": {"iterations": False},
    }  # fmt: skip
    (folder / "a.yaml").write_text(json.dumps(data | sections))
    return Simulation(load(folder / "a.yaml")).run()


# ---------------------------------------------------------------- whole runs
MADE = {"source": "mooncake-conversation-like", "requests": 600}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return inspected(generate("mooncake-conversation-like", 600, 0))


def test_a_run_that_keeps_all_finds_what_inspect_says(tmp_path: Path, made: dict[str, Any]) -> None:
    ran = simulated(tmp_path, MADE)
    assert_agrees(ran, made)
    assert 0.2 < ran["kv_prefix_block_hit_rate"] < ran["kv_prefix_unit_hit_rate"] < 0.6


def test_it_is_found_in_any_tier(tmp_path: Path, made: dict[str, Any]) -> None:
    hardware = {"hbm": {"capacity": "8 GiB"}, "dram": {"capacity": "8 TiB"}}
    kv = {"write_back": "eager", "promotion": "always"}
    ran = simulated(tmp_path, MADE, hardware=hardware, kv=kv)
    assert_agrees(ran, made)
    assert ran["kv_hit_tokens_dram"] > ran["kv_hit_tokens_hbm"] > 0


def test_requests_that_overlap_find_less(tmp_path: Path, made: dict[str, Any]) -> None:
    """What is being computed cannot be found yet."""
    loop = {"max_batch": 64, "token_budget": 1_000_000}
    ran = simulated(tmp_path, MADE | {"rate_scale": 1e4}, loop=loop)
    assert ran["kv_prefix_lookup_blocks"] == made["blocks"]
    assert ran["kv_prefix_block_hit_rate"] < made["infinite_cache_hit_rate"] - 0.01
    assert ran["kv_duplicate_units"] > 0


def one_token(original: Callable[..., Iterable[Chunk]]) -> Callable[..., Iterator[Chunk]]:
    """The same prompts with short answers, which do not matter to prefixes but take time."""

    def chunks(*asked: Any) -> Iterator[Chunk]:
        for chunk in original(*asked):
            yield replace(chunk, output_tokens=np.ones(len(chunk), np.int64))

    return chunks


def test_the_mooncake_conversations(tmp_path: Path) -> None:
    if not MOONCAKE.exists():
        pytest.skip(f"{MOONCAKE.name} is not in {MOONCAKE.parent}")
    out = CliRunner().invoke(app, ["inspect", str(MOONCAKE), "--json"])
    prefix = json.loads(out.stdout)["prefix"]
    with patch("sim.workload.original", one_token(workload.original)):
        ran = simulated(tmp_path, {"file": str(MOONCAKE)})
    assert_agrees(ran, prefix)
    assert ran["kv_prefix_found_blocks"] == 105_710
    assert ran["kv_prefix_lookup_blocks"] == 288_500  # 36.64 %
    assert ran["kv_prefix_hit_units"] == 105_592
    lru = prefix["lru"]["hit_rate_by_capacity_blocks"]
    percent = {size: round(100 * lru[size], 3) for size in ("1000", "10000", "100000")}
    assert percent == {"1000": 4.453, "10000": 21.160, "100000": 36.369}
    assert all(prefix["belady"]["hit_rate_by_capacity_blocks"][size] >= lru[size] for size in lru)


LIVE = {1000: 4.49, 10_000: 21.56, 100_000: 36.41}


@pytest.mark.slow
@pytest.mark.parametrize("blocks", LIVE)
def test_a_live_server_is_near_the_curve(tmp_path: Path, blocks: int) -> None:
    """At equal capacity: what runs holds room, but partial blocks take none."""
    if not MOONCAKE.exists():
        pytest.skip(f"{MOONCAKE.name} is not in {MOONCAKE.parent}")
    shape = PRESETS["llama-3.2-1b"]
    size = int(shape.weight_bytes(16) + blocks * 512 * shape.kv_bytes_per_token(16))
    ran = simulated(
        tmp_path, {"file": str(MOONCAKE), "dither": "auto"},
        hardware={"hbm": {"capacity": f"{size} B", "utilization": 1.0}},
        loop={"max_batch": 256, "token_budget": 8192},
    )  # fmt: skip
    assert ran["kv_blocks_capacity"] == 32 * blocks
    assert round(100 * ran["kv_prefix_block_hit_rate"], 2) == LIVE[blocks]


def test_the_curve_is_that_of_the_simulators_own_eviction() -> None:
    found = Inspection()
    rows: list[list[int]] = []
    for chunk in generate("mooncake-conversation-like", 600, 0):
        found.add(chunk)
        assert chunk.block_ids is not None
        rows += [list(row) for row in chunk.block_ids]
    curve, bound = found.curve(), found.bound()
    assert curve is not None
    assert bound is not None
    for capacity in (100, 1000, 5000, 20_000, inf):
        out = replay(rows, capacity, POLICIES["lru"]())
        assert out.hits == pytest.approx(curve.hit_rate(capacity) * curve.references)
        assert capacity == inf or out.hit_rate <= bound[int(capacity)] + 1e-12


# ---------------------------------------------------------------- by hand
def played(folder: Path, prompts: list[tuple[int, tuple[int, ...]]], block: int = 4) -> Any:
    """Prompts of so many tokens with these ids of blocks of 4, one after the other."""
    turns = [Turn(200.0 * n, tokens, ids=ids) for n, (tokens, ids) in enumerate(prompts)]
    scenario = toy_scenario(
        folder, [(0, 1, 1)], kv={"block_tokens": block}, hardware={"hbm": hbm(99, block)}
    )
    return play(scenario, "leap", linked(turns), 4).summary


def test_partial_blocks_are_counted_and_not_used(tmp_path: Path) -> None:
    prompts = [
        (6, (1, 2)), (6, (1, 2)),  # a whole block and a partial one: found both, one of use
        (3, (7,)), (3, (7,)),  # shorter than a block
        (8, (1, 3)), (8, (1, 3)),  # whole, but the last token has to be computed
        (6, (1, 4)), (6, (5, 2)),  # the same partial id behind another block is something else
    ]  # fmt: skip
    ran = played(tmp_path, prompts)
    assert ran["kv_prefix_lookup_blocks"] == 14
    assert ran["kv_prefix_found_blocks"] == 2 + 1 + 1 + 2 + 1
    assert ran["kv_prefix_block_hit_rate"] == 7 / 14
    assert ran["kv_prefix_lookup_units"] == 8
    assert ran["kv_prefix_hit_units"] == 4
    assert ran["kv_prefix_unit_hit_rate"] == 4 / 8


def test_smaller_engine_blocks_do_not_matter_and_larger_ones_are_not_compared(
    tmp_path: Path,
) -> None:
    prompts = [(10, (1, 2, 3)), (10, (1, 2, 3))]
    ran = played(tmp_path, prompts, block=2)
    assert ran["kv_prefix_found_blocks"] == 3
    ran = played(tmp_path, prompts, block=8)
    assert ran["kv_prefix_hit_units"] == 1
    for key in ("lookup_blocks", "found_blocks", "block_hit_rate"):
        assert ran[f"kv_prefix_{key}"] is None


def test_inspect_counts_whole_blocks_by_hand() -> None:
    turns = [(6, (1, 2)), (6, (1, 2)), (8, (1, 3)), (8, (1, 3)), (3, (9,)), (3, (9,))]
    chunks = linked([Turn(float(n), tokens, ids=ids) for n, (tokens, ids) in enumerate(turns)])
    prefix = inspected(chunks, block_tokens=4)
    assert prefix["blocks"] == 10
    assert prefix["infinite_cache_hit_rate"] == pytest.approx(6 / 10)
    assert prefix["whole_blocks"] == 6
    # the last block of 8 tokens is computed for its last token
    assert prefix["infinite_cache_whole_block_hit_rate"] == pytest.approx(3 / 6)
    assert prefix["saved_in_whole_blocks_tokens"] == 12
    assert prefix["saved_prompt_tokens"] == 6 + 4 + 8 + 3


def computed(index: Index, found: Tails, tokens: int, blocks: tuple[int, ...]) -> Held:
    ids = index.ids(blocks, tokens)
    held = Held(ids, *found.of(blocks, ids))
    held.units, _ = index.register(ids)
    found.add(held)
    return held


def test_a_tail_is_gone_with_the_unit_it_hangs_on() -> None:
    index = Index(4, 4, HBM | DRAM)
    found = Tails(index)
    held = computed(index, found, 6, (1, 2))
    (unit,) = held.units
    assert found.found(held, [unit]) == 2
    index.place(unit, DRAM)
    index.drop(unit, HBM)
    assert found.found(held, [unit]) == 2  # where the unit is does not matter
    index.drop(unit, DRAM)
    assert found.found(held, []) == 0
    again, _ = index.register([1])
    assert found.found(held, again) == 1


def test_tails_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "MOST", 3)
    index = Index(4, 4)
    found = Tails(index)
    helds = [computed(index, found, 2, (n,)) for n in range(5)]
    assert len(found) == 3
    assert [found.found(held, []) for held in helds] == [0, 0, 1, 1, 1]
