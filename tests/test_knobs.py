"""Every key of a scenario does something, and in the direction one expects.

One run of the shipped profile is the base; each test changes one key and says what follows.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from toy import Ran, play

from sim.profile import load_profile
from sim.scenario import Scenario
from sim.trace.chunk import Tally
from sim.workload import chunks

BASE: dict[str, Any] = {
    "trace": {
        "source": "synthetic", "requests": 150, "rate": "60 /s",
        "prompt_tokens": {"uniform": [50, 900]}, "output_tokens": {"exponential": 40},
    },
    "model": "llama-3.2-1b",
    "loop": {"mode": "graph", "max_batch": 32},
    "seed": 1,
}  # fmt: skip


def run(**sections: Any) -> Ran:
    """The base with keys of its sections replaced."""
    data = dict(BASE)
    for key, value in sections.items():
        both = isinstance(value, dict) and isinstance(data.get(key), dict)
        data[key] = data[key] | value if both else value
    return play(Scenario.model_validate(data))


def of(**sections: Any) -> Ran:
    """The base with whole sections in place of its own."""
    return play(Scenario.model_validate(BASE | sections))


@cache
def base(**loop: str) -> Ran:
    return run(loop=loop)


def mean(ran: Ran, name: str) -> float:
    return ran.summary[f"mean_{name}_ms"]


def synthetic(**keys: Any) -> dict[str, Any]:
    return BASE["trace"] | keys


# ---------------------------------------------------------------- loop
def test_mode_orders_the_loops_by_what_they_launch() -> None:
    host, graph = base(mode="host", kernels="library"), base(mode="graph", kernels="library")
    resident = base(mode="resident", kernels="library")
    assert mean(host, "tpot") > mean(graph, "tpot") > mean(resident, "tpot")
    launches = [ran.summary["loop_launches"] for ran in (host, graph, resident)]
    assert launches == sorted(launches, reverse=True)
    assert host.summary["loop_path_graph"] == host.summary["loop_path_resident"] == 0
    assert graph.summary["loop_path_graph"] == graph.summary["loop_iterations_decode"]
    assert resident.summary["loop_path_resident"] == resident.summary["loop_iterations_decode"]
    assert resident.summary["loop_iterations_mixed"] == 0
    tokens = {ran.summary["total_output_tokens"] for ran in (host, graph, resident)}
    assert len(tokens) == 1  # like for like


def test_control_is_a_graph_without_the_host() -> None:
    graph, control = (base(mode=mode, kernels="library") for mode in ("graph", "control"))
    gaps = [ran.iterations.gap_s[decode_of(ran)].median() for ran in (graph, control)]
    assert gaps[1] < gaps[0]
    assert control.summary["loop_path_control"] == control.summary["loop_iterations_decode"]
    assert control.summary["loop_iterations_mixed"] == 0  # it leaves the GPU's loop for a prefill
    decode = decode_of(control)
    assert control.iterations.launches[decode].max() == 0
    assert graph.iterations.launches[decode_of(graph)].max() == 1
    assert mean(base(mode="control", host="c"), "e2el") < mean(base(mode="control"), "e2el")


def test_control_pads_to_its_captured_batches() -> None:
    loop = {"mode": "control", "kernels": "library"}
    coarse, low = (
        run(loop=loop | {"captured_batches": [32]}),
        run(loop=loop | {"captured_batches": [1, 2]}),
    )
    decode = decode_of(coarse)
    assert set(coarse.iterations.padded_requests[decode]) == {32}
    beyond = low.iterations[decode_of(low) & (low.iterations.decode_requests > 2)]
    assert set(beyond.path) == {"host"}


def test_host_in_c_submits_and_schedules_faster() -> None:
    python, c = (base(mode="host", kernels="library", host=host) for host in ("python", "c"))
    assert mean(c, "tpot") < mean(python, "tpot")
    assert c.summary["loop_gap_fraction"] < python.summary["loop_gap_fraction"]
    assert mean(base(mode="resident", host="c"), "tpot") < mean(base(mode="resident"), "tpot")


def test_library_kernels_are_more_and_slower() -> None:
    for mode in ("host", "graph", "resident"):
        library = base(mode=mode, kernels="library")
        assert mean(library, "tpot") > mean(base(mode=mode, kernels="fused"), "tpot")


def test_max_batch_bounds_what_runs() -> None:
    few, many = run(loop={"max_batch": 4}), run(loop={"max_batch": 32})
    assert few.iterations.running.max() == 4
    assert many.iterations.running.max() > 4
    assert mean(few, "queue") > mean(many, "queue")
    assert mean(few, "tpot") < mean(many, "tpot")


def test_token_budget_bounds_an_iteration() -> None:
    small, large = run(loop={"token_budget": 128}), run(loop={"token_budget": 8192})
    for ran, budget in ((small, 128), (large, 8192)):
        tokens = ran.iterations.decode_requests + ran.iterations.prefill_tokens
        assert tokens.max() <= budget
    prefills = [r.summary["loop_prefill_tokens"] for r in (small, large)]
    assert prefills[0] == prefills[1]
    assert small.iterations.prefill_tokens.max() == 128
    assert small.summary["loop_iterations_prefill"] + small.summary["loop_iterations_mixed"] > 150


def test_captured_batches_decide_padding_and_fallback() -> None:
    def captured(sizes: list[int]) -> Ran:
        return run(loop={"kernels": "library", "captured_batches": sizes})

    exact, coarse, low = captured(list(range(1, 33))), captured([32]), captured([1, 2])
    decode = coarse.iterations.kind == "decode"
    assert set(coarse.iterations.padded_requests[decode]) == {32}
    assert (exact.iterations.padded_requests == exact.iterations.decode_requests).all()
    assert mean(exact, "tpot") < min(mean(coarse, "tpot"), mean(low, "tpot"))
    beyond = low.iterations[decode_of(low) & (low.iterations.decode_requests > 2)]
    assert set(beyond.path) == {"host"}


def decode_of(ran: Ran) -> Any:
    return ran.iterations.kind == "decode"


def test_prefill_partition_spares_the_exits_and_keeps_decoding() -> None:
    leaves = base(mode="resident", kernels="fused")
    stays = base(mode="resident", prefill="partition")
    assert leaves.summary["loop_path_partition"] == 0
    assert stays.summary["loop_path_partition"] > 0
    assert stays.summary["loop_launches"] == 0
    assert mean(stays, "ttft") > mean(leaves, "ttft")  # on a quarter of the SMs


def test_prefill_share_trades_first_tokens_for_the_others() -> None:
    def share(value: float) -> Ran:
        return run(loop={"mode": "resident", "prefill": "partition", "prefill_share": value})

    small, large = share(0.2), share(0.7)
    assert mean(small, "ttft") > mean(large, "ttft")
    slowed = [r.iterations[decode_of(r)].duration_s.max() for r in (small, large)]
    assert slowed[0] < slowed[1]


# ---------------------------------------------------------------- kv, model, hardware
def test_block_tokens_sets_the_size_of_a_block() -> None:
    small, large = run(kv={"block_tokens": 16}), run(kv={"block_tokens": 256})
    ratio = small.summary["kv_blocks_capacity"] / large.summary["kv_blocks_capacity"]
    assert ratio == pytest.approx(16, rel=1e-3)
    assert small.summary["kv_mean_utilization"] < large.summary["kv_mean_utilization"]
    assert mean(small, "tpot") == mean(large, "tpot")


def test_kv_dtype_halves_a_block_and_the_bytes_read() -> None:
    bf16, fp8 = run(kv={"dtype": "bf16"}), run(kv={"dtype": "fp8"})
    assert fp8.summary["kv_blocks_capacity"] == pytest.approx(
        2 * bf16.summary["kv_blocks_capacity"], abs=1
    )
    assert mean(fp8, "tpot") != mean(bf16, "tpot")
    int8 = run(kv={"dtype": "int8"})
    assert int8.requests.equals(fp8.requests)
    assert "decode_attention.fp8" in fp8.summary["cost_estimated"]
    assert "decode_attention.int8" not in int8.summary["cost_estimated"]


def test_weights_take_room_and_time() -> None:
    big = {"model": {"preset": "llama-3.1-8b"}}
    bf16 = run(**big)
    fp8 = run(model=big["model"] | {"weights": "fp8"})
    int4 = run(model=big["model"] | {"weights": "int4"})
    capacity = [ran.summary["kv_blocks_capacity"] for ran in (bf16, fp8, int4)]
    assert capacity == sorted(capacity)
    assert len(set(capacity)) == 3
    assert mean(fp8, "tpot") < mean(bf16, "tpot")
    assert "gemm.int4" not in " ".join(bf16.summary["cost_estimated"])


def test_model_size_costs_time_and_memory() -> None:
    small, large = base(), run(model="llama-3.1-8b")
    assert mean(large, "tpot") > 3 * mean(small, "tpot")
    assert large.summary["kv_blocks_capacity"] < small.summary["kv_blocks_capacity"]
    assert large.summary["model_id"] == "llama-3.1-8b"


def test_hbm_capacity_and_utilization_bound_the_blocks() -> None:
    tight = run(hardware={"hbm": {"capacity": "2.83 GB"}})
    wide = base()
    assert tight.summary["kv_blocks_peak"] <= tight.summary["kv_blocks_capacity"]
    assert tight.summary["kv_blocks_capacity"] < wide.summary["kv_blocks_capacity"]
    assert tight.summary["kv_mean_utilization"] > wide.summary["kv_mean_utilization"]
    assert mean(tight, "queue") > mean(wide, "queue")
    half = run(hardware={"hbm": {"capacity": "141 GB", "utilization": 0.45}})
    assert half.summary["kv_blocks_capacity"] < 0.5 * wide.summary["kv_blocks_capacity"]


def test_capacity_comes_from_the_profile_when_not_given() -> None:
    size = load_profile("nvidia-h200").device["hbm_bytes"]
    given = run(hardware={"hbm": {"capacity": f"{size} B"}})
    assert given.summary["kv_blocks_capacity"] == base().summary["kv_blocks_capacity"]
    assert given.requests.equals(base().requests)


def test_profile_decides_the_times(tmp_path: Path) -> None:
    document = json.loads((Path("sim") / "profiles" / "nvidia-h200.json").read_text())
    for name, entry in [*document["kernels"].items(), *document.get("in_step", {}).items()]:
        if name.startswith(("gemm.bf16", "gemv.bf16")):
            entry["parameters"]["bytes_per_s"] = 1e12
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(document))
    ran = run(hardware={"profile": str(slow)})
    assert mean(ran, "tpot") > 1.5 * mean(base(), "tpot")
    assert ran.summary["cost_profile_hash"] != base().summary["cost_profile_hash"]


# ---------------------------------------------------------------- trace
def test_rate_scale_compresses_the_arrivals() -> None:
    slow, fast = base(), run(trace=synthetic(rate_scale=4.0))
    assert fast.requests.arrival_s.tolist() == (slow.requests.arrival_s / 4).tolist()
    assert fast.requests.output_tokens.equals(slow.requests.output_tokens)
    assert mean(fast, "e2el") > mean(slow, "e2el")


def test_time_scale_stretches_the_arrivals() -> None:
    slow = run(trace=synthetic(time_scale=2.0))
    assert slow.requests.arrival_s.tolist() == (base().requests.arrival_s * 2).tolist()
    assert mean(slow, "e2el") < mean(base(), "e2el")


def test_window_takes_a_stretch_of_the_trace() -> None:
    cut, whole = run(trace=synthetic(window=["500 ms", "1 s"])), base().requests
    there = whole[(whole.arrival_s >= 0.5) & (whole.arrival_s < 1.0)]
    expected = there.arrival_s - there.arrival_s.iloc[0]
    assert cut.requests.arrival_s.tolist() == expected.tolist()
    assert cut.requests.output_tokens.tolist() == there.output_tokens.tolist()
    (change,) = cut.trace["changes"]
    assert (change["change"], change["requests_out"]) == ("window", len(there))


def test_thin_leaves_a_share_of_the_requests() -> None:
    some = run(trace=synthetic(thin=0.5))
    assert 45 < len(some.requests) < 105
    assert set(some.requests.arrival_s) < set(base().requests.arrival_s)
    assert mean(some, "e2el") < mean(base(), "e2el")
    assert some.trace["changes"][0]["requests_in"] == 150
    assert len(run(trace=synthetic(thin=0.5), seed=2).requests) != len(some.requests)


def test_replicas_share_the_load() -> None:
    for by in ("round_robin", "random"):
        parts = [run(trace=synthetic(replica={"index": i, "of": 3, "by": by})) for i in range(3)]
        times = sorted(time for part in parts for time in part.requests.arrival_s)
        assert times == base().requests.arrival_s.tolist()
        assert all(mean(part, "tpot") < mean(base(), "tpot") for part in parts)


def test_clip_prompt_makes_requests_fit() -> None:
    clipped = run(trace=synthetic(clip_prompt={"to": 200}))
    sums = clipped.requests.prompt_tokens + clipped.requests.output_tokens
    assert sums.max() == 200
    assert clipped.requests.output_tokens.max() < 200
    assert mean(clipped, "ttft") < mean(base(), "ttft")
    assert clipped.trace["changes"][0]["prompts_cut"] > 100
    # to the model's own context: what would be rejected is served
    model = {"preset": "llama-3.2-1b", "max_context": 300}
    assert run(model=model).summary["completed"] < 150
    fits = run(model=model, trace=synthetic(clip_prompt={"to": "model"}))
    assert fits.summary["completed"] == 150


def test_clip_prompt_keeps_an_end_of_the_block_ids(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = {"timestamp": 0, "input_length": 1024, "output_length": 8, "hash_ids": [7, 8]}
    path.write_text(json.dumps(row))
    kept = {}
    for keep in ("first", "last"):
        trace = {"file": str(path), "clip_prompt": {"to": 100, "keep": keep}}
        chosen = Scenario.model_validate(BASE | {"trace": trace})
        (chunk,) = chunks(chosen, Tally())
        assert chunk.block_ids is not None
        kept[keep] = chunk.block_ids[0]
    assert kept["first"] == (7,)
    assert kept["last"] not in ((7,), (8,))


def test_dither_spreads_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = {"input_length": 300, "output_length": 20}
    rows = [row | {"timestamp": 1000 * (i // 10)} for i in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    grid, auto, half = (
        of(trace={"file": str(path), "dither": dither}) for dither in (False, "auto", "500 ms")
    )
    assert set(grid.requests.arrival_s % 1.0) == {0.0}
    assert len(set(auto.requests.arrival_s)) == 200
    assert (auto.requests.arrival_s % 1.0).max() > 0.9
    assert 0.4 < (half.requests.arrival_s % 1.0).max() < 0.5
    assert mean(grid, "ttft") > mean(half, "ttft") > mean(auto, "ttft")
    assert auto.trace["changes"][0]["step_s"] == 1.0


def test_merge_mixes_by_weight(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"timestamp": 10 * i, "input_length": 5, "output_length": 3} for i in range(600)]
    path.write_text("\n".join(map(json.dumps, rows)))
    merge = [{"file": str(path), "weight": 0.25}, synthetic(requests=400, weight=0.75)]
    mixed = of(trace={"merge": merge})
    share = (mixed.requests.prompt_tokens == 5).mean()
    assert share == pytest.approx(0.25, abs=0.05)
    assert mixed.requests.arrival_s.is_monotonic_increasing
    (change,) = mixed.trace["changes"]
    assert change["requests_out"] == len(mixed.requests)
    short = of(trace={"merge": merge, "requests": 50})
    assert len(short.requests) == 50


def test_the_same_source_twice_is_drawn_twice() -> None:
    merge = [synthetic(weight=1), synthetic(weight=1)]
    times = of(trace={"merge": merge}).requests.arrival_s
    assert len(times) > 200
    assert (times.diff() == 0).sum() <= 1  # but for the first requests, at 0


def test_requests_cut_the_trace_and_shift_nothing() -> None:
    short = run(trace=synthetic(requests=40)).requests
    columns = ["arrival_s", "prompt_tokens", "output_tokens"]
    assert len(short) == 40
    assert short[columns].equals(base().requests[columns].head(40))


def test_rate_and_arrivals() -> None:
    constant = run(trace=synthetic(arrivals="constant", rate="50 /s")).requests.arrival_s
    assert constant.diff().dropna().to_numpy() == pytest.approx(0.02)


def test_bursty_arrivals_wait_longer() -> None:
    def queue(burstiness: float) -> Ran:
        keys = {"arrivals": "gamma", "burstiness": burstiness}
        return run(trace=synthetic(**keys), loop={"max_batch": 4})

    bursty, even = queue(0.1), queue(10.0)
    spread = [r.requests.arrival_s.diff().std() for r in (bursty, even)]
    assert spread[0] > 3 * spread[1]
    # The same work in the same time: what waits is what came in bursts.
    assert bursty.requests.output_tokens.equals(even.requests.output_tokens)


def test_lengths() -> None:
    longer = run(trace=synthetic(prompt_tokens=2000, output_tokens=10))
    assert set(longer.requests.prompt_tokens) == {2000}
    assert set(longer.requests.output_tokens) == {10}
    assert mean(longer, "ttft") > mean(base(), "ttft")


def test_seed_draws_another_trace() -> None:
    assert not run(seed=2).requests.equals(base().requests)
    assert run(seed=1).requests.equals(base().requests)


# ---------------------------------------------------------------- slo, stop, record
def test_slo_counts_the_good_ones_and_changes_no_time() -> None:
    assert base().summary["request_goodput"] is None
    loose = run(slo={"ttft": "1 h", "tpot": "1 h", "e2el": "1 h"})
    strict = run(slo={"ttft": "1 h", "tpot": "1 h", "e2el": "50 ms"})
    none = run(slo={"ttft": "1 ns"})
    assert loose.summary["request_goodput"] == base().summary["request_throughput"]
    expected = (base().requests.e2el_ms <= 50).mean() * base().summary["request_throughput"]
    assert strict.summary["request_goodput"] == pytest.approx(expected)
    assert 0 < expected < base().summary["request_throughput"]
    assert none.summary["request_goodput"] == 0
    assert strict.requests.equals(base().requests)


def test_stop_ends_the_run_and_changes_nothing_before() -> None:
    whole, cut = base(), run(stop={"at": "1 s"})
    assert cut.summary["duration"] == 1.0
    assert cut.summary["requests_unfinished"] > 0
    assert len(cut.requests) == (whole.requests.arrival_s <= 1).sum()
    done = cut.requests[cut.requests.status == "finished"]
    assert done.equals(whole.requests.loc[done.index])
    assert set(cut.requests.status) == {"finished", "unfinished"}
    assert (whole.requests.finished_s <= 1).sum() == len(done)


def test_record_iterations_writes_them_or_not() -> None:
    without = run(record={"iterations": False})
    assert len(without.iterations) == 0
    assert without.requests.equals(base().requests)
    same = {k: v for k, v in without.summary.items() if k != "scenario_hash"}
    assert same == {k: v for k, v in base().summary.items() if k != "scenario_hash"}
