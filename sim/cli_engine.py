"""`residentsim profile engine`: what an engine does around its kernels, from its step log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .cli_log import Maps, Name, Only, Pace, Quiet, Unit
from .errors import InputError, shown


def engine(
    steps: Annotated[
        list[Path],
        typer.Argument(metavar="STEPS...", help="The engine's log, as for profile fit."),
    ],
    scenario: Annotated[
        Path, typer.Option(help="Model, loop and kernels of the log; its profile of kernels.")
    ],
    out: Annotated[Path, typer.Option(help="The profile to write.")],
    maps: Maps = None,
    unit: Unit = None,
    only: Only = None,
    pace: Pace = "auto",
    prefill: Annotated[
        str, typer.Option(help="Prompts apart from decode, joint with it in one pass, or auto.")
    ] = "auto",
    prefill_kernels: Annotated[
        str, typer.Option(help="Their stages: library, fused, or auto.")
    ] = "auto",
    name: Name = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the scenario.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fit what an engine adds to its kernels; the kernels' own costs stay as they are.

    The scenario's hardware.profile is the profile of kernels that the terms go on top of.
    """
    from .engine import document
    from .engine_fit import Asked, fit_engine
    from .feasible import faults
    from .load import load
    from .profile import load_profile, shipped
    from .step_log import read_steps
    from .step_ratios import written_ratios
    from .trace.write import replacing

    for key, given, among in (
        ("--pace", pace, ("auto", "duration", "start")),
        ("--prefill", prefill, ("auto", "apart", "joint")),
        ("--prefill-kernels", prefill_kernels, ("auto", "library", "fused")),
    ):
        if given not in among:
            raise InputError(f"{key} {shown(given)}: choose {', '.join(among)}")
    chosen = load(scenario, sets or (), faults)
    over = chosen.hardware.profile
    below = load_profile(over)
    if below.steps is not None or below.engine is not None:
        what = f"{below.name} is of an engine already; name a profile of kernels"
        raise InputError(f"{scenario}: hardware.profile: {what}")
    log = read_steps(steps, maps or (), unit, only or ())
    asked = Asked(
        None if prefill == "auto" else prefill == "apart",
        None if prefill_kernels == "auto" else prefill_kernels,
    )
    found = fit_engine(chosen, below, log, pace, asked)
    named = over if over in shipped() else _seen_from(out, over)
    called = name or out.name.removesuffix(".json") or "engine"
    data = document(found.engine, called, named, written_ratios(found.ratios))
    files = {"files": [path.name for path in steps], "columns": log.names}
    data["log"] = files | data["log"] | {"rows": log.rows_read}
    data["notes"][:0] = log.notes
    data["residuals"] |= {f"kernels alone, {k}": v for k, v in found.before.items()}
    with replacing(out) as file:
        file.write((json.dumps(data, indent=1, allow_nan=False) + "\n").encode())
    if not quiet:
        from rich.console import Console

        from .engine_show import show

        console = Console()
        show(console if console.is_terminal else Console(width=120), load_profile(out))
    typer.echo(f"{out}")


def _seen_from(out: Path, path: str) -> str:
    """*path* as a file in the folder of *out* names it."""
    import os

    return os.path.relpath(path, out.parent)
