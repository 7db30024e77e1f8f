"""Where the time of one decode iteration goes, by stage, from the cost model that the run used.

One rule: like the run. A bar is the iteration at the run's own mean batch and context; where the
scenario or the profile cannot be had again as it was, there is no bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.cost import Cost
from sim.errors import InputError
from sim.mode_figures import OF_PART
from sim.mode_study import Loads
from sim.panels import PAPER, bar_ticks
from sim.plots import HALF, Picture
from sim.profile import load_profile
from sim.scenario import Scenario
from sim.stage_account import PARTS, by_stage

from .courses import at_of, single

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.runs import Run

    from .view import View

Bar = tuple[str, dict[str, float]]


def stages(view: View) -> list[Picture]:
    """The picture, where every cell that stands for the study has its bar."""
    bars: list[Bar] = []
    for cell in view.alike:
        parts = _parts(cell.runs[0])
        if parts is None:
            return []
        bars.append((view.name(cell, view.alike_axes), parts))

    def draw(axes: Axes) -> None:
        _stacked(axes, bars)

    says = "One iteration at each run's mean batch and context, from the cost model: work by stage "
    says += "(gemm to draft), and what orchestration adds (fetch to schedule)."
    size = (HALF, max(3.6, 1.9 + 0.34 * len(bars)))
    return [Picture("iteration-stages", f"A decode iteration by stage{at_of(view)}", says,
                    single(draw), size)]  # fmt: skip


def _parts(run: Run) -> dict[str, float] | None:
    """Seconds of each part of the iteration; None where they cannot be had."""
    data = {key: value for key, value in run.scenario.items() if key not in ("hash", "profile")}
    if data.get("block_decode"):
        return None
    try:
        scenario = Scenario.from_resolved(data)
        profile = load_profile(scenario.hardware.profile)
    except (InputError, ValueError, TypeError, KeyError):
        return None
    if profile.hash != run.summary.get("cost_profile_hash"):
        return None
    rows = run.iterations("decode_requests", "context_tokens", "kind")
    decode = rows["kind"] == "decode"
    if not decode.any():
        return None
    requests = rows["decode_requests"][decode].astype(float)
    batch = max(1, round(float(requests.mean())))
    context = max(1, round(float((rows["context_tokens"][decode] / requests).mean())))
    return by_stage(Cost(scenario, profile), batch, Loads(scenario, profile).of(batch, context))


def _stacked(axes: Axes, bars: list[Bar]) -> None:
    at, left = np.arange(len(bars)), np.zeros(len(bars))
    for part in PARTS:
        times = np.array([parts[part] * 1e3 for _, parts in bars])
        if (np.abs(times) > 1e-6).any():
            axes.barh(at, times, left=left, color=OF_PART[part], edgecolor=PAPER, label=part,
                      linewidth=0.5, height=0.72)  # fmt: skip
            left += times
    bar_ticks(axes, [name for name, _ in bars])
    axes.set_xlabel("one iteration (ms)")
    axes.grid(visible=False)
