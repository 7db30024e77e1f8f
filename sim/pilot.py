"""How long runs will take on this machine: an estimate, from the beginnings of a few of them.

The one rule: cheap and no more than an estimate. A pilot plays the first requests of a run for a
fraction of a second and goes on in proportion; runs of the study that are there already count for
more, since they were played to their ends.
"""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scenario import Scenario
    from .simulate import Simulation
    from .study import Point

BUDGET_S = 0.6
"""Seconds of this process for all pilots together."""
MOST_PILOTS = 6
ENOUGH_DONE = 3
"""Runs that are there from which on they are asked instead of pilots."""
LARGEST_FILE = 20_000_000
"""Bytes of a trace's files beyond which even its beginning takes too long to read."""
_FEWEST = 20
"""Arrivals and ends that a pilot has to see, or it says nothing."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Estimate:
    """Wall seconds of the runs to do, one after another, and what that rests on."""

    total_s: float
    longest_s: float
    basis: str
    """Goes on after 'an estimate'."""

    def on(self, workers: int) -> float:
        """Wall seconds on so many workers, each with a core to itself."""
        return max(self.total_s / workers, self.longest_s)


def estimate(
    missing: Sequence[Point], recorded: Sequence[tuple[Point, float]] = ()
) -> Estimate | None:
    """What the *missing* runs will take, where those *recorded* took so many wall seconds.

    None if nothing can be said: the traces are too large, or their lengths unknown.
    """
    if not missing:
        return None
    known = list(recorded)
    basis = f", from the {len(known)} that are there"
    if len(known) < ENOUGH_DONE:
        known = pilots(missing)
        basis = f" for free cores, from the first requests of {len(known)} of {len(missing):,} runs"
    if not known:
        return None
    each = [_like(point, known) for point in missing]
    return Estimate(sum(each), max(each), basis)


def _like(point: Point, known: Sequence[tuple[Point, float]]) -> float:
    """The mean of the *known* seconds of those that have most in common with *point*."""
    alike = [_common(point, other) for other, _ in known]
    most = max(alike)
    chosen = [s for (_, s), common in zip(known, alike, strict=True) if common == most]
    return sum(chosen) / len(chosen)


def _common(point: Point, other: Point) -> int:
    return sum(other.axes.get(axis) == value for axis, value in point.axes.items())


def pilots(points: Sequence[Point]) -> list[tuple[Point, float]]:
    """Estimated wall seconds of a few of *points*, such that most values of the axes are seen."""
    from .simulate import Simulation

    able = [point for point in points if _readable(point.scenario)]
    chosen = _spread(able, MOST_PILOTS)
    if not chosen:
        return []
    Simulation(chosen[0].scenario)  # modules and profiles are read once
    found: list[tuple[Point, float]] = []
    end = time.process_time() + BUDGET_S
    for left, point in zip(range(len(chosen), 0, -1), chosen, strict=True):
        begin = time.process_time()
        seconds = _begun(point.scenario, max(end - begin, 0.0) / min(left, 3))
        if seconds is not None:
            found.append((point, seconds))
        if 2 * time.process_time() - begin > end:  # one more like this would take too long
            break
    return found


def _spread(points: Sequence[Point], count: int) -> list[Point]:
    """At most *count* of *points*: each the first that adds most values not yet seen."""
    order = sorted(range(min(len(points), 500)), key=lambda i: i * _GOLDEN % 1)
    rest = [points[i * len(points) // len(order)] for i in order]
    values = [{(axis, repr(value)) for axis, value in point.axes.items()} for point in rest]
    chosen: list[Point] = []
    seen: set[tuple[str, str]] = set()
    while rest and len(chosen) < count:
        best = max(range(len(rest)), key=lambda i: len(values[i] - seen))
        seen |= values.pop(best)
        chosen.append(rest.pop(best))
    return chosen


def _readable(scenario: Scenario) -> bool:
    """Whether a beginning says something: of how many requests, and without reading for long."""
    trace = scenario.trace
    names = [part.file for part in (trace, *(trace.merge or ()))] + [trace.clients]
    size = sum(_size(Path(name)) for name in names if name is not None)
    return size <= LARGEST_FILE and (trace.requests is not None or scenario.stop.at is not None)


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0


def _begun(scenario: Scenario, limit_s: float) -> float | None:
    """Seconds that a run takes, records included, which is begun for *limit_s*; None: unknown.

    They are those of this process, whatever else the machine does meanwhile.

    # Model: the rest of a run goes on at the pace of the second half of what was played, by the
    requests that have arrived and ended; it is off where load builds up or ebbs over the run.
    """
    from .records import Records
    from .result import environment
    from .simulate import Simulation
    from .tiers import memory_options

    begin = time.process_time()
    tiers = bool(memory_options(scenario.hardware, scenario.kv).sizes)
    collecting = gc.isenabled()
    gc.disable()  # as a run does
    try:
        with tempfile.TemporaryDirectory() as folder:
            records = Records(
                Path(folder), scenario.record.iterations, tiers, scenario.replicas.count > 1
            )
            try:
                simulation = Simulation(
                    scenario, "leap", records.requests, records.iterations, records.transfers
                )
                rest = _rest(simulation, scenario, limit_s)
                if rest == 0.0:
                    simulation.run()  # closes the records
                environment(0.0, 0) | scenario.resolved()  # what else a run writes
            finally:
                records.close()
    except (InputError, OSError):
        return None
    finally:
        if collecting:
            gc.enable()
    return None if rest is None else time.process_time() - begin + rest


def _rest(simulation: Simulation, scenario: Scenario, limit_s: float) -> float | None:
    """Plays for *limit_s* from the first request on; seconds of the rest, None if unknown."""
    clock, requests = simulation.clock, simulation.requests
    seen: list[tuple[float, float]] = []  # seconds, and the share of the run that is done
    until = last = inf
    events = 0
    while (now := time.process_time()) < until or (events < _FEWEST and now < last):
        for _ in range(20):
            if clock.peek() == inf:
                return 0.0
            clock.step()
        if not seen:  # what comes first, reading or drawing the trace, is done once
            until = time.process_time() + limit_s
            last = until + BUDGET_S
        events = simulation.arrivals.count + requests.ended
        seen.append((time.process_time(), _share(simulation, scenario)))
    end_s, end = seen[-1]
    middle = (seen[0][0] + end_s) / 2
    half_s, half = next(at for at in reversed(seen) if at[0] <= middle)
    if events < _FEWEST or end <= half:
        return None
    return (1.0 - end) * (end_s - half_s) / (end - half)


def _share(simulation: Simulation, scenario: Scenario) -> float:
    """The share of the run that is done."""
    shares = []
    if scenario.trace.requests is not None:
        ended = simulation.arrivals.count + simulation.requests.ended
        shares.append(ended / 2 / scenario.trace.requests)
    if scenario.stop.at is not None:
        shares.append(simulation.clock.now / scenario.stop.at)
    return min(1.0, max(shares))


def wall_s(run: Path) -> float | None:
    """The recorded wall seconds of the run in folder *run*, None if there are none."""
    from .result import read_json

    try:
        seconds = read_json(run / "environment.json").get("wall_s")
    except InputError:
        return None
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else None
