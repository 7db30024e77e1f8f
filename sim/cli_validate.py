"""`residentsim validate`: a measured run against the simulated run of the same requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError

if TYPE_CHECKING:
    from .step_log import StepLog
    from .validation.errors import Comparison


def validate(
    measured: Annotated[
        Path, typer.Argument(metavar="MEASURED", help="A run's folder, or a file of requests.")
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The simulated run's folder.")],
    steps: Annotated[
        list[Path] | None, typer.Option(help="The measured run's step log; default: its folder's.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="The run's profile, if it is a file.")] = None,
    repeat: Annotated[
        Path | None, typer.Option(help="A second measured run: the noise floor.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="A run of the same scenario with another seed; metrics are then means."),
    ] = None,
    maps: Annotated[
        list[str] | None, typer.Option("--map", metavar="OUR=THEIRS", help="Of requests.")
    ] = None,
    step_maps: Annotated[
        list[str] | None, typer.Option("--step-map", metavar="OUR=THEIRS", help="Of steps.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of times whose name has none.")] = None,
    bars: Annotated[
        str | None, typer.Option(metavar="NAME=%,...", help="Other bars, e.g. ttft_p50=5.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="A self-contained page.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for figures.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="All figures as JSON.")] = None,
) -> None:
    """Compare a measured run with its simulation: errors, intervals, distances, verdict."""
    from . import step_names
    from .trace.write import replacing
    from .validation import errors, served
    from .validation.matching import matched
    from .validation.scheduled import schedule_line
    from .validation.waiting import waiting_line

    if unit is not None and unit not in step_names.UNITS:
        raise InputError(f"--unit {unit}: choose {', '.join(step_names.UNITS)}")
    limits = errors.bars(bars)
    for one in (run, *(also or ())):
        if not (one / "requests.parquet").is_file():
            raise InputError(f"{one}: no run's folder; give one that `residentsim run` has written")
    real, told = served.read(measured, maps or (), unit), served.read(run)
    left = [
        f"{one.unfinished} requests of {one.name} that did not finish, or lack times or lengths, "
        "are left out"
        for one in (real, told) if one.unfinished
    ]  # fmt: skip
    real, told, said = matched(real, told)
    again = None
    if repeat is not None:
        first, again, more = matched(real, served.read(repeat, maps or (), unit))
        said += more
        if len(first) < len(real):
            again = None
            said.append("the second measured run has not all requests: no noise floor")
    others = []
    for path in also or ():
        first, other, _ = matched(real, served.read(path))
        if len(first) < len(real):
            raise InputError(f"{path}: not all requests of {run}; give a run of the same scenario")
        others.append(other)
    found = errors.compare(real, told, limits, again, others)
    found.notes[:0] = [*left, *said, *real.notes, *told.notes]
    late = waiting_line(real, told)
    found.notes += [late] if late else []
    _steps(found, measured, run, steps, profile, step_maps or (), unit)
    line = schedule_line(measured, run, steps or (), profile)
    found.notes += [line] if line else []
    if real.columns:
        typer.echo(f"columns of {measured}: {real.columns}")
    _print(found, limits)
    if out is not None:
        with replacing(out) as file:
            text = json.dumps(found.document(), indent=1, allow_nan=False) + "\n"
            file.write(text.encode())
        typer.echo(f"{out}")
    if plots is not None:
        from .validation.figures import draw

        try:
            plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{plots}: cannot be written: {error.strerror}") from None
        for path in draw(found, plots):
            typer.echo(f"{path}")
    if html is not None:
        from .page import write
        from .validation.page import page

        write(html, page(found))
        typer.echo(f"{html}")


def _steps(
    found: Comparison, measured: Path, run: Path, steps: list[Path] | None, profile: str | None,
    maps: list[str] | tuple[str, ...], unit: str | None,
) -> None:  # fmt: skip
    """Adds the errors of single steps, if the measured run's are there."""
    own = measured / "iterations.parquet"
    if not steps and not (measured.is_dir() and own.is_file()):
        return
    from .step_log import read_steps
    from .validation.forced import cost_model, forced

    try:
        cost = cost_model(run, profile)
    except InputError as error:
        if steps or profile:
            raise
        found.notes.append(f"no teacher-forced errors: {error.lines[0]}")
        return
    log = _log(steps, maps, unit, cost) if steps else read_steps([own], maps, unit)
    found.steps, real, told = forced(log, cost)
    found.notes += [f"steps: {note}" for note in log.notes]
    found.step_pairs = real, told


def _log(
    steps: list[Path], maps: list[str] | tuple[str, ...], unit: str | None, cost: object
) -> StepLog:
    """The step log; without maps, those by which the profile's own log was read come first."""
    from .step_cost import StepCost
    from .step_log import read_steps

    if not maps and isinstance(cost, StepCost):
        columns = cost.steps.log.get("columns")
        known = columns if isinstance(columns, dict) else {}
        try:
            return read_steps(steps, [f"{ours}={theirs}" for ours, theirs in known.items()], unit)
        except InputError:
            pass  # another kind of log
    return read_steps(steps, maps, unit)


def _print(found: Comparison, limits: dict[str, float]) -> None:
    from rich.console import Console

    from .step_show import residual_table
    from .validation.page import each_rows, metric_head, metric_rows

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    head: tuple[str, ...]
    console.print(_table(f"{len(found.measured):,} requests, simulated / measured - 1",
                         metric_head(found), metric_rows(found)))  # fmt: skip
    head = ("quantity", "KS distance", "median |error| a request", "p90")
    console.print(_table("Distributions, and requests one by one", head, each_rows(found)))
    if found.steps:
        title = "Steps, teacher-forced: predicted / measured - 1"
        console.print(residual_table(found.steps, title))
    for note in found.notes:
        said = note if note.startswith("schedule: ") else f"note: {note}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    outside = [row.metric for row in found.rows if row.verdict == "outside"]
    for name, key in (("step_median", "median"), ("step_p90", "p90")):
        if found.steps and name in limits and found.steps["all"][key] > limits[name] / 100.0:
            outside.append(name)
    console.print(f"outside its bar: {', '.join(outside)}" if outside else "all within their bars",
                  markup=False)  # fmt: skip


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> object:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
