"""Where the loop's time went: how many iterations, how long, GPU and gap, and no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .clock import PARTITION

if TYPE_CHECKING:
    from sim.runs import Run

    from .clock import Columns

KINDS = {"decode": ("decode",), "prompts": ("mixed", "prefill")}
LABELS = {"decode": "decode iterations", "prompts": "iterations with prefill"}


@dataclass(frozen=True, slots=True)
class Kind:
    """Iterations of one kind: their number, and seconds of each in the mean."""

    count: int
    gpu_s: float
    gap_s: float

    @property
    def each_s(self) -> float:
        """Mean length."""
        return self.gpu_s + self.gap_s

    @property
    def total_s(self) -> float:
        """Seconds of all of them."""
        return self.count * self.each_s


@dataclass(frozen=True, slots=True)
class Loop:
    """The loops of all replicas over the run; `decode`, `prompts` and `rest_s` add up to
    `whole_s`."""

    decode: Kind
    prompts: Kind
    rest_s: float
    """No iteration of the loop runs."""
    whole_s: float
    """Duration times replicas."""
    aside_s: float
    """Of a prefill partition, beside the loop and not in the sum."""

    def kind(self, name: str) -> Kind:
        """decode or prompts."""
        found: Kind = getattr(self, name)
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """Why the total of a kind differs: more of them, or longer ones by GPU or gap; seconds.

    The three add up to the difference of the totals.
    """

    count_s: float
    gpu_s: float
    gap_s: float

    @classmethod
    def of(cls, a: Kind, b: Kind) -> Change:
        """From *a* to *b*; what both changes have in common is shared equally."""
        mean = (a.count + b.count) / 2
        return cls(
            (b.count - a.count) * (a.each_s + b.each_s) / 2,
            mean * (b.gpu_s - a.gpu_s),
            mean * (b.gap_s - a.gap_s),
        )


def loop_of(run: Run, rows: Columns) -> Loop:
    """The loop of *run*, whose iterations are *rows*."""
    path = rows.get("path")
    aside = np.zeros(len(rows["start_s"]), bool) if path is None else path == PARTITION
    found = {}
    for name, kinds in KINDS.items():
        chosen = ~aside & np.isin(rows["kind"], kinds)
        seconds = rows["duration_s"][chosen]
        busy = np.clip(rows["gpu_busy_s"][chosen], 0.0, seconds)
        count = int(chosen.sum())
        gpu = float(busy.mean()) if count else 0.0
        found[name] = Kind(count, gpu, float(seconds.mean()) - gpu if count else 0.0)
    whole = float(run.summary["duration"]) * run.replicas
    rest = whole - found["decode"].total_s - found["prompts"].total_s
    return Loop(found["decode"], found["prompts"], rest, whole,
                float(rows["duration_s"][aside].sum()))  # fmt: skip
