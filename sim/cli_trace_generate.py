"""`residentsim trace generate`: a trace made up from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .errors import InputError
from .trace.bounds import BURSTINESS, MAX_REQUESTS, RATE_PER_S
from .trace.naming import said

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
    from .trace.write import write

    synthetic = _synthetic(source, rate, arrivals, burstiness, prompt, output)
    chunks = generate(source, requests, seed, **synthetic)
    by_name = {".jsonl": "mooncake", ".csv": "vidur", ".parquet": "parquet"}
    target = cast("Any", to or by_name.get(out.suffix.lower(), out.suffix))
    rows = write(chunks, out, target, block_tokens=512)
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
