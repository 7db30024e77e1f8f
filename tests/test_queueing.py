"""With one slot the replica is a queue that theory has solved: Pollaczek and Khinchine's M/G/1.

A mean wait is compared with its formula by a 99.9 % confidence interval from batch means. Lindley's
recursion, which holds request by request, is met exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats
from toy import ENDLESS, TICK, Ran, play, toy_scenario, write_profile

if TYPE_CHECKING:
    from pathlib import Path

PREFILL, DECODE = 20 * TICK, 16 * TICK
BATCHES = 25


def serve_one_by_one(
    folder: Path, rate: float, requests: int, prompt: Any, output: Any, budget: int = 64
) -> Ran:
    """A Poisson stream through one slot."""
    trace = {
        "source": "synthetic", "requests": requests, "rate": f"{rate!r} /s",
        "prompt_tokens": prompt, "output_tokens": output,
    }  # fmt: skip
    loop = {"max_batch": 1, "token_budget": budget}
    return play(toy_scenario(folder, trace=trace, loop=loop, seed=3))


def expected_wait(rate: float, mean: float, variance: float) -> float:
    """Pollaczek-Khinchine: mean seconds in the queue."""
    load = rate * mean
    return rate * (variance + mean**2) / (2 * (1 - load))


def assert_mean(waits: np.ndarray, expected: float) -> None:
    """The batch means, the first left out as warm-up, allow the *expected* mean."""
    means = waits[: len(waits) // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)[1:]
    error = means.std(ddof=1) / len(means) ** 0.5
    reach = stats.t.ppf(0.9995, len(means) - 1) * error
    assert reach < 0.3 * expected, "too few requests to tell"
    assert abs(means.mean() - expected) < reach


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_constant_service(tmp_path: Path, load: float) -> None:
    """M/D/1: a prefill and two decode iterations each."""
    service = PREFILL + 2 * DECODE
    rate = load / service
    ran = serve_one_by_one(tmp_path, rate, 15_000, 8, 3)
    assert_mean(ran.requests.queue_ms.to_numpy() / 1e3, expected_wait(rate, service, 0.0))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_geometric_output(tmp_path: Path, load: float) -> None:
    """M/G/1: a prefill and n - 1 decode iterations, n geometric."""
    tokens = 12.0
    mean = PREFILL + (tokens - 1) * DECODE
    variance = DECODE**2 * tokens * (tokens - 1)
    rate = load / mean
    ran = serve_one_by_one(tmp_path, rate, 15_000, 8, {"exponential": tokens})
    assert_mean(ran.requests.queue_ms.to_numpy() / 1e3, expected_wait(rate, mean, variance))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_exponential_service(tmp_path: Path, load: float) -> None:
    """M/M/1: one iteration whose length is proportional to a geometric number of tokens."""
    tokens, each = 1000.0, TICK / 1024
    # Of a product's m * k * n multiply-adds, a layer has 8*16 + 8*8 + 8*16 + 8*8 a token.
    flops = 2 * 2 * (8 * 16 + 8 * 8 + 8 * 16 + 8 * 8)
    gemm = {"t0_s": 0.0, "flops_per_s": flops / each}
    head = 2 * 8 * 16  # for one token; a whole prompt has one
    nothing = dict.fromkeys(("launch_latency_s", "host_sync_s", "host_copyback_s"), 0.0)
    nothing["host_python_submit_s"] = 0.0
    write_profile(
        tmp_path / "toy.json",
        nothing,
        {
            "gemm.bf16": gemm,
            "elementwise": {"t0_s": 0.0, "bytes_per_s": ENDLESS},
            "prefill_attention.bf16": {"t0_s": 0.0},
        },
    )
    mean = tokens * each + head * each / flops
    variance = each**2 * tokens * (tokens - 1)
    rate = load / mean
    ran = serve_one_by_one(tmp_path, rate, 30_000, {"exponential": tokens}, 1, 10_000_000)
    exponential = load / (1 / mean - rate)
    pollaczek = expected_wait(rate, mean, variance)
    assert pollaczek == pytest.approx(exponential, rel=0.005)
    assert_mean(ran.requests.queue_ms.to_numpy() / 1e3, pollaczek)


def test_lindley(tmp_path: Path) -> None:
    """Each wait follows from the one before, the service before, and the gap between arrivals."""
    mean = PREFILL + 3 * DECODE
    rows = serve_one_by_one(tmp_path, 0.9 / mean, 2000, 8, {"exponential": 4}).requests
    wait, waits = 0.0, []
    service = PREFILL + (rows.output_tokens - 1) * DECODE
    gaps = np.diff(rows.arrival_s, append=0.0)
    for took, gap in zip(service, gaps, strict=True):
        waits.append(wait)
        wait = max(0.0, wait + took - gap)
    np.testing.assert_allclose(rows.queue_ms / 1e3, waits, rtol=0, atol=1e-9)
