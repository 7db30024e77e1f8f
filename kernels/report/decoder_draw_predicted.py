"""Pictures of the simulator's step times against the measured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .decoder_goals import MEDIAN_PERCENT, P90_PERCENT
from .decoder_looks import colour, mark
from .style import handle, log_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .decoder_steps import Steps


def draw_predicted(figure: Figure, steps: Steps) -> None:
    """Simulated over measured on log axes, and the error in percent over the measured step."""
    errors = steps.errors()
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.0, 1.35]})
    rungs = [rung for rung in steps.rungs() if any(rung == one.rung for one in errors)]
    every = [1e6 * value for one in errors for value in (one.measured, one.predicted)]
    span = min(every) / 1.2, max(every) * 1.2
    left.plot(span, span, color="#303030", linewidth=0.8, zorder=0)
    for rung in rungs:
        for held in (True, False):
            mine = [one for one in errors if one.rung == rung and bool(one.held) == held]
            if not mine:
                continue
            x = [1e6 * one.measured for one in mine]
            face = "white" if held else colour(rung)
            for axes, y in (
                (left, [1e6 * one.predicted for one in mine]),
                (right, [100.0 * one.error for one in mine]),
            ):
                axes.plot(
                    x, y, linestyle="", marker=mark(rung), markersize=4.5, color=colour(rung),
                    markerfacecolor=face, markeredgewidth=0.9,
                )  # fmt: skip
    for percent, style in ((MEDIAN_PERCENT, ":"), (P90_PERCENT, "--")):
        for sign in (-1.0, 1.0):
            right.axhline(sign * percent, color="#303030", linestyle=style, linewidth=0.9)
    right.axhline(0.0, color="#303030", linewidth=0.8)
    left.set_xlim(span)
    left.set_ylim(span)
    right.set_xlim(span)
    log_axes(left, "measured, us a step", "simulated, us a step")
    log_axes(right, "measured, us a step")
    right.set_ylabel("simulated / measured - 1 (%)")
    figure.legend(
        handles=[
            *(handle(r.name, color=colour(r), marker=mark(r), linestyle="", markersize=5)
              for r in rungs),
            handle("filled: fitted on", color="#303030", marker="o", linestyle="", markersize=5),
            handle("open: held out", color="#303030", marker="o", linestyle="", markersize=5,
                   markerfacecolor="white"),
            handle(f"{MEDIAN_PERCENT:.0f} %, bar of the median", color="#303030", linestyle=":"),
            handle(f"{P90_PERCENT:.0f} %, bar of the p90", color="#303030", linestyle="--"),
        ],
        loc="outside right center",
    )  # fmt: skip
    figure.suptitle("Steps as the simulator predicts them against the measured medians")
