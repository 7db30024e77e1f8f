"""`residentsim profile fit`: a step-level profile from the step log of any engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_log import Maps, Name, Only, Pace, Quiet, Unit
from .errors import InputError, shown

if TYPE_CHECKING:
    from .step_log import StepLog


def fit(
    steps: Annotated[
        list[Path],
        typer.Argument(metavar="STEPS...", help="Parquet, CSV, JSONL, JSON (.gz), or a run."),
    ],
    out: Annotated[Path, typer.Option(help="The profile to write.")],
    maps: Maps = None,
    map_file: Annotated[
        Path | None, typer.Option(help="A file with a map a line, our=theirs.")
    ] = None,
    unit: Unit = None,
    only: Only = None,
    captured: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Sizes decode batches are padded to, or none."),
    ] = None,
    pace: Pace = "auto",
    name: Name = None,
    mode: Annotated[str, typer.Option(help="loop.mode of the log.")] = "engine",
    hold_out: Annotated[
        list[Path] | None, typer.Option(help="Another run's log, only to judge the fit on.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for figures.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fit a step-level profile to an engine's step log, with errors on held-out steps."""
    from .profile import load_profile
    from .step_fit import fit_steps
    from .step_log import read_steps
    from .step_profile import MODES, document
    from .trace.write import replacing

    if mode not in MODES:
        raise InputError(f"--mode {shown(mode)}: choose {', '.join(MODES)}")
    if pace not in ("auto", "duration", "start"):
        raise InputError(f"--pace {shown(pace)}: choose auto, duration or start")
    all_maps = [*_lines(map_file), *(maps or ())]
    sizes = _sizes(captured)
    log = read_steps(steps, all_maps, unit, only or ())
    found = fit_steps(log, sizes, pace)
    found.notes[:0] = log.notes
    from_ = {"files": [path.name for path in steps], "rows": log.rows_read, "columns": log.names}
    data = document(found, name or _named(out), mode, from_)
    judged = None
    if hold_out:
        judged = _judged(read_steps(hold_out, all_maps, unit, only or ()), found.form, pace)
        data["residuals"] |= {f"other run, {region}": v for region, v in judged.items()}
    with replacing(out) as file:
        file.write((json.dumps(data, indent=1, allow_nan=False) + "\n").encode())
    profile = load_profile(Path(out))
    if not quiet:
        from rich.console import Console

        from .step_show import show

        console = Console()
        show(console if console.is_terminal else Console(width=120), profile)
    if plots is not None:
        from .step_panels import draw
        from .step_ready import load_of

        _folder(plots)
        assert found.log is not None
        for path in draw(load_of(found.log), found.measured, found.predicted, plots, profile.name):
            typer.echo(f"{path}")
    typer.echo(f"{out}")


def _judged(log: StepLog, form: object, basis: str) -> dict[str, dict[str, float]]:
    """Errors of *form* on another run's steps."""
    import numpy as np

    from .step_form import Form
    from .step_ready import load_of, prepared
    from .step_residuals import residuals

    assert isinstance(form, Form)
    chosen, seconds, _, _ = prepared(log, basis)
    load = load_of(chosen)
    found: dict[str, dict[str, float]] = residuals(load, form.seconds(load), np.asarray(seconds))
    return found


def _lines(path: Path | None) -> list[str]:
    """The maps in a file: a line each, empty ones and comments left out."""
    if path is None:
        return []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    kept = [line.partition("#")[0].strip() for line in lines]
    for number, line in enumerate(kept, 1):
        if line and "=" not in line:
            raise InputError(f"{path}:{number}: {shown(line)}; write our=theirs")
    return [line for line in kept if line]


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if text.strip() == "none":
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) < 100_000 for word in words):
        raise InputError(f"--captured {shown(text)}: write batch sizes with commas, or none")
    return sorted({int(word) for word in words})


def _named(out: Path) -> str:
    return out.name.removesuffix(".json") or "engine"


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
