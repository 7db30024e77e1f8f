"""Figures of loop modes side by side: an iteration by stage, and a map of who wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .mode_study import MODES
from .panels import COLOURS
from .plots import STYLE
from .stage_account import ORCHESTRATION, PARTS, WORK
from .trace.write import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .mode_study import Cell, Split

WORK_COLOURS = dict(
    zip(WORK, ("#0072b2", "#56b4e9", "#009e73", "#8fd3b6", "#999999", "#d0d0d0", "#f0e442"),
        strict=True)
)  # fmt: skip
WAIT_COLOURS = dict(
    zip(ORCHESTRATION, ("#5b2a86", "#d55e00", "#e69f00", "#cc79a7", "#7a0000", "#000000"),
        strict=True)
)  # fmt: skip
OF_PART = WORK_COLOURS | WAIT_COLOURS
OF_MODE = {
    "host, Python": "#f2b48c",
    "host, C": COLOURS["host"],
    "graph": COLOURS["graph"],
    "control": COLOURS["control"],
    "resident": COLOURS["resident"],
}


def save(figure_of: Callable[[Figure], None], path: Path, size: tuple[float, float]) -> list[Path]:
    """Draws a figure of *size* inches as SVG and PNG beside *path*; returns both files."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    files = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
        figure_of(figure)
        for kind in ("svg", "png"):
            file = path.with_suffix(f".{kind}")
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
            with replacing(file) as temporary:
                figure.savefig(temporary, format=kind, dpi=160, metadata=metadata)
            files.append(file)
    return files


def by_stage(figure: Figure, splits: Sequence[Split], title: str) -> None:
    """Stacked bars, one a mode: work of the GPU first, what orchestration adds behind it."""
    whole, zoom = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    names = [split.mode + ("" if split.measured else " *") for split in splits]
    shown = [part for part in PARTS if any(abs(split.parts[part]) > 1e-9 for split in splits)]
    _bars(whole, splits, shown, names)
    _bars(zoom, splits, [part for part in shown if part in ORCHESTRATION], names)
    top = max(split.seconds for split in splits)
    for row, split in enumerate(splits):
        whole.text(split.seconds * 1e6, row, f" {split.seconds * 1e6:,.0f}", va="center")
        lost = sum(split.parts[part] for part in ORCHESTRATION)
        share = f" {lost * 1e6:,.0f} ({100 * lost / split.seconds:.1f} %)"
        zoom.text(max(lost, 0.0) * 1e6, row, share, va="center")
    whole.set_xlim(0, top * 1e6 * 1.13)
    zoom.margins(x=0.42)
    zoom.set_xlim(left=0)
    whole.invert_yaxis()
    whole.set_xlabel("one iteration (us)")
    zoom.set_xlabel("of it orchestration: no stage at work (us)")
    for axes in (whole, zoom):
        axes.grid(visible=False, axis="y")
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, fontsize=8)
    note = "\n* estimated: no whole step of that size was measured in this mode"
    title += "" if all(split.measured for split in splits) else note
    figure.suptitle(title, fontsize=9)


def _bars(axes: Axes, splits: Sequence[Split], parts: Sequence[str], names: list[str]) -> None:
    left = np.zeros(len(splits))
    for part in parts:
        times = np.array([split.parts[part] * 1e6 for split in splits])
        axes.barh(
            names, times, left=left, color=OF_PART[part], label=part, edgecolor="white",
            linewidth=0.4,
        )  # fmt: skip
        left += times


def winners(figure: Figure, cells: Sequence[Cell], title: str) -> None:
    """The fastest mode at each batch and context with its lead, and resident against graph."""
    left, right = figure.subplots(1, 2, sharey=True)
    batches = sorted({cell.batch for cell in cells})
    contexts = sorted({cell.context for cell in cells})
    place = {
        (cell.batch, cell.context): (batches.index(cell.batch), contexts.index(cell.context))
        for cell in cells
    }
    colours = np.ones((len(batches), len(contexts), 3))
    ratio = np.full((len(batches), len(contexts)), np.nan)
    from matplotlib.colors import to_rgb

    for cell in cells:
        at = place[cell.batch, cell.context]
        if not cell.seconds:
            for axes in (left, right):
                axes.text(at[1], at[0], "no room", ha="center", va="center", color="0.6", size=6.5)
            continue
        # The paler, the smaller the lead: at a tenth and more the colour is full.
        strength = 0.25 + 0.75 * min(1.0, cell.lead / 0.1)
        base = np.array(to_rgb(OF_MODE[cell.best]))
        colours[at] = 1.0 - strength * (1.0 - base)
        ink = "white" if strength > 0.6 else "black"
        said = _percent(cell.lead) + ("" if cell.measured else " *")
        left.text(at[1], at[0], said, ha="center", va="center", color=ink, size=7.5)
        ratio[at] = cell.seconds["resident"] / cell.seconds["graph"] - 1.0
        right.text(
            at[1], at[0], f"{100 * ratio[at]:+.1f}", ha="center", va="center", size=7.5,
            color="white" if abs(ratio[at]) > 0.15 else "black",
        )  # fmt: skip
    left.imshow(colours, aspect="auto", origin="lower")
    right.imshow(ratio, aspect="auto", origin="lower", cmap="PuOr", vmin=-0.25, vmax=0.25)
    seen = {cell.best for cell in cells if cell.seconds}
    from matplotlib.patches import Patch

    patches = [Patch(color=OF_MODE[name], label=name) for name in MODES if name in seen]
    left.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=5)
    left.set_title("fastest mode; the next one takes so many % longer", fontsize=9)
    right.set_title("resident against graph (%); below 0: resident is faster", fontsize=9)
    for axes in (left, right):
        axes.set_xticks(range(len(contexts)), [f"{context:,}" for context in contexts])
        axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
        axes.set_xlabel("context of each request (tokens)")
        axes.grid(visible=False)
    left.set_ylabel("requests in the batch")
    note = "leads below 3 % are within the model's error"
    if any(cell.seconds and not cell.measured for cell in cells):
        note += "; * estimated: no whole step of that size was measured"
    figure.suptitle(f"{title}\n{note}", fontsize=9)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}"
