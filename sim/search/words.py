"""How a search says values and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.units import seconds_text, three_digits

from .settings import is_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.stats import Estimate


def value_text(value: float | None) -> str:
    """A plain number in three digits, a dash for none."""
    return "-" if value is None else three_digits(value)


def metric_text(name: str, value: float | None) -> str:
    """The value of a metric, in SI, as it is read."""
    if value is None:
        return "has no value"
    return seconds_text(value) if is_time(name) else three_digits(value)


def limit_text(name: str, found: Estimate, limit: float, judge: str) -> str:
    """A broken limit: 'p99_ttft is 2.4 s (limit 2 s)'."""
    text = metric_text(name, found.value)
    if judge == "bound" and found.low is not None and found.high is not None:
        text += f" ({metric_text(name, found.low)} to {metric_text(name, found.high)})"
    verb = "" if found.value is None else "is "
    return f"{name} {verb}{text} (limit {metric_text(name, limit)})"


def configuration(axes: Mapping[str, Any]) -> str:
    """A configuration in a few words."""
    said = [
        str(value) if isinstance(value, str) else f"{path.rpartition('.')[2]} {_plain(value)}"
        for path, value in axes.items()
    ]
    return ", ".join(said) or "the scenario"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
