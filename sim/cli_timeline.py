"""`residentsim timeline`: a run as a file for ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError


def timeline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only from here on, e.g. 90s.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Only until here, e.g. 2min.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="FILE.json or FILE.json.gz; default NAME.json.gz."),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The profile of the run, where that is a file."),
    ] = None,
    most: Annotated[
        int,
        typer.Option(min=1000, max=100_000_000, help="Events at most; more make a shorter time."),
    ] = 200_000,
) -> None:
    """Write a run as a timeline for ui.perfetto.dev (or chrome://tracing): iterations by stage,
    links, queue and tiers, and every request from its arrival to its last token."""
    from .result import OURS
    from .timeline import write

    begin, end = _seconds("--from", from_), _seconds("--to", to)
    if end is not None and end <= (begin or 0.0):
        raise InputError(f"--to: {end:g} s is not after --from, {begin or 0.0:g} s; raise it")
    path = out or Path(f"{run.resolve().name}.json.gz")
    if not path.name.endswith((".json", ".json.gz")):
        raise InputError(f"--out {path}: is neither FILE.json nor FILE.json.gz")
    if path.name in OURS and path.resolve().parent == run.resolve():
        raise InputError(f"--out {path}: is a part of the run; choose another name")
    written = write(run, path, begin, end, most, profile)
    for note in written.notes:
        typer.echo(f"note: {note}", err=True)
    window = written.window
    typer.echo(
        f"{path}: {written.events:,} events, {window.begin:.9g} s to {window.end:.9g} s;"
        " open it in https://ui.perfetto.dev"
    )


def _seconds(option: str, text: str | None) -> float | None:
    from .units import SECONDS

    if text is None:
        return None
    try:
        return SECONDS.parse(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
