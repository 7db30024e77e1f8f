"""Figures of the judged predictions: errors against their bars, distributions, single requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.blind_judge import BARS
from bench.blind_rounds import AGAIN
from sim.mode_figures import save
from sim.validation.errors import pooled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.validation.served import Served

    Pairs = dict[str, tuple[Served, Served]]

NAMES = {
    "output_throughput": "throughput", "mean_tpot_ms": "TPOT mean", "p99_itl_ms": "ITL p99",
    "median_ttft_ms": "TTFT p50", "p90_ttft_ms": "TTFT p90", "p99_ttft_ms": "TTFT p99",
}  # fmt: skip
COLUMNS = 4
"""Of the panels of single requests."""
COLOURS = 64
MEASURED, SIMULATED, MISSED = "#000000", "#d55e00", "#cc0033"


def draw(found: dict[str, Any], pairs: Pairs, out: Path) -> None:
    """All figures as PNG in *out*; distributions only with *pairs*."""
    height = 1.6 + 0.24 * len(found["rows"])
    _png(lambda figure: errors(figure, found["rows"]), out / "errors", (11.0, height))
    shown = [drawn(found, engine, pairs) for engine in engines(found, pairs)]
    for own in shown:
        these = {name: pairs[name] for name in own}
        size = 10.0, 0.6 + 1.9 * len(these)
        path = out / f"cdf-{engine_of(found, own[0])}"
        _png(lambda figure, these=these: cdfs(figure, these), path, size)
    if shown:
        each = {own[min(1, len(own) - 1)]: pairs[own[min(1, len(own) - 1)]] for own in shown}
        size = 11.0, 2.6 * -(-len(each) // COLUMNS)
        _png(lambda figure: scatter(figure, each), out / "requests", size)


def drawn(found: dict[str, Any], engine: str, recorded: Iterable[str]) -> list[str]:
    """Up to three first runs of an *engine*: at the least, the most promised and the most load."""
    loads = {row["cell"]: row["load"] for row in found["rows"]}
    promised = {row["cell"] for row in found["rows"] if row["promised"]}
    own = [name for name in recorded if engine_of(found, name) == engine]
    first = {name.partition(AGAIN)[0]: name for name in reversed(own)}
    order = sorted(first, key=lambda cell: loads[cell])
    kept = [order[0], *[cell for cell in order if cell in promised][-1:], order[-1]]
    return [first[cell] for cell in dict.fromkeys(kept)]


def engine_of(found: dict[str, Any], run: str) -> str:
    """The configuration of a recorded *run*."""
    name: str = found["engines"][run.partition(AGAIN)[0]]
    return name


def engines(found: dict[str, Any], recorded: Iterable[str]) -> list[str]:
    """The configurations of *recorded* runs, each once."""
    return list(dict.fromkeys(engine_of(found, name) for name in recorded))


def _png(figure_of: Any, path: Path, size: tuple[float, float]) -> None:
    for file in save(figure_of, path, size):
        if file.suffix == ".png":
            _fewer_colours(file)
        else:
            file.unlink()


def _fewer_colours(file: Path) -> None:
    from PIL import Image

    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


def errors(figure: Figure, rows: list[dict[str, Any]]) -> None:
    """A dot a run and metric, in per cent; the bar is shaded where there is a promise."""
    labels = [f"{r['cell']}  {'' if r['run'] == 1 else '#' + str(r['run'])}" for r in rows]
    places = np.arange(len(rows))[::-1]
    for axes, (metric, bar) in zip(
        figure.subplots(1, len(BARS), sharey=True), BARS.items(), strict=True
    ):
        values = np.array([100.0 * row["errors"][metric] for row in rows])
        for place, row in zip(places, rows, strict=True):
            if row["promised"]:
                axes.barh(place, 2 * bar, left=-bar, height=0.9, color="#dbe9f4", linewidth=0)
        promised = [abs(v) for v, row in zip(values, rows, strict=True) if row["promised"]]
        reach = max(bar, *promised, 0.0) * 1.15
        for place, value, row in zip(places, values, rows, strict=True):
            beyond = abs(value) > reach
            mark = "o" if not beyond else ">" if value > 0 else "<"
            at = float(np.clip(value, -0.97 * reach, 0.97 * reach))
            colour = MISSED if metric in row["missed"] else MEASURED
            axes.scatter(at, place, s=18, marker=mark, color=colour, zorder=3)
            if beyond:
                axes.annotate(f"{value:+.0f}", (at, place), (-5 if value > 0 else 5, 0),
                              textcoords="offset points", va="center", fontsize=7,
                              ha="right" if value > 0 else "left")  # fmt: skip
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set(xlim=(-reach, reach), title=f"{NAMES[metric]}, %")
        axes.title.set_fontsize(9)
        axes.grid(False)
        axes.set_ylim(-0.7, len(rows) - 0.3)
    figure.axes[0].set_yticks(places, labels, fontsize=7.5)
    figure.suptitle("Predicted / measured - 1; shaded: the bar; red: outside it")


def cdfs(figure: Figure, own: Pairs) -> None:
    """TTFT, TPOT and ITL of each recorded run of a mode, a row a run."""
    grid = figure.subplots(len(own), 3, squeeze=False)
    for row, (name, (real, told)) in zip(grid, own.items(), strict=True):
        views = (
            ("TTFT (ms)", real.ttft, told.ttft), ("TPOT (ms a token)", real.tpot, told.tpot),
            ("ITL (ms)", pooled(real), pooled(told)),
        )  # fmt: skip
        for axes, (label, a, b) in zip(row, views, strict=True):
            _cdf(axes, a, MEASURED, "-", "measured")
            _cdf(axes, b, SIMULATED, "--", "simulated")
            axes.set(xlabel=label, ylim=(0, 1))
            if label.startswith(("TTFT", "ITL")):
                axes.set_xscale("log")
                _plain(axes)
        row[0].set_ylabel(name, fontsize=8)
    grid[0][0].legend(loc="lower right")


def _cdf(axes: Axes, seconds: np.ndarray, colour: str, style: str, label: str) -> None:
    values = np.sort(seconds[np.isfinite(seconds)]) * 1e3
    if not len(values):  # with several tokens a step, times of single tokens are not kept
        return
    keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), 1500)).astype(int))
    axes.plot(values[keep], (keep + 1) / len(values), style, color=colour, label=label)


def _plain(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    parts = (1, 2, 5) if high < 500 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=parts, numticks=12))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=7.5)


def scatter(figure: Figure, pairs: Pairs) -> None:
    """TTFT of single requests, simulated over measured, a panel a recorded run."""
    grid = figure.subplots(-(-len(pairs) // COLUMNS), COLUMNS, squeeze=False)
    for axes in grid.flat[len(pairs) :]:
        axes.set_axis_off()
    for axes, (name, (real, told)) in zip(grid.flat, pairs.items(), strict=False):
        a, b = real.ttft * 1e3, told.ttft * 1e3
        low, high = 0.9 * min(a.min(), b.min()), 1.1 * max(a.max(), b.max())
        axes.plot([low, high], [low, high], color="black", linewidth=0.7)
        axes.scatter(a, b, s=4, alpha=0.4, color="#0072b2", linewidths=0)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.set_title(name, fontsize=8.5)
        _plain(axes)
        axes.yaxis.set_major_locator(axes.xaxis.get_major_locator().__class__(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.tick_params(labelsize=7)
    figure.supxlabel("measured TTFT (ms)", fontsize=9)
    figure.supylabel("simulated TTFT (ms)", fontsize=9)
