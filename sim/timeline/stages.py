"""The stages of decode iterations, worked out again from the scenario and the profile of a run.

The one rule: the parts of an iteration must add up to the length that was recorded; where they do
not, and in iterations with prefill, nothing is claimed but what was recorded, the GPU's busy time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from sim.cost import Cost
from sim.errors import InputError
from sim.profile import load_profile
from sim.scenario import Scenario
from sim.stage_account import PARTS, by_stage
from sim.steps import Load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .rows import Columns

COLUMNS = (
    "decode_requests", "decode_rows", "context_tokens", "attended_tokens", "pages_scored",
    "kv_blocks_fetched", "draft_tokens", "prefill_tokens", "refreshing_requests", "duration_s",
)  # fmt: skip
LOOP = ("enter", "leave")
"""Parts of iterations in which a loop on the device begins again, or ends for a prefill."""
NAMES = (*PARTS, *LOOP)
EXACT = 1e-6
"""Share of an iteration's length that its parts may lack."""
BETWEEN = 1e-3
"""The same where parts are interpolated between contexts; attention gets what is lacking."""
NODES = 6
MOST_EXACT = 20_000
"""Iterations that are worked out one by one at most; each takes about 0.1 ms."""
ATTENTION = NAMES.index("attention")


class Model:
    """The cost model of a run, if the scenario in its folder and the profile are at hand."""

    def __init__(self, scenario: dict[str, Any], profile: Path | None = None) -> None:
        self.why: str | None = None
        """Why stages cannot be worked out; None if they can."""
        self.cost: Cost | None = None
        self.depths: tuple[int, ...] = (0,)
        """Drafting levels that an iteration may have, which is not recorded."""
        self._left = MOST_EXACT
        data = dict(scenario)
        try:
            if profile is not None:
                data["hardware"] = data["hardware"] | {"profile": str(profile.resolve())}
            self.cost = self._cost(data)
        except (ValidationError, InputError, KeyError, TypeError, ValueError):
            self.why = "its scenario.json does not hold a whole scenario"

    def _cost(self, data: dict[str, Any]) -> Cost | None:
        said, digest = data.pop("profile"), data.pop("hash")
        scenario = Scenario.from_resolved(data)
        if "#" in scenario.hardware.profile:
            self.why = "its profile is a file; name it with --profile"
            return None
        profile = load_profile(scenario.hardware.profile)
        if profile.hash != said["hash"]:
            self.why = f"profile {profile.name} is not the one it was run with ({said['hash']})"
            return None
        if scenario.hash != digest:
            self.why = "its scenario means something else to this version, or with this profile"
            return None
        cost = Cost(scenario, profile)
        if scenario.speculation is not None:
            self.depths = tuple(range(scenario.speculation.shape.levels, 0, -1))
        return cost

    def parts(self, columns: Columns) -> np.ndarray:
        """Seconds of each of `NAMES` [iterations, names]; NaN where they are not known."""
        count = len(columns["duration_s"])
        found = np.full((count, len(NAMES)), np.nan)
        if self.cost is None:
            return found
        self._left = MOST_EXACT
        decode = columns["prefill_tokens"] == 0
        if "refreshing_requests" in columns:
            decode &= columns["refreshing_requests"] == 0
        rows = columns.get("decode_rows", columns["decode_requests"])
        drafts = columns.get("draft_tokens", np.zeros(count, np.int64))
        for chosen in _alike(decode, columns["decode_requests"], rows, drafts > 0):
            for depth in self.depths if drafts[chosen[0]] else (0,):
                chosen = self._group(columns, rows, chosen, depth, found)
        return found

    def _group(
        self, columns: Columns, rows: np.ndarray, chosen: np.ndarray, depth: int,
        found: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Fills the rows *chosen*, which have batch and tokens in common; those that are left."""
        whole = not {"attended_tokens", "kv_blocks_fetched"} & set(columns)
        contexts = columns["context_tokens"].astype(np.float64)
        if whole and len(chosen) > NODES:
            near = contexts[chosen]
            nodes = np.unique(np.rint(np.linspace(near.min(), near.max(), NODES)))
            one = np.full(len(nodes), chosen[0])
            known = np.array(list(self._one_by_one(columns, rows, one, depth, nodes)))
            parts = np.stack([np.interp(near, nodes, part) for part in known.T], axis=1)
            chosen = self._fill(columns, chosen, parts, BETWEEN, found)
        exact = chosen[: self._left]
        if not len(exact):
            return chosen
        self._left -= len(exact)
        parts = np.array(list(self._one_by_one(columns, rows, exact, depth, contexts[exact])))
        return np.append(self._fill(columns, exact, parts, EXACT, found), chosen[len(exact) :])

    def _fill(
        self, columns: Columns, chosen: np.ndarray, parts: np.ndarray, share: float,
        found: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Fills the rows *chosen* with those *parts* that add up; the rows of the others."""
        lacking = self._settled(parts, columns["duration_s"][chosen], share)
        found[chosen[~lacking]] = parts[~lacking]
        left: np.ndarray = chosen[lacking]
        return left

    def _settled(self, parts: np.ndarray, seconds: np.ndarray, share: float) -> np.ndarray:
        """Completes *parts*; a mask of those that do not add up to *seconds* but for a *share*."""
        assert self.cost is not None
        modes = self.cost.modes
        rest = seconds - parts.sum(axis=1)
        limit = share * seconds
        if self.cost.loop.leaves:
            # Of several explanations the first that fits is as good as the others.
            for enter, leave in ((modes.relaunch, 0.0), (0.0, modes.exit),
                                 (modes.relaunch, modes.exit)):  # fmt: skip
                fits = (abs(rest) > limit) & (abs(rest - enter - leave) <= limit)
                parts[fits, -2], parts[fits, -1] = enter, leave
                rest[fits] -= enter + leave
        parts[:, ATTENTION] += rest
        lacking: np.ndarray = (abs(rest) > limit) | (parts < 0.0).any(axis=1)
        return lacking

    def _one_by_one(
        self, columns: Columns, rows: np.ndarray, chosen: np.ndarray, depth: int,
        contexts: np.ndarray,
    ) -> Iterator[list[float]]:  # fmt: skip
        assert self.cost is not None
        names = ("attended_tokens", "pages_scored", "kv_blocks_fetched")
        for row, context in zip(chosen.tolist(), contexts.tolist(), strict=True):
            read = (int(columns[name][row]) if name in columns else None for name in names)
            load = Load(int(rows[row]), int(context), depth, *read)  # type: ignore[arg-type]
            parts = by_stage(self.cost, int(columns["decode_requests"][row]), load)
            yield [*(parts[name] for name in PARTS), 0.0, 0.0]


def _alike(chosen: np.ndarray, *keys: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers of the *chosen* rows, those together that have all *keys* in common."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    table = np.stack([key[rows].astype(np.int64) for key in keys])
    order = np.lexsort(table[::-1])
    changed = (np.diff(table[:, order]) != 0).any(axis=0)
    yield from np.split(rows[order], np.flatnonzero(changed) + 1)
