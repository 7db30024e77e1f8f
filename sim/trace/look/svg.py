"""Panels as SVG elements of a page: colours by class, so that light and dark are the page's.

One rule: the same panel gives the same text, and nothing is fetched from anywhere.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .words import tick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .panels import Line, Panel, Values

_WIDTH, _HEIGHT = 480, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 40
_DECADES = 3  # of a logarithmic y axis at least


class _Axis:
    """One direction of a panel: from values to pixels, and where the ticks are."""

    def __init__(self, low: float, high: float, log: bool, start: float, stop: float) -> None:
        self.log = log
        if log:
            low, high = np.log10(low), np.log10(high)
        if high <= low:
            low, high = low - 0.5, high + 0.5
        self._low, self._scale, self._start = low, (stop - start) / (high - low), start
        self._high = high

    def at(self, values: Values) -> Values:
        """Pixels of *values*; beyond the axis at its ends."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.log10(values) if self.log else values
        return self._start + (np.clip(scaled, self._low, self._high) - self._low) * self._scale

    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and labels."""
        if self.log and self._high - self._low >= 1:
            exponents = np.arange(np.floor(self._low), np.floor(self._high + 1e-9) + 1)
            if len(exponents) > 4:
                values = 10.0 ** exponents[:: -(-len(exponents) // 8)]
            else:
                values = np.outer(10.0**exponents, (1, 2, 5)).ravel()
            logs = np.log10(values)
            values = values[(logs >= self._low - 1e-9) & (logs <= self._high + 1e-9)]
        else:
            low, high = (10**self._low, 10**self._high) if self.log else (self._low, self._high)
            step = _round_step((high - low) / 5)
            values = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
        return list(zip(self.at(values).tolist(), [tick(v) for v in values.tolist()], strict=True))


def _round_step(step: float) -> float:
    """The next step of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9)))


def svg(panel: Panel) -> str:
    """*panel* as an `svg` element."""
    x, y = _axes(panel)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(panel.title)}">'
    ]
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for at, label in x.ticks():
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>')
    for at, label in y.ticks():
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>')
    for line in panel.lines:
        parts += _line(line, x, y, bottom)
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(panel.x_label)}</text>'
    )
    height = (_TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(12 {height}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y_label)}</text>"
    )
    parts.append("</svg>")
    return "".join(parts)


def legend(panel: Panel) -> str:
    """The lines of *panel* by name, each with its mark."""
    return "".join(
        f'<span class="key {line.colour}{" dashed" if line.dashed else ""}">'
        f"{escape(line.label)}</span>"
        for line in panel.lines
    )


def _axes(panel: Panel) -> tuple[_Axis, _Axis]:
    x_low, x_high = _bounds([line.x for line in panel.lines], panel.x_log)
    y_low, y_high = _bounds([line.y for line in panel.lines], panel.y_log)
    if not panel.x_log:
        x_low = min(0.0, x_low)
    y_high = y_high if panel.y_log else y_high + 0.06 * (y_high - min(0.0, y_low))
    y_low = y_low if panel.low is None else panel.low
    y_high = y_high if panel.high is None else panel.high
    if panel.y_log:  # never so close that a flat line looks rough
        middle = np.sqrt(y_low * y_high)
        y_low = min(y_low, middle / 10 ** (_DECADES / 2)) if y_low == y_high else y_low
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    return (
        _Axis(x_low, x_high, panel.x_log, _LEFT, right),
        _Axis(y_low, y_high, panel.y_log, bottom, _TOP),
    )


def _bounds(columns: Sequence[Values], log: bool) -> tuple[float, float]:
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    if log:
        values = values[values > 0]
    return (float(values.min()), float(values.max())) if len(values) else (1.0, 10.0)


def _line(line: Line, x: _Axis, y: _Axis, bottom: float) -> list[str]:
    across, up = x.at(line.x), y.at(line.y)
    if line.step:  # each value until the next place
        last = across if len(across) > len(up) else np.append(across, across[-1:])
        across = np.stack([last[:-1], last[1:]], axis=1).ravel()
        up = np.repeat(up, 2)
    parts = []
    if line.filled and len(across):
        outline = _path(across, np.nan_to_num(up, nan=bottom))
        around = f"{outline}V{bottom}H{across[0]:.1f}Z"
        parts.append(f'<path class="fill {line.colour}" d="{around}"/>')
    dashed = " dashed" if line.dashed else ""
    parts.append(f'<path class="line {line.colour}{dashed}" d="{_path(across, up)}"/>')
    if line.dots:
        dots = zip(across.tolist(), up.tolist(), strict=True)
        parts += [
            f'<circle class="dot {line.colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in dots
        ]
    return parts


def _path(across: Values, up: Values) -> str:
    """The path through the points, with gaps where there is no value."""
    words, pen = [], "M"
    for a, b in zip(across.tolist(), up.tolist(), strict=True):
        if np.isfinite(b):
            words.append(f"{pen}{a:.1f} {b:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(words)
