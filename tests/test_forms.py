"""Functional forms: hand-computed values, and scalar and array code that agree to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.forms import (
    LinearBytes,
    RampedFlops,
    Roofline,
    SplitKv,
    StreamRows,
    Waves,
    attention_flops,
    gemm_bytes,
    gemm_flops,
)

SPLIT = SplitKv(t0_s=5e-6, bytes_per_s=4e12, ramp_s=1e-6, cta_s=5e-7, kv_bytes=2.0)


def test_roofline_by_hand():
    form = Roofline(t0_s=1.0, bytes_per_s=10.0, flops_per_s=100.0, q=2.0)
    assert form.seconds(30.0, 400.0) == pytest.approx(1.0 + 5.0)  # 3 and 4 s under a root
    assert form.seconds(30.0, 0.0) == pytest.approx(4.0)


def test_roofline_takes_the_faster_kernel():
    gemv = Roofline(t0_s=1.0, bytes_per_s=10.0, flops_per_s=1.0, q=2.0)
    form = Roofline(t0_s=5.0, bytes_per_s=10.0, flops_per_s=1e9, q=2.0, gemv=gemv)
    assert form.seconds(10.0, 0.0) == pytest.approx(2.0)
    assert form.fixed(10.0, 0.0) == 1.0
    assert form.seconds(10.0, 1e3) == pytest.approx(6.0)
    assert form.fixed(10.0, 1e3) == 5.0


def test_roofline_ramp_by_hand():
    form = Roofline(t0_s=1.0, bytes_per_s=10.0, flops_per_s=1e9, q=1.0, ramp_s=4.0, half_bytes=30.0)
    assert form.seconds(30.0, 0.0) == pytest.approx(1.0 + 2.0 + 3.0)
    assert form.seconds(0.0, 0.0) == 1.0
    assert Roofline(1.0, 10.0, 1e9, 1.0, input_s=0.5).seconds(0.0, 0.0, inputs=4.0) == 3.0


def test_gemm_counts():
    assert gemm_bytes(2, 3, 4, "bf16") == 24 + 2 * (8 + 6)
    assert gemm_bytes(2, 3, 4, "fp8") == 12 + 28
    assert gemm_bytes(2, 3, 4, "int8") == 12 + 28
    assert gemm_bytes(2, 3, 4, "int4") == 6 + 28
    assert gemm_flops(2, 3, 4) == 48


def test_split_kv_by_hand():
    # Cache: 500 tokens x 2 x 2 heads x 500 x 2 bytes = 2 MB. Queries: 4 x 1 x 1000 x 500 = 2 MB.
    # 4 MB take 1 us, 2 us with the ramp; two (request, head) pairs take 1.5 us: 2.5 us in all.
    form = SplitKv(t0_s=5e-6, bytes_per_s=4e12, ramp_s=1e-6, cta_s=7.5e-7, kv_bytes=2.0)
    got = form.seconds(batch=1, total_context=500, heads=1000, kv_heads=2, head_dim=500)
    assert got == pytest.approx(7.5e-6)


def test_split_kv_counts_total_context_not_batches():
    alone = SPLIT.seconds(4, 4096, 32, 8, 128)
    assert SPLIT.seconds(4, 4096 + 4096, 32, 8, 128) > alone
    assert SPLIT.seconds(8, 4096, 32, 8, 128) > alone


@given(
    batch=st.integers(1, 4096),
    contexts=st.lists(st.integers(0, 1 << 34), min_size=1, max_size=40),
    geometry=st.sampled_from([(32, 8, 128), (64, 8, 128), (32, 8, 64), (5, 1, 96)]),
    figures=st.tuples(*[st.floats(1e-9, 1e-4)] * 3, st.floats(1e9, 1e14)),
    kv_bytes=st.sampled_from([2.0, 1.0, 0.5]),
)
def test_split_kv_array_is_bit_identical(batch, contexts, geometry, figures, kv_bytes):
    t0, ramp, cta, bandwidth = figures
    form = SplitKv(t0, bandwidth, ramp, cta, kv_bytes)
    array = form.array(batch, np.array(contexts, dtype=np.float64), *geometry)
    scalar = [form.seconds(batch, total, *geometry) for total in contexts]
    assert array.tobytes() == np.array(scalar, dtype=np.float64).tobytes()


def test_ramped_flops_by_hand():
    assert attention_flops(2, 8, chunk=3, offset=5) == 4 * 2 * 8 * (15 + 6)
    form = RampedFlops(t0_s=1.0, flops_per_s=64.0 * 21.0, half_tokens=8.0)
    assert form.seconds(2, 8, chunk=3, offset=5) == pytest.approx(1.0 + 2.0)


def test_chunks_have_the_flops_of_the_whole():
    parts = attention_flops(8, 64, 100, 0) + attention_flops(8, 64, 50, 100)
    assert parts == attention_flops(8, 64, 150, 0)


def test_linear_bytes_by_hand():
    assert LinearBytes(t0_s=1.0, bytes_per_s=4.0).seconds(8.0) == 3.0


def test_stream_rows_by_hand():
    form = StreamRows(t0_s=1.0, bytes_per_s=4.0, ramp_s=1.0, row_s=0.5)
    assert form.seconds(8.0, rows=8.0) == pytest.approx(1.0 + 5.0)  # 3 and 4 s under a root
    assert form.seconds(0.0, rows=0.0) == 2.0


def test_waves_by_hand():
    form = Waves(t0_s=1.0, row_s=2.0, entry_s=0.5, slots=10.0)
    assert form.seconds(rows=1.0, entries=4.0) == form.seconds(rows=10.0, entries=4.0) == 5.0
    assert form.seconds(rows=25.0, entries=4.0) == 1.0 + 3.0 * 4.0
