"""Durations from stamps alone, and whether stamps and durations are of one unit.

Where a log has only the starts of its steps, or only their ends, a step lasted to the next stamp,
as far as requests go on from one step to the next: else the engine may have been idle between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Columns = dict[str, np.ndarray]

_APART = 50.0
"""Typical time between starts over a typical step, or the reverse, that no engine explains."""
_FEW = 10


class Stamps:
    """Fills in the durations of a log that has one kind of stamp, over its chunks."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """start_s or end_s."""
        self._tail: Columns | None = None
        self.unknown = 0
        """Steps whose length the stamps do not say."""

    def timed(self, part: Columns) -> Columns:
        """*part* and what was held back of the one before, with durations; nan where unknown."""
        whole = part
        if self._tail is not None:
            whole = {name: np.concatenate([self._tail[name], part[name]]) for name in part}
        if not len(whole[self.kind]):
            return whole | {"duration_s": whole[self.kind]}
        self._tail = {name: values[-1:] for name, values in whole.items()}
        stamp, decodes = whole[self.kind], _decodes(whole)
        length = np.where(decodes[1:] > 0, np.diff(stamp), np.nan)
        length = np.where(length > 0, length, np.nan)
        rows = slice(None, -1) if self.kind == "start_s" else slice(1, None)
        found = {name: values[rows] for name, values in whole.items()}
        self.unknown += int(np.count_nonzero(np.isnan(length)))
        return found | {"duration_s": length}


def _decodes(columns: Columns) -> np.ndarray:
    """Requests or tokens that go on from the step before; all, where the log tells no kinds."""
    for name in ("decode_requests", "decode_tokens", "requests", "tokens"):
        if name in columns:
            return columns[name]
    return np.zeros(0)


def check_units(columns: Columns, names: Mapping[str, str], place: str) -> None:
    """Raises `InputError` if the times between starts and the durations differ beyond reason."""
    if "start_s" not in columns or "next_start_s" not in columns:
        return
    apart = columns["next_start_s"] - columns["start_s"]
    going = (columns["next_decodes"] > 0) & (apart > 0)
    if np.count_nonzero(going) < _FEW:
        return
    between, length = (float(np.median(one[going])) for one in (apart, columns["duration_s"]))
    if 1.0 / _APART <= between / length <= _APART:
        return
    start, duration = (names.get(name, name) for name in ("start_s", "duration_s"))
    raise InputError(
        f"{place}: steps start every {between:.3g} s ({start}) but last {length:.3g} s "
        f"({duration}): another unit? say it, e.g. --map duration_s={duration.split(' [')[0]}[ms], "
        "[us] or [ns], or likewise start_s"
    )
