"""`residentsim report` and `residentsim plot`: a folder's page, and its figures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder or a study's.")]


def report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The page; default DIR/report.html.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of SVG and PNG; default beside the page.")
    ] = None,
) -> None:
    """Write one page about a run or a study: the answer first, then table, figures and sources.

    It opens from disk, fetches nothing, runs nothing, and prints. The figures are also files.
    """
    from .report.write import write_report

    page = out or folder / "report.html"
    write_report(folder, page, figures or page.parent / "figures")
    typer.echo(f"{page}")


def plot(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Default: DIR/figures.")] = None,
) -> None:
    """Draw the figures of a run or a study again, as SVG and PNG; `report` has them in a page."""
    from .plots import draw

    for path in draw(folder, out or folder / "figures"):
        typer.echo(f"{path}")
