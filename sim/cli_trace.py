"""`residentsim trace`: look at a trace, write it in another format, or make one up.

Thin: the work is in `sim.trace`; wrong input leaves as `InputError` for the main command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from .errors import InputError
from .trace.bounds import BURSTINESS, MAX_BLOCK_TOKENS, MAX_REQUESTS, RATE_PER_S
from .trace.naming import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .trace.chunk import Chunk

app = typer.Typer(
    name="trace",
    help="Look at request traces, convert them, or generate them.",
    no_args_is_help=True,
)

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

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="azure-conv-like, mooncake-conversation-like or synthetic."
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")]
Requests = Annotated[
    int,
    typer.Option("--requests", metavar="N", min=1, max=MAX_REQUESTS, help="How many requests."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Random seed.")]
ToByName = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="FORMAT", help="mooncake, vidur or parquet; else by the name of FILE."
    ),
]
Rate = Annotated[
    float | None, typer.Option("--rate", metavar="R", help="synthetic: requests per second.")
]
Arrivals = Annotated[
    str | None,
    typer.Option(
        "--arrivals", metavar="KIND", help="synthetic: poisson (the default), gamma or constant."
    ),
]
Burstiness = Annotated[
    float | None,
    typer.Option(
        "--burstiness", metavar="B", help="synthetic: shape of gamma gaps; 1 is Poisson, else 1."
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", metavar="LENGTH", help="synthetic: prompt length, see above."),
]
Output = Annotated[
    str | None,
    typer.Option("--output", metavar="LENGTH", help="synthetic: output length, see above."),
]


@app.command("inspect")
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
    from .trace.detect import explain
    from .trace.inspect import Inspection
    from .trace.picture import check_kind, draw
    from .trace.read import read

    if picture is not None:
        check_kind(picture)
    tally = Tally()
    chunks = read(file, format, limit=limit, sort=sort, bad_rows="skip", tally=tally)
    told = explain(file) if format == "auto" else (format, "--format")
    inspection = Inspection(block_tokens)
    for chunk in _with_progress(chunks, file):
        inspection.add(chunk)
    summary = {"file": said(file), "format": told[0], "format_why": told[1]}
    _print_summary(summary | inspection.summary(tally), json_out)
    if picture is not None:
        title = (
            f"{said(file.name)}: {inspection.requests:,} requests in {inspection.duration_s:,.0f} s"
        )
        draw(inspection, title, picture)


@app.command("convert")
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

    tally = Tally()
    chunks = read(
        file, format, limit=limit, sort=sort, bad_rows="skip" if skip_bad else "error", tally=tally
    )
    rows = _write(_with_progress(chunks, file), out, to, block_tokens)
    skipped = f", {tally.skipped:,} bad rows left out" if tally.skipped else ""
    typer.echo(f"{said(out)}: {rows:,} requests{skipped}")


@app.command("generate")
def generate_trace(
    source: Source,
    out: Out,
    requests: Requests = 20000,
    seed: Seed = 0,
    to: ToByName = None,
    rate: Rate = None,
    arrivals: Arrivals = None,
    burstiness: Burstiness = None,
    prompt: Prompt = None,
    output: Output = None,
) -> None:
    """Make up a trace and write it; the same seed gives the same requests.

    A longer trace begins with the shorter one of the same seed. LENGTH is one of fixed:MEAN,
    exponential:MEAN, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, in tokens.
    """
    from .trace.generate import generate

    synthetic = _synthetic(source, rate, arrivals, burstiness, prompt, output)
    chunks = generate(source, requests, seed, **synthetic)
    by_name = {".jsonl": "mooncake", ".csv": "vidur", ".parquet": "parquet"}
    rows = _write(chunks, out, to or by_name.get(out.suffix.lower(), out.suffix), 512)
    typer.echo(f"{said(out)}: {rows:,} requests")


def _synthetic(
    source: str,
    rate: float | None,
    arrivals: str | None,
    burstiness: float | None,
    prompt: str | None,
    output: str | None,
) -> dict[str, Any]:
    """What `generate` takes beside the source; raises `InputError` about each option."""
    from .trace.gaps import check_arrivals
    from .trace.generate import check_source
    from .trace.lengths import in_range, parse_length

    check_source("SOURCE", source)
    if arrivals is not None:
        check_arrivals("--arrivals", arrivals)
    needed = {"--rate": rate, "--prompt": prompt, "--output": output}
    given = needed | {"--arrivals": arrivals, "--burstiness": burstiness}
    if source != "synthetic":
        odd = [option for option, value in given.items() if value is not None]
        if odd:
            raise InputError([f"{option}: only with synthetic; remove it" for option in odd])
        return {}
    missing = [option for option, value in needed.items() if value is None]
    if missing:
        raise InputError([f"{option}: missing; synthetic needs it" for option in missing])
    assert rate is not None
    assert prompt is not None
    assert output is not None
    in_range("--rate", rate, *RATE_PER_S)
    if burstiness is not None:
        if arrivals != "gamma":
            raise InputError("--burstiness: only with --arrivals gamma; remove it, or add that")
        in_range("--burstiness", burstiness, *BURSTINESS)
    return {
        "rate_per_s": rate,
        "arrivals": arrivals or "poisson",
        "burstiness": 1.0 if burstiness is None else burstiness,
        "prompt": parse_length("--prompt", prompt),
        "output": parse_length("--output", output),
    }


def _write(chunks: Iterable[Chunk], out: Path, to: str, block_tokens: int) -> int:
    from .trace.write import write

    target = cast("Literal['mooncake', 'vidur', 'parquet']", to)
    return write(chunks, out, target, block_tokens=block_tokens)


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps(summary, indent=2))
        return
    from rich.console import Console

    from .trace.tables import show

    width = None if sys.stdout.isatty() else 120
    show(Console(markup=False, emoji=False, highlight=False, width=width), summary)


def _with_progress(chunks: Iterator[Chunk], file: Path) -> Iterator[Chunk]:
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
