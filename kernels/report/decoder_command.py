"""Options of `python -m kernels report-decoder`; what it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fit.samples import SamplesError

if TYPE_CHECKING:
    import argparse


def add_report_decoder(commands: Any) -> None:
    """Adds the command `report-decoder` to the parser's *commands*."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report-decoder",
        help="tables and pictures of whole decode steps: the ladder, the map, the lost time",
        description="Writes OUT/README.md and its pictures. The same input gives the same "
        "bytes; needs no GPU.",
    )
    parser.add_argument(
        "--steps", type=Path, nargs="+", metavar="FILE", required=True,
        help="records of measured decode steps (JSON lines); a later file replaces an earlier one",
    )  # fmt: skip
    parser.add_argument("--profile", type=Path, metavar="FILE", required=True,
                        help="the profile, for the read ceiling")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--predicted", type=Path, metavar="FILE",
                        help="predicted decode steps (JSON)")  # fmt: skip
    parser.add_argument("--timeline", type=Path, metavar="FILE",
                        help="timeline of a resident step, from `decode --timeline`")  # fmt: skip


def run_report_decoder(arguments: argparse.Namespace) -> int:
    """Writes the report; 0, or raises `SamplesError` in one line."""
    # Here, for the other commands of this package do without matplotlib.
    from ..decoder.account import read_ceiling
    from .decoder_make import write
    from .decoder_steps import read_steps

    try:
        ceiling = read_ceiling(arguments.profile)
    except OSError as error:
        raise SamplesError(f"{arguments.profile}: {error.strerror}; give the profile") from None
    except ValueError as error:
        raise SamplesError(f"{arguments.profile}: {str(error)[:160]}") from None
    steps = read_steps(arguments.steps, ceiling, arguments.predicted)
    timeline = _timeline(arguments.timeline) if arguments.timeline else None
    out: Path = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = write(steps, timeline, out)
    except OSError as error:
        raise SamplesError(f"{out}: {error.strerror}") from None
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")
    return 0


def _timeline(path: Path) -> Any:
    """A timeline's document; raises `SamplesError`, one line, if it is none."""
    from ..decoder.timeline import read

    try:
        return read(path)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    raise SamplesError(f"{path}: no timeline: {reason[:160]}")
