"""`residentsim sweep`: every point of a study, on this machine or a cluster, then their table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .quantiles import Summary
    from .study import Point, Study
    from .sweeping import Backend, Failure, Outcome

MOST_SHOWN = 20
"""Causes of failures that are said one by one."""
MOST_ROWS = 200
"""Points that the table shows."""


def sweep(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="With a `sweep:` key.")],
    out: Annotated[Path | None, typer.Option(help="The study's folder; default runs/NAME.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Overrides a key of every point."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Worker processes; default: this machine's cores."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use this Dask scheduler, e.g. tcp://host:8786."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use this Ray cluster: auto, HOST:PORT, or local."),
    ] = None,
    gather: Annotated[
        bool, typer.Option("--gather", help="Fetch results even from workers that see OUT.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what there is to do and about how long, and end.")
    ] = False,
    plots: Annotated[bool, typer.Option(help="Draw the study's figures, SVG and PNG.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Run every point of a study, or its search, and compare them; what is there is not run again.

    Points are computed by worker processes, as many as this machine has cores; each takes the
    memory of one `residentsim run`, so give fewer --jobs where that is scarce. A sweep that was
    killed goes on with what is missing. A point that fails, or ends its process three times in
    company and once alone, is recorded in OUT/failures and tried again the next time; the others
    go on. The exit code is then 2 if the input is at fault in all that failed, else 1.

    With --dask the workers are those of a Dask cluster: start `dask scheduler`, then on each
    machine `dask worker tcp://HOST:8786 --nworkers N --nthreads 1`. On SLURM, dask-jobqueue starts
    both: `SLURMCluster(cores=1, processes=1, memory="8GiB")`, then its `scale(jobs=100)`, and its
    `scheduler_address` is the ADDRESS. Workers need the same residentsim, and traces and profiles
    under the same names. Those that see OUT write into it; from the others results are fetched.
    """
    from .feasible import faults
    from .plan import plan
    from .randomness import idle_seeds
    from .study import load_study
    from .sweeping import run_study

    backend = backend_of(jobs, dask, ray, gather)
    chosen = load_study(study, sets or (), faults)
    points = chosen.points
    records = all(point.scenario.record.iterations for point in points)
    if plots and chosen.search is None and not records:
        raise InputError("--plots: figures need record.iterations: true; add --no-plots")
    _say([*warnings(points), *idle_seeds(chosen)])
    folder = out or Path("runs") / chosen.name
    if plan_only or not quiet:
        for line in plan(chosen, folder, getattr(backend, "jobs", None)):
            typer.echo(line, err=not plan_only)
    if plan_only:
        return
    if chosen.search is not None:
        _search(study, sets or (), folder, backend, plots, quiet)
        return
    try:
        outcome = run_study(chosen, folder, backend=backend, quiet=quiet)
    except (KeyboardInterrupt, SystemExit):
        _say([f"stopped; finished points stay in {folder}: sweep again to go on"])
        raise
    if outcome.done:
        _show(chosen, outcome, folder, plots, quiet)
    _say(failures(outcome.failed, len(points), folder))
    typer.echo(f"{folder}")
    if outcome.failed:
        raise typer.Exit(outcome.exit_code)


def _search(
    study: Path, sets: Sequence[str], folder: Path, backend: Backend, plots: bool, quiet: bool
) -> None:
    """The search of a study that has one: every probe is a point of *folder*."""
    from .search.command import sweep_search
    from .sweeping import Outcome

    try:
        failed = sweep_search(study, sets, folder, backend, plots=plots, quiet=quiet)
    except (KeyboardInterrupt, SystemExit):
        _say([f"stopped; finished probes stay in {folder}: sweep again to go on"])
        raise
    _say(failures(failed, len(failed), folder))
    typer.echo(f"{folder}")
    if failed:
        raise typer.Exit(Outcome([], failed).exit_code)


