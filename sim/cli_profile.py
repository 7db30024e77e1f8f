"""`residentsim profile`: show a profile, fit one to an engine's steps (`cli_fit`, `cli_engine`), or
derive one.

`python -m kernels bench` writes a measured one of kernels.

Typer application, mounted by the main command line. Raises `InputError`, which that prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_engine import engine
from .cli_fit import fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.table import Table

    from .profile import Kernel, Profile
    from .profile_loops import Loop

app = typer.Typer(help="Show, fit or derive a profile.", no_args_is_help=True)


@app.callback()
def profile() -> None:
    """Show, fit or derive a profile."""


app.command()(fit)
app.command()(engine)


@app.command()
def show(
    profile: Annotated[
        str, typer.Argument(metavar="[NAME|PATH]", help="A shipped profile, or a file.")
    ] = "nvidia-h200",
) -> None:
    """Show device, constants, kernels with held-out residuals, and checks of a profile."""
    from rich.console import Console

    from .profile import load_profile

    loaded, console = load_profile(profile), Console()
    if not console.is_terminal:
        console = Console(width=140)
    if loaded.steps is not None:
        from .step_show import show as show_steps

        show_steps(console, loaded)
        return
    if loaded.engine is not None:
        from .engine_show import show as show_engine

        show_engine(console, loaded)
        return
    _heading(console, loaded)
    tables = [_constants(loaded), _kernels("Kernels", loaded.kernels)]
    if loaded.loops:
        tables += [_loops(loaded), _kernels("Kernels inside a decode step", loaded.in_step)]
    for table in (*tables, _residuals(loaded), _checks(loaded)):
        console.print(table)
    _notes(console, loaded)


@app.command()
def derive(
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Where the profile goes.")],
    spec: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A shipped data sheet, or a JSON file of one.")
    ],
    base: Annotated[
        str, typer.Option("--from", metavar="NAME|PATH", help="The measured profile to scale.")
    ] = "nvidia-h200",
) -> None:
    """Scale a measured profile to another GPU by its data sheet; all of it is estimated."""
    import json

    from .errors import InputError
    from .profile import load_profile
    from .profile_derive import derived
    from .profile_files import profile_document, read_sheet
    from .trace.write import replacing

    if out.suffix != ".json":
        raise InputError(f"{out}: a profile's name ends in .json; choose another --out")
    if out.exists():
        raise InputError(f"{out}: exists already; choose another --out")
    document, place = read_sheet(spec)
    made = derived(document, profile_document(base), place)
    with replacing(out) as temporary:
        temporary.write(json.dumps(made, indent=1).encode() + b"\n")
    loaded = load_profile(out)
    typer.echo(f"{out}: profile {loaded.name} ({loaded.hash}), {loaded.status} from {base}")


def _heading(console: Console, profile: Profile) -> None:
    """Name, status in clear, device."""
    device = profile.device
    marks = device.get("kinds")
    kinds = marks if isinstance(marks, dict) else {}
    console.print(f"profile {profile.name} ({profile.hash}), {profile.date}", markup=False)
    console.print(f"status: {profile.status.upper()}", style="bold", markup=False)
    for key, value in device.items():
        if key != "kinds":
            mark = f" ({kinds[key]})" if key in kinds else ""
            console.print(f"  {key}: {value}{mark}", markup=False, highlight=False)
    names = profile.estimated()
    console.print(f"estimated, measured by nobody: {', '.join(names) or 'nothing'}", markup=False)


def _table(title: str, columns: Iterable[str]) -> Table:
    """An empty table; columns whose name ends in a dot are numbers, aligned right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        right = name.endswith(".")
        table.add_column(name.rstrip("."), justify="right" if right else "left", overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    """Add *cells* as plain text: a bracket in a file is no markup."""
    from rich.text import Text

    table.add_row(*(Text(str(cell)) for cell in cells))


def _constants(profile: Profile) -> Table:
    table = _table("Constants", ("constant", "value.", "unit", "kind", "source"))
    for name, entry in profile.constants.items():
        _row(table, name, f"{entry.value:.6g}", entry.unit, entry.kind, entry.source)
    return table


def _kernels(title: str, kernels: Mapping[str, Kernel]) -> Table:
    table = _table(title, ("kernel", "form", "kind", "source", "parameters", "domain"))
    for name, entry in kernels.items():
        parameters = "\n".join(f"{key} {value:.6g}" for key, value in entry.parameters.items())
        domain = "\n".join(f"{key} {low:g}..{high:g}" for key, (low, high) in entry.domain.items())
        _row(table, name, entry.form_name, entry.kind, entry.source, parameters, domain)
    return table


def _loops(profile: Profile) -> Table:
    title = "Loops: constants of whole decode steps, by mode and kernel set"
    table = _table(title, ("loop", "kind", "source", "parameters", "domain"))
    for name, entry in profile.loops.items():
        parameters = "\n".join(f"{key} {value:.6g}" for key, value in entry.parameters.items())
        domain = "\n".join(f"{key} {low:g}..{high:g}" for key, (low, high) in entry.domain.items())
        _row(table, name, entry.kind, entry.source, parameters, domain)
    return table


def _residuals(profile: Profile) -> Table:
    title = (
        "Residuals |predicted / measured - 1|; holdout and frontier on rows the fit has not seen"
    )
    table = _table(title, ("kernel", "rows", "n.", "median.", "p90.", "max.", "signed median."))
    rows: list[tuple[str, Kernel | Loop]] = [*profile.kernels.items(), *profile.loops.items()]
    for name, entry in rows:
        for label, figures in _flat(entry.residuals):
            errors = (_percent(figures.get(key)) for key in ("median", "p90", "max"))
            signed = _percent(figures.get("signed_median"))
            _row(table, name, label, figures.get("n", ""), *errors, signed)
    return table


def _flat(residuals: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(label, figures) of each set of residuals, those within groups too."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for label, entry in residuals.items():
        if isinstance(entry, dict) and "n" in entry:
            found.append((label, entry))
        elif isinstance(entry, dict):
            inner = ((key, figures) for key, figures in entry.items() if isinstance(figures, dict))
            found += [(f"{label}: {key}", figures) for key, figures in inner]
    return found


def _percent(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else ""


def _checks(profile: Profile) -> Table:
    title = "Checks: whole decode steps, measured beside predicted from the kernels"
    table = _table(title, ("check", "measured, us.", "predicted, us.", "error.", "source"))
    for entry in profile.checks:
        measured, predicted = (entry[key] * 1e6 for key in ("measured_s", "predicted_s"))
        error = f"{entry['relative_error']:+.1%}"
        cells = (entry["name"], f"{measured:.1f}", f"{predicted:.1f}", error)
        _row(table, *cells, entry.get("source", ""))
    return table


def _notes(console: Console, profile: Profile) -> None:
    """Notes of constants and kernels, then the sources."""
    notes = [(name, entry.note) for name, entry in profile.constants.items()]
    notes += [(name, loop.note) for name, loop in profile.loops.items()]
    for name, kernel in [*profile.kernels.items(), *profile.in_step.items()]:
        notes.append((name, kernel.note))
        notes += [(f"{name}.{key}", entry["note"]) for key, entry in kernel.fixed.items()]
    for title, lines in (("Notes", notes), ("Sources", [*profile.sources.items()])):
        console.print(f"\n{title}", style="bold")
        for name, text in lines:
            console.print(f"  {name}: {text}", markup=False, highlight=False)
