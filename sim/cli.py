"""The commands: thin, and heavy imports happen inside the command that needs them.

Exit codes: 0 done, 2 the user's input is at fault (each finding one line on stderr), 1 ours.
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_compare import compare
from .cli_modes import modes
from .cli_profile import app as profile_app
from .cli_report import plot, report
from .cli_seeds import seeds
from .cli_sweep import sweep, warnings
from .cli_timeline import timeline
from .cli_trace import app as trace_app
from .cli_validate import validate
from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

app = typer.Typer(
    name="residentsim",
    help="Simulates LLM serving on a GPU whose decode loop is launched by the host, replayed as "
    "a CUDA graph, or stays resident. Start with: residentsim run scenarios/smallest.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(trace_app, name="trace", help="Look at, convert and generate traces.")
app.command()(modes)
app.command()(seeds)
app.command()(sweep)
app.command()(report)
app.command()(plot)
app.command()(timeline)
app.command()(compare)
app.command()(validate)
app.add_typer(profile_app, name="profile", help="What a profile holds; fit or derive one.")

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="A scenario file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Overrides a key, e.g. loop.mode=resident."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"residentsim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    """What every command takes."""


@app.command()
def run(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; default runs/NAME-HASH.")
    ] = None,
    sets: Sets = None,
    engine: Annotated[
        str, typer.Option(help="leap (fast) or step (one event an iteration); same results.")
    ] = "leap",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run that is there already.")
    ] = False,
    plots: Annotated[bool, typer.Option(help="Draw the run's figures, SVG and PNG.")] = False,
    quiet: Quiet = False,
) -> None:
    """Replay a trace through one scenario and write its records, summary and figures."""
    from .economics import line
    from .feasible import faults, warnings
    from .load import load_run
    from .result import new_folder, read_json
    from .simulate import run as simulate
    from .tables import print_summary
    from .trace_record import lines, remarks
    from .watch import watched

    if engine not in ("leap", "step"):
        raise InputError(f"--engine {engine}: no such engine; choose leap or step")
    chosen, sections = load_run(scenario, sets or (), faults)
    if plots and not chosen.record.iterations:
        raise InputError("--plots: figures need record.iterations: true; set it or leave --plots")
    _say(f"warning: {text}" for text in warnings(chosen))
    path = out or Path("runs") / f"{chosen.name}-{chosen.hash}"
    with new_folder(path, force) as folder:
        with watched(chosen, quiet) as progress:
            summary = simulate(chosen, folder, engine, progress)
        if plots:
            from .plots import draw

            draw(folder, folder / "figures")
    record = read_json(path / "trace.json")
    _say(remarks(record))
    if not quiet:
        print_summary(summary, lines(record))
        if said := line(summary, sections.get("prices"), sections.get("power")):
            typer.echo(said)
    typer.echo(f"{path}")


@app.command()
def check(scenario: ScenarioFile, sets: Sets = None) -> None:
    """Report every error of a scenario or study as file:line:column: path: what; how to mend."""
    from .feasible import faults
    from .fleet import hbm_blocks
    from .profile import load_profile
    from .randomness import idle_seeds
    from .study import load_study
    from .units import count_text

    study = load_study(scenario, sets or (), faults)
    points = study.points
    _say([*warnings(points), *idle_seeds(study)])
    scenarios = [point.scenario for point in points]
    blocks = {hbm_blocks(one, load_profile(one.hardware.profile)) for one in scenarios}
    room = ", ".join(count_text(n) for n in sorted(blocks))
    seeds = f" x {study.seeds} seeds" if study.seeds > 1 else ""
    count = f"{len(points) // study.seeds} point(s){seeds}"
    typer.echo(f"{scenario}: {count}, valid; room for {room} KV blocks in HBM")


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)


#: The machine, not the program, refuses: no room, no right, or a broken disk.
_REFUSED = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM,
    errno.ENAMETOOLONG,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> Any:
    """The entry point: turns `InputError` into lines on stderr and exit code 2."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):  # so that every `finally` runs
            signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    try:
        return app(arguments)
    except InputError as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        print(f"{error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