def backend_of(
    jobs: int | None = None, dask: str | None = None, ray: str | None = None, gather: bool = False
) -> Backend:
    """What the options of a command choose; `InputError` if they do not go together."""
    given = {"--jobs": jobs, "--dask": dask, "--ray": ray}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InputError(f"{named[0]}: not together with {named[1]}; choose one of them")
    if gather and not (dask or ray):
        raise InputError("--gather: only with --dask or --ray; workers here write in place")
    if dask is not None:
        from .sweeping.dask_cluster import Dask

        return Dask(dask, gather)
    if ray is not None:
        from .sweeping.ray_cluster import Ray

        return Ray(ray, gather)
    from .sweeping.local import Local, cores

    return Local(jobs or cores())


def _show(study: Study, outcome: Outcome, folder: Path, plots: bool, quiet: bool) -> None:
    """What is to be said of the points that are done, their figures and their table."""
    from .result import read_summary
    from .runs import read_study
    from .study_table import print_cells, print_study
    from .sweeping import point_id, read_records
    from .trace_record import remarks

    shown = set(outcome.done[:MOST_ROWS])
    summaries = {}
    for name in outcome.done:  # all, to find a damaged one
        summary = read_summary(folder / "points" / name)
        if name in shown:
            summaries[name] = _slim(summary, study)
    _say(merged(remarks(record) for record in read_records(outcome.done, folder)))
    if plots:
        from .plots import draw

        draw(folder, folder / "figures")
    if quiet:
        return
    if study.seeds > 1:
        results = read_study(folder)
        print_cells(results, MOST_ROWS, lambda run: _slim(run.summary, study))
        left = len(results.cells) - MOST_ROWS
    else:
        named = [(point.axes, point_id(point.scenario)) for point in study.points]
        there = [(axes, summaries[name]) for axes, name in named if name in summaries]
        print_study([axes for axes, _ in there], [summary for _, summary in there])
        left = len(outcome.done) - len(shown)
    if left > 0:
        typer.echo(f"and {left:,} more points; `residentsim report {folder}` is about them all")


def _slim(summary: Summary, study: Study) -> Summary:
    """*summary* without its nested parts, which no table shows; there may be thousands of them.

    With cost and energy, if the *study* has prices or a power model.
    """
    from .economics import of_summary

    given = study.prices is not None or study.power is not None
    priced = of_summary(summary, study.prices, study.power) if given else {}
    return priced | {
        key: value
        for key, value in summary.items()
        if key.startswith("cost_") or not isinstance(value, dict | list)
    }


def failures(failed: Sequence[Failure], points: int, folder: Path) -> list[str]:
    """What to say of *failed* points of as many as *points*: each cause once, with where it is."""
    causes: dict[str, list[Failure]] = {}
    for failure in failed:
        causes.setdefault(failure.what, []).append(failure)
    lines = []
    for what, alike in list(causes.items())[:MOST_SHOWN]:
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        lines.append(f"failed: {alike[0].where}{more}: {what}")
    if len(causes) > MOST_SHOWN:
        lines.append(f"failed: {len(causes) - MOST_SHOWN} other causes")
    if failed:
        what = f"{len(failed)} of {points} points failed; tracebacks are in {folder / 'failures'}"
        lines.append(f"{what}; sweep again to try them again")
    return lines


def warnings(points: Sequence[Point]) -> list[str]:
    """The warnings about the scenarios of *points*."""
    from .feasible import warnings as warnings_of

    return merged([f"warning: {line}" for line in warnings_of(p.scenario)] for p in points)


def merged(said: Iterable[Sequence[str]]) -> list[str]:
    """Each line *said* of some points once, with the number of points it is about if not all."""
    counts: Counter[str] = Counter()
    total = 0
    for lines in said:
        counts.update(lines)
        total += 1
    return [
        line if count == total else f"{line} ({count} of {total} points)"
        for line, count in counts.items()
    ]


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)
