"""Page scores on the CPU: the identity, ragged batches, what stays untouched, refused shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.checking import poisoned
from kernels.page_score import check, launch, reference


@pytest.mark.parametrize("case", list(check.cases(small=True)), ids=str)
def test_scores_equal_the_reference(case):
    assert check.check(Cpu(), case, np.random.default_rng(3)) <= check.TOLERANCE


@given(
    requests=st.integers(1, 6),
    tokens=st.sampled_from([1, 2, 8]),
    kv_heads=st.integers(1, 3),
    max_pages=st.integers(1, 60),
    blocks=st.integers(1, 5),
    threads=st.sampled_from([32, 64, 128]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_shape_on_any_grid(requests, tokens, kv_heads, max_pages, blocks, threads, seed):
    case = {"requests": requests, "tokens": tokens, "kv_heads": kv_heads, "max_pages": max_pages}
    case |= {"group": 4, "head_dim": 128, "page_tokens": 16, "element": "bf16", "reduce": "max"}
    check.check(Cpu(), case | {"blocks": blocks, "threads": threads}, np.random.default_rng(seed))


def test_a_score_bounds_the_products_with_the_keys_of_its_page():
    rng = np.random.default_rng(0)
    keys, q = rng.standard_normal((5, 16, 64)), rng.standard_normal((3, 64))
    scores = reference.page_scores(q, keys.min(axis=1), keys.max(axis=1))
    assert (scores >= (keys @ q.T).max(axis=(1, 2))).all()


def test_equal_bits_on_any_grid():
    rng = np.random.default_rng(1)
    q = rng.integers(0x3C00, 0x4000, (2, 1, 8, 128)).astype(np.uint16)
    minmax = rng.integers(0xBC00, 0xC000, (130, 2, 2, 128)).astype(np.uint16)
    table = rng.permutation(130)[:128].astype(np.int32).reshape(2, 64)
    lengths = np.array([1000, 500], np.int32)
    found = []
    for blocks in (1, 3):
        scores = poisoned(Cpu(), (2, 2, 64), np.float32)
        launch.page_scores(Cpu(), q, minmax, table, lengths, scores, blocks=blocks, threads=96)
        found.append(scores.tobytes())
    assert found[0] == found[1]


def test_wrong_shapes_are_refused():
    q, minmax = np.zeros((2, 1, 8, 128), np.uint16), np.zeros((9, 2, 2, 128), np.uint16)
    table, lengths = np.zeros((2, 4), np.int32), np.zeros(2, np.int32)
    scores = np.zeros((2, 2, 4), np.float32)
    good = (q, minmax, table, lengths, scores)
    bad = (q[:, :, :7], minmax[:, :, :, :64], table[:1], lengths.astype(np.int64), scores[:, :1])
    for place, wrong in enumerate(bad):
        arrays = [*good[:place], wrong, *good[place + 1 :]]
        with pytest.raises(ValueError, match="page_scores"):
            launch.page_scores(Cpu(), *arrays)
