"""The residuals of a profile as a table of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    ("holdout", "random fifth"),
    ("left_out_shapes", "one shape out"),
    ("frontier", "largest fifth"),
    ("repeatability", "measured twice"),
    ("second_run", "second run"),
)


def table(document: Mapping[str, Any]) -> str:
    """One line a kernel: n, then median / p90 of each hold-out in percent."""
    head = f"{'kernel':28s}{'n':>5s}" + "".join(f"{title:>19s}" for _, title in COLUMNS)
    lines = ["median / p90 of |predicted/measured - 1| in percent, on points no fit has seen", head]
    for name, entry in document["kernels"].items():
        found = entry["residuals"]
        if not found:
            lines.append(f"{name:28s}  estimated")
            continue
        count = found["training"]["n"] + found["holdout"]["n"]
        cells = "".join(f"{_cell(found.get(key)):>19s}" for key, _ in COLUMNS)
        lines.append(f"{name:28s}{count:5d}{cells}")
    for check in document["checks"]:
        measured, predicted = check["measured_s"] * 1e6, check["predicted_s"] * 1e6
        lines.append(
            f"{check['name']:46s}{measured:9.1f} us measured {predicted:9.1f} predicted "
            f"{check['relative_error']:+.1%}"
        )
    return "\n".join(lines) + "\n"


def _cell(figures: Mapping[str, float] | None) -> str:
    if not figures or not figures.get("n"):
        return "-"
    return f"{100 * figures['median']:.1f} / {100 * figures['p90']:.1f}"
