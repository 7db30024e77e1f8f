"""The settings of a generated workload, and the check that each means something to it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shown

from .catalog import KNOBS, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim.trace.lengths import Length

    from .diurnal import Diurnal


@dataclass(frozen=True, slots=True)
class Knobs:
    """What `catalog.KNOBS` describes; None where nothing was given."""

    rate_per_s: float | None = None
    arrivals: str | None = None
    burstiness: float | None = None
    on_s: float | None = None
    off_s: float | None = None
    prompt: Length | None = None
    output: Length | None = None
    rank_correlation: float | None = None
    diurnal: Diurnal | None = None
    start_hour: float | None = None
    clients: Path | None = None
    population: str | None = None
    sub_agents: float | None = None
    shared_prefix: bool | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def check_source(name: str, source: str) -> None:
    """Raise `InputError` about the argument *name* if it is no workload."""
    if source not in WORKLOADS:
        raise InputError(f"{name}: {shown(source)} is unknown; write one of {', '.join(WORKLOADS)}")


def check_given(source: str, given: set[str], called: Callable[[str], str]) -> None:
    """Raise `InputError` about what `findings` finds."""
    found = findings(source, given, called)
    if found:
        raise InputError([f"{called(knob)}: {text}" for knob, text in found])


def findings(source: str, given: set[str], called: Callable[[str], str]) -> list[tuple[str, str]]:
    """Knobs of those *given* that mean nothing to *source*, and those that it lacks; each in words.

    *called* gives the name of a knob that the user knows it by.
    """
    workload = WORKLOADS[source]
    takes = ", ".join(map(called, workload.knobs)) or "none"
    found = [
        (knob, f"means nothing to {source}, which takes {takes}; remove it")
        for knob in KNOBS
        if knob in given and knob not in workload.knobs
    ]
    found += [
        (knob, f"missing; {source} needs it: {KNOBS[knob].what}, e.g. {KNOBS[knob].example}")
        for knob in workload.needs
        if knob not in given
    ]
    alone = {
        "start_hour": "diurnal" if "diurnal" in workload.knobs else None,
        "prompt": "output",
        "output": "prompt",
    }
    found += [
        (knob, f"means nothing without {called(other)}; give both")
        for knob, other in alone.items()
        if other and knob in workload.takes and knob in given and other not in given
    ]
    if {"clients", "population"} <= given and source == "servegen":
        found.append(("population", f"means nothing beside {called('clients')}; remove one"))
    return found
