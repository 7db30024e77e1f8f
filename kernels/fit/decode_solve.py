"""The fit of kernels and loops to decode steps: whole steps, and stages where they were timed.

One rule: training cells only. Whole steps count in full, a stage alone for less: alone it finds in
the cache what a whole step would have driven out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import least_squares

from .decode_blocks import Block, blocks
from .decode_free import TIMER_S, Free, free_of, kernels_of, start_of
from .decode_model import layers, seconds
from .solve import six

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .decode_points import StepPoint
    from .forms import FloatArray

NOISE = 0.01
"""Relative error of a step that a fit takes for noise; larger ones count less than their square."""
STAGE_NOISE = 0.03
LEAST = 4
"""Fewer training steps than this make no loop."""
TINY = 1e-9
"""Seconds: a search may pass by gaps so short that a stage would take less than nothing."""
STEPS = 80
ENOUGH = 1e-5
"""Of the sum of squares, or of the parameters: a smaller gain ends a search."""
STEP = 1e-6
"""Of a parameter's logarithm, for a slope."""
REPEATED = {"embed": 8, "commit": 8}
"""How often a short stage was run within one timing."""


class Fit:
    """Parameters of one kernel set, fitted on the training cells of all its modes together."""

    def __init__(self, document: Mapping[str, Any], points: Sequence[StepPoint]) -> None:
        self.gap: float = document["constants"]["graph_node_s"]["value"]
        train = [point for point in points if point.train]
        count: dict[str, int] = {}
        for point in train:
            count[point.loop] = count.get(point.loop, 0) + 1
        self.loops = sorted(name for name, n in count.items() if n >= LEAST)
        self.points = [point for point in points if point.loop in self.loops]
        self.train = blocks([point for point in train if point.loop in self.loops])
        self.kernels, self.constants = start_of(document, self.loops)
        self.timer = {"timer_s": TIMER_S}
        self.free: list[Free] = free_of(self.train, self.kernels, self.constants)
        self._kernels_of = {id(block): kernels_of(block) for block in self.train}
        if self.free:
            self.free.append(Free(self.timer, "timer_s", TIMER_S, 1.0, 1e-8, 1e-4))

    def solve(self) -> None:
        """Puts the best parameters into `kernels` and `constants`."""
        if not self.free:
            return
        first = np.log([free.start for free in self.free])
        low = np.log([free.low for free in self.free])
        high = np.log([free.high for free in self.free])
        found = least_squares(
            self._error, first, self._slopes, bounds=(low, high), loss="soft_l1",
            max_nfev=STEPS, ftol=ENOUGH, xtol=ENOUGH,
            x_scale=np.array([free.width for free in self.free]),
        )  # fmt: skip
        self._put(found.x)
        for free in self.free:
            free.table[free.key] = six(free.table[free.key])

    def _put(self, logs: FloatArray) -> None:
        for free, value in zip(self.free, np.exp(logs).tolist(), strict=True):
            free.table[free.key] = value

    def _error(self, logs: FloatArray) -> FloatArray:
        """Errors in units of their noise: of steps and stages, then of springs."""
        self._put(logs)
        starts = np.log([free.start for free in self.free])
        widths = np.array([free.width for free in self.free])
        return np.concatenate([*map(self._of_block, self.train), (logs - starts) / widths])

    def _of_block(self, block: Block) -> FloatArray:
        parts = [np.log(self.predict(block) / block.measured) / NOISE]
        for _, predicted, measured in self.stages(block):
            ratio = np.maximum(predicted, TINY) / measured
            parts.append(np.log(ratio) / STAGE_NOISE)
        return np.concatenate(parts)

    def _slopes(self, logs: FloatArray) -> FloatArray:
        """The Jacobian of `_error`, each column only from the blocks that feel its parameter."""
        self._put(logs)
        before = [self._of_block(block) for block in self.train]
        ends = np.cumsum([len(errors) for errors in before])
        slopes = np.zeros((ends[-1] + len(self.free), len(self.free)))
        for column, free in enumerate(self.free):
            value = free.table[free.key]
            free.table[free.key] = value * np.exp(STEP)
            for block, errors, end in zip(self.train, before, ends, strict=True):
                if self._feels(block, free):
                    rows = slice(end - len(errors), end)
                    slopes[rows, column] = (self._of_block(block) - errors) / STEP
            free.table[free.key] = value
            slopes[ends[-1] + column, column] = 1.0 / free.width
        return slopes

    def _feels(self, block: Block, free: Free) -> bool:
        if free.kernel is None:
            return free.table is self.timer or free.table is self.constants[block.first.loop]
        return free.kernel in self._kernels_of[id(block)]

    def predict(self, block: Block) -> FloatArray:
        """Seconds of *block*'s steps."""
        return seconds(block, self.kernels, self.constants[block.first.loop], self.gap)

    def stages(self, block: Block) -> Iterator[tuple[str, FloatArray, FloatArray]]:
        """Predicted and measured seconds of each stage of *block* that was timed."""
        point = block.first
        if point.kernels == "fused":
            return  # in a step, a kernel fetches weights before the one ahead of it has ended
        # Alone, selection finds page tables and scores in the cache: not as in a step.
        left_out = ("score", "select", "attend") if point.cell["budget_tokens"] else ()
        loop = self.constants[point.loop]
        for name, predicted in (
            layers(block, self.kernels, loop["node_s"] - self.gap).stages().items()
        ):
            measured = block.stage(name)
            good = np.isfinite(measured)
            if good.any() and name not in left_out:
                timer = self.timer["timer_s"] / REPEATED.get(name, 1)
                yield name, predicted[good] + timer, measured[good]
