"""`residentsim trace convert`: a trace in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from .cli_trace_options import BlockTokens, File, Format, Limit, Sort, with_progress
from .trace.naming import said


def convert_trace(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="mooncake, vidur or parquet.")],
    format: Format = "auto",
    limit: Limit = None,
    block_tokens: BlockTokens = 512,
    sort: Sort = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out instead of stopping at them.")
    ] = False,
) -> None:
    """Write a trace in another format; times then count from its first request.

    Vidur files have no block ids; Mooncake files get fresh ones where the input has none.
    """
    from .trace.chunk import Tally
    from .trace.read import read
    from .trace.write import write

    tally = Tally()
    chunks = read(
        file, format, limit=limit, sort=sort, bad_rows="skip" if skip_bad else "error", tally=tally
    )
    target = cast("Literal['mooncake', 'vidur', 'parquet']", to)
    rows = write(with_progress(chunks, file), out, target, block_tokens=block_tokens)
    skipped = f", {tally.skipped:,} bad rows left out" if tally.skipped else ""
    typer.echo(f"{said(out)}: {rows:,} requests{skipped}")
