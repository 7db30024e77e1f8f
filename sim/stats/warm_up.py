"""Where a run's warm-up ends: by the study, or found by how its latencies settle.

What is cut are requests that arrived before; what is counted are those that arrived after, until
the run's end. The end is not cut: the requests that arrive last are traffic like the others, and a
run's duration has always counted until the last of them is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.units import seconds_text

from .samples import requests_of
from .settling import FEWEST

if TYPE_CHECKING:
    from sim.runs import Run

    from .settings import Statistics


@dataclass(frozen=True, slots=True)
class Cut:
    """Seconds of simulated time before which requests that arrive are left out, and why there."""

    seconds: float
    note: str = ""


def warm_up(run: Run, settings: Statistics) -> Cut:
    """Where *run* is cut; 0 if nothing is."""
    duration = float(run.summary["duration"])
    if settings.warm_up_s is not None:
        return Cut(settings.warm_up_s, f"requests from {seconds_text(settings.warm_up_s)} on")
    if settings.warm_up_share is not None:
        seconds = settings.warm_up_share * duration
        return Cut(seconds, f"requests from {seconds_text(seconds)} on") if seconds else Cut(0.0)
    return _found(run) if settings.warm_up == "auto" else Cut(0.0)


def _found(run: Run) -> Cut:
    """Where both TTFT and TPOT have settled, the later of the two."""
    requests = requests_of(run)
    seconds = requests.settled
    if seconds is None:
        return Cut(0.0, "nothing cut: latencies do not settle in this run")
    if seconds == 0:
        few = len(requests) < FEWEST
        why = f"{len(requests)} requests are too few to see a warm-up" if few else "none is seen"
        return Cut(0.0, f"nothing cut: {why}")
    return Cut(seconds, f"requests from {seconds_text(seconds)} on, as latencies have settled")
