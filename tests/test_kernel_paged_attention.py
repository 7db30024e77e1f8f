"""Paged decode attention on the CPU backend, against float64; and the cache's layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import cache_layout
from kernels.backend import Cpu
from kernels.paged_attention.check import cases, check
from kernels.paged_attention.launch import Shape, paged_attention

CASES = list(cases(small=True))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['kv_bits']}-{c['sparse']}")
def test_agrees_with_float64(case: dict[str, Any]) -> None:
    assert check(Cpu(), case, np.random.default_rng(5)) < 8e-3


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(-1, 330), min_size=1, max_size=6),
    sms=st.integers(1, 7),
    build=st.sampled_from(CASES),
)
def test_any_lengths_on_any_number_of_blocks(
    lengths: list[int], sms: int, build: dict[str, Any]
) -> None:
    if max(lengths) < 0:
        lengths = [*lengths, 5]
    check(Cpu(sms), build | {"lengths": lengths}, np.random.default_rng(len(lengths)))


@pytest.mark.parametrize("build", CASES[::2], ids=lambda c: str(c["kv_bits"]))
def test_python_knows_the_sizes_of_a_build(build: dict[str, Any]) -> None:
    names = ("head_dim", "group", "tokens", "page_tokens", "kv_bits", "workers", "shared_kb")
    shape = Shape(**{name: build[name] for name in names})
    sizes = np.zeros(2, np.int32)
    Cpu().function("paged_attention", "paged_attention_sizes", shape.defines)(1, 1, (sizes,))
    assert sizes.tolist() == [shape.shared_bytes, shape.piece_floats]


@pytest.mark.parametrize("tokens", [16, 64])
@pytest.mark.parametrize("width", [64, 128])
def test_packing_is_undone_by_unpacking(tokens: int, width: int) -> None:
    rng = np.random.default_rng(1)
    k, v = (rng.standard_normal((3, 2, tokens, width), np.float32) for _ in "kv")
    half = [x.astype(np.float16) for x in (k, v)]
    got = cache_layout.unpack(cache_layout.pack(*half, 16), tokens, width, 16)
    for x, y in zip(got, half, strict=True):
        np.testing.assert_array_equal(x.view(np.float16), y)
    for bits, step in ((8, 2 * 4.5 / 254), (4, 9 / 15)):
        pages = cache_layout.pack(k, v, bits)
        assert pages.shape[-1] == cache_layout.page_bytes(tokens, width, bits)
        for x, y in zip(cache_layout.unpack(pages, tokens, width, bits), (k, v), strict=True):
            assert abs(x - y).max() < step / 2 + 1e-3


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_no_two_values_share_a_place(bits: int) -> None:
    for tokens, width in ((16, 64), (64, 128)):
        p = cache_layout.places(tokens, width, bits)
        both = np.concatenate([p.k.ravel(), p.v.ravel()])
        assert len(np.unique(both)) == both.size
        assert both.max() * bits // 8 < cache_layout.page_bytes(tokens, width, bits)


def test_wrong_arrays_are_named() -> None:
    shape = replace(Shape(), workers=4)
    q = np.zeros((1, 1, 8, 128), np.uint16)
    cache = np.zeros((2, 2, shape.page_bytes), np.uint8)
    table, lengths = np.zeros((1, 2), np.int32), np.zeros(1, np.int32)
    buffers = shape.buffers(Cpu(), 1, 2)
    with pytest.raises(ValueError, match="cache"):
        paged_attention(Cpu(), shape, q, cache[..., 1:], table, lengths, q, buffers)
    with pytest.raises(ValueError, match="table"):
        paged_attention(Cpu(), shape, q, cache, table.astype(np.int64), lengths, q, buffers)
