"""Properties of the small stages, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.checking import CheckError, poisoned
from kernels.element import decode, encode
from kernels.small_ops import launch, reference
from kernels.small_ops.check import cases, check, outside

FEW = settings(max_examples=15, deadline=None, derandomize=True)
CASES = list(cases(small=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_cases(case: dict[str, Any]) -> None:
    check(Cpu(), case, np.random.default_rng(1))


@given(st.integers(1, 9), st.integers(1, 80), st.integers(1, 5), st.integers(0, 2**32))
@FEW
def test_rmsnorm_any_grid(rows: int, chunks: int, sms: int, seed: int) -> None:
    case = {"op": "rmsnorm_add", "rows": rows, "width": 8 * chunks, "element": "bf16"}
    check(Cpu(sms), case, np.random.default_rng(seed))


@given(st.integers(1, 9), st.integers(1, 80), st.integers(1, 5), st.integers(0, 2**32))
@FEW
def test_pointwise_any_grid(rows: int, chunks: int, sms: int, seed: int) -> None:
    for op in ("add", "silu_mul"):
        case = {"op": op, "rows": rows, "width": 8 * chunks, "element": "bf16"}
        check(Cpu(sms), case, np.random.default_rng(seed))


@given(
    rows=st.integers(1, 4),
    vocabulary=st.integers(1, 400),
    parts=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@FEW
def test_sample_any_cut(rows: int, vocabulary: int, parts: int, seed: int) -> None:
    rng, backend = np.random.default_rng(seed), Cpu()
    logits = encode(rng.normal(0, 3, (rows, 8 * vocabulary)).astype(np.float32), "bf16")
    uniforms = rng.random(rows, np.float32)
    temperatures = np.full(rows, 0.8, np.float32)
    tokens = poisoned(backend, rows, np.int32)
    launch.sample(backend, logits, tokens, temperatures, uniforms, parts=parts)
    outside(np, decode(logits, "bf16"), temperatures, uniforms, tokens)


def test_sample_takes_the_only_possible_token() -> None:
    logits = np.full((3, 3000), -np.inf, np.float32)
    logits[[0, 1, 2], [0, 1024, 2999]] = [-5, 0, 80]
    tokens = poisoned(Cpu(), 3, np.int32)
    ones = np.ones(3, np.float32)
    for uniforms in (0 * ones, 0.5 * ones, np.nextafter(ones, 0 * ones)):
        launch.sample(Cpu(), logits, tokens, ones, uniforms)
        assert tokens.tolist() == [0, 1024, 2999]
    launch.sample(Cpu(), logits, tokens)
    assert tokens.tolist() == [0, 1024, 2999]


def test_greedy_takes_the_first_of_equals() -> None:
    logits = np.zeros((1, 4096), np.uint16)
    tokens = poisoned(Cpu(), 1, np.int32)
    launch.sample(Cpu(), logits, tokens)
    assert tokens.tolist() == [0]
    logits[0, [77, 1023, 1024, 4000]] = encode(np.ones(1, np.float32), "bf16")
    launch.sample(Cpu(), logits, tokens)
    assert tokens.tolist() == [77]


def test_draws_follow_the_softmax() -> None:
    count = 200
    logits = np.full((count, 16), -np.inf, np.float32)
    logits[:, 3], logits[:, 9] = 0, np.log(3)
    tokens = poisoned(Cpu(), count, np.int32)
    uniforms = ((np.arange(count) + 0.5) / count).astype(np.float32)
    launch.sample(Cpu(), logits, tokens, np.ones(count, np.float32), uniforms)
    assert (tokens == 3).sum() == count // 4
    assert (tokens == 9).sum() == count - count // 4


def test_rope_keeps_lengths_and_relative_angles() -> None:
    rng, backend = np.random.default_rng(3), Cpu()
    q = np.repeat(rng.standard_normal((1, 1, 64), np.float32), 6, axis=0)
    positions = np.array([0, 5, 100, 105, 99_000, 99_005], np.int32)
    coded = encode(q, "bf16")
    launch.rope(backend, coded, coded[:, :0], positions, launch.rope_turns(backend, 64, 1e4))
    turned = decode(coded, "bf16")[:, 0]
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(q[0]), rtol=3e-3)
    products = (turned[::2] * turned[1::2]).sum(axis=1)
    np.testing.assert_allclose(products, products[0], rtol=0.02)
    exact = reference.rope(np, decode(encode(q, "bf16"), "bf16"), positions, 1e4)
    np.testing.assert_allclose(turned, exact[:, 0], atol=0.02)


def test_shapes_are_checked() -> None:
    backend, x = Cpu(), np.zeros((2, 16), np.uint16)
    row = np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="rmsnorm: x"):
        launch.rmsnorm(backend, x, x[0, :8], x)
    with pytest.raises(ValueError, match="silu_mul: gate_up"):
        launch.silu_mul(backend, x, x)
    with pytest.raises(ValueError, match="add: a"):
        launch.add(backend, x, x[:1], x)
    with pytest.raises(ValueError, match="vocabulary % 8"):
        launch.sample(backend, x[:, :7], row)
    with pytest.raises(ValueError, match="without uniforms"):
        launch.sample(backend, x, row, np.ones(2, np.float32))
    with pytest.raises(ValueError, match="heads of 64 or 128"):
        launch.rope(backend, x[:, None], x[:, None], row, x)


def test_a_wrong_output_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "add", lambda *args, **kwargs: None)
    with pytest.raises(CheckError):
        check(Cpu(), CASES[3], np.random.default_rng(1))
