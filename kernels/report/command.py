"""Options of `python -m kernels report` and what they set going."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fit.samples import SamplesError, read
from .document import build
from .draw_copies import draw_copies, draw_interference
from .draw_kernels import draw_family, draw_streams
from .draw_topk import draw_topk
from .families import FAMILIES
from .inputs import gather, read_predicted, read_profile
from .public import read_public
from .style import save
from .target_list import TARGETS
from .targets import judge

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from .inputs import Evidence

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


def write(evidence: Evidence, out: Path) -> list[Path]:
    """Draws what there is into *out* and writes the text; returns the files."""
    files = []
    for name, size, draw in _pictures(evidence):
        path = out / f"{name}.png"
        save(path, size, draw)
        files.append(path)
    rows = judge(TARGETS, evidence)
    text = build(evidence, rows, [], {file.name for file in files})
    document = out / "README.md"
    document.write_text(text, encoding="utf-8")
    return [document, *files]


def _pictures(
    evidence: Evidence,
) -> list[tuple[str, tuple[float, float], Callable[[Figure], None]]]:
    """(name, inches, drawing) of the pictures for which there are samples."""
    samples = evidence.samples
    found: list[tuple[str, tuple[float, float], Callable[[Figure], None]]] = [
        (family.name, (12.0, 4.6), lambda figure, f=family: draw_family(figure, f, evidence))
        for family in FAMILIES
        if family.points(evidence)
    ]
    if any(not point.axes.get("cold") for point in samples.of("topk_select")):
        found.append(("topk", (14.0, 4.6), lambda figure: draw_topk(figure, evidence)))
    if samples.named("tier_copy", "copy_engine") or samples.named("tier_copy", "gather"):
        found.append(("copies", (11.0, 7.0), lambda figure: draw_copies(figure, evidence)))
    if samples.named("tier_copy", "interference") or samples.named("tier_copy", "file_read"):
        found.append(
            ("interference", (12.0, 5.0), lambda figure: draw_interference(figure, evidence))
        )
    if samples.of("streams"):
        found.append(("streams", (13.0, 4.0), lambda figure: draw_streams(figure, evidence)))
    return found
