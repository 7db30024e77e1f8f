"""What a figure shows about prefix reuse in the runs of a study, on one pair of axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .panels import PAPER, bar_ticks
from .tier_panels import COLOURS, TIERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .runs import Run


def saved(run: Run) -> dict[str, float]:
    """Share of all prompt tokens that each tier had, of the requests that have finished."""
    rows = run.requests("prompt_tokens", *(f"cached_{tier}_tokens" for tier in TIERS))
    total = float(rows["prompt_tokens"].sum()) or 1.0
    return {tier: float(rows[f"cached_{tier}_tokens"].sum()) / total for tier in TIERS}


def sources(axes: Axes, bars: Sequence[tuple[str, Sequence[Run]]]) -> None:
    """Where the prompt tokens of each bar's runs came from, in percent of them all."""
    found = [[saved(run) for run in runs] for _, runs in bars]
    at, left = np.arange(len(bars)), np.zeros(len(bars))
    for tier in TIERS:
        share = np.array([100 * float(np.mean([one[tier] for one in runs])) for runs in found])
        if share.any():
            axes.barh(at, share, left=left, color=COLOURS[tier], edgecolor=PAPER,
                      label=f"found in {tier.upper()}", height=0.72)  # fmt: skip
            left += share
    axes.barh(at, 100 - left, left=left, color="#e0e0e0", edgecolor=PAPER, label="computed",
              height=0.72)  # fmt: skip
    bar_ticks(axes, [name for name, _ in bars])
    axes.set_xlim(0, 100)
    axes.set_xlabel("prompt tokens (%)")
    axes.grid(visible=False)
