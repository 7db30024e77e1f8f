"""Drafters: what they run in a step, and what they add to HBM, by the shapes of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from speculating import section

from sim.models import PRESETS
from sim.speculation.build import drafter

if TYPE_CHECKING:
    from sim.speculation.drafters import Drafter

LARGE, SMALL, MOE = (PRESETS[n] for n in ("llama-3.1-8b", "llama-3.2-1b", "qwen3-30b-a3b"))


def of(draft: Any, model: Any = LARGE, weight_bits: int = 16, **keys: Any) -> Drafter:
    given = section(0.5, keys.pop("width", 4), draft, **keys)
    return drafter(given.draft, given.shape, model, weight_bits, 16)


@pytest.mark.parametrize("draft", ["llama-3.2-1b", "mtp", "eagle"])
def test_one_pass_a_level(draft: str) -> None:
    tree = section(0.5, {"max": 3}, draft, tree=[4, 2, 1]).shape
    chain = section(0.5, 3, draft).shape
    found = of(draft)
    assert [found.passes(chain, levels) for levels in range(4)] == [(), (1,), (1, 1), (1, 1, 1)]
    # The root gives 4 candidates, each of these 2, and each of these 1.
    assert [found.passes(tree, levels) for levels in range(4)] == [(), (1,), (1, 4), (1, 4, 8)]
    assert found.prefills


def test_medusa_drafts_all_levels_at_once_and_ngram_none_on_the_gpu() -> None:
    chain = section(0.5, 4, "mtp").shape
    assert [of("medusa").passes(chain, levels) for levels in (0, 1, 4)] == [(), (1,), (1,)]
    ngram = of({"kind": "ngram", "lookup": 2e-5})
    assert ngram.passes(chain, 4) == ()
    assert (ngram.weight_bytes, ngram.kv_bytes_per_token, ngram.lookup_s) == (0.0, 0.0, 2e-5)
    assert not of("medusa").prefills
    assert not ngram.prefills


def test_a_separate_model_holds_all_it_is() -> None:
    found = of("llama-3.2-1b")
    assert found.weight_bytes == SMALL.params * 2
    assert found.kv_bytes_per_token == 2 * 16 * 8 * 64 * 2  # k and v, layers, heads, width, bytes
    int4 = of({"kind": "model", "preset": "llama-3.2-1b", "weights": "int4"})
    assert int4.weight_bytes == SMALL.weight_bytes(4) < found.weight_bytes
    assert of("llama-3.2-1b", weight_bits=8).weight_bits == 8


def test_heads_share_the_models_tables() -> None:
    """A layer, the projection into it, and two norms of the width and the last one."""
    layer = LARGE.attention_params + 3 * 4096 * 14_336 + 2 * 4096
    mtp, eagle = of("mtp"), of("eagle")
    assert mtp.weight_bytes == eagle.weight_bytes == 2 * (layer + 2 * 4096 * 4096 + 4096)
    assert mtp.kv_bytes_per_token == 2 * 8 * 128 * 2
    two = of({"kind": "mtp", "layers": 2})
    assert two.weight_bytes - mtp.weight_bytes == 2 * layer
    assert two.kv_bytes_per_token == 2 * mtp.kv_bytes_per_token
    own = of({"kind": "eagle", "vocab": 32_000})
    assert own.weight_bytes - eagle.weight_bytes == 2 * 32_000 * 4096
    assert own.shape is not None
    assert own.shape.vocab == 32_000
    assert of("eagle", SMALL).weight_bytes < of("eagle", LARGE).weight_bytes / 3  # tables are tied


def test_an_mtp_head_of_experts_has_experts_and_an_eagle_head_has_not() -> None:
    mtp, eagle = of("mtp", MOE), of("eagle", MOE)
    assert mtp.shape is not None
    assert eagle.shape is not None
    assert (mtp.shape.experts, mtp.shape.layers) == (128, 1)
    assert (eagle.shape.experts, eagle.shape.ffn) == (0, 8 * 768)


def test_medusa_heads_are_a_block_and_a_table_each() -> None:
    per_head = 4096 * 4096 + 4096 * 128_256
    assert of("medusa").weight_bytes == 4 * per_head * 2
    assert of({"kind": "medusa", "heads": 5}).weight_bytes == 5 * per_head * 2
    assert of("medusa", weight_bits=4).weight_bytes == 4 * per_head * 2  # they stay at 16 bits
    assert of("medusa").kv_bytes_per_token == 0.0
