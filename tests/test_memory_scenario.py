"""Keys about tiers below HBM: what they accept, refuse, warn about, and say to the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from sim.errors import InputError
from sim.feasible import faults
from sim.load import load
from sim.memory.eviction import POLICIES
from sim.memory.movers import MOVERS, Given
from sim.memory.options import MemoryOptions
from sim.scenario import Hardware, Scenario
from sim.study import load_study
from sim.tiers import Kv, memory_options

SCENARIOS = Path(__file__).parent.parent / "scenarios"
LEAST = "trace: {source: agent-like, requests: 10, rate: 0.1 /s}\nmodel: llama-3.2-1b\n"
DRAM = {"capacity": "64 GiB"}
GIB = 2.0**30


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scenario(hardware: dict[str, Any] | None = None, **kv: Any) -> Scenario:
    trace = {"source": "agent-like", "requests": 10, "rate": "0.1 /s"}
    data = {"trace": trace, "model": "llama-3.2-1b", "hardware": hardware or {}, "kv": kv}
    return Scenario.model_validate(data)


def options(hardware: dict[str, Any] | None = None, **kv: Any) -> MemoryOptions:
    given = scenario(hardware, **kv)
    return memory_options(given.hardware, given.kv)


def lines_of(text: str) -> list[str]:
    Path("a.yaml").write_text(LEAST + text)
    with pytest.raises(InputError) as caught:
        load("a.yaml", (), faults)
    return caught.value.lines


# ---------------------------------------------------------------- what they say
def test_nothing_said_is_a_cache_in_hbm_and_no_tier() -> None:
    assert options() == MemoryOptions()
    assert options().sizes == {}


def test_names_are_those_of_the_policies() -> None:
    assert set(get_args(Kv.model_fields["eviction"].annotation)) == set(POLICIES)
    assert get_args(Hardware.model_fields["mover"].annotation) == MOVERS
    for key, name in (("eviction", "Eviction"), ("promotion", "Promotion"), ("layout", "Layout"),
                      ("prefetch", "Prefetch"), ("write_back", "WriteBack"),
                      ("preemption", "Preemption")):  # fmt: skip
        import sim.memory.options as module

        assert get_args(Kv.model_fields[key].annotation) == get_args(getattr(module, name))


ALL = {"dram": DRAM, "ssd": {"capacity": "2 TiB"}}


@pytest.mark.parametrize(
    ("hardware", "kv", "key", "value"),
    [
        ({"dram": DRAM}, {}, "dram_bytes", 64 * GIB),
        ({"dram": DRAM | {"share": 0.25}}, {}, "dram_bytes", 16 * GIB),
        (ALL, {}, "ssd_bytes", 2048 * GIB),
        (ALL | {"mover": "gather"}, {}, "mover", "gather"),
        ({}, {"prefix_cache": False}, "prefix_cache", False),
        (ALL, {"eviction": "lfu"}, "eviction", "lfu"),
        (ALL, {"promotion": "always"}, "promotion", "always"),
        (ALL, {"prefetch": "session"}, "prefetch", "session"),
        (ALL, {"prefetch": "lookahead", "lookahead": 3}, "lookahead", 3),
        (ALL, {"write_back": "eager"}, "write_back", "eager"),
        (ALL, {"reserve": 0.2}, "reserve", 0.2),
        (ALL, {"queue_limit": 4}, "queue_limit", 4),
        (ALL, {"layout": "paged"}, "layout", "paged"),
        (ALL, {"preemption": "cheaper"}, "preemption", "cheaper"),
        (ALL, {"tier_dtypes": {"dram": "int8", "ssd": "int4"}}, "bits", {"dram": 8, "ssd": 4}),
        (ALL, {"tier_dtypes": {"dram": "int8"}}, "bits", {"dram": 8, "ssd": 8}),
        (ALL, {"dtype": "fp8"}, "bits", {"dram": 8, "ssd": 8}),
        (ALL | {"links": {"h2d": {"bandwidth": "55 GB/s", "latency": "10 us"}}}, {}, "links",
         {"h2d": Given(pytest.approx(1e-5), 55e9)}),
        (ALL | {"links": {"ssd_read": {"at_once": 2, "slowdown": 1.5}}}, {}, "links",
         {"ssd_read": Given(None, None, 2, 1.5)}),
    ],
    ids=str,
)  # fmt: skip
def test_each_key_changes_the_options(
    hardware: dict[str, Any], kv: dict[str, Any], key: str, value: Any
) -> None:
    assert getattr(options(hardware, **kv), key) == value
    assert getattr(MemoryOptions(), key) != value
    assert scenario(hardware, **kv).hash != scenario().hash
    assert scenario(hardware, **kv).warnings() == []


def test_a_remote_tier_is_two_links() -> None:
    remote = {"capacity": "1 TiB", "latency": "20 us", "bandwidth": "12 GB/s", "at_once": 2}
    found = options({"dram": DRAM, "remote": remote})
    assert found.remote_bytes == 1024 * GIB
    assert found.links["remote_read"] == found.links["remote_write"]
    assert found.links["remote_read"] == Given(pytest.approx(2e-5), 12e9, 2)


def test_a_remote_tier_that_is_reached_directly_needs_no_dram() -> None:
    remote = {"capacity": "80 GiB", "latency": "2 us", "bandwidth": "400 GB/s"}
    assert not options({"dram": DRAM, "remote": remote}).remote_direct
    found = options({"remote": remote | {"direct": True}}, prefetch="lookahead", lookahead=2)
    assert found.remote_direct
    assert list(found.sizes.values()) == [80 * GIB]
    assert scenario({"remote": remote | {"direct": True}}, prefetch="lookahead").warnings() == []


# ---------------------------------------------------------------- identity
def test_defaults_leave_no_mark_on_the_hash() -> None:
    said = scenario({"mover": "copy_engine", "links": {"h2d": {}}, "dram": None},
                    prefix_cache=True, eviction="lru", tier_dtypes={}, reserve=0.05)  # fmt: skip
    assert said.hash == scenario().hash
    data = said.resolved()
    assert set(data["hardware"]) == {"profile", "hbm"}
    assert set(data["kv"]) == {"block_tokens", "dtype"}


def test_resolved_comes_back_from_json() -> None:
    given = scenario(
        {
            "dram": DRAM | {"share": 0.5}, "ssd": {"capacity": "1 TiB"}, "mover": "batched",
            "remote": {"capacity": "1 TiB", "latency": "20 us", "bandwidth": "12 GB/s"},
            "links": {"d2h": {"latency": "3 us"}},
        },
        eviction="lfu", tier_dtypes={"dram": "int8"},
    )  # fmt: skip
    text = json.dumps(given.resolved())
    back = Scenario.from_resolved(json.loads(text))
    assert back == given
    assert back.hash == given.hash
    assert json.dumps(back.resolved()) == text


def test_the_hash_knows_each_part_of_a_tier() -> None:
    parts: list[dict[str, Any]] = [
        {}, {"dram": DRAM}, {"dram": DRAM | {"share": 0.5}}, {"dram": {"capacity": "65 GiB"}}, ALL,
        ALL | {"links": {"h2d": {"latency": "1 us"}}},
        ALL | {"links": {"h2d": {"latency": "2 us"}}},
        ALL | {"links": {"d2h": {"latency": "1 us"}}},
    ]  # fmt: skip
    assert len({scenario(part).hash for part in parts}) == len(parts)
    assert scenario({"dram": {"capacity": "65536 MiB"}}).hash == scenario({"dram": DRAM}).hash


# ---------------------------------------------------------------- warnings
@pytest.mark.parametrize(
    ("hardware", "kv", "warned"),
    [
        ({}, {"preemption": "swap"}, ["kv.preemption"]),
        ({}, {"preemption": "cheaper"}, ["kv.preemption"]),
        ({"dram": DRAM}, {"preemption": "swap"}, []),
        ({}, {"prefetch": "session"}, ["kv.prefetch"]),
        ({}, {"prefetch": "none"}, []),
        ({}, {"promotion": "always"}, ["kv.promotion"]),
        ({}, {"write_back": "eager"}, ["kv.write_back"]),
        ({}, {"reserve": 0.1}, ["kv.reserve"]),
        ({}, {"queue_limit": 3}, ["kv.queue_limit"]),
        ({}, {"layout": "paged"}, ["kv.layout"]),
        ({}, {"tier_dtypes": {"dram": "int8"}}, ["kv.tier_dtypes.dram"]),
        ({"dram": DRAM}, {"tier_dtypes": {"ssd": "int8"}}, ["kv.tier_dtypes.ssd"]),
        ({"mover": "gather"}, {}, ["hardware.mover"]),
        ({"links": {"h2d": {"latency": "1 us"}}}, {}, ["hardware.links.h2d"]),
        ({"dram": DRAM, "links": {"ssd_read": {"latency": "1 us"}}}, {},
         ["hardware.links.ssd_read"]),
        ({"dram": DRAM}, {"lookahead": 4}, ["kv.lookahead"]),
        ({"dram": DRAM}, {"reserve": 0.1, "write_back": "eager"}, []),
        ({"dram": DRAM}, {"prefix_cache": False}, ["hardware.dram"]),
        ({"dram": DRAM}, {"prefix_cache": False, "preemption": "swap"}, []),
        (ALL, {"prefix_cache": False, "preemption": "swap", "eviction": "lfu"},
         ["hardware.ssd", "kv.eviction"]),
        (ALL, {"prefix_cache": False, "preemption": "swap", "prefetch": "session"},
         ["hardware.ssd", "kv.prefetch"]),
    ],
    ids=str,
)  # fmt: skip
def test_warnings(hardware: dict[str, Any], kv: dict[str, Any], warned: list[str]) -> None:
    lines = scenario(hardware, **kv).warnings()
    assert [line.partition(":")[0] for line in lines] == warned
    assert all("has no effect here; " in line for line in lines)


# ---------------------------------------------------------------- errors, each at its place
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hardware: {ssd: {capacity: 1 TiB}}\n",
         "a.yaml:3:17: hardware.ssd: needs hardware.dram, which it is filled from; add e.g. "
         "`dram: {capacity: 64 GiB}`"),
        ("hardware: {remote: {capacity: 1 TiB, latency: 5 us, bandwidth: 12 GB/s}}\n",
         "a.yaml:3:20: hardware.remote: needs hardware.dram, which it is filled from; add e.g. "
         "`dram: {capacity: 64 GiB}`, or `direct: true` for a tier with a link of its own"),
        ("hardware: {dram: {capacity: 64}}\n",
         "a.yaml:3:29: hardware.dram.capacity: 64 has no unit; write e.g. '80 GiB'"),
        ("hardware: {dram: {}}\n",
         "a.yaml:3:18: hardware.dram.capacity: missing; it has no default"),
        ("hardware: {dram: {capacity: 64 GiB, share: 1.5}}\n",
         "a.yaml:3:44: hardware.dram.share: must be <= 1.0, got 1.5"),
        ("hardware: {dram: {capacity: 1 KiB}}\n",
         "a.yaml:3:18: hardware.dram: 1.02 kB hold no KV block of 524 kB; give it more"),
        ("hardware: {dram: {capacity: 1 GiB, bandwith: 55 GB/s}}\n",
         "a.yaml:3:36: hardware.dram.bandwith: no such field; fields here: capacity, share"),
        ("hardware: {links: {h2d: {bandwith: 55 GB/s}}}\n",
         "a.yaml:3:26: hardware.links.h2d.bandwith: no such field; did you mean 'bandwidth'?"),
        ("hardware: {links: {pcie: {bandwidth: 55 GB/s}}}\n",
         "a.yaml:3:20: hardware.links.pcie: no such field; fields here: h2d, d2h, ssd_read, "
         "ssd_write"),
        ("hardware: {links: {h2d: {bandwidth: 55 GB}}}\n",
         "a.yaml:3:37: hardware.links.h2d.bandwidth: '55 GB' is an amount of memory, not a "
         "bandwidth; units that fit: "),
        ("hardware: {links: {h2d: {slowdown: 0.5}}}\n",
         "a.yaml:3:36: hardware.links.h2d.slowdown: must be >= 1.0, got 0.5"),
        ("hardware: {dram: {capacity: 1 GiB}, remote: {capacity: 1 TiB, latency: 5 us}}\n",
         "a.yaml:3:45: hardware.remote.bandwidth: missing; it has no default"),
        ("hardware: {mover: dma}\n",
         "a.yaml:3:19: hardware.mover: expected one of copy_engine, batched, gather, got 'dma'"),
        ("kv: {eviction: lur}\n",
         "a.yaml:3:16: kv.eviction: expected one of lru, draft_first_lru, lfu, cost_aware, h2o, "
         "streaming, got 'lur'; did you mean 'lru'?"),
        ("kv: {preemption: swop}\n",
         "a.yaml:3:18: kv.preemption: expected one of recompute, swap, cheaper, got 'swop'; did "
         "you mean 'swap'?"),
        ("kv: {prefix_cache: yes}\n",
         "a.yaml:3:20: kv.prefix_cache: YAML reads yes as a boolean; write true or false, or "
         "'yes'"),
        ("kv: {reserve: 0.9}\n", "a.yaml:3:15: kv.reserve: must be <= 0.5, got 0.9"),
        ("kv: {dtype: int8, tier_dtypes: {dram: bf16}}\n",
         "a.yaml:3:39: kv.tier_dtypes.dram: bf16 is wider than int8 (kv.dtype), from which it is "
         "made; take int8 or a narrower one"),
        ("kv: {tier_dtypes: {dram: int4, ssd: int8}}\n",
         "a.yaml:3:37: kv.tier_dtypes.ssd: int8 is wider than int4 (kv.tier_dtypes.dram), from "
         "which it is made; take int4 or a narrower one"),
    ],
)  # fmt: skip
def test_one_error_is_the_only_line(text: str, line: str) -> None:
    lines = lines_of(text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(line)


def test_blocks_of_trace_and_engine_must_fit() -> None:
    Path("t.jsonl").write_text('{"timestamp": 0, "input_length": 9, "output_length": 1}\n')
    text = "trace: {file: t.jsonl, block_tokens: 512}\nmodel: llama-3.2-1b\n"
    Path("b.yaml").write_text(text + "kv: {block_tokens: 48}\n")
    with pytest.raises(InputError) as caught:
        load("b.yaml", (), faults)
    assert caught.value.lines == [
        "b.yaml:3:20: kv.block_tokens: 48, and trace.block_tokens is 512: one must be a multiple "
        "of the other; choose kv.block_tokens accordingly, or kv.prefix_cache: false"
    ]
    assert load("b.yaml", ("kv.prefix_cache=false",), faults).kv.block_tokens == 48
    assert load("b.yaml", ("kv.block_tokens=1024",), faults).kv.block_tokens == 1024


def test_a_sweep_may_take_a_tier_away() -> None:
    text = "sweep: {hardware.dram: [null, {capacity: 64 GiB}, {capacity: 1 TiB, share: 0.5}]}\n"
    Path("a.yaml").write_text(LEAST + text)
    points = load_study("a.yaml", (), faults).points
    sizes = [memory_options(p.scenario.hardware, p.scenario.kv).dram_bytes for p in points]
    assert sizes == [0.0, 64 * GIB, 512 * GIB]


@pytest.mark.parametrize("name", ["agent-dram-ssd", "swap-or-recompute", "prefetch-under-bursts"])
def test_the_shipped_studies_are_valid_and_warn_of_nothing(name: str) -> None:
    points = load_study(SCENARIOS / f"{name}.yaml", (), faults).points
    assert len(points) >= 4
    assert [line for point in points for line in point.scenario.warnings()] == []
