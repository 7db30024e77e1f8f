"""`residentsim trace generate`: a trace made up from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .errors import InputError, shown
from .trace.bounds import BURSTINESS, MAX_REQUESTS, PERIOD_S, RATE_PER_S
from .trace.names import WRITABLE
from .trace.naming import said
from .trace.workloads.catalog import KNOBS, POPULATIONS, PROFILES, WORKLOADS


def _option(name: str, metavar: str, more: str = "") -> Any:
    """The option of a knob, with the workloads that take it in its help."""
    knob = KNOBS[name]
    takers = ", ".join(key for key, workload in WORKLOADS.items() if name in workload.knobs)
    text = f"{knob.what}{more} [{takers}]"
    return typer.Option(knob.option, metavar=metavar, help=text)


Source = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The workload; --list says which there are.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The file to write.")]
Listed = Annotated[bool, typer.Option("--list", help="Only list workloads, with their knobs.")]
Requests = Annotated[
    int,
    typer.Option("--requests", metavar="N", min=1, max=MAX_REQUESTS, help="How many requests."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Random seed.")]
ToByName = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="FORMAT", help=f"{', '.join(WRITABLE)}; else by the name of FILE."
    ),
]
Rate = Annotated[float | None, _option("rate_per_s", "R")]
Process = Annotated[str | None, _option("arrivals", "KIND")]
Burstiness = Annotated[float | None, _option("burstiness", "B")]
On = Annotated[float | None, _option("on_s", "SECONDS")]
Off = Annotated[float | None, _option("off_s", "SECONDS")]
Prompt = Annotated[str | None, _option("prompt", "LENGTH", ", see above")]
Output = Annotated[str | None, _option("output", "LENGTH", ", see above")]
Correlation = Annotated[float | None, _option("rank_correlation", "R")]
Diurnal = Annotated[
    str | None, _option("diurnal", "SHAPE", f"; profiles are {', '.join(PROFILES)}")
]
StartHour = Annotated[float | None, _option("start_hour", "H")]
Clients = Annotated[Path | None, _option("clients", "PATH")]
Population = Annotated[str | None, _option("population", "NAME", f": {', '.join(POPULATIONS)}")]
SubAgents = Annotated[float | None, _option("sub_agents", "SHARE")]
SharedPrefix = Annotated[
    bool,
    typer.Option("--shared-prefix", help=f"{KNOBS['shared_prefix'].what} [agent-like]"),
]


_BOUNDS = {
    "rate_per_s": RATE_PER_S,
    "burstiness": BURSTINESS,
    "on_s": PERIOD_S,
    "off_s": PERIOD_S,
    "rank_correlation": (-1.0, 1.0),
    "start_hour": (0.0, 1e6),
    "sub_agents": (0.0, 1.0),
}


def generate_trace(
    source: Source = None,
    out: Out = None,
    listed: Listed = False,
    requests: Requests = 20000,
    seed: Seed = 0,
    to: ToByName = None,
    rate: Rate = None,
    arrivals: Process = None,
    burstiness: Burstiness = None,
    on: On = None,
    off: Off = None,
    prompt: Prompt = None,
    output: Output = None,
    rank_correlation: Correlation = None,
    diurnal: Diurnal = None,
    start_hour: StartHour = None,
    clients: Clients = None,
    population: Population = None,
    sub_agents: SubAgents = None,
    shared_prefix: SharedPrefix = False,
) -> None:
    """Make up a trace and write it; the same seed gives the same requests.

    A longer trace begins with the shorter one of the same seed. LENGTH is fixed:MEAN,
    exponential:MEAN, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, pareto:LOW:ALPHA or table:FILE in
    tokens; behind it may stand ,tail=SHARE:ALPHA ,within=LOW:HIGH ,cap=MOST; several are mixed as
    0.7*LENGTH+0.3*LENGTH.
    """
    if listed:
        _list()
        return
    given = {
        "rate_per_s": rate, "arrivals": arrivals, "burstiness": burstiness, "on_s": on,
        "off_s": off, "prompt": prompt, "output": output, "rank_correlation": rank_correlation,
        "diurnal": diurnal, "start_hour": start_hour, "clients": clients,
        "population": population, "sub_agents": sub_agents,
        "shared_prefix": shared_prefix or None,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    knobs = _checked(source, given)
    assert source is not None
    if out is None:
        raise InputError("--out: missing; name the file to write, e.g. --out trace.jsonl")
    _write(source, requests, seed, knobs, out, to)


def _list() -> None:
    """Print the workloads: what each is, and its options."""
    for name, workload in WORKLOADS.items():
        typer.echo(f"{name}: {workload.what}")
        for title, knobs in (("needs", workload.needs), ("takes", workload.takes)):
            if knobs:
                typer.echo(f"    {title} {' '.join(KNOBS[knob].option for knob in knobs)}")


def _checked(source: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """What `generate` takes beside the source; raises `InputError` about each option."""
    from .trace.gaps import check_arrivals
    from .trace.lengths import in_range
    from .trace.lengths_text import parse_length
    from .trace.workloads.knobs import check_given, check_source

    if source is None:
        raise InputError(f"NAME: missing; write one of {', '.join(WORKLOADS)}")
    check_source("NAME", source)
    check_given(source, {*given}, lambda knob: KNOBS[knob].option)
    if "arrivals" in given:
        check_arrivals("--arrivals", given["arrivals"])
    chosen = given.get("arrivals") if "arrivals" in WORKLOADS[source].knobs else "gamma"
    if "burstiness" in given and chosen != "gamma":
        raise InputError("--burstiness: only with --arrivals gamma; remove it, or add that")
    for name, bounds in _BOUNDS.items():
        if name in given:
            in_range(KNOBS[name].option, given[name], *bounds)
    for name in ("prompt", "output"):
        if name in given:
            given[name] = parse_length(KNOBS[name].option, given[name])
    if "diurnal" in given:
        given["diurnal"] = _shape(given["diurnal"])
    return given


def _shape(text: str) -> str | float | list[float]:
    """A profile's name, an amplitude, or 24 numbers; raises `InputError`."""
    if text in PROFILES:
        return text
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        names = ", ".join(PROFILES)
        raise InputError(
            f"--diurnal: {shown(text)} is no shape; write one of {names}, an amplitude from 0 to "
            "1, or 24 numbers with commas"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _write(
    source: str, requests: int, seed: int, knobs: dict[str, Any], out: Path, to: str | None
) -> None:
    from .trace.chunk import Tally
    from .trace.generate import generate
    from .trace.write import write

    tally = Tally()
    chunks = generate(source, requests, seed, tally=tally, **knobs)
    by_name = {".jsonl": "mooncake", ".csv": "vidur", ".parquet": "parquet"}
    target = cast("Any", to or by_name.get(out.suffix.lower(), out.suffix))
    lost: list[str] = []
    rows = write(chunks, out, target, tally=tally, lost=lost)
    typer.echo(f"{said(out)}: {rows:,} requests")
    for line in (*tally.notes, *lost):
        typer.echo(line, err=True)
