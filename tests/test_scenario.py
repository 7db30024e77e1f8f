"""Defaults, rules over several fields, warnings, and the hash of a scenario."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from sim.models import PRESETS
from sim.scenario import Scenario
from sim.traffic import Length

if TYPE_CHECKING:
    from pathlib import Path

SYNTHETIC = {
    "source": "synthetic",
    "requests": 10,
    "rate": "6 /s",
    "prompt_tokens": 1024,
    "output_tokens": {"exponential": 200, "cap": 4096},
}


def scenario(**sections: Any) -> Scenario:
    """A minimal scenario with some sections replaced."""
    least: dict[str, Any] = {
        "trace": {"source": "azure-conv-like", "requests": 10},
        "model": "llama-3.2-1b",
    }
    return Scenario.model_validate(least | sections)


def test_defaults() -> None:
    least = scenario()
    assert least.hardware.profile == "nvidia-h200"
    assert least.hardware.hbm.capacity is None
    assert least.hardware.hbm.utilization == 0.9
    assert (least.loop.mode, least.loop.host, least.loop.kernels) == ("graph", "python", "fused")
    assert (least.loop.max_batch, least.loop.token_budget) == (256, 2048)
    assert (least.kv.block_tokens, least.kv.dtype, least.kv.bits) == (16, "bf16", 16)
    assert least.slo.ttft is None
    assert least.stop.at is None
    assert least.record.iterations is True
    assert least.seed == 0
    assert least.warnings() == []


def test_quantities_are_si_inside() -> None:
    given = scenario(
        slo={"ttft": "2 s", "tpot": "100 ms"},
        stop={"at": "10 min"},
        hardware={"hbm": {"capacity": "141 GB"}},
        trace=SYNTHETIC | {"rate": "90 /min"},
    )
    assert (given.slo.ttft, given.slo.tpot, given.slo.e2el) == (2.0, 0.1, None)
    assert given.stop.at == 600.0
    assert given.hardware.hbm.capacity == 141e9
    assert given.trace.rate == 1.5


def test_a_model_is_a_name_a_preset_or_dimensions() -> None:
    assert scenario(model="llama-3.1-8b").model.shape is PRESETS["llama-3.1-8b"]
    quantised = scenario(model={"preset": "llama-3.1-8b", "weights": "int4", "max_context": 4096})
    assert quantised.model.weight_bits == 4
    assert quantised.model.shape.max_context == 4096
    assert quantised.model.shape.layers == 32
    dimensions = PRESETS["llama-3.1-70b"].model_dump()
    own = scenario(model=dimensions | {"name": "mine", "weights": "fp8"}).model
    assert own.shape.name == "mine"
    assert own.shape.params == PRESETS["llama-3.1-70b"].params


def test_captured_batches_by_default() -> None:
    assert scenario(loop={"max_batch": 20}).loop.captures == (1, 2, 4, 8, 16, 20)
    assert scenario(loop={"max_batch": 3}).loop.captures == (1, 2, 3)
    assert len(scenario().loop.captures) == 3 + 32
    assert scenario(loop={"captured_batches": [3, 5]}).loop.captures == (3, 5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (7, ("fixed", 7.0, 0, 0, 0.0, 0.0, None)),
        ({"exponential": 512, "cap": 9}, ("exponential", 512.0, 0, 0, 0.0, 0.0, 9)),
        ({"uniform": [10, 200]}, ("uniform", 0.0, 10, 200, 0.0, 0.0, None)),
        ({"lognormal": {"median": 30, "sigma": 1}}, ("lognormal", 0.0, 0, 0, 30.0, 1.0, None)),
    ],
)
def test_lengths(given: Any, expected: tuple[Any, ...]) -> None:
    length = Length.model_validate(given).law()
    names = ("kind", "mean", "low", "high", "median", "sigma", "cap")
    assert tuple(getattr(length, name) for name in names) == expected


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"loop": {"max_batch": 4096}}, r"max_batch: token_budget \(2048\) is less than max_batch"),
        ({"loop": {"token_budget": 8}}, r"token_budget: token_budget \(8\) is less"),
        ({"loop": {"captured_batches": [2, 2]}}, "1: 2 after 2"),
        ({"loop": {"max_batch": 4, "captured_batches": [8]}}, r"0: 8 is more than max_batch"),
        ({"loop": {"captured_batches": []}}, "at least 1 item"),
        ({"loop": {"prefill_share": 1.0}}, "less than 1"),
        ({"trace": {"file": "a", "source": "synthetic"}}, "not together with trace.file"),
        ({"trace": {"requests": 5}}, "missing file or source"),
        ({"trace": {"source": "azure-conv-like"}}, "requests: missing"),
        ({"trace": {"source": "synthetic", "requests": 5}}, "rate: missing.*prompt_tokens: miss"),
        ({"trace": SYNTHETIC | {"sort": True}}, "sort: only with trace.file; remove it"),
        (
            {"trace": {"file": "a", "rate": "6 /s"}},
            "rate: only with source: agent-like, .*synthetic; remove it",
        ),
        ({"trace": SYNTHETIC | {"rate": "0 /s"}}, r"must be 1e-06 /s to 1e\+09 /s, got 0 /s"),
        ({"trace": SYNTHETIC | {"output_tokens": {"cap": 3}}}, "this has none of them"),
        ({"trace": SYNTHETIC | {"output_tokens": {"uniform": [5, 3]}}}, "5 is more than 3"),
        ({"model": "llama-4"}, "no preset 'llama-4'; did you mean 'llama-3"),
        ({"model": {"preset": "llama-3-8b", "layers": 3}}, "layers: not together with preset"),
        ({"model": {"weights": "fp8"}}, "missing preset"),
        ({"seed": 2**63}, "less than"),
        ({"seed": True}, "valid integer"),
        ({"name": "Two Words"}, "match pattern"),
        ({"kv": {"block_tokens": 16.0}}, "valid integer"),
        ({"record": {"iterations": 1}}, "valid boolean"),
    ],
)
def test_what_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        scenario(**sections)


@pytest.mark.parametrize(
    ("sections", "warned"),
    [
        ({"loop": {"mode": "host", "captured_batches": [1]}}, ["loop.captured_batches"]),
        ({"loop": {"captured_batches": [1]}}, []),
        ({"loop": {"prefill": "exit", "prefill_share": 0.5}}, ["loop.prefill", "loop.prefill_sha"]),
        ({"loop": {"mode": "resident", "prefill_share": 0.5}}, ["loop.prefill_share"]),
        ({"loop": {"mode": "resident", "prefill": "partition", "host": "c"}}, ["loop.host"]),
        ({"loop": {"mode": "resident", "prefill": "exit", "host": "c"}}, []),
        ({"trace": SYNTHETIC | {"burstiness": 0.5}}, ["trace.burstiness"]),
        ({"trace": SYNTHETIC | {"burstiness": 0.5, "arrivals": "gamma"}}, []),
    ],
)
def test_warnings(sections: dict[str, Any], warned: list[str]) -> None:
    lines = scenario(**sections).warnings()
    assert len(lines) == len(warned)
    for line, start in zip(lines, warned, strict=True):
        assert line.startswith(start)
        assert "has no effect here; " in line


def test_the_hash_does_not_see_spelling_or_name() -> None:
    one = scenario(name="one", hardware={"hbm": {"capacity": "1 TiB"}})
    other = scenario(name="other", hardware={"hbm": {"capacity": "1024 GiB"}}, kv={})
    assert one.hash == other.hash
    assert len(one.hash) == 12
    int(one.hash, 16)


def test_the_hash_is_pinned() -> None:
    # results are found again by it: change it only together with what a scenario means
    assert scenario().hash == "6cc68fb0c2a8"


@pytest.mark.parametrize(
    "change",
    [
        {"trace": {"source": "mooncake-conversation-like", "requests": 10}},
        {"trace": {"source": "azure-conv-like", "requests": 11}},
        {"trace": {"source": "azure-conv-like", "requests": 10, "rate_scale": 2}},
        {"trace": {"file": "/a.jsonl"}},
        {"trace": {"file": "/b.jsonl"}},
        {"trace": {"file": "/a.jsonl", "format": "azure"}},
        {"trace": {"file": "/a.jsonl", "sort": True}},
        {"trace": {"file": "/a.jsonl", "bad_rows": "skip"}},
        {"trace": {"file": "/a.jsonl", "requests": 10}},
        {"trace": {"file": "/a.jsonl", "dither": "auto"}},
        {"trace": {"file": "/a.jsonl", "dither": "3 s"}},
        {"trace": {"file": "/a.jsonl", "window": ["0 s", "9 s"]}},
        {"trace": {"file": "/a.jsonl", "time_scale": 2}},
        {"trace": {"file": "/a.jsonl", "thin": 0.5}},
        {"trace": {"file": "/a.jsonl", "replica": {"index": 0, "of": 2}}},
        {"trace": {"file": "/a.jsonl", "replica": {"index": 1, "of": 2}}},
        {"trace": {"file": "/a.jsonl", "replica": {"index": 0, "of": 2, "by": "random"}}},
        {"trace": {"file": "/a.jsonl", "clip_prompt": {"to": 8192}}},
        {"trace": {"file": "/a.jsonl", "clip_prompt": {"to": "model"}}},
        {"trace": {"file": "/a.jsonl", "clip_prompt": {"to": "model", "keep": "first"}}},
        {"trace": {"merge": [{"file": "/a", "weight": 1}, {"file": "/b", "weight": 1}]}},
        {"trace": {"merge": [{"file": "/a", "weight": 1}, {"file": "/b", "weight": 2}]}},
        {"trace": {"merge": [{"file": "/a", "weight": 1}, {"file": "/c", "weight": 1}]}},
        {"trace": SYNTHETIC},
        {"trace": SYNTHETIC | {"rate": "7 /s"}},
        {"trace": SYNTHETIC | {"arrivals": "constant"}},
        {"trace": SYNTHETIC | {"arrivals": "gamma"}},
        {"trace": SYNTHETIC | {"arrivals": "gamma", "burstiness": 0.5}},
        {"trace": SYNTHETIC | {"prompt_tokens": 1025}},
        {"trace": SYNTHETIC | {"output_tokens": {"exponential": 200}}},
        {"model": "llama-3.1-8b"},
        {"model": {"preset": "llama-3.2-1b", "weights": "fp8"}},
        {"model": {"preset": "llama-3.2-1b", "max_context": 100}},
        {"hardware": {"profile": "other"}},
        {"hardware": {"hbm": {"capacity": "141 GB"}}},
        {"hardware": {"hbm": {"utilization": 0.8}}},
        {"loop": {"mode": "host"}},
        {"loop": {"mode": "resident"}},
        {"loop": {"host": "c"}},
        {"loop": {"kernels": "library"}},
        {"loop": {"max_batch": 64}},
        {"loop": {"token_budget": 4096}},
        {"loop": {"captured_batches": [1, 2]}},
        {"loop": {"mode": "resident", "prefill": "partition"}},
        {"loop": {"mode": "resident", "prefill": "partition", "prefill_share": 0.5}},
        {"kv": {"block_tokens": 32}},
        {"kv": {"dtype": "fp8"}},
        {"kv": {"prefix_cache": False}},
        {"kv": {"eviction": "lfu"}},
        {"kv": {"promotion": "always"}},
        {"kv": {"prefetch": "session"}},
        {"kv": {"prefetch": "lookahead", "lookahead": 9}},
        {"kv": {"write_back": "eager"}},
        {"kv": {"reserve": 0.1}},
        {"kv": {"queue_limit": 9}},
        {"kv": {"layout": "paged"}},
        {"kv": {"preemption": "swap"}},
        {"kv": {"tier_dtypes": {"dram": "int8"}}},
        {"hardware": {"dram": {"capacity": "64 GiB"}}},
        {"hardware": {"dram": {"capacity": "64 GiB", "share": 0.5}}},
        {"hardware": {"dram": {"capacity": "64 GiB"}, "ssd": {"capacity": "64 GiB"}}},
        {"hardware": {"mover": "gather"}},
        {"hardware": {"links": {"h2d": {"latency": "1 us"}}}},
        {"slo": {"ttft": "1 s"}},
        {"slo": {"tpot": "1 s"}},
        {"slo": {"e2el": "1 s"}},
        {"stop": {"at": "1 s"}},
        {"record": {"iterations": False}},
        {"seed": 1},
    ],
    ids=str,
)
def test_the_hash_changes_with_every_key(change: dict[str, Any], hashes: dict[str, str]) -> None:
    changed = scenario(**change)
    twin = hashes.setdefault(changed.hash, str(change))
    assert twin == str(change)


@pytest.fixture(scope="module")
def hashes() -> dict[str, str]:
    """The hashes seen so far and what they belong to."""
    return {scenario().hash: "the unchanged scenario"}


CHANGED = {
    "merge": [
        {"file": "/a.csv", "weight": 1, "dither": "3 s"},
        SYNTHETIC | {"weight": 0.5, "window": ["1 min", "1 h"]},
    ],
    "window": ["0 s", "600 s"],
    "thin": 0.5,
    "replica": {"index": 0, "of": 4, "by": "session"},
    "clip_prompt": {"to": "model"},
}


@pytest.mark.parametrize(
    "trace", [SYNTHETIC, {"file": "/a.csv"}, CHANGED], ids=["synthetic", "file", "changed"]
)
def test_resolved_comes_back_from_json(trace: dict[str, Any]) -> None:
    given = scenario(
        name="round", trace=trace, slo={"ttft": "2 s"}, loop={"captured_batches": [1, 8]}
    )
    text = json.dumps(given.resolved())
    back = Scenario.from_resolved(json.loads(text))
    assert back == given
    assert back.hash == given.hash
    assert json.dumps(back.resolved()) == text


def test_resolved_is_si_with_the_keys_of_yaml() -> None:
    data = scenario(trace=SYNTHETIC, slo={"tpot": "100 ms"}).resolved()
    assert data["slo"]["tpot"] == 0.1
    assert data["model"]["name"] == "llama-3.2-1b"
    assert data["model"]["weights"] == "bf16"
    assert data["trace"]["output_tokens"] == {"exponential": 200.0, "cap": 4096}
    assert "file" not in data["trace"]
    assert data["units"].startswith("SI")


def test_resolved_has_only_the_changes_that_are_asked_for() -> None:
    assert "thin" not in scenario(trace=SYNTHETIC).resolved()["trace"]
    data = scenario(trace=CHANGED).resolved()["trace"]
    assert data["window"] == [0.0, 600.0]
    assert "format" not in data  # of no use without a file
    assert [part.get("dither") for part in data["merge"]] == [3.0, None]
    assert data["merge"][0]["file"] == "/a.csv"
    assert "rate" not in data["merge"][0]


def test_scenarios_are_frozen_and_travel_to_workers() -> None:
    given = scenario()
    with pytest.raises(ValidationError, match="frozen"):
        given.seed = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(given)).hash == given.hash


def test_every_field_explains_itself() -> None:
    for part in (Scenario, *_parts(Scenario)):
        for name, field in part.model_fields.items():
            if not _parts_of(field.annotation):
                assert field.description, f"{part.__name__}.{name} has no docstring"


def _parts_of(annotation: Any) -> list[Any]:
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    return [kind for kind in kinds if hasattr(kind, "model_fields")]


def _parts(part: Any) -> list[Any]:
    below = [n for field in part.model_fields.values() for n in _parts_of(field.annotation)]
    return below + [deeper for node in below for deeper in _parts(node)]


def test_the_hash_follows_a_trace_s_content_and_not_its_place(tmp_path: Path) -> None:
    hashes = []
    for folder, text in (("here", "a"), ("there", "a"), ("changed", "b")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "t.csv"
        file.write_text(text)
        given = scenario(trace={"file": str(file)})
        hashes.append(given.hash)
        assert given.resolved()["trace"]["file"].startswith("t.csv#")
    assert hashes[0] == hashes[1] != hashes[2]
