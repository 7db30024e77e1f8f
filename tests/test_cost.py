"""Iterations against a second reckoning, stage by stage, from the profile's forms alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ENDLESS, MODEL, TICK, alone, play, toy_scenario, write_profile

from sim.cost import Chunk, Cost
from sim.forms import SplitKv
from sim.models import PRESETS
from sim.profile import load_profile
from sim.scenario import Scenario

H200 = alone(load_profile("nvidia-h200"))
SHAPE = PRESETS["llama-3.1-8b"]
MOE = MODEL | {"experts": 8, "experts_per_token": 2}


def scenario(**sections) -> Scenario:
    trace = {"source": "azure-conv-like", "requests": 1}
    return Scenario.model_validate({"trace": trace, "model": SHAPE.name} | sections)


def const(name: str) -> float:
    return H200.constant(name)


# ---------------------------------------------------------------- the second reckoning
def gemm(m: int, k: int, n: int) -> float:
    return H200.gemm("bf16").seconds(2.0 * k * n + 2.0 * m * (k + n), 2.0 * m * k * n)


def small(tokens: int, elements: int, stage: str = "") -> float:
    return H200.elementwise(stage).seconds(2.0 * tokens * elements)


def kernels(kernels: str, tokens: int, logits: int, attention: list[float]) -> list[float]:
    """Seconds of every kernel of a pass of Llama 3.1 8B, in order."""
    d, f, v = SHAPE.hidden, SHAPE.ffn, SHAPE.vocab
    q, kv = SHAPE.heads * SHAPE.head_dim, SHAPE.kv_heads * SHAPE.head_dim
    qkv, o = gemm(tokens, d, q + 2 * kv), gemm(tokens, q, d)
    up, down = gemm(tokens, d, 2 * f), gemm(tokens, f, d)
    tail = [gemm(logits, d, v), small(logits, v, "sample")] if logits else []
    if kernels == "fused":
        return [qkv, *attention, o, up, down] * SHAPE.layers + tail
    norm, add = small(tokens, 2 * d, "norm"), small(tokens, 3 * d, "add")
    split, append = small(tokens, 2 * (q + 2 * kv)), small(tokens, 4 * kv)
    rope_q, rope_k = small(tokens, 2 * q, "rope"), small(tokens, 2 * kv, "rope")
    before = [norm, qkv, split, rope_q, rope_k, append]
    after = [o, add, norm, up, small(tokens, 3 * f, "silu_mul"), down, add]
    return [small(tokens, 2 * d), *[*before, *attention, *after] * SHAPE.layers, norm, *tail]


def decode_attention(batch: int, context: int) -> float:
    form = H200.decode_attention("bf16")
    return form.seconds(batch, context, SHAPE.heads, SHAPE.kv_heads, SHAPE.head_dim)


def prefill_attention(chunks: list[Chunk]) -> float:
    """All chunks in one launch: t0 once."""
    form = H200.prefill_attention()
    each = [form.seconds(SHAPE.heads, SHAPE.head_dim, c.tokens, c.offset) for c in chunks]
    return sum(each) - (len(each) - 1) * form.t0_s


def launched(times: list[float], submit: float, requests: int) -> float:
    """A host iteration launch by launch, then the end of it and the scheduling."""
    end = 0.0
    for i, seconds in enumerate(times):
        end = max((i + 1) * submit + const("launch_latency_s"), end) + seconds
    end += const("host_sync_s") - const("launch_latency_s") + const("host_copyback_s")
    return end + const("host_python_schedule_s") + requests * schedule_each()


def schedule_each() -> float:
    return const("host_python_schedule_per_request_s")


@pytest.mark.parametrize("stages", ["fused", "library"])
@pytest.mark.parametrize(("batch", "context"), [(1, 1), (1, 5000), (64, 64_000), (256, 1_000_000)])
def test_host_decode(stages, batch, context) -> None:
    cost = Cost(scenario(loop={"mode": "host", "kernels": stages}), H200)
    times = kernels(stages, batch, batch, [decode_attention(batch, context)])
    expected = launched(times, const("host_python_submit_s"), batch)
    assert cost.decode(batch).seconds(context) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("stages", ["fused", "library"])
@pytest.mark.parametrize(("batch", "context"), [(1, 5000), (60, 64_000)])
def test_graph_decode(stages, batch, context) -> None:
    cost = Cost(scenario(loop={"mode": "graph", "kernels": stages}), H200)
    padded = {1: 1, 60: 64}[batch]
    times = kernels(stages, padded, padded, [decode_attention(padded, context)])
    expected = sum(times) + const("graph_launch_s") + const("host_copyback_s")
    expected += const("host_python_schedule_s") + batch * schedule_each()
    assert cost.decode(batch).padded == padded
    assert cost.decode(batch).seconds(context) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("stages", ["fused", "library"])
def test_resident_decode_without_prefetch(tmp_path, stages) -> None:
    document = json.loads(Path("sim/profiles/nvidia-h200.json").read_text())
    document["constants"]["prefetch_ring_bytes"]["value"] = 1e-9
    path = tmp_path / "no-ring.json"
    path.write_text(json.dumps(document))
    profile = alone(load_profile(path))
    cost = Cost(scenario(loop={"mode": "resident", "kernels": stages}), profile)
    times = kernels(stages, 8, 8, [decode_attention(8, 9000)])
    node, barrier = const("graph_node_s"), const("grid_barrier_s")
    expected = sum(times) + len(times) * (barrier - node) + const("device_schedule_s")
    expected += 8 * const("device_schedule_per_request_s")
    assert cost.decode(8).seconds(9000) == pytest.approx(expected, rel=1e-12)


def test_prefetch_hides_at_most_ramps_and_barriers() -> None:
    with_ring = Cost(scenario(loop={"mode": "resident"}), H200).decode(8).seconds(9000)
    times = kernels("fused", 8, 8, [decode_attention(8, 9000)])
    products = 4 * SHAPE.layers + 1
    gone = H200.gemm("bf16").t0_s - const("graph_node_s") + const("grid_barrier_s")
    least = sum(times) + len(times) * (const("grid_barrier_s") - const("graph_node_s"))
    assert with_ring >= least - products * gone
    assert with_ring < least


@pytest.mark.parametrize("stages", ["fused", "library"])
@pytest.mark.parametrize(
    "chunks", [[Chunk(2048, 0)], [Chunk(7, 0)], [Chunk(1000, 3000), Chunk(500, 0)]]
)
@pytest.mark.parametrize("batch", [0, 16])
def test_mixed(stages, chunks, batch) -> None:
    cost = Cost(scenario(loop={"mode": "host", "kernels": stages}), H200)
    attention = [decode_attention(batch, 20_000)] if batch else []
    tokens = batch + sum(chunk.tokens for chunk in chunks)
    times = kernels(stages, tokens, batch + 1, [*attention, prefill_attention(chunks)])
    expected = launched(times, const("host_python_submit_s"), batch + len(chunks))
    found = cost.mixed(batch, 20_000 * bool(batch), chunks, batch + 1)
    assert found.seconds == pytest.approx(expected, rel=1e-12)


def test_prefill_grows_faster_than_its_length() -> None:
    cost = Cost(scenario(), H200)
    one, two = (cost.mixed(0, 0, [Chunk(n, 0)], 1).seconds for n in (16_384, 32_768))
    assert two > 2.1 * one
    late = cost.mixed(0, 0, [Chunk(2048, 100_000)], 1).seconds
    assert late > 1.5 * cost.mixed(0, 0, [Chunk(2048, 0)], 1).seconds


# ---------------------------------------------------------------- attention and arrays
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(["host", "graph", "control", "resident"]),
    st.integers(1, 256),
    st.lists(st.integers(1, 10_000_000), min_size=1, max_size=20),
)
def test_arrays_equal_scalars_to_the_last_bit(mode, batch, contexts) -> None:
    decode = Cost(scenario(loop={"mode": mode, "host": "c"}), H200).decode(batch)
    array = decode.seconds_into(np.array(contexts, float)).tolist()
    assert array == [decode.seconds(context) for context in contexts]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(1, 64),
    st.integers(1, 10**6),
    st.floats(1e3, 1e12),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_attention_is_the_profiles_form(batch, context, bandwidth, ramp, cta) -> None:
    """With all else free, an iteration is a layer's attention times the layers."""
    free = dict.fromkeys(("graph_launch_s", "host_copyback_s"), 0.0)
    parameters = {"t0_s": 1e-3, "bytes_per_s": bandwidth, "ramp_s": ramp, "cta_s": cta}
    nothing = {"t0_s": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        forms = {"gemm.bf16": nothing, "elementwise": nothing, "decode_attention.bf16": parameters}
        path = write_profile(Path(folder) / "toy.json", free, forms)
        loop = {"mode": "graph", "max_batch": 64, "captured_batches": [batch]}
        chosen = scenario(model=MODEL, loop=loop)
        found = Cost(chosen, load_profile(path)).decode(batch).seconds(context)
    form = SplitKv(**parameters, kv_bytes=2.0)
    assert found == pytest.approx(2 * form.seconds(batch, context, 2, 1, 4), rel=1e-12)


# ---------------------------------------------------------------- stages
@pytest.mark.parametrize(
    ("model", "stages", "layer", "once"),
    [
        (MODEL, "fused", 5, 2),
        (MODEL, "library", 14, 4),
        (MOE, "fused", 7, 2),
        (MOE, "library", 17, 4),
    ],
)
def test_launches(tmp_path, model, stages, layer, once) -> None:
    loop = {"mode": "host", "kernels": stages, "token_budget": 8, "max_batch": 4}
    ran = play(toy_scenario(tmp_path, [(0, 12, 3), (0, 8, 1)], model=model, loop=loop))
    sampling = [once - 2, once, once, once]  # the first chunk ends no prompt
    mixed = [0, 0, 2, 0]  # launches more, one a layer: decode and prefill attention
    found = [
        (kind, n) for kind, n in zip(ran.iterations.kind, ran.iterations.launches, strict=True)
    ]
    kinds = ["prefill", "prefill", "mixed", "decode"]
    expected = [2 * layer + s + m for s, m in zip(sampling, mixed, strict=True)]
    assert found == list(zip(kinds, expected, strict=True))


def test_graph_and_resident_launch_once_and_never(tmp_path) -> None:
    rows = [(0, 8, 4)]
    graph = play(toy_scenario(tmp_path, rows)).iterations
    resident = play(toy_scenario(tmp_path, rows, loop={"mode": "resident"})).iterations
    assert graph.launches.tolist() == [12, 1, 1, 1]
    assert resident.launches.tolist() == [12, 0, 0, 0]
    assert resident.syncs.tolist() == [1, 0, 0, 0]


def test_tokens_read_the_experts_they_hit(tmp_path) -> None:
    """A batch of m tokens reads 8 (1 - (3/4)^m) of 8 experts; only weights cost time here."""
    rate = 512 / TICK  # bytes/s
    free = dict.fromkeys(("graph_launch_s", "host_copyback_s"), 0.0)
    forms = {
        "gemm.bf16": {"t0_s": 0.0, "bytes_per_s": rate},
        "elementwise": {"t0_s": 0.0, "bytes_per_s": ENDLESS},
        "decode_attention.bf16": {"t0_s": 0.0},
    }
    path = write_profile(tmp_path / "toy.json", free, forms)
    cost = Cost(scenario(model=MOE, loop={"mode": "graph", "max_batch": 8}), load_profile(path))
    for m in (1, 2, 4, 8):
        distinct = 8 * (1 - 0.75**m)
        rows = [(8, 16, 1.0, 1), (8, 8, 1.0, 1), (8, 8, 1.0, 1)]  # qkv, o, router: k, n
        rows += [(8, 16, distinct, 2), (8, 8, distinct, 2)]  # gate and up, down
        moved = sum(2 * k * n * count + 2 * m * of * (k + n) for k, n, count, of in rows)
        head = 2 * 8 * 16 + 2 * m * (8 + 16)
        expected = (2 * moved + head) / rate
        assert cost.decode(m).seconds(10) == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------- what a report must say
def test_extrapolation_is_named() -> None:
    cost = Cost(scenario(loop={"max_batch": 512, "token_budget": 16_384}), H200)
    cost.decode(512)
    cost.mixed(0, 0, [Chunk(16_384, 0)], 1)
    assert cost.extrapolated() == [
        "gemm.bf16: m 16384 outside 1 to 8192",
        "decode_attention.bf16: batch 512 outside 1 to 256",
    ]


def test_run_without_decode_extrapolates_no_batch() -> None:
    cost = Cost(scenario(), H200)
    cost.mixed(0, 0, [Chunk(256, 2048)], 1)
    assert cost.extrapolated() == []


def test_estimates_are_named() -> None:
    def said(kv="bf16", **loop):
        return Cost(scenario(loop=loop, kv={"dtype": kv}), H200).estimated()

    assert "host_c_schedule_s" in said(mode="host", host="c")
    assert "host_c_schedule_s" not in said(mode="host", host="python")
    assert "launch_latency_s" in said(mode="resident")
    assert "launch_latency_s" not in said(mode="resident", prefill="partition")
    assert "decode_attention.fp8" in said(kv="fp8")
    assert "decode_attention.int8" not in said(kv="int8")


def test_memory_of_the_data_sheet_is_estimated(tmp_path) -> None:
    document = json.loads(Path("sim/profiles/nvidia-h200.json").read_text())
    document["device"]["kinds"]["hbm_bytes"] = "estimated"
    (tmp_path / "p.json").write_text(json.dumps(document))
    sheet = load_profile(tmp_path / "p.json")
    assert "hbm_bytes" in Cost(scenario(), sheet).estimated()
    given = Cost(scenario(hardware={"hbm": {"capacity": "141 GB"}}), sheet)
    assert "hbm_bytes" not in given.estimated()


def test_each_product_is_held_against_its_own_kernel_s_domain() -> None:
    shape = MODEL | {"vocab": 24}
    cost = Cost(scenario(model=shape | {"weights": "int4"}), H200)
    cost.decode(64)
    found = cost.extrapolated()
    assert "gemm.int4: m 64 outside 1 to 16" in found
    assert any(line.startswith("gemm.bf16: n 24 outside") for line in found)
    assert any(line.startswith("gemm.int4: n 16 outside") for line in found)
    assert not any(line.startswith("gemm.int4: n 24") for line in found)
