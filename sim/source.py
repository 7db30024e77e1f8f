"""A generated workload in a scenario: its name and its knobs, part of `trace`.

The one rule: a knob that means nothing to the workload is an error, by the same list that the
command line goes by (`trace.workloads.catalog`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from .errors import shown
from .identity import group_identity
from .length import Length, resolved
from .node import Node, Place, suggestion
from .trace.bounds import BURSTINESS, MAX_REQUESTS, MAX_SECONDS, PERIOD_S, RATE_PER_S
from .trace.workloads.catalog import KNOBS, POPULATIONS, PROFILES, WORKLOADS
from .trace.workloads.knobs import findings
from .units import Rate, Seconds

KEYS = tuple(knob.key for knob in KNOBS.values() if knob.key != "shared_prefix")
"""The keys of all knobs, but for the one that files have as well."""
_KNOB_OF = {knob.key: name for name, knob in KNOBS.items()}


def _in_range(rate: float) -> float:
    low, high = RATE_PER_S
    if not low <= rate <= high:
        raise ValueError(f"must be {low:g} /s to {high:g} /s, got {rate:g} /s")
    return rate


def _period(seconds: float) -> float:
    low, high = PERIOD_S
    if not low <= seconds <= high:
        raise ValueError(f"must be {low:g} s to {high:g} s, got {seconds:g} s")
    return seconds


def _workload(name: str) -> str:
    if name not in WORKLOADS:
        near = suggestion(name, WORKLOADS, "known")
        hint = f"; {near}" if near.startswith("did") else ""
        raise ValueError(f"expected one of {', '.join(WORKLOADS)}, got {shown(name)}{hint}")
    return name


def _population(name: str) -> str:
    if name not in POPULATIONS:
        raise ValueError(f"expected one of {', '.join(POPULATIONS)}, got {shown(name)}")
    return name


def _diurnal(value: Any) -> Any:
    expected = f"expected one of {', '.join(PROFILES)}, an amplitude from 0 to 1, or 24 numbers"
    if isinstance(value, str) and value in PROFILES:
        return value
    if type(value) in (int, float) and 0 <= value <= 1:
        return float(value)
    if isinstance(value, (list, tuple)) and len(value) == 24:
        good = all(type(rate) in (int, float) and 0 <= rate <= 1e12 for rate in value)
        if good and any(value):
            return tuple(float(rate) for rate in value)
    raise ValueError(f"{expected}, got {shown(value)}")


Arrivals = Annotated[Rate, AfterValidator(_in_range)]
Process = Literal["poisson", "gamma", "constant"]
Shape = Annotated[float, Field(strict=True, ge=BURSTINESS[0], le=BURSTINESS[1])]
Period = Annotated[Seconds, AfterValidator(_period)]


class Source(Node):
    """The keys of `trace` that belong to a generated workload."""

    source: Annotated[str, Field(strict=True), AfterValidator(_workload)] | None = None
    """A generated workload in place of a file; `residentsim trace generate --list` says which."""
    requests: Annotated[int, Field(strict=True, ge=1, le=MAX_REQUESTS)] | None = None
    """Requests to generate; with a file, the first so many rows."""
    rate: Arrivals | None = None
    """Arrivals a second; of agent-like, sessions."""
    arrivals: Process = "poisson"
    """The process of arrivals."""
    burstiness: Shape = 1.0
    """Shape of gamma gaps: 1 is Poisson, less is burstier (as in vLLM's benchmark)."""
    on_period: Period | None = None
    """Mean length of a period with requests."""
    off_period: Period | None = None
    """Mean length of a period without."""
    prompt_tokens: Length | None = None
    """Tokens of a prompt."""
    output_tokens: Length | None = None
    """Tokens of an answer."""
    rank_correlation: Annotated[float, Field(strict=True, ge=-1, le=1)] | None = None
    """Spearman's, of the lengths of prompts and answers."""
    diurnal: Annotated[Any, PlainValidator(_diurnal)] = None
    """The rate by hour of day: a profile's name, the amplitude of a cosine, or 24 numbers."""
    start_hour: Annotated[float, Field(strict=True, ge=0, le=MAX_SECONDS / 3600)] | None = None
    """Hour of day, of servegen that of the clients' data, at which the trace begins."""
    clients: Annotated[str, Field(strict=True, min_length=1, max_length=4096)] | None = None
    """ServeGen's files, relative to the YAML file: a folder, or a clients CSV."""
    population: Annotated[str, Field(strict=True), AfterValidator(_population)] | None = None
    """Built-in clients of servegen."""
    sub_agents: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    """Share of an agent's turns that send sub-agents off."""


def takes(trace: Source, key: str) -> bool:
    """Whether *key*, one of `KEYS` or shared_prefix, means something to the source and is there."""
    if trace.source is None or getattr(trace, key) is None:
        return False
    return _KNOB_OF[key] in WORKLOADS[trace.source].knobs


def faults(trace: Source) -> list[tuple[Place, str]]:
    """What is wrong with the knobs of *trace*, and with those that it lacks."""
    given = {key for key in trace.model_fields_set if getattr(trace, key) is not None}
    if trace.source is None:
        return [
            ((key,), f"only with source: {', '.join(_takers(key))}; remove it")
            for key in KEYS
            if key in given
        ]
    found: list[tuple[Place, str]] = []
    if trace.requests is None:
        what = f"missing; `source: {trace.source}` needs it, e.g. `requests: 2000`"
        found.append((("requests",), what))
    names = {_KNOB_OF[key] for key in given if key in KEYS}
    for name, text in findings(trace.source, names, lambda knob: KNOBS[knob].key):
        found.append(((KNOBS[name].key,), text))
    if trace.start_hour is not None and trace.diurnal is not None and trace.start_hour >= 24:
        found.append((("start_hour",), f"{trace.start_hour:g} is no hour of day; write 0 to 23"))
    return found


def needs(trace: Source) -> tuple[str, ...]:
    """The knobs that the source cannot do without, by the names that `generate` takes."""
    return WORKLOADS[trace.source].needs if trace.source else ()


def keys_of(source: object) -> set[str]:
    """The keys that the workload of this name takes; none if there is no such workload."""
    workload = WORKLOADS.get(source) if isinstance(source, str) else None
    return {KNOBS[knob].key for knob in workload.knobs} if workload else set()


def _takers(key: str) -> list[str]:
    return [name for name, workload in WORKLOADS.items() if _KNOB_OF[key] in workload.knobs]


def knobs(trace: Source) -> dict[str, Any]:
    """The knobs of *trace* by the names that `generate` takes.

    Raises `InputError` for a table of lengths that cannot be read.
    """
    keys = (*KEYS, "shared_prefix")
    found = {_KNOB_OF[key]: getattr(trace, key) for key in keys if takes(trace, key)}
    if "arrivals" in found and found["arrivals"] != "gamma":
        found.pop("burstiness", None)
    for name in ("prompt", "output"):
        if name in found:
            found[name] = found[name].law()
    if "clients" in found:
        found["clients"] = Path(found["clients"])
    return found


def resolved_source(trace: Source, data: dict[str, Any]) -> dict[str, Any]:
    """The entries of *data*, which is *trace* as plain data, that name files or lengths."""
    kept = {key: resolved(data[key]) for key in ("prompt_tokens", "output_tokens")}
    if trace.clients is not None:
        kept["clients"] = clients_identity(trace.clients)
    return kept


def clients_identity(path: str) -> str:
    """Name and digest of ServeGen's files: of all in a folder, or of one and its lengths."""
    place = Path(path)
    try:
        if place.is_dir():
            return group_identity(place.name, [file for file in place.iterdir() if file.is_file()])
        lengths = place.name.partition("_clients.csv")[0] + "_length_pmf.json*"
        return group_identity(place.name, [place, *place.parent.glob(lengths)])
    except (OSError, ValueError):
        return path
