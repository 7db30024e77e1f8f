"""Figures from results folders, as SVG and PNG; same results, same bytes.

One rule: the figures of a folder are those of its report, whoever asks for them. What was simulated
says so in its title.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .panels import DIM, INK, PAPER
from .trace.write import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "residentsim",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_PAGE: dict[Any, Any] = STYLE | {
    "text.parse_math": False,  # names come from users and may hold a $
    "axes.formatter.use_mathtext": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
HALF, WHOLE = 4.9, 9.8
"""Inches across: beside another figure, and alone."""


@dataclass(frozen=True)
class Picture:
    """A figure of a folder: its file's *name*, what it shows, how it is read, and its inches."""

    name: str
    title: str
    says: str
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (HALF, 3.6)
    on_page: bool = True
    """Whether the report shows it; else it is a file alone."""

    @property
    def wide(self) -> bool:
        """Whether it needs the page's whole width."""
        return self.size[0] > HALF


def svg_of(picture: Picture, source: str) -> tuple[bytes, bytes]:
    """*picture*, which rests on *source*, as SVG and as PNG.

    Raises `InputError` if the records that it needs are damaged.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_PAGE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters the font has not
        figure = Figure(figsize=picture.size)
        _head(figure, picture.title, source)
        picture.draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": None}
        figure.savefig(svg, format="svg", metadata=metadata)
        figure.set_layout_engine("none")  # it is laid out
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def _head(figure: Figure, title: str, source: str) -> None:
    """*title* in bold above what the figure rests on, which keeps room for both."""
    width, height = figure.get_size_inches()
    bold, dim = fill(title, int(10.5 * width)), fill(source, int(15 * width))
    room = "\n" * (bold.count("\n") + 1)
    top = 1.0 - 0.05 / height
    figure.suptitle(room + dim, x=0.07 / width, ha="left", fontsize=7.5, linespacing=1.5,
                    color=DIM)  # fmt: skip
    figure.text(0.07 / width, top, bold, ha="left", va="top", fontsize=9.5, fontweight="bold",
                linespacing=1.2)  # fmt: skip


def draw(folder: Path, out: Path) -> list[Path]:
    """The figures of the run or the study in *folder* into *out*; returns the files.

    Raises `InputError` if *folder* is damaged or *out* cannot be written.
    """
    from .report.courses import recorded
    from .report.pictures import pictures, source
    from .report.view import View
    from .runs import read_study

    view = View(read_study(folder))
    for cell in view.alike if view.cells else ():
        if not recorded(cell.runs[0]):
            missing = cell.runs[0].folder / "iterations.parquet"
            raise InputError(f"{missing}: no such file; figures need record.iterations: true")
    drawn = {picture.name: svg_of(picture, source(view)) for picture in pictures(view)}
    return save(drawn, out)


def save(drawn: Mapping[str, tuple[bytes, bytes]], out: Path) -> list[Path]:
    """Writes SVG and PNG of each figure into *out*; returns the files.

    Raises `InputError` if they cannot be written.
    """
    ready(out)
    written = []
    for name, kinds in drawn.items():
        for kind, data in zip(("svg", "png"), kinds, strict=True):
            path = out / f"{name}.{kind}"
            with replacing(path) as file:
                file.write(data)
            written.append(path)
    return written


def ready(out: Path) -> None:
    """Makes the folder *out*; `InputError` if it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None
