"""Shapes against the published checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sim.dtypes import BITS
from sim.models import PRESETS, ModelShape

TINY: dict[str, Any] = {
    "name": "tiny",
    "layers": 2,
    "hidden": 8,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 2,
    "ffn": 16,
    "vocab": 100,
    "max_context": 64,
}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_parameters_of_the_published_checkpoints(name: str, params: int) -> None:
    assert PRESETS[name].params == params
    assert PRESETS[name].name == name


def test_every_preset_is_tested_above() -> None:
    assert len(PRESETS) == 5


def test_contexts() -> None:
    contexts = {name: shape.max_context for name, shape in PRESETS.items()}
    assert contexts == {
        "llama-3.2-1b": 131_072,
        "llama-3-8b": 8192,
        "llama-3.1-8b": 131_072,
        "llama-3.1-70b": 131_072,
        "qwen3-30b-a3b": 40_960,
    }


def test_kv_bytes_of_a_token() -> None:
    shape = PRESETS["llama-3.1-8b"]
    assert shape.kv_bytes_per_token(16) == 131_072
    assert shape.kv_bytes_per_token(BITS["int4"]) == 32_768


def test_streamed_weights_leave_out_an_untied_embedding_table() -> None:
    assert PRESETS["llama-3.1-8b"].streamed_bytes(16) == 2 * (8_030_261_248 - 128_256 * 4096)
    assert PRESETS["llama-3.1-8b"].streamed_bytes(16) == pytest.approx(15.01e9, rel=1e-4)
    assert PRESETS["llama-3.2-1b"].streamed_bytes(16) == 2 * 1_235_814_400


def test_weights_are_quantised_in_linear_layers_only() -> None:
    shape = ModelShape(**TINY, qkv_bias=True)
    linear = 2 * (8 * (8 + 4 + 4) + 8 * 8 + 3 * 8 * 16)
    kept = 2 * 100 * 8 + 2 * (2 * 8 + 16) + 8  # tables, norms and biases, last norm
    assert shape.params == linear + kept
    assert shape.weight_bytes(16) == 2 * shape.params
    assert shape.weight_bytes(4) == linear / 2 + 2 * kept


def test_a_mixture_of_experts() -> None:
    shape = ModelShape(**TINY, experts=4, experts_per_token=1, qk_norm=True)
    assert shape.ffn_params == 4 * 3 * 8 * 16 + 8 * 4
    assert shape.params - shape.active_params == 2 * 3 * 3 * 8 * 16
    assert shape.weight_bytes(16) == 2 * shape.params
    assert PRESETS["qwen3-30b-a3b"].active_params == 3_353_032_704
    assert PRESETS["llama-3.1-8b"].active_params == PRESETS["llama-3.1-8b"].params


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kv_heads": 3}, r"3 does not divide heads \(4\)"),
        ({"experts_per_token": 2}, r"2 is more than experts \(0\)"),
        ({"experts": 2}, "experts_per_token: missing"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"layers": 2.0}, "valid integer"),
        ({"widht": 2}, "not permitted"),
    ],
)
def test_impossible_shapes(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelShape(**TINY | wrong)
