"""What a point of a study is called, and where it stands on its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .units import BYTES, BYTES_PER_SECOND, RATE, SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence


def named(axes: dict[str, Any], common: frozenset[tuple[str, str]] = frozenset()) -> str:
    """The values of *axes* in a few words.

    A part that is missing comes with its key; of a map, what other points have differently.
    """
    said = []
    for key, value in axes.items():
        name = key.rpartition(".")[2]
        if value is None:
            said.append(f"no {name}")
        elif isinstance(value, dict):
            apart = [leaf for leaf in leaves(value) if leaf not in common]
            if len(value) == 1 and apart and apart[0][1][-1:].isalpha():
                apart = [(name, apart[0][1])]  # a size alone is that of the part
            said.append(" ".join(_worded(*leaf) for leaf in apart) or name)
        else:
            said.append(f"{value}")
    return ", ".join(said)


def called(axes: dict[str, Any], common: frozenset[tuple[str, str]] = frozenset()) -> str:
    """As `named`, but a bare number comes with its key: it would say nothing in a sentence."""
    return ", ".join(
        f"{key.rpartition('.')[2]} {value}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else named({key: value}, common)
        for key, value in axes.items()
    )


def _worded(key: str, value: str) -> str:
    """A name stands alone, a switch is its key, and a number comes with its key."""
    if value in ("True", "False"):
        return key if value == "True" else f"no {key}"
    return value if value[:1].isalpha() else f"{key} {value}"


def leaves(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Last keys and values of a map and of those in it; a list counts as a value."""
    found: list[tuple[str, str]] = []
    for key, entry in value.items():
        found += leaves(entry) if isinstance(entry, dict) else [(key, f"{entry}")]
    return found


def shared(points: Sequence[dict[str, Any]]) -> frozenset[tuple[str, str]]:
    """What all maps on the axes of *points* have, of which there are at least two."""
    maps = [frozenset(leaves(v)) for axes in points for v in axes.values() if isinstance(v, dict)]
    if len(set(maps)) < 2:
        return frozenset()
    return frozenset.intersection(*maps)


def place(value: Any) -> float | None:
    """Where *value* stands on an axis: itself, or what a quantity is in SI; None for a word."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    for unit in (BYTES, SECONDS, RATE, BYTES_PER_SECOND) if isinstance(value, str) else ():
        try:
            return unit.parse(value)
        except ValueError:
            continue
    return None
