"""Properties of the product with packed weights, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import Cpu
from kernels.checking import CheckError, on_host, poisoned
from kernels.element import decode, encode
from kernels.w4a16_gemv import launch, pack, reference
from kernels.w4a16_gemv.check import cases, check, forced

FEW = settings(max_examples=12, deadline=None, derandomize=True)
CASES = list(cases(small=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_cases(case: dict[str, Any]) -> None:
    check(Cpu(), case, np.random.default_rng(1))


def weights4(rng: np.random.Generator, n: int, k: int) -> tuple[Any, Any, Any]:
    scales = rng.uniform(0.01, 0.1, (n, k // 128)).astype(np.float16)
    zeros = rng.integers(0, 16, scales.shape, np.uint8)
    return rng.integers(0, 16, (n, k), np.uint8), scales, zeros


@given(st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**32))
@FEW
def test_unpack_is_the_inverse_of_pack(n: int, groups: int, seed: int) -> None:
    rng, k = np.random.default_rng(seed), groups * 128
    nibbles, scales, zeros = weights4(rng, n, k)
    unpacked = pack.unpack(np, pack.pack4(np, nibbles, scales, zeros), 4)
    want = (nibbles - zeros.repeat(128, 1).astype(np.float32)) * scales.repeat(128, 1)
    np.testing.assert_array_equal(unpacked[:n, :k], want)
    assert not unpacked[n:].any()
    bits = rng.integers(0, 2**16, (n, k), np.uint16)
    np.testing.assert_array_equal(pack.unpack(np, pack.pack16(np, bits), 16)[:n, :k], bits)


@given(
    n=st.integers(1, 80),
    groups=st.integers(1, 9),
    tokens=st.sampled_from([1, 3, 5, 9, 16]),
    blocks=st.integers(1, 5),
    threads=st.sampled_from([128, 160, 512]),
    pieces=st.integers(1, 3),
    depth=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_any_launch_is_right(
    n: int, groups: int, tokens: int, blocks: int, threads: int, pieces: int, depth: int, seed: int
) -> None:
    backend, rng, k = Cpu(), np.random.default_rng(seed), groups * 128
    tokens = {3: 5, 9: 16}.get(tokens, tokens)  # few compiled variants
    units = -(-k // 256)
    pieces = min(pieces, units)
    while -(-units // -(-units // pieces)) != pieces:
        pieces -= 1
    packed = pack.pack4(np, *weights4(rng, n, k))
    x = encode(rng.standard_normal((tokens, k), np.float32), "bf16")
    y = poisoned(backend, (tokens, n), np.uint16)
    shared = launch.shared_bytes(tokens, 4, threads, depth, -(-units // pieces))
    cut = launch.Plan(pieces, depth, shared)
    launch.gemv(backend, x, packed, y, cut=cut, blocks=blocks, threads=threads)
    want = reference.gemv(decode(x, "bf16"), pack.unpack(np, packed, 4)[:n, :k])
    error = np.linalg.norm(decode(on_host(backend, y), "bf16") - want) / np.linalg.norm(want)
    assert error < 4e-3


def test_large_mean_of_x_cancels() -> None:
    rng, backend = np.random.default_rng(2), Cpu()
    nibbles, scales, zeros = weights4(rng, 16, 256)
    x = encode(rng.standard_normal((1, 256), np.float32) + np.float32(100), "bf16")
    y = poisoned(backend, (1, 16), np.uint16)
    packed = pack.pack4(np, nibbles, scales, zeros)
    launch.gemv(backend, x, packed, y)
    want = reference.gemv(decode(x, "bf16"), pack.unpack(np, packed, 4))
    np.testing.assert_allclose(decode(y, "bf16"), want, rtol=5e-3)


@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("bits", [4, 16])
def test_plan_fits(bits: int, tokens: int) -> None:
    for n, k in [(2048, 2048), (3072, 2048), (4096, 14336), (8192, 28672), (128256, 8192), (16, 9)]:
        cut = launch.plan(n, k, tokens, bits, 132)
        assert cut.shared <= launch.SHARED_LIMIT
        assert cut.depth >= 1


def test_shapes_are_checked() -> None:
    backend = Cpu()
    x, y = np.zeros((1, 256), np.uint16), np.zeros((1, 16), np.uint16)
    with pytest.raises(ValueError, match="weights"):
        launch.gemv(backend, x, np.zeros((2, 1, 2128), np.uint8), y)
    with pytest.raises(ValueError, match="1 to 16 tokens"):
        launch.gemv(
            backend, np.zeros((17, 256), np.uint16), np.zeros((1, 1, 2128), np.uint8),
            np.zeros((17, 16), np.uint16), cut=launch.Plan(1, 1, 1),
        )  # fmt: skip
    with pytest.raises(ValueError, match="no plan"):
        launch.plan(16, 4096, 16, 4, 4, limit=10_000)


def test_random4_has_the_layout_of_pack4() -> None:
    packed = pack.random4(np, np.random.default_rng(0), 40, 512)
    norms = np.linalg.norm(pack.unpack(np, packed, 4), axis=1)
    assert packed.shape == (3, 2, 2128)
    assert ((norms > 0.3) & (norms < 4)).all()


def test_a_wrong_weight_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference.gemv
    monkeypatch.setattr(reference, "gemv", lambda x, w: whole(x, np.roll(w, 1, axis=0)))
    with pytest.raises(CheckError):
        check(Cpu(), CASES[0], np.random.default_rng(1))


def test_forced_cut_fits() -> None:
    cut = forced(launch.plan(4096, 8192, 16, 16, 132), 2, 16, 16, 8192)
    assert cut.pieces == 2
    assert cut.shared <= launch.SHARED_LIMIT
