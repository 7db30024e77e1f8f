"""The append on the CPU: exact bytes, rejected drafts, idle slots, refused shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.element import decode, encode
from kernels.kv_append import check, launch, reference


@pytest.mark.parametrize("case", list(check.cases(small=True)), ids=str)
def test_every_byte_is_the_expected_one(case):
    assert check.check(Cpu(), case, np.random.default_rng(5)) == 0


@given(
    requests=st.integers(1, 5),
    tokens=st.sampled_from([1, 2, 8]),
    kv_heads=st.integers(1, 3),
    max_pages=st.integers(2, 4),
    bits=st.sampled_from([16, 8, 4]),
    blocks=st.integers(1, 5),
    threads=st.sampled_from([32, 128]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_any_shape_on_any_grid(requests, tokens, kv_heads, max_pages, bits, blocks, threads, seed):
    case = {"requests": requests, "tokens": tokens, "kv_heads": kv_heads, "max_pages": max_pages}
    case |= check.BASE | {"bits": bits, "blocks": blocks, "threads": threads}
    check.check(Cpu(), case, np.random.default_rng(seed))


def test_bounds_forget_rejected_drafts():
    rng = np.random.default_rng(2)
    case = check.BASE | {"requests": 1, "tokens": 4, "kv_heads": 1, "max_pages": 2, "bits": 16}
    state = check.State(case, rng)
    arrays = state.on(Cpu())
    arrays["lengths"][:] = 3
    arrays["k"][...] = encode(np.full(arrays["k"].shape, 100, np.float32), "bf16")
    check.append(Cpu(), case, arrays)  # drafts of 100, all rejected
    committed = decode(state.k.history[0, :4, 0], "bf16")
    committed[3] = decode(state.k.new[0, 0, 0], "bf16")
    arrays["lengths"][:] = 3
    arrays["k"] = np.ascontiguousarray(state.k.new[:, :1])
    arrays["v"] = np.ascontiguousarray(state.v.new[:, :1])
    check.append(Cpu(), case, arrays)
    bounds = decode(arrays["minmax"][state.table[0, 0], 0], "bf16")
    assert (bounds == np.stack([committed.min(axis=0), committed.max(axis=0)])).all()


def test_a_page_is_packed_when_its_last_token_is_committed():
    assert [reference.packed_page(n, 16, 4) for n in (0, 15, 16, 19, 20, 32)] == [
        None, None, 0, 0, None, 1,
    ]  # fmt: skip


def test_wrong_shapes_are_refused():
    case = check.BASE | {"requests": 2, "tokens": 2, "kv_heads": 2, "max_pages": 2, "bits": 16}
    good = check.State(case, np.random.default_rng(0)).on(Cpu())
    wrong = {"k": good["k"][:, :, :, :64], "v": good["v"][:1], "cache": good["cache"][..., :-16]}
    wrong |= {"minmax": good["minmax"][:, :1], "table": good["table"][:1]}
    wrong |= {"lengths": good["lengths"].astype(np.int64)}
    for name, array in wrong.items():
        with pytest.raises(ValueError, match="kv_append"):
            launch.append(Cpu(), **{**good, name: array})
    with pytest.raises(ValueError, match="tail"):
        launch.append(Cpu(), **{**good, "cache": np.zeros((6, 2, 2816), np.uint8)}, bits=4)
