"""What several `residentsim trace` commands take, and the progress they show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .trace.bounds import MAX_BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .trace.chunk import Chunk

_BIG_BYTES = 8 * 2**20

File = Annotated[Path, typer.Argument(metavar="FILE", help="The trace to read.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="mooncake, azure, vidur or parquet; auto looks at the file.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N requests.")
]
Sort = Annotated[
    bool, typer.Option("--sort", help="Put requests in order of time first (loads the file).")
]
BlockTokens = Annotated[
    int,
    typer.Option(
        "--block-tokens",
        metavar="N",
        min=1,
        max=MAX_BLOCK_TOKENS,
        help="Prompt tokens a prefix block id.",
    ),
]


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
