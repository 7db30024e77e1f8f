"""Options of commands that read an engine's step log: which columns, units and rows."""

from __future__ import annotations

from typing import Annotated

import typer

Maps = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="OUR=THEIRS", help="A column, e.g. duration_s=lat[ms]."),
]
Unit = Annotated[str | None, typer.Option(help="Of times whose name has none: s, ms, us, ns.")]
Only = Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only these rows.")]
Pace = Annotated[
    str, typer.Option(help="A step lasts as logged (duration), to the next (start), or auto.")
]
Name = Annotated[str | None, typer.Option(help="The profile's; default: of the file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No tables.")]
