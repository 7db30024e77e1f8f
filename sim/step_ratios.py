"""How much longer than predicted the steps of a log took: the noise that a run draws from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .profile_check import finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .profile_check import Finder

NOISES = ("decode", "turned", "prefill")
"""Kinds of steps whose noise may be given apart."""
_MANY = 100
"""Steps of a kind from which on their noise is told apart."""
_TRUE = 0.02
"""Share by which noise may make a kind of step longer in all than in the log."""
_SLOW = 1.5
"""Times as long as usual from which on a step is a rare slow one."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Measured over predicted seconds, the *values* at shares *at* of all steps."""

    at: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, ratios: np.ndarray) -> Ratios:
        """Those of a log: hundredths of the usual steps, then tenths of the rare slow ones."""
        slow = ratios > _SLOW * np.median(ratios)
        share, part = float(slow.mean()), np.linspace(0.0, 1.0, 101)
        at, values = part * (1.0 - share), np.quantile(ratios[~slow], part)
        values *= float(ratios[~slow].mean()) / float(np.trapezoid(values, part))
        if slow.any():
            tenth = np.linspace(0.0, 1.0, 11)
            tail = np.quantile(ratios[slow], tenth)
            tail *= float(ratios[slow].mean()) / float(np.trapezoid(tail, tenth))
            at = np.append(at, (1.0 - share) + tenth * share)
            values = np.append(values, np.maximum(tail, values[-1]))
        at[-1] = 1.0
        return cls(at, values)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """The ratios at shares *uniform*."""
        found: np.ndarray = np.interp(uniform, self.at, self.values)
        return found


def true(ratios: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """*ratios* of steps that usually take *seconds*, such that runs take as long as the log.

    # Model: draws know nothing of a step's length. Where short steps scatter more than long ones,
    # the ratios' mean is another than that of the time; then each counts by its seconds.
    """
    if not len(ratios):
        return ratios
    mean = float(ratios @ seconds / seconds.sum())
    if abs(mean / float(ratios.mean()) - 1.0) < _TRUE:
        return ratios
    order = np.argsort(ratios, kind="stable")
    share = np.cumsum(seconds[order])
    share = (share - 0.5 * seconds[order]) / share[-1]
    found = np.interp((np.arange(len(ratios)) + 0.5) / len(ratios), share, ratios[order])
    scaled: np.ndarray = found * (mean / float(found.mean()))
    return scaled


def written_ratios(ratios: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Measured over predicted seconds of `all` steps and of each of `NOISES`, as JSON-able data."""
    kinds = {kind: ratios[kind] for kind in NOISES if len(ratios[kind]) >= _MANY}
    return _ratios(ratios["all"]) | {"kinds": {kind: _ratios(kinds[kind]) for kind in kinds}}


def _ratios(ratios: np.ndarray) -> dict[str, Any]:
    found = Ratios.of(ratios)
    return {"at": found.at.tolist(), "values": found.values.tolist()}


# ---------------------------------------------------------------- reading
def check_ratios(finder: Finder, document: dict[str, Any]) -> None:
    """Notes what is wrong with the ratios of *document*."""
    ratios = finder.table(document, "ratios", "ratios")
    _check_ratios(finder, ratios, "ratios")
    kinds = ratios.get("kinds", {})
    if not isinstance(kinds, dict) or not set(kinds) <= set(NOISES):
        finder.add("ratios.kinds", f"not a table with some of {', '.join(NOISES)}")
    else:
        for kind in kinds:
            _check_ratios(finder, finder.table(kinds, kind, f"ratios.kinds.{kind}"),
                          f"ratios.kinds.{kind}")  # fmt: skip


def _check_ratios(finder: Finder, ratios: dict[str, Any], path: str) -> None:
    at, values = ratios.get("at"), ratios.get("values")
    for name, numbers in (("at", at), ("values", values)):
        good = isinstance(numbers, list) and len(numbers) > 1 and all(map(finite, numbers))
        if not good or sorted(numbers or ()) != numbers or min(numbers) < 0:
            finder.add(f"{path}.{name}", "not a list of ascending numbers >= 0")
            return
    assert isinstance(at, list)
    assert isinstance(values, list)
    if len(at) != len(values) or at[0] != 0 or at[-1] != 1:
        finder.add(f"{path}.at", "not from 0 to 1 with as many values")


def read_ratios(ratios: Mapping[str, Any]) -> dict[str, Ratios]:
    """The noise of each of `NOISES`; of all steps where it is not given apart."""
    return {kind: _read_ratios(ratios.get("kinds", {}).get(kind, ratios)) for kind in NOISES}


def _read_ratios(ratios: Mapping[str, Any]) -> Ratios:
    return Ratios(np.array(ratios["at"], float), np.array(ratios["values"], float))
