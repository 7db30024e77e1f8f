"""Options of `python -m kernels report`; what it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fit.samples import SamplesError, read

if TYPE_CHECKING:
    import argparse

PUBLIC = Path(__file__).parents[2] / "calibration" / "h200_public_refs.csv"


def add_report(commands: Any) -> None:
    """Adds the command `report` to the parser's *commands*."""
    options(
        commands.add_parser(
            "report",
            help="tables and pictures of a run: targets, fits, residuals, roofline, the loop",
            description="Writes OUT/README.md and its pictures. The same input gives the same "
            "bytes; needs no GPU.",
        )
    )


def options(parser: argparse.ArgumentParser) -> None:
    """Adds the options to *parser*."""
    parser.add_argument("--samples", type=Path, metavar="FILE", required=True)
    parser.add_argument("--profile", type=Path, metavar="FILE", required=True)
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument(
        "--predicted", type=Path, metavar="FILE", help="predicted decode steps (JSON records)"
    )
    parser.add_argument(
        "--public", type=Path, metavar="FILE", default=PUBLIC, help="table of public kernel times"
    )


def run_report(arguments: argparse.Namespace) -> int:
    """Writes the report; 0, or raises `SamplesError` in one line."""
    # Here, for the other commands of this package do without SciPy and matplotlib.
    from .inputs import gather, read_predicted, read_profile
    from .make import write
    from .public import read_public

    evidence = gather(
        read(arguments.samples),
        read_profile(arguments.profile),
        read_public(arguments.public),
        read_predicted(arguments.predicted),
    )
    out: Path = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = write(evidence, out)
    except OSError as error:
        raise SamplesError(f"{out}: {error.strerror}") from None
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")
    return 0
