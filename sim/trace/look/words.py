"""Figures as people read them: thousands, units, shares, bars of characters."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPARKS = {True: "▁▂▃▄▅▆▇█", False: "_.:-=+*#"}


def number(value: float | None, unit: str = "") -> str:
    """*value* with six digits at most and thousands apart, `-` for None."""
    if value is None:
        return "-"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    return f"{text} {unit}".rstrip()


def short(value: float | None, unit: str = "", *, digits: int = 3) -> str:
    """*value* with so many *digits* and k, M, G or T."""
    if value is None:
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9999 * size:
            return f"{value / size:.{digits}g}{letter} {unit}".rstrip()
    return f"{value:.{digits}g} {unit}".rstrip()


def tick(value: float) -> str:
    """*value* beside an axis."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return short(value + 0.0)  # never -0


def share(value: float | None, digits: int = 1) -> str:
    """*value*, a share, in percent."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def span(seconds: float | None) -> str:
    """*seconds* in the unit that people would choose."""
    if seconds is None:
        return "-"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 3 * size:
            return f"{seconds / size:.3g} {unit}"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def spans(values: dict[str, float] | None, names: Sequence[str]) -> str:
    """The quantiles *names* of a summary in seconds."""
    return "-" if values is None else ", ".join(span(values[name]) for name in names)


def numbers(values: dict[str, float] | None, names: Sequence[str]) -> str:
    """The quantiles *names* of a summary."""
    return "-" if values is None else ", ".join(short(values[name]) for name in names)


def spark(values: Sequence[float], *, rich: bool) -> str:
    """A bar of one character for each of *values*, from 0 to the largest; blank for 0."""
    levels, most = _SPARKS[rich], max(values, default=0.0)
    if most <= 0:
        return " " * len(values)
    return "".join(
        " " if value <= 0 else levels[ceil(value / most * len(levels)) - 1] for value in values
    )


def bar(value: float, width: int, *, rich: bool) -> str:
    """A horizontal bar, *width* characters for a share of 1."""
    if not rich:
        return "#" * int(value * width + 0.5)
    whole, eighths = divmod(int(value * width * 8 + 0.5), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()
