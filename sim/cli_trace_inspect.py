"""`residentsim trace inspect`: what a trace holds, or how two differ."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from .cli_trace_options import File, Format, Limit, OnError, Sort, on_bad_row, with_progress
from .errors import InputError, shown
from .trace.bounds import MAX_BLOCK_TOKENS, MAX_SECONDS, RATE_PER_S
from .trace.names import SESSIONS
from .trace.naming import said

if TYPE_CHECKING:
    from rich.console import Console

    from .trace.chunk import Tally
    from .trace.look.inspection import Inspection
    from .trace.transforms import Dither

_SESSION_RATE_PER_S = 0.1

Other = Annotated[
    Path | None, typer.Argument(metavar="[OTHER]", help="A second trace to compare FILE with.")
]
OtherFormat = Annotated[
    str | None, typer.Option("--other-format", metavar="FORMAT", help="Of OTHER; else --format.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write it as a page, .html.")
]
Picture = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Also draw it, to a .png or .svg."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON, units in the keys.")]
BlockSize = Annotated[
    int | None,
    typer.Option(
        "--block-tokens",
        metavar="N",
        min=1,
        max=MAX_BLOCK_TOKENS,
        help="Prompt tokens a prefix block id; else found out by the ids.",
    ),
]
Spread = Annotated[
    str | None,
    typer.Option(
        "--dither",
        metavar="S|auto",
        help="First spread time stamps that lie on a grid over its step of S seconds.",
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--sessions",
        metavar="MODE",
        help=f"Sessions as they are replayed: {', '.join(SESSIONS)}.",
    ),
]
SessionRate = Annotated[
    float | None,
    typer.Option(
        "--session-rate",
        metavar="R",
        help=f"Sessions a second, for files without their start times; else {_SESSION_RATE_PER_S}.",
    ),
]


@dataclass(frozen=True, slots=True)
class _How:
    """How each of the traces is to be read."""

    limit: int | None
    sort: bool
    on_error: str
    block_tokens: int | None
    dither: Dither | None
    sessions: Literal["auto", "open", "closed"]
    session_rate: float | None


def inspect_trace(
    file: File,
    other: Other = None,
    format: Format = "auto",
    other_format: OtherFormat = None,
    html: Html = None,
    picture: Picture = None,
    json_out: Json = False,
    limit: Limit = None,
    sort: Sort = False,
    on_error: OnError = "skip",
    block_tokens: BlockSize = None,
    dither: Spread = None,
    sessions: Mode = "auto",
    session_rate: SessionRate = None,
) -> None:
    """Say what a trace holds: format, rates, burstiness, lengths, prefix reuse, sessions, bad rows.

    With OTHER, compare the two: distances of the distributions, burstiness and hit rates, judged.
    Reads each file once as a stream, so it may be larger than memory; a file of sessions is held.
    Bad rows are left out, and counted by reason.
    """
    from .page import check_page
    from .trace.look.page import write_page
    from .trace.look.picture import check_kind, draw

    if picture is not None:
        check_kind(picture)
    if html is not None:
        check_page(html)
    how = _How(
        limit, sort, on_error, block_tokens, _dither(dither), _mode(sessions),
        _rate(session_rate),
    )  # fmt: skip
    found = [_inspected(file, format, how)]
    if other is not None:
        found.append(_inspected(other, other_format or format, how))
    traces, summaries = [one[0] for one in found], [one[1] for one in found]
    compared = None
    if other is not None:
        from .trace.compare import compare

        compared = compare(traces[0], traces[1])
    _print(summaries, compared, json_out)
    named = list(zip(("trace",) if other is None else ("A", "B"), traces, strict=True))
    if html is not None:
        write_page(named, summaries, compared, html)
    if picture is not None:
        title = "\n".join(
            f"{'' if other is None else f'{name}: '}{said(path.name)}: {x.requests:,} requests in "
            f"{x.duration_s:,.0f} s"
            for path, (name, x) in zip((file, other or file), named, strict=False)
        )
        draw(named, title, picture)


def _inspected(file: Path, format: str, how: _How) -> tuple[Inspection, dict[str, Any]]:
    """The trace at *file* inspected, and its figures."""
    from .trace.chunk import Tally
    from .trace.look.inspection import Inspection
    from .trace.look.summary import summary
    from .trace.read import read
    from .trace.transforms import dither
    from .trace.turns import Replay

    tally = Tally()
    replay = Replay(
        how.sessions, _SESSION_RATE_PER_S if how.session_rate is None else how.session_rate
    )
    chunks = read(
        file, format, limit=how.limit, sort=how.sort, bad_rows=on_bad_row(how.on_error),
        tally=tally, block_tokens=how.block_tokens, replay=replay,
    )  # fmt: skip
    if how.dither is not None:
        chunks = dither(chunks, how.dither, 0, tally)
    inspection = Inspection()
    for chunk in with_progress(chunks, file):
        if tally.block_tokens is not None:
            inspection.reuse.block_tokens = tally.block_tokens
        inspection.add(chunk)
    _say_rate(tally, how.session_rate)
    read_as = {"file": said(file), "format": tally.format, "format_why": tally.told_by}
    return inspection, read_as | summary(inspection, tally)


# how the reader's notes about starts of sessions begin
_DRAWN = "the file has no start times of sessions"
_NOT_USED = "the rate of sessions is not used"


def _say_rate(tally: Tally, given: float | None) -> None:
    """Note a rate of sessions that was not asked for, or that had nothing to act on."""
    drawn = any(note.startswith(_DRAWN) for note in tally.notes)
    if given is None:
        tally.notes[:] = [note for note in tally.notes if not note.startswith(_NOT_USED)]
        if drawn:
            tally.note(
                f"{_SESSION_RATE_PER_S} sessions a second is a default, so rates, gaps and reuse "
                "by cache size follow from it: choose yours with --session-rate"
            )
    elif not drawn and not any(note.startswith(_NOT_USED) for note in tally.notes):
        tally.note("--session-rate has no effect: the file has no sessions without a start")


def _dither(text: str | None) -> Dither | None:
    from .trace.transforms import Dither

    if text is None or text == "auto":
        return None if text is None else Dither()
    try:
        step_s = float(text)
    except ValueError:
        step_s = 0.0
    if not 0 < step_s <= MAX_SECONDS:
        raise InputError(f"--dither: {shown(text)} is no step; write seconds above 0, or auto")
    return Dither(step_s)


def _mode(text: str) -> Literal["auto", "open", "closed"]:
    if text not in SESSIONS:
        raise InputError(
            f"--sessions: {shown(text)} is unknown; write one of {', '.join(SESSIONS)}"
        )
    return cast('Literal["auto", "open", "closed"]', text)


def _rate(rate: float | None) -> float | None:
    from .trace.lengths import in_range

    if rate is not None:
        in_range("--session-rate", rate, *RATE_PER_S)
    return rate


def _print(summaries: list[dict[str, Any]], compared: dict[str, Any] | None, as_json: bool) -> None:
    """The figures of one trace, or those of two compared, as tables or as JSON."""
    if as_json:
        import json

        whole = summaries[0]
        if compared is not None:
            whole = {"a": summaries[0], "b": summaries[1], "comparison": compared}
        typer.echo(json.dumps(whole, indent=2, allow_nan=False))
        return
    from .trace.look.tables import show, show_comparison

    if compared is None:
        show(_console(), summaries[0])
    else:
        show_comparison(_console(), compared, summaries)


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(markup=False, emoji=False, highlight=False, width=width)
