"""Generated traces: seeds, prefixes, and distances to the traces they are shaped like."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from sim.errors import InputError
from sim.trace.generate import SOURCES, generate
from sim.trace.look.inspection import Inspection
from sim.trace.lengths import Length, parse_length

if TYPE_CHECKING:
    from sim.trace.chunk import Chunk

TRACES = Path(__file__).parents[1].parent / "shared" / "traces"
BENCH = Path(__file__).parents[1] / "bench" / "generators.py"

PLAIN: dict[str, Any] = {
    "rate_per_s": 2.0,
    "prompt": Length("exponential", mean=300),
    "output": Length("uniform", low=3, high=9),
}


def options(source: str) -> dict[str, Any]:
    return PLAIN if source == "synthetic" else {}


def joined(chunks: list[Chunk]) -> tuple[list[Any], ...]:
    ids = [row for c in chunks for row in c.block_ids or []]
    return (
        *tuple(
            [x for c in chunks for x in getattr(c, name).tolist()]
            for name in ("arrival_s", "prompt_tokens", "output_tokens")
        ),
        ids,
    )


@pytest.mark.parametrize("source", SOURCES)
def test_a_longer_trace_begins_with_the_shorter_one(source: str) -> None:
    short = joined(list(generate(source, 17_000, 3, **options(source))))
    long = joined(list(generate(source, 20_000, 3, chunk_rows=999, **options(source))))
    for ours, theirs in zip(short, long, strict=True):
        assert ours == theirs[: len(ours)]
    assert len(short[0]) == 17_000
    assert short[0][0] == 0.0
    assert short[0] != joined(list(generate(source, 17_000, 4, **options(source))))[0]


@pytest.mark.parametrize("source", SOURCES)
def test_chunks_are_valid(source: str) -> None:
    chunks = list(generate(source, 40_000, 0, **options(source)))
    assert [len(c) for c in chunks] == [16384, 16384, 40_000 - 2 * 16384]
    times = np.concatenate([c.arrival_s for c in chunks])
    assert (np.diff(times) >= 0).all()
    for chunk in chunks:
        assert chunk.prompt_tokens.min() >= 1
        assert chunk.output_tokens.min() >= 1
        assert chunk.prompt_tokens.dtype == chunk.output_tokens.dtype == np.int64


def test_mooncake_like_ids_follow_the_rules_of_the_format() -> None:
    (chunk,) = generate("mooncake-conversation-like", 5000, 0)
    assert chunk.block_ids is not None
    seen: set[int] = set()
    parents = {()}
    for ids, prompt in zip(chunk.block_ids, chunk.prompt_tokens.tolist(), strict=True):
        assert len(ids) == -(-prompt // 512)
        assert ids[0] == 0
        fresh = [i for i in ids if i not in seen]
        # hits are a prefix of the ids, new ids are dense and in order of first appearance
        assert list(ids[len(ids) - len(fresh) :]) == fresh
        assert fresh == list(range(len(seen), len(seen) + len(fresh)))
        assert ids[: len(ids) - len(fresh)] in parents
        parents.update(ids[:k] for k in range(len(ids) + 1))
        seen.update(ids)


def test_mooncake_like_reuse_is_near_that_of_the_trace() -> None:
    rates = []
    for seed in range(3):
        inspection = Inspection()
        for chunk in generate("mooncake-conversation-like", 12_031, seed):
            inspection.add(chunk)
        rates.append(inspection.reuse.hit_rate)
    assert np.mean(rates) == pytest.approx(0.3664, abs=0.015)
    assert rates == pytest.approx([0.3664] * 3, abs=0.03)


def test_azure_like_bursts_are_those_of_the_trace() -> None:
    inspection = Inspection()
    for chunk in generate("azure-conv-like", 19_366 * 3, 0):
        inspection.add(chunk)
    dispersion = inspection.dispersion()
    assert (inspection.requests - 1) / inspection.duration_s == pytest.approx(5.53, rel=0.02)
    assert inspection.gaps.cv == pytest.approx(1.094, abs=0.02)
    assert dispersion[1.0] == pytest.approx(1.385, abs=0.08)
    assert dispersion[10.0] == pytest.approx(3.857, abs=0.4)
    assert dispersion[60.0] == pytest.approx(16.13, abs=2.5)


# synthetic ----------------------------------------------------------------------------------


def gaps_of(n: int = 30_000, **changes: Any) -> np.ndarray:
    chunks = generate("synthetic", n, 5, **(PLAIN | changes))
    return np.diff(np.concatenate([c.arrival_s for c in chunks]))


def test_poisson_gamma_and_constant_gaps() -> None:
    assert stats.kstest(gaps_of(), "expon", args=(0, 0.5)).pvalue > 1e-3
    bursty = gaps_of(arrivals="gamma", burstiness=0.25)
    assert stats.kstest(bursty, "gamma", args=(0.25, 0, 2.0)).pvalue > 1e-3
    assert stats.kstest(bursty, "expon", args=(0, 0.5)).pvalue < 1e-9
    even = gaps_of(arrivals="gamma", burstiness=1.0)
    assert stats.kstest(even, "expon", args=(0, 0.5)).pvalue > 1e-3
    assert gaps_of(arrivals="constant") == pytest.approx(0.5)


def drawn(length: Length, n: int = 30_000) -> np.ndarray:
    chunks = generate("synthetic", n, 6, **(PLAIN | {"prompt": length}))
    return np.concatenate([c.prompt_tokens for c in chunks])


def test_lengths() -> None:
    assert set(drawn(Length("fixed", mean=7))) == {7}
    geometric = drawn(Length("exponential", mean=4))
    assert geometric.min() == 1
    assert geometric.mean() == pytest.approx(4, rel=0.03)
    assert np.mean(geometric == 1) == pytest.approx(0.25, abs=0.01)
    uniform = drawn(Length("uniform", low=2, high=4))
    assert [np.mean(uniform == k) for k in (2, 3, 4)] == pytest.approx([1 / 3] * 3, abs=0.015)
    logs = np.log(drawn(Length("lognormal", median=1000, sigma=0.5)))
    assert stats.kstest(logs, stats.norm(np.log(1000), 0.5).cdf).pvalue > 1e-3
    capped = drawn(Length("lognormal", median=1000, sigma=2, cap=1500))
    assert capped.max() == 1500
    assert capped.min() >= 1
    assert drawn(Length("lognormal", median=10**6, sigma=9)).max() == 10_000_000


@pytest.mark.parametrize(
    ("source", "changes", "expected"),
    [
        ("azure", {}, "source: 'azure' is unknown; write one of azure-conv-like"),
        (
            "azure-conv-like",
            {"rate_per_s": 2.0},
            "rate_per_s, prompt and output are for source synthetic only",
        ),
        ("synthetic", {"prompt": None}, "prompt missing"),
        ("synthetic", {"rate_per_s": 0.0}, "rate_per_s: 0.0 is not in"),
        ("synthetic", {"rate_per_s": float("nan")}, "rate_per_s: nan is not in"),
        ("synthetic", {"arrivals": "weibull"}, "arrivals: 'weibull' is unknown"),
        ("synthetic", {"arrivals": "gamma", "burstiness": 0.0}, "burstiness: 0.0 is not in"),
        (
            "synthetic",
            {"prompt": Length("fixed", mean=0.5)},
            "prompt: length: 0.5 is not in",
        ),
        (
            "synthetic",
            {"output": Length("uniform", low=5, high=4)},
            "largest length: 4 is not in 5",
        ),
        ("synthetic", {"output": Length("zipf")}, "output: 'zipf' is no kind of length"),  # type: ignore[arg-type]
        ("synthetic", {"output": Length("fixed", mean=5, cap=0)}, "output: cap: 0 is not in"),
        ("synthetic", {"requests": 0}, "requests: 0 is not in 1 to 100,000,000"),
        ("synthetic", {"requests": 10**8 + 1}, "requests: 100000001 is not in 1 to 100,000,000"),
        ("synthetic", {"prompt": Length("fixed", mean=2.5)}, "prompt: length: 2.5 is not a whole"),
        ("synthetic", {"prompt": Length("fixed", mean=1e8)}, "is not in 1 to 10,000,000"),
        ("synthetic", {"seed": -1}, "seed: -1 is negative"),
    ],
)
def test_arguments_that_make_no_trace(source: str, changes: dict[str, Any], expected: str) -> None:
    given = (PLAIN if source == "synthetic" else {}) | changes
    requests, seed = given.pop("requests", 5), given.pop("seed", 0)
    with pytest.raises(InputError) as caught:
        generate(source, requests, seed, **given)
    assert expected in str(caught.value)


def test_lengths_as_text() -> None:
    assert parse_length("--prompt", "fixed:5") == Length("fixed", mean=5)
    assert parse_length("--prompt", "lognormal:300:0.8") == Length(
        "lognormal", median=300, sigma=0.8
    )
    (chunk,) = generate(
        "synthetic", 10, 0, **(PLAIN | {"prompt": parse_length("--prompt", "uniform:5:6")})
    )
    assert set(chunk.prompt_tokens.tolist()) == {5, 6}
    for text in (
        *("fixed", "fixed:5:6", "gauss:5", "uniform:a:b", "", "fixed:nan", "fixed:inf"),
        *("fixed:2.5", "uniform:1.5:3", "uniform:1:2.5", "fixed:0", "exponential:1e8"),
    ):
        with pytest.raises(InputError, match="--prompt"):
            parse_length("--prompt", text)


def test_a_trace_that_lasts_too_long_is_refused() -> None:
    slow = {"rate_per_s": 1e-6, "arrivals": "constant"}
    assert len(list(generate("synthetic", 1000, 0, **(PLAIN | slow)))) == 1
    with pytest.raises(
        InputError, match=r"after more than 1,000,000,000 s \(31 years\); ask for fewer"
    ):
        list(generate("synthetic", 1002, 0, **(PLAIN | slow)))


# the real files -----------------------------------------------------------------------------


def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_generators", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_own_distance_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.poisson(4, 300), rng.poisson(5, 200)
    assert bench().ks_distance(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_distances_to_the_real_traces(number: int, seed: int) -> None:
    module = bench()
    source, name, step_s = module.SUBJECTS[number]
    path = next(iter(sorted(TRACES.rglob(name))), None)
    if path is None:
        pytest.skip(f"{name} is not under {TRACES}")
    found = module.compare(source, path, step_s, seed)
    assert found.ks["prompt"] < 0.02
    assert found.ks["output"] < 0.02
    assert found.ks["gap"] < 0.03
    for real, made in found.figures.values():
        assert made == pytest.approx(real, rel=0.25)
    assert found.figures["rate/s"][1] == pytest.approx(found.figures["rate/s"][0], rel=0.03)
