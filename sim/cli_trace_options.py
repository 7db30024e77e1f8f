"""What several `residentsim trace` commands take, and the progress they show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError, shown
from .trace.bounds import MAX_BLOCK_TOKENS
from .trace.names import FORMATS
from .trace.naming import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .trace.chunk import Chunk, Tally
    from .trace.rows import OnBadRow

_BIG_BYTES = 8 * 2**20

File = Annotated[Path, typer.Argument(metavar="FILE", help="The trace to read.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"One of {', '.join(FORMATS)}; auto looks at the file.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N requests.")
]
Sort = Annotated[
    bool, typer.Option("--sort", help="Put requests in order of time first (loads the file).")
]
BlockTokens = Annotated[
    int | None,
    typer.Option(
        "--block-tokens",
        metavar="N",
        min=1,
        max=MAX_BLOCK_TOKENS,
        help="Prompt tokens a prefix block id of FILE; else found out by the ids.",
    ),
]
OnError = Annotated[
    str,
    typer.Option(
        "--on-error",
        metavar="fail|skip",
        help="At bad rows stop with up to ten of them, or leave them out, counted and listed.",
    ),
]


def on_bad_row(on_error: str) -> OnBadRow:
    """What --on-error says, in the words of the reader; raises `InputError`."""
    words: dict[str, OnBadRow] = {"fail": "error", "skip": "skip"}
    if on_error not in words:
        raise InputError(f"--on-error: {shown(on_error)} is unknown; write fail or skip")
    return words[on_error]


def say_format(file: Path, tally: Tally) -> None:
    """Print, on stderr, as what a trace is read and why."""
    typer.echo(f"{said(file)}: read as {tally.format}: {tally.told_by}", err=True)


def say_findings(file: Path, tally: Tally) -> None:
    """Print, on stderr, what reading a trace has found: remarks, and rows left out by reason."""
    for note in tally.notes:
        typer.echo(f"{said(file)}: {note}", err=True)
    if not tally.skipped:
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(tally.reasons.items()))
    typer.echo(f"{said(file)}: {tally.skipped:,} rows left out: {reasons}", err=True)
    for example in tally.examples:
        typer.echo(f"  {example}", err=True)
    left = tally.skipped - len(tally.examples)
    if tally.examples and left:
        typer.echo(f"  ... and {left:,} more", err=True)


def with_progress(chunks: Iterator[Chunk], file: Path) -> Iterator[Chunk]:
    """*chunks* themselves; for a big file on a terminal with a count of requests on stderr."""
    if not sys.stderr.isatty() or file.stat().st_size < _BIG_BYTES:
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} requests"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(file.name, total=None)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))
