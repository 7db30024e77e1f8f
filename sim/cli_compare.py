"""`residentsim compare`: why two runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's folder, or a study's.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run compared with it.")],
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All of it as JSON.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the figures there, SVG and PNG.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on the console.")] = False,
) -> None:
    """Explain the difference between two runs: which metrics moved, which scenario keys differ,
    and where the time went, in parts that add up. Of studies, the points that both have."""
    from .compare import compare as compared
    from .compare.console import show, show_studies
    from .compare.studies import are_studies, compare_studies

    if are_studies(run_a, run_b):
        if plots is not None:
            raise InputError("--plots: figures are of two runs; name two points of the studies")
        studies = compare_studies(run_a, run_b)
        if json_ is not None:
            _write(json_, studies.data())
        if not quiet:
            show_studies(studies)
        return
    found = compared(run_a, run_b)
    if json_ is not None:
        _write(json_, found.data())
    if plots is not None:
        from .compare.figures import draw

        draw(found, plots)
    if not quiet:
        show(found)


def _write(path: Path, data: dict[str, object]) -> None:
    import json

    from .trace.write import replacing

    with replacing(path) as file:
        file.write(json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")
