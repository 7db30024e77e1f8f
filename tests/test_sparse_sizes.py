"""Counts of blocks and tokens against explicit selections over scores, and the seeds' rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.scenario import Scenario
from sim.sparse import choose, seeds
from sim.sparse.selection import Selection
from sim.sparse.sizes import Sizes

NEW_TOKENS = 3
POLICIES = ("dense", "recency", "topk", "window", "h2o", "cluster")


def selection(model: str = "llama-3.2-1b", block: int = 16, **sparse: Any) -> Selection:
    hardware = {"dram": {"capacity": "64 GiB"}} if "offload" in sparse else {}
    data = {
        "trace": {"source": "azure-conv-like", "requests": 10}, "model": model,
        "hardware": hardware, "kv": {"block_tokens": block}, "sparse": sparse,
    }  # fmt: skip
    given = Scenario.model_validate(data)
    assert given.sparse is not None
    return Selection(given.sparse, given.kv, given.model.shape)


# ---------------------------------------------------------------- explicit selections
def test_topk_by_hand() -> None:
    scores = [0.0, 9.0, 3.0, 7.0, 3.0, 8.0, 1.0, 2.0]
    assert choose.topk(scores, top=2, sink=1, recent=2).tolist() == [0, 1, 5, 6, 7]
    assert choose.topk(scores, top=4, sink=1, recent=1).tolist() == [0, 1, 2, 3, 5, 7]
    assert choose.topk(scores, top=99, sink=1, recent=1).tolist() == list(range(8))
    assert choose.topk([np.nan, 1.0, np.nan, 0.0], top=1, sink=0, recent=1).tolist() == [1, 3]


def test_window_and_h2o_by_hand() -> None:
    assert choose.window(9, sink=2, recent=3).tolist() == [0, 1, 6, 7, 8]
    assert choose.window(4, sink=2, recent=3).tolist() == [0, 1, 2, 3]
    assert choose.h2o([0.1, 0.5, 0.2, 0.4, 0.0, 0.0], heavy=2, recent=1).tolist() == [1, 3, 5]


def test_clusters_are_selected_whole() -> None:
    labels = [-1, 0, 1, 0, 2, 1, -1]
    scores = [0.2, 0.9, 0.1]
    assert choose.cluster(labels, scores, top=1, sink=1, recent=1).tolist() == [0, 2, 5, 6]
    assert choose.cluster(labels, scores, top=2, sink=1, recent=1).tolist() == [0, 1, 2, 3, 5, 6]


def test_tokens_of_the_newest_block_are_those_that_it_has() -> None:
    assert choose.tokens(np.array([0, 2]), context=10, block_tokens=4) == 6
    assert choose.tokens(np.array([0, 1]), context=10, block_tokens=4) == 8


def explicit(sizes: Sizes, context: int, rng: np.random.Generator) -> np.ndarray:
    """The blocks that the policy selects by scores, drawn."""
    total, new = sizes.total(context), sizes.apart(context) - sizes.sink
    scores = rng.normal(size=total)
    match sizes.select:
        case "dense":
            return choose.dense(total)
        case "topk":
            return choose.topk(scores, sizes.units, sizes.sink, new)
        case "window":
            return choose.window(total, sizes.sink, new)
        case "h2o":
            return choose.h2o(scores, sizes.units, new)
        case "recency":
            pages = seeds.pages_of(context, sizes.block_tokens)
            found = seeds.select(pages, context, sizes.units, 1)
            return np.sort([page.id for page in found.pages])
    middle = (np.arange(total) - sizes.sink) // sizes.unit
    return choose.cluster(list(middle.clip(0)), scores, sizes.units, sizes.sink, new)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("block", [4, 16])
def test_counts_are_those_of_the_explicit_selection(policy: str, block: int) -> None:
    sparse: dict[str, Any] = {
        "select": policy, "top_k_tokens": 96, "sink_tokens": 8, "recent_tokens": 20,
        "cluster_tokens": 3 * block - 1,
    }  # fmt: skip
    sizes = selection(block=block, **sparse).sizes
    rng = np.random.default_rng(3)
    for context in range(1, 700):
        blocks = explicit(sizes, context, rng)
        # The last cluster may have fewer blocks than the others, so which is selected matters.
        slack = sizes.unit - 1 if policy == "cluster" else 0
        assert sizes.chosen(context) - slack <= len(blocks) <= sizes.chosen(context), context
        if slack == 0:
            assert sizes.attended(context) == choose.tokens(blocks, context, block), context


def test_a_step_reads_every_block_that_it_writes_to() -> None:
    sizes = selection(select="window", sink_tokens=0, recent_tokens=16).sizes
    assert sizes.chosen(1000) == 1
    assert sizes.chosen(1000, 8) == 1  # tokens 992 to 1000 are in one block
    assert sizes.chosen(1000, 9) == 2
    assert sizes.chosen(1000, 40) == 3


# ---------------------------------------------------------------- what the seed does
def test_golden_scores_of_the_seed() -> None:
    pages = seeds.pages_of(10, 4)
    assert [page.start for page in pages] == [0, 4, 8]
    assert [seeds.score(page, 10) for page in pages] == [39_400, 39_800, 20_000]
    upper = pages[1]._replace(layer=1)
    assert seeds.score(upper, 10) == 39_799


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_seed_leaves_out_the_newest_tokens(top_k: int) -> None:
    pages = seeds.pages_of(10, 4)
    found = seeds.select(pages, 10, top_k, block_bytes=12_288)
    newest = max(pages, key=lambda page: page.start)
    assert newest not in found.pages
    assert found.blocks_total == 3
    assert found.blocks_selected == top_k
    assert found.bytes_read == top_k * 12_288
    assert found.bytes_saved == (3 - top_k) * 12_288
    assert found.sparsity_ratio == 1.0 - top_k / 3
    for policy in ("topk", "window", "h2o", "cluster"):  # these read it, however full it is
        sizes = Sizes(policy, block_tokens=4, recent=1, units=top_k if policy != "window" else 0)
        assert sizes.attended(10) % 4 == 2


def test_the_seed_ranks_and_reports() -> None:
    pages = [
        seeds.Page(9, layer=0, start=0, tokens=4), seeds.Page(8, layer=1, start=4, tokens=4),
        seeds.Page(7, layer=0, start=4, tokens=4), seeds.Page(6, layer=0, start=8, tokens=2),
        seeds.Page(5, layer=0, start=8, tokens=4, draft=True),
        seeds.Page(4, layer=0, start=8, tokens=4, committed=False),
    ]  # fmt: skip
    found = seeds.select(pages, 10, 8, 1)
    assert [page.id for page in found.pages] == [7, 8, 9, 6]
    assert (found.blocks_total, found.bytes_saved, found.sparsity_ratio) == (4, 0, 0.0)
    assert seeds.select([], 10, 4, 1) == seeds.Selected((), 0, 0, 0, 0, 0.0)


@pytest.mark.parametrize(("width", "ratio"), [(1, 10 / 14), (2, 0.5), (4, 0.0), (8, 0.0)])
def test_sparsity_of_the_seeds_benchmark(width: int, ratio: float) -> None:
    # `sparse_kv_megakernel`: 3 prompt and 5 output tokens, two layers, as many pages as drafts.
    total = selected = 0
    for committed in range(0, 5, width):
        held = 3 + committed if committed else 0  # the first step has no committed page
        pages = [page for layer in (0, 1) for page in seeds.pages_of(held, 4, layer)]
        found = seeds.select(pages, held, min(width, 4), 12_288)
        total, selected = total + found.blocks_total, selected + found.blocks_selected
    assert (1.0 - selected / total if total else 0.0) == pytest.approx(ratio)
    assert (total == 0) == (width == 8)


def test_the_seeds_newest_page_comes_in_only_far_from_the_start() -> None:
    # Block of 4, 2 tokens in the newest: 50 pages end within 100 (4 - 2) tokens before the head.
    sizes = Sizes("recency", block_tokens=4, units=50)
    assert sizes.attended(2002) == 200
    assert Sizes("recency", block_tokens=4, units=51).attended(2002) == 50 * 4 + 2


def test_per_layer_selection_is_the_seeds_over_all_layers() -> None:
    layers, top = 3, 5
    for length in (41, 42, 43, 44, 3001):
        pages = [page for layer in range(layers) for page in seeds.pages_of(length, 4, layer)]
        found = seeds.select(pages, length, layers * top, 1).pages
        one = seeds.select(seeds.pages_of(length, 4), length, top, 1).pages
        for layer in range(layers):
            assert {p.start for p in found if p.layer == layer} == {p.start for p in one}


# ---------------------------------------------------------------- elementwise, to the bit
@pytest.mark.parametrize("policy", POLICIES)
def test_arrays_and_numbers_agree_to_the_bit(policy: str) -> None:
    sparse: dict[str, Any] = {"select": policy, "dense_layers": 3, "recall": 0.9}
    if policy != "dense":
        sparse["offload"] = {"resident_tokens": 4000}
    if policy in ("topk", "cluster"):
        sparse |= {"recall": "power", "returning": 0.3, "locality": 0.7}
    one = selection(**sparse)
    rng = np.random.default_rng(5)
    contexts = np.concatenate((np.arange(1, 5000, 7), rng.integers(5000, 131_000, 300)))
    rows = np.minimum(rng.integers(1, 12, len(contexts)), contexts)
    advance = rng.integers(1, 9, len(contexts))
    for name in ("attended", "pages", "chosen", "resident", "offloaded"):
        many = getattr(one, name)(contexts, rows)
        assert many.dtype == np.int64
        single = [getattr(one, name)(int(c), int(r)) for c, r in zip(contexts, rows, strict=True)]
        assert all(type(value) is int for value in single)
        assert many.tolist() == single, name
    for name in ("fetched", "fetched_on_average"):
        many = getattr(one, name)(contexts, rows, advance)
        single = [
            getattr(one, name)(int(c), int(r), int(a))
            for c, r, a in zip(contexts, rows, advance, strict=True)
        ]
        assert many.tolist() == single, name
    assert one.recall(contexts).tolist() == [one.recall(int(c)) for c in contexts]
    assert one.fetched(contexts, rows, advance).dtype == np.int64


@pytest.mark.parametrize("policy", POLICIES)
def test_short_contexts_select_everything_and_score_nothing(policy: str) -> None:
    one = selection(select=policy, recall=0.5)
    budget = one.sizes.budget if policy != "dense" else 1 << 40
    for context in (1, 15, 16, 17, 300, 320):
        assert one.sizes.total(context) <= budget
        assert one.attended(context) == context
        assert one.pages(context) == 0
        assert one.recall(context) == 1.0
        assert one.resident(context) == one.sizes.total(context)


def test_never_more_than_there_is() -> None:
    contexts = np.arange(1, 9000)
    for policy in POLICIES:
        one = selection(select=policy)
        assert (one.attended(contexts) <= contexts).all()
        assert (one.attended(contexts) > 0).all()
        assert (one.chosen(contexts) <= one.sizes.total(contexts)).all()
