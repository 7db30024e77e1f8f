"""Numbers and names as the report writes them."""

from __future__ import annotations

from html import escape
from math import floor, isfinite, log10

LONGEST = 60


def plain(text: str, longest: int = LONGEST) -> str:
    """*text*, which may come from anywhere, on one line of printable characters, cut if long."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    if len(shown) <= longest:
        return shown
    head = (longest - 1) * 2 // 3
    return f"{shown[:head]}…{shown[len(shown) - (longest - 1 - head) :]}"


def html(text: object, longest: int = 2000) -> str:
    """*text* as it may stand in a page."""
    return escape(plain(f"{text}", longest))


def block(text: str, longest: int = 20_000) -> str:
    """*text* of several lines as it may stand in a page."""
    lines = text[:longest].split("\n")
    return escape("\n".join(plain(line, 400) for line in lines))


def figure(value: float | None) -> str:
    """*value* with three digits, or whole from a thousand on; - for None."""
    if value is None:
        return "-"
    if value != value or value in (float("inf"), float("-inf")):
        return f"{value}"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text or abs(value) < 1e-4 else f"{value:.6f}".rstrip("0")


def spread(value: float, away: float) -> tuple[str, str]:
    """*value* and its uncertainty *away*, with two digits of that but four of the value at most."""
    if not isfinite(away) or not isfinite(value) or away <= 0:
        return figure(value), figure(away)
    decimals = 1 - floor(log10(away))
    if value:
        decimals = min(decimals, 3 - floor(log10(abs(value))))
    decimals = min(max(decimals, 0), 9)
    least = 10.0**-decimals
    small = f"{away:,.{decimals}f}" if away >= least / 2 else f"{least:.{decimals}f}"
    return f"{value:,.{decimals}f}", small


def listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
