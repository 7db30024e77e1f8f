"""Colours and marks of the decoder's rungs and of the parts of a step."""

from __future__ import annotations

from .decoder_steps import Rung

RUNG_COLOURS = {
    Rung("eager", "torch"): "#bdbdbd",
    Rung("graph", "torch"): "#7f7f7f",
    Rung("host-python", "library"): "#d55e00",
    Rung("host-python", "fused"): "#f0a064",
    Rung("host-c", "library"): "#e69f00",
    Rung("host-c", "fused"): "#f3d27a",
    Rung("graph", "library"): "#56b4e9",
    Rung("graph", "fused"): "#0072b2",
    Rung("control", "library"): "#cc79a7",
    Rung("control", "fused"): "#8c3f6d",
    Rung("resident", "fused"): "#009e73",
}
"""The loop's colours as in the other reports; a lighter or darker one for the other kernels."""
MARKS = {
    "eager": "X", "host-python": "v", "host-c": "P", "graph": "s", "control": "D", "resident": "o",
}  # fmt: skip
FLOOR_COLOUR = "#303030"
STAGE_COLOURS = {
    "qkv": "#0072b2", "attend": "#d55e00", "out": "#56b4e9", "gate_up": "#009e73",
    "down": "#e69f00", "head": "#cc79a7", "commit": "#000000", "score": "#f0e442",
    "select": "#8c510a",
}  # fmt: skip


def colour(rung: Rung) -> str:
    """A rung's colour; grey for one that nobody expects."""
    return RUNG_COLOURS.get(rung, "#999999")


def mark(rung: Rung) -> str:
    """A rung's mark, by its mode."""
    return MARKS.get(rung.mode, "h")


def short(tokens: int) -> str:
    """Tokens in k where they are whole ones."""
    return f"{tokens // 1024}k" if tokens >= 1024 and tokens % 1024 == 0 else f"{tokens}"


def us(seconds: float) -> str:
    """Microseconds with as many digits as can be told apart."""
    value = seconds * 1e6
    return f"{value:,.1f}" if value < 1000.0 else f"{value:,.0f}"
