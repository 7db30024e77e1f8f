"""Verification, drafting, selection and blocks: iterations of several tokens, by hand."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import alone
from wide import H200, MODES, cost_of, drafting, scenario

from sim.cost import Chunk, Cost
from sim.forms import Prompts
from sim.models import PRESETS
from sim.steps import Load
from sim.widening import hbm_bytes

SHAPE = PRESETS["llama-3.1-8b"]
SMALL = PRESETS["llama-3.2-1b"]
DRAFTERS = [SMALL.name, "mtp", "eagle", "medusa", {"kind": "ngram", "lookup": "20 us"}]
TOPK = {"select": "topk", "top_k_tokens": 2048}


def gemm(m: int, k: int, n: int) -> float:
    return H200.gemm("bf16").seconds(2.0 * k * n + 2.0 * m * (k + n), 2.0 * m * k * n)


# ---------------------------------------------------------------- verification
@pytest.mark.parametrize("rule", ["greedy", "rejection"])
def test_a_verification_by_hand(rule) -> None:
    """16 requests of 5 tokens: products of 80 rows, each request's keys read once."""
    bare = alone(H200)
    given = scenario(
        loop={"mode": "graph", "host": "c"}, speculation=drafting(SMALL.name, rule=rule)
    )
    cost = Cost(given, bare)
    m, d, f, q, kv = 80, SHAPE.hidden, SHAPE.ffn, 4096, 1024
    layer = gemm(m, d, q + 2 * kv) + gemm(m, q, d) + gemm(m, d, 2 * f) + gemm(m, f, d)
    attention = H200.kernels["verify_attention.bf16"].form
    layer += attention.seconds(16, 64_000, SHAPE.heads * 5, SHAPE.kv_heads, SHAPE.head_dim)
    drafted = 16 * SHAPE.vocab * 4.0 if rule == "rejection" else 0.0
    judge = H200.kernels[f"verify_commit.{rule}"].form
    tail = gemm(m, d, SHAPE.vocab) + judge.seconds(m * SHAPE.vocab * 2.0 + drafted, m)
    around = [
        H200.constant(f"host_c_{name}_s") for name in ("graph_launch", "copyback", "schedule")
    ]
    around.append(16 * H200.constant("host_c_schedule_per_request_s"))
    decode = cost.decode(16, 80, 4)
    verify = decode.seconds(64_000) - decode.draft.seconds(64_000.0)
    assert verify == pytest.approx(SHAPE.layers * layer + tail + sum(around), rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernels", ["fused", "library"])
def test_one_pass_over_several_tokens_costs_less_than_several(mode, kernels) -> None:
    cost = cost_of(mode, kernels, speculation=drafting({"kind": "ngram"}))
    one, four = cost.decode(2).seconds(8000), cost.decode(2, 8, 3).seconds(8006)
    assert one < four < 1.5 * one


def test_a_graph_pads_every_request_to_the_mean_width_rounded_up() -> None:
    cost = cost_of(speculation=drafting("ngram"), loop={"captured_batches": [4, 8], "max_batch": 8})
    found = cost.decode(3, 10, 4)
    assert (found.padded, found.rows) == (4, 4 * ceil(10 / 3))
    assert found.seconds(9000) == cost.decode(3, 12, 4).seconds(9000)
    resident = cost_of("resident", speculation=drafting("ngram"), loop={"max_batch": 8})
    assert resident.decode(3, 10, 4).rows == 10


def test_wide_blocks_are_bound_by_products() -> None:
    """Up to 8 tokens attention reads keys; far beyond, it multiplies."""
    cost = cost_of()
    two, eight, many, more = (
        cost.decode(1, rows).seconds(1_000_000) - cost.decode(1, rows).seconds(900_000)
        for rows in (2, 8, 128, 256)
    )
    assert eight == pytest.approx(two, rel=1e-6)
    assert many > eight
    assert more == pytest.approx(2 * many, rel=1e-3)


# ---------------------------------------------------------------- drafting
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("draft", DRAFTERS)
def test_levels_are_drafted_one_after_the_other_or_at_once(mode, draft) -> None:
    cost = cost_of(mode, speculation=drafting(draft, 4))
    three, four = (cost.decode(2, 2 * (1 + n), n) for n in (3, 4))
    if draft == "medusa":
        # All heads run in the pass that verifies.
        assert four.draft is None
        bare = cost_of(mode, speculation=drafting({"kind": "ngram"}, 4)).decode(2, 10, 4)
        heads = 4 * 2.0 * (4096 * 4096 + 4096 * SHAPE.vocab) / 4.8e12
        assert four.seconds(8000) - bare.seconds(8000) > heads
        assert cost.decode(2).seconds(8000) < four.seconds(8000) - heads
    elif isinstance(draft, dict):
        assert four.draft.seconds(8000.0) == pytest.approx(20e-6)
        assert four.draft.busy(8000.0) == 0.0
    else:
        assert four.draft.seconds(8000.0) == pytest.approx(4 / 3 * three.draft.seconds(8000.0))


@pytest.mark.parametrize("mode", MODES)
def test_a_separate_model_drafts_as_it_would_serve_but_is_not_scheduled(mode) -> None:
    speculation = drafting(SMALL.name, 1)
    found = cost_of(mode, speculation=speculation).decode(2, 4, 1).draft.seconds(8000.0)
    alone_ = cost_of(mode, model=SMALL.name).decode(2).seconds(8000)
    assert 0.95 * alone_ < found < alone_


def test_launches_do_not_depend_on_what_was_asked_before() -> None:
    """A step of the fused decoder has a kernel before its layers, five in each and two behind
    them; a prefill has four and its attention, and two behind. No loop of a Python host was
    measured for it, so both run in the same modes, here with as many tokens."""
    decode, prefill = 1 + 5 * SHAPE.layers + 2, 5 * SHAPE.layers + 2
    for first in (True, False):
        cost = cost_of("host", "fused", loop={"host": "python"})
        before = cost.decode(8).launches if first else decode
        chunk = cost.mixed(0, 0, [Chunk(8, 0)], 1).queue.launches
        assert (before, chunk, cost.decode(8).launches) == (decode, prefill, decode)


def test_launches_of_all_passes_count() -> None:
    host = cost_of("host", speculation=drafting("eagle", 3)).decode(2, 8, 3)
    draft, verify = 1 + 10 + 4 + 1, 1 + 10 * SHAPE.layers + 4  # one layer, and what joins it
    assert host.launches == 3 * draft + verify
    assert host.syncs == 1
    assert cost_of("graph", speculation=drafting("eagle", 3)).decode(2, 8, 3).launches == 4
    assert cost_of("resident", speculation=drafting("eagle", 3)).decode(2, 8, 3).launches == 0


def test_a_tree_takes_wider_passes() -> None:
    tree = cost_of(speculation={"draft": "eagle", "tree": [4, 2], "acceptance": 0.7})
    chain = cost_of(speculation=drafting("eagle", 2))
    wide, narrow = tree.decode(4, 4 * 13, 2).draft, chain.decode(4, 12, 2).draft
    assert [one.times for one in wide.passes] == [1, 1]
    assert [one.times for one in narrow.passes] == [2]
    assert wide.seconds(4000.0) > narrow.seconds(4000.0)


@pytest.mark.parametrize("mode", MODES)
def test_overlap_hides_launches_and_waits_and_no_work(mode) -> None:
    after = cost_of(mode, speculation=drafting("mtp")).decode(4, 20, 4)
    beside = cost_of(mode, speculation=drafting("mtp", overlap=True)).decode(4, 20, 4)
    x = np.array([8000.0])
    busy, _ = after.account(x)
    assert busy[0] <= beside.seconds(8000) < after.seconds(8000)


def test_prompts_go_through_the_drafter_too() -> None:
    plain = cost_of().mixed(0, 0, [Chunk(2048, 0)], 1)
    eagle = cost_of(speculation=drafting("eagle")).mixed(0, 0, [Chunk(2048, 0)], 1)
    small = cost_of(speculation=drafting(SMALL.name)).mixed(0, 0, [Chunk(2048, 0)], 1)
    medusa = cost_of(speculation=drafting("medusa")).mixed(0, 0, [Chunk(2048, 0)], 1)
    assert medusa.seconds == plain.seconds < eagle.seconds < small.seconds
    assert eagle.seconds < 1.06 * plain.seconds
    busy = [cost_of().account([charge]).busy[0] for charge in (plain, eagle)]
    assert busy[1] - busy[0] == pytest.approx(eagle.extra.busy)


def test_a_mixed_iteration_verifies_and_drafts() -> None:
    cost = cost_of(speculation=drafting("eagle"))
    chunks = [Chunk(512, 0)]
    plain = cost.mixed(8, 8000, chunks, 9)
    wide = cost.mixed(8, 8032, chunks, 41, 1.0, 40, 4)
    draft = cost.drafting.of("host", 8, 8, 4)
    assert wide.seconds > plain.seconds + draft.seconds(8032.0)
    assert wide.extra.launches == plain.extra.launches + draft.launches


def test_memory_of_drafters() -> None:
    plain, token = hbm_bytes(scenario())
    small, tokens = hbm_bytes(scenario(speculation=drafting(SMALL.name)))
    assert small - plain == SMALL.weight_bytes(16)
    assert tokens - token == SMALL.kv_bytes_per_token(16)
    eagle, tokens = hbm_bytes(scenario(speculation=drafting("eagle")))
    assert tokens - token == token / SHAPE.layers
    assert 0.3e9 < eagle - plain < 0.6e9
    assert hbm_bytes(scenario(speculation=drafting("ngram"))) == (plain, token)


# ---------------------------------------------------------------- selection
def test_selection_loses_at_short_context_and_wins_at_long() -> None:
    for kernels in ("fused", "library"):
        dense, sparse = cost_of(kernels=kernels), cost_of(kernels=kernels, sparse=TOPK)
        short, long = 8 * 2304, 8 * 65_536
        read = 8 * 2304
        assert sparse.decode(8).seconds(short, read, short // 16) > dense.decode(8).seconds(short)
        far = sparse.decode(8).seconds(long, read, long // 16)
        assert far < 0.5 * dense.decode(8).seconds(long)


@pytest.mark.parametrize("kernels", ["fused", "library"])
@pytest.mark.parametrize("mode", MODES)
def test_dense_layers_and_shared_selections_lie_between(mode, kernels) -> None:
    context, read, pages = 4 * 32_768, 4 * 2048, 4 * 2048

    def seconds(**more: int) -> float:
        cost = cost_of(mode, kernels, sparse=TOPK | more)
        return cost.decode(4).seconds(context, read, pages)

    own, shared = seconds(), seconds(shared_layers=4)
    dense = cost_of(mode, kernels).decode(4).seconds(context)
    assert shared < own < seconds(dense_layers=16) < seconds(dense_layers=31) < 1.01 * dense
    assert seconds(dense_layers=31) == pytest.approx(dense, rel=0.02)


def test_launches_of_selections() -> None:
    counts = {(0, 1): 64, (2, 1): 60, (0, 4): 16, (2, 4): 16}
    plain = cost_of("host").decode(2).launches
    for (dense, shared), more in counts.items():
        sparse = TOPK | {"dense_layers": dense, "shared_layers": shared}
        assert cost_of("host", sparse=sparse).decode(2).launches == plain + more
    assert cost_of("host", sparse={"select": "window"}).decode(2).launches == plain


def test_blocks_from_dram_are_waited_for_where_compute_is_shorter() -> None:
    sparse = TOPK | {"offload": {"resident_tokens": 4096}}
    cost = cost_of(sparse=sparse, hardware={"dram": {"capacity": "1 TiB"}})
    decode, read = cost.decode(4), (4 * 2048, 4 * 2048)
    none = decode.seconds(4 * 32_768, *read, 0)
    assert decode.seconds(4 * 32_768, *read, 1) == none
    block = 16 * SHAPE.kv_bytes_per_token(16) / H200.constant("h2d_bytes_per_s")
    wait = decode.seconds(4 * 32_768, *read, 10_000)
    assert wait == pytest.approx(H200.constant("h2d_latency_s") + 10_000 * block)


def test_what_is_fetched_takes_the_link_and_the_format_that_the_scenario_says() -> None:
    def wait(kv: object = None, **links: object) -> float:
        hardware = {"dram": {"capacity": "1 TiB"}, "links": links}
        sparse = TOPK | {"offload": {"resident_tokens": 4096}}
        cost = cost_of(sparse=sparse, hardware=hardware, kv=kv or {})
        return cost.decode(4).seconds(4 * 32_768, 4 * 2048, 4 * 2048, 10_000)

    block = 16 * SHAPE.kv_bytes_per_token(16)
    slow = wait(h2d={"bandwidth": "10 GB/s", "latency": "1 ms"})
    assert slow == pytest.approx(1e-3 + 10_000 * block / 10e9)
    half = wait(kv={"tier_dtypes": {"dram": "fp8"}}, h2d={"bandwidth": "10 GB/s"})
    assert half == pytest.approx(H200.constant("h2d_latency_s") + 10_000 * block / 2 / 10e9)


# ---------------------------------------------------------------- scalar and array
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(MODES),
    st.sampled_from(["fused", "library"]),
    st.sampled_from([None, *DRAFTERS]),
    st.sampled_from([None, TOPK, TOPK | {"dense_layers": 3, "shared_layers": 2}]),
    st.booleans(),
    st.integers(1, 64),
    st.integers(1, 8),
    st.sampled_from([1.0, 1.0667]),
    st.lists(st.integers(100, 1_000_000), min_size=1, max_size=8),
)
def test_arrays_equal_scalars_to_the_last_bit(
    mode, kernels, draft, sparse, overlap, batch, width, slow, contexts
) -> None:
    sections = {} if sparse is None else {"sparse": sparse}
    if draft is not None:
        sections["speculation"] = drafting(draft, 8, overlap=overlap)
    cost = cost_of(mode, kernels, **sections)
    depth = width - 1 if draft is not None else 0
    decode = cost.decode(batch, batch * (1 + depth), depth, slow=slow)
    read = [[c // 3 for c in contexts], [c // 16 for c in contexts]] if sparse else []
    arrays = [np.array(values, float) for values in (contexts, *read)]
    one_by_one = [decode.seconds(*values) for values in zip(contexts, *read, strict=True)]
    busy, tklqt = decode.account(*arrays)
    assert decode.seconds_into(*arrays).tolist() == one_by_one
    assert (tklqt >= 0.0).all()
    if mode != "resident" and not overlap:
        assert (busy <= np.array(one_by_one)).all()


# ---------------------------------------------------------------- blocks
def test_a_refresh_costs_its_prompt_again_and_both_directions() -> None:
    cost = cost_of()
    refine = cost.decode(4, 4 * 32).seconds(4 * 2048)
    quiet = cost.refresh(4, Load(128, 4 * 2048, refreshed=Prompts.of([]))).seconds
    one = cost.refresh(4, Load(128, 4 * 2048, refreshed=Prompts.of([2000]))).seconds
    two = cost.refresh(4, Load(128, 4 * 2048, refreshed=Prompts.of([2000, 2000]))).seconds
    assert refine < quiet * 1.1
    assert quiet < one < two
    causal = cost.mixed(4, 4 * 2048, [Chunk(2000, 0)], 128, rows=128).seconds
    masked = H200.prefill_attention()
    scores = masked.seconds(SHAPE.heads, SHAPE.head_dim, 2000, 0) - masked.t0_s
    assert one - causal == pytest.approx(SHAPE.layers * scores, rel=1e-6)


# ---------------------------------------------------------------- what a report must say
def test_estimates_and_extrapolations_are_named() -> None:
    cost = cost_of(speculation=drafting({"kind": "ngram", "lookup": "1 us"}, 16, rule="typical"))
    cost.decode(2, 34, 16)
    said = cost.estimated()
    assert "speculation.draft.lookup" in said
    assert any("typical" in name for name in said)
    assert "loops.graph/library: tokens 17 outside 1 to 8" in cost.extrapolated()
    fused = cost_of(kernels="fused", speculation=drafting("ngram"))
    fused.decode(2, 10, 4)
    assert "loops.graph/fused" not in fused.estimated()
    fused.decode(4, 20, 4)
    assert "loops.graph/fused" in fused.estimated()
