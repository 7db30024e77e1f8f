"""`residentsim trace convert`: a trace in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .cli_trace_changes import (
    Asked,
    ClipTo,
    From,
    Merge,
    RateScale,
    ReplicaPart,
    Seed,
    Spread,
    Thin,
    TimeScale,
    Until,
    say_changes,
)
from .cli_trace_options import (
    BlockTokens,
    File,
    Format,
    Limit,
    OnError,
    Sort,
    on_bad_row,
    say_findings,
    with_progress,
)
from .errors import InputError, shown
from .trace.bounds import MAX_BLOCK_TOKENS, RATE_PER_S
from .trace.names import SESSIONS, WRITABLE
from .trace.naming import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .trace.chunk import Chunk
    from .trace.turns import Replay

ToBlockTokens = Annotated[
    int | None,
    typer.Option(
        "--to-block-tokens",
        metavar="N",
        min=1,
        max=MAX_BLOCK_TOKENS,
        help="Of OUT; else --block-tokens, or 512 for mooncake and FILE's for the others.",
    ),
]
Sessions = Annotated[
    str,
    typer.Option(
        "--sessions",
        metavar="MODE",
        help=f"One of {', '.join(SESSIONS)}: open writes every turn with its recorded time.",
    ),
]
SessionRate = Annotated[
    float | None,
    typer.Option(
        "--session-rate", metavar="R", help="Sessions a second, for files without their starts."
    ),
]


def convert_trace(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"{', '.join(WRITABLE)}.")],
    format: Format = "auto",
    limit: Limit = None,
    block_tokens: BlockTokens = None,
    to_block_tokens: ToBlockTokens = None,
    sessions: Sessions = "auto",
    session_rate: SessionRate = None,
    sort: Sort = False,
    on_error: OnError = "fail",
    dither: Spread = None,
    merge: Merge = None,
    from_: From = None,
    until: Until = None,
    time_scale: TimeScale = 1.0,
    rate_scale: RateScale = 1.0,
    thin: Thin = 1.0,
    replica: ReplicaPart = None,
    clip_prompt: ClipTo = None,
    seed: Seed = 0,
) -> None:
    """Write a trace in another format, changed if asked for; times count from its first request.

    Changes are made in the order of the options here, whatever the order they are given in, and
    what they did is printed. Times have units: 90s, 10min, 2h.

    What OUT cannot hold is said on stderr. Mooncake files get dense block ids, and ids of their own
    where FILE has none.
    """
    from .trace.chunk import Tally
    from .trace.read import read
    from .trace.write import write

    def read_one(path: Path, tally: Tally) -> Iterator[Chunk]:
        return read(
            path, format if path == file else "auto", limit=None if merge else limit, sort=sort,
            bad_rows=on_bad_row(on_error), tally=tally, block_tokens=block_tokens, replay=replay,
        )  # fmt: skip

    replay = _replay(sessions, session_rate, seed)
    tally = Tally()
    asked = Asked(
        from_, until, time_scale, rate_scale, thin, replica, merge, dither, clip_prompt, seed
    )
    chunks = asked.apply(file, limit, read_one, tally)
    size = to_block_tokens or block_tokens
    lost: list[str] = []
    found = with_progress(chunks, file)
    rows = write(found, out, cast("Any", to), block_tokens=size, tally=tally, lost=lost)
    say_findings(Path("merged") if merge else file, tally)
    say_changes(tally)
    for line in lost:
        typer.echo(f"{said(out)}: {line}", err=True)
    skipped = f", {tally.skipped:,} rows left out" if tally.skipped else ""
    typer.echo(f"{said(out)}: {rows:,} requests{skipped}")


def _replay(sessions: str, rate_per_s: float | None, seed: int) -> Replay:
    """How sessions are to be read; raises `InputError`."""
    from .trace.lengths import in_range
    from .trace.turns import Replay

    if rate_per_s is not None:
        in_range("--session-rate", rate_per_s, *RATE_PER_S)
    if sessions not in SESSIONS:
        raise InputError(
            f"--sessions: {shown(sessions)} is unknown; write one of {', '.join(SESSIONS)}"
        )
    return Replay(cast("Any", sessions), rate_per_s, seed=seed)
