"""`residentsim seeds`: the first seed's benchmark modes, run like a study and set side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError

if TYPE_CHECKING:
    from .study import Point

Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Overrides a key of every mode, e.g. trace.requests=20; of speculation and sparse, "
        "of the modes that have the section.",
    ),
]


def seeds(
    out: Annotated[Path, typer.Option(help="The study's folder.")] = Path("runs/seeds"),
    sets: Sets = None,
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Modes at a time.")] = 1,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each metric means.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Run the seeds' benchmark modes, those that are there already excepted, and compare them.

    All play the same requests with the same draws. Writes metrics.csv, a row a mode; a metric that
    a mode does not have is empty there and `-` in the table.
    """
    from .cli_sweep import failures
    from .feasible import faults
    from .result import read_summary
    from .seed_metrics import METRICS, metrics
    from .seed_modes import MODES, STUDY, points
    from .seed_tables import print_modes, to_csv
    from .stats.settings import Statistics
    from .study import Study
    from .sweeping import Local, point_id, run_study
    from .tables import provenance
    from .trace.write import replacing

    found = points(sets or (), faults)
    _warn(found)
    study = Study(
        name=STUDY, question="", points=tuple(found), axes={"mode": [*MODES]},
        groups=(("mode",),), statistics=Statistics(),
    )  # fmt: skip
    outcome = run_study(study, out, backend=Local(jobs) if jobs > 1 else None, quiet=quiet)
    if outcome.failed:
        raise InputError(failures(outcome.failed, len(found), out))
    summaries = [read_summary(out / "points" / name) for name in outcome.done]
    values = {
        point.axes["mode"]: metrics(out / "points" / point_id(point.scenario)) for point in found
    }
    with replacing(out / "metrics.csv") as file:
        file.write(to_csv(values))
    if not quiet:
        print_modes(values, provenance(*summaries))
    if explain:
        for metric in METRICS:
            unit = f" ({metric.unit})" if metric.unit else ""
            typer.echo(f"{metric.name}{unit}: {metric.meaning}")
    typer.echo(f"{out}")


def _warn(points: list[Point]) -> None:
    """Says each warning once, with the modes that it is about."""
    said: dict[str, list[str]] = {}
    for point in points:
        for line in point.scenario.warnings():
            said.setdefault(line, []).append(point.axes["mode"])
    hashes = {point.axes["mode"]: point.scenario.hash for point in points}
    for mode, own in hashes.items():
        first = next(other for other in hashes if hashes[other] == own)
        if first != mode:
            typer.echo(f"warning: with this --set, {mode} is the same as {first}", err=True)
    for line, modes in said.items():
        typer.echo(f"warning: {line} ({', '.join(modes)})", err=True)
