"""The plain workloads: an arrival process by name, and lengths of any law."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sim.trace.gaps import plain_gaps
from sim.trace.lengths import in_range

from .arrivals import OnOff, Renewal
from .open_loop import Recipe

if TYPE_CHECKING:
    from sim.trace.gaps import Arrivals as Process

    from .arrivals import Arrivals
    from .knobs import Knobs


def recipe(source: str, seed: int, knobs: Knobs) -> Recipe:
    """The requests of *source*, one of poisson, gamma, constant, on-off and synthetic.

    Raises `InputError` for knobs that make no process.
    """
    assert knobs.rate_per_s is not None
    assert knobs.prompt is not None
    assert knobs.output is not None
    knobs.prompt.check("prompt")
    knobs.output.check("output")
    correlation = knobs.rank_correlation or 0.0
    in_range("rank_correlation", correlation, -1.0, 1.0)
    shape = 1.0 if knobs.burstiness is None else knobs.burstiness
    arrivals: Arrivals
    if source == "on-off":
        assert knobs.on_s is not None
        assert knobs.off_s is not None
        arrivals = OnOff(seed, source, knobs.rate_per_s, knobs.on_s, knobs.off_s, shape)
    else:
        process = (knobs.arrivals or "poisson") if source == "synthetic" else source
        gaps = plain_gaps(knobs.rate_per_s, cast("Process", process), shape)
        arrivals = Renewal(seed, source, gaps)
    return Recipe(arrivals, knobs.prompt, knobs.output, correlation)
