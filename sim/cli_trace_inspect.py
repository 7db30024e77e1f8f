"""`residentsim trace inspect`: what a trace holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_trace_options import BlockTokens, File, Format, Limit, Sort, with_progress
from .trace.naming import said


def inspect_trace(
    file: File,
    format: Format = "auto",
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Also draw it, to a .png or .svg."),
    ] = None,
    json_out: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON, units in the keys.")
    ] = False,
    limit: Limit = None,
    block_tokens: BlockTokens = 512,
    sort: Sort = False,
) -> None:
    """Say what a trace holds: format, rate, burstiness, lengths, prefix reuse, bad rows.

    Reads the file once as a stream, so it may be larger than memory. Bad rows are left out and
    counted by reason.
    """
    from .trace.chunk import Tally
    from .trace.inspect import Inspection
    from .trace.picture import check_kind, draw
    from .trace.read import read

    if picture is not None:
        check_kind(picture)
    tally = Tally()
    chunks = read(file, format, limit=limit, sort=sort, bad_rows="skip", tally=tally)
    inspection = Inspection(block_tokens)
    for chunk in with_progress(chunks, file):
        inspection.add(chunk)
    summary = {"file": said(file), "format": tally.format, "format_why": tally.told_by}
    _print_summary(summary | inspection.summary(tally), json_out)
    if picture is not None:
        title = (
            f"{said(file.name)}: {inspection.requests:,} requests in {inspection.duration_s:,.0f} s"
        )
        draw(inspection, title, picture)


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps(summary, indent=2))
        return
    from rich.console import Console

    from .trace.tables import show

    width = None if sys.stdout.isatty() else 120
    show(Console(markup=False, emoji=False, highlight=False, width=width), summary)
