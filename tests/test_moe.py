"""Experts: closed forms against draws, what is read and awaited, and memory that is freed."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from wide import H200, cost_of, scenario

from sim.cost import Chunk
from sim.models import PRESETS
from sim.moe import Experts, Fetch, experts_of, fetch_of
from sim.simulate import Simulation
from sim.widening import hbm_bytes

SHAPE = PRESETS["qwen3-30b-a3b"]
LINK, LATENCY = H200.constant("h2d_bytes_per_s"), H200.constant("h2d_latency_s")


def zipf(exponent: float, experts: int) -> tuple[float, ...]:
    return tuple(rank**-exponent for rank in range(1, experts + 1))


def drawn(weights: tuple[float, ...], k: int, tokens: int, times: int) -> np.ndarray:
    """Whether each expert is hit, in each of *times* batches: [times, experts]."""
    rng = np.random.default_rng(5)
    # The k first of a race of exponential clocks are a draw of k without putting back.
    clocks = rng.exponential(size=(times, tokens, len(weights))) / np.array(weights)
    ranks = clocks.argsort(axis=2).argsort(axis=2)
    return (ranks < k).any(axis=1)


@pytest.mark.parametrize(
    ("experts", "k", "exponent", "near"),
    [(128, 8, 0.0, 0.01), (128, 8, 0.8, 0.015), (64, 6, 1.2, 0.02), (8, 2, 1.0, 0.03)],
)
@pytest.mark.parametrize("tokens", [1, 4, 32])
def test_distinct_experts_against_draws(experts, k, exponent, near, tokens) -> None:
    weights = zipf(exponent, experts)
    hits = drawn(weights, k, tokens, 1500 if tokens < 32 else 400)
    found = Experts(experts, k, weights, held=experts // 2)
    assert found.distinct(tokens) == pytest.approx(hits.sum(axis=1).mean(), rel=near)
    missed = hits[:, experts // 2 :]
    assert found.missed(tokens) == pytest.approx(missed.sum(axis=1).mean(), abs=near * k, rel=0.05)
    assert found.any_missed(tokens) == pytest.approx(missed.any(axis=1).mean(), abs=0.05)


def test_a_token_takes_as_many_as_it_is_routed_to() -> None:
    for exponent in (0.0, 0.5, 1.0, 2.0):
        found = Experts(128, 8, zipf(exponent, 128))
        assert sum(found.hit) == pytest.approx(8.0)
        assert found.distinct(1) == pytest.approx(8.0)
    every = Experts(4, 4, zipf(1.0, 4))
    assert every.distinct(1) == every.distinct(100) == 4.0


def test_even_weights_are_the_default_and_skew_reads_fewer() -> None:
    even, alike = Experts(128, 8), Experts(128, 8, (1.0,) * 128)
    skewed = [Experts(128, 8, zipf(s, 128)) for s in (0.4, 0.8, 1.2)]
    for tokens in (2, 16, 64):
        assert alike.distinct(tokens) == pytest.approx(even.distinct(tokens))
        read = [even.distinct(tokens), *(one.distinct(tokens) for one in skewed)]
        assert read == sorted(read, reverse=True)


def test_an_even_section_changes_no_time_and_not_giving_it_leaves_no_mark() -> None:
    plain, even = scenario(model=SHAPE.name), scenario(model=SHAPE.name, moe={})
    assert "moe" not in plain.resolved()
    assert even.resolved()["moe"] == {"routing": {"kind": "even"}}
    costs = [cost_of(model=SHAPE.name), cost_of(model=SHAPE.name, moe={})]
    first, second = (cost.decode(8).seconds(8000) for cost in costs)
    assert first == second


def test_a_scenario_comes_back_from_its_record() -> None:
    section = {"routing": {"kind": "zipf", "exponent": 1.0}, "offload": {"resident": 0.25}}
    given = scenario(model=SHAPE.name, moe=section)
    assert type(given).from_resolved(given.resolved()).hash == given.hash
    other = scenario(model=SHAPE.name, moe={"routing": {"kind": "zipf", "exponent": 0.9}})
    assert other.hash != given.hash


def test_skew_makes_an_iteration_shorter() -> None:
    even = cost_of(model=SHAPE.name).decode(16).seconds(16_000)
    routing = {"kind": "zipf", "exponent": 1.0}
    skewed = cost_of(model=SHAPE.name, moe={"routing": routing}).decode(16).seconds(16_000)
    assert skewed < 0.9 * even
    shares = {"kind": "shares", "shares": list(zipf(1.0, 128))[::-1]}
    assert cost_of(model=SHAPE.name, moe={"routing": shares}).decode(16).seconds(16_000) == skewed


# ---------------------------------------------------------------- offload
def test_misses_are_fetched_over_the_link() -> None:
    section = {"offload": {"resident": 0.5}}
    cost, whole = cost_of(model=SHAPE.name, moe=section), cost_of(model=SHAPE.name)
    experts = experts_of(scenario(model=SHAPE.name, moe=section).moe, SHAPE)
    assert experts is not None
    assert experts.held == 64
    size = 3 * 2048 * 768 * 2
    miss = 64 * (1 - (1 - 8 / 128) ** 4)
    none = (1 - 8 / 128) ** (4 * 64)
    wait = 48 * (miss * size / LINK + (1 - none) * LATENCY)
    for mode in ("graph", "resident", "host"):
        cost, whole = (cost_of(mode, model=SHAPE.name, moe=moe) for moe in (section, None))
        found = cost.decode(4).seconds(4000) - whole.decode(4).seconds(4000)
        assert found == pytest.approx(wait, rel=1e-9)


def test_what_is_known_ahead_is_hidden_as_far_as_the_layer_lasts() -> None:
    def late(prefetch: float, resident: float = 0.5) -> float:
        moe = {"offload": {"resident": resident, "prefetch": prefetch}}
        return cost_of(model=SHAPE.name, moe=moe).decode(1).seconds(100_000)

    base = cost_of(model=SHAPE.name).decode(1).seconds(100_000)
    waits = [late(share) - base for share in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert waits == sorted(waits, reverse=True)
    experts = Experts(128, 8, held=64)
    fetch = fetch_of(H200, SHAPE, "bf16", experts, 1)
    # All known ahead: the link is the limit, and nothing but the layers hides behind it.
    assert waits[-1] < waits[0]
    assert waits[-1] >= 48 * fetch.late - base
    # One expert in 128 is missed seldom: the layer before hides it whole.
    assert late(1.0, 127 / 128) == pytest.approx(base, rel=1e-3)


def test_a_slower_link_is_waited_for_longer() -> None:
    moe, model = {"offload": {"resident": 0.5}}, SHAPE.name

    def waited(**links: object) -> float:
        cost, whole = (
            cost_of(model=model, moe=section, hardware={"links": links}) for section in (moe, None)
        )
        return cost.decode(4).seconds(4000) - whole.decode(4).seconds(4000)

    assert waited(h2d={"bandwidth": f"{LINK / 2e9:.9f} GB/s", "latency": "0 s"}) == pytest.approx(
        2 * waited(h2d={"latency": "0 s"}), rel=1e-6
    )
    links = {"links": {"h2d": {"bandwidth": "5 GB/s"}}}
    assert not any(
        "links" in line for line in scenario(hardware=links, model=model, moe=moe).warnings()
    )
    assert any("links" in line for line in scenario(hardware=links, model=model).warnings())


def test_waits_in_closed_form() -> None:
    assert Fetch(10, 2.0, 0.0).wait(5.0) == 20.0
    assert Fetch(10, 2.0, 3.0).wait(5.0) == 20.0
    assert Fetch(10, 2.0, 8.0).wait(5.0) == 50.0


def test_prefill_waits_for_experts_too() -> None:
    moe = {"offload": {"resident": 0.5}}
    found = cost_of(model=SHAPE.name, moe=moe).mixed(0, 0, [Chunk(2048, 0)], 1).seconds
    plain = cost_of(model=SHAPE.name).mixed(0, 0, [Chunk(2048, 0)], 1).seconds
    assert found - plain == pytest.approx(48 * (64 * 3 * 2048 * 768 * 2 / LINK + LATENCY), rel=1e-3)


def test_offloaded_experts_leave_room() -> None:
    whole, token = hbm_bytes(scenario(model=SHAPE.name))
    left, same = hbm_bytes(scenario(model=SHAPE.name, moe={"offload": {"resident": 0.25}}))
    assert token == same
    assert whole - left == 48 * 96 * 3 * 2048 * 768 * 2


@pytest.mark.parametrize(
    ("model", "moe", "what"),
    [
        ("llama-3.1-8b", {}, "no experts"),
        (SHAPE.name, {"routing": {"kind": "shares"}}, "kind: shares"),
        (SHAPE.name, {"routing": {"kind": "shares", "shares": [1.0, 2.0]}}, "2 weights for 128"),
        (SHAPE.name, {"routing": {"exponent": 1.0}}, "kind: zipf"),
        (SHAPE.name, {"offload": {"resident": 1.0}}, "less than 1"),
    ],
)
def test_bad_sections_are_refused(model, moe, what) -> None:
    with pytest.raises(ValidationError, match=what):
        scenario(model=model, moe=moe)


# ---------------------------------------------------------------- a run
def test_a_run_tells_what_it_read_and_fetched() -> None:
    trace = {"source": "azure-conv-like", "requests": 5}
    moe = {"routing": {"kind": "zipf"}, "offload": {"resident": 0.5}}
    simulation = Simulation(scenario(trace=trace, model=SHAPE.name, moe=moe))
    summary = simulation.run()
    assert 8.0 <= summary["moe_distinct_experts_mean"] <= 128.0
    assert 0.0 < summary["moe_hit_rate"] < 1.0
    missed = summary["moe_expert_bytes_fetched"] / summary["moe_expert_bytes_read"]
    assert missed == pytest.approx(1.0 - summary["moe_hit_rate"])
    plain = Simulation(scenario(trace=trace, model=SHAPE.name)).run()
    assert not any(key.startswith("moe_") for key in plain)
    assert summary["duration"] > plain["duration"]
