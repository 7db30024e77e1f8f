"""`residentsim trace requests`: the traffic of a measured run as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError


def requests_trace(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="Requests of any engine, or a run's folder.")
    ],
    out: Annotated[Path, typer.Option(help="The CSV to write, for a scenario's trace.file.")],
    maps: Annotated[
        list[str] | None, typer.Option("--map", metavar="OUR=THEIRS", help="A column of LOG.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Of times whose name has none: s, ms, us, ns.")
    ] = None,
) -> None:
    """Write the arrivals and lengths that an engine has served, to simulate the same."""
    from .step_names import UNITS
    from .trace.write import replacing
    from .validation.traffic import traffic

    if unit is not None and unit not in UNITS:
        raise InputError(f"--unit {unit}: choose {', '.join(UNITS)}")
    rows, said, lost = traffic(log, maps or (), unit)
    text = "".join(f"{at:.9f},{prompt},{output}\n" for at, prompt, output in rows)
    with replacing(out) as file:
        file.write(f"arrival_s,prompt_tokens,output_tokens\n{text}".encode())
    typer.echo(f"columns of {log}: {said}")
    seconds = rows[-1][0]
    rate = f", {len(rows) / seconds:.3g} a second" if seconds else ""
    typer.echo(f"{len(rows):,} requests in {seconds:.1f} s{rate}; {lost} without lengths left out")
    typer.echo(f"{out}")
