"""Units: the pieces of a prefix that a cache knows by their content, wherever their copies are.

One rule: the index holds a unit as long as it has a copy somewhere, is on its way to a tier or is
in use, and forgets it with the last of these, so memory is bounded by what the tiers hold.

A unit has U tokens: the trace's block size T if that is a multiple of the engine's block E, and E
if E is a multiple of T; its id is that of its last trace block, since ids stand for all before
them too. Only whole units are cached: a prompt has prompt // U of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

HBM, DRAM, SSD, REMOTE = 1, 2, 4, 8
"""Tiers as bits of `Unit.where` and `Unit.flight`, from the highest to the lowest."""
NAMES = {HBM: "hbm", DRAM: "dram", SSD: "ssd", REMOTE: "remote"}


@dataclass(slots=True, eq=False)
class Unit:
    """One unit: *id*, that of its *parent* in the prefix (None for the first), and *depth* from 0.

    `where` has the bits of the tiers with a complete copy, `flight` those of the tiers to which
    one is on its way, `refs` counts the requests that use it in HBM now. `uses` counts requests,
    `last_use` is the time of the latest. `behind` is how many units came after it in the prompt
    of its latest use. `score` is the attention it has got so far, where somebody counts it;
    `draft` whether it is not committed yet.
    """

    id: int
    parent: int | None = None
    depth: int = 0
    behind: int = 0
    where: int = 0
    flight: int = 0
    refs: int = 0
    uses: int = 0
    last_use: float = 0.0
    score: float = 0.0
    draft: bool = False

    @property
    def state(self) -> int:
        """Where it is and whither it is on its way, in one number below 256."""
        return self.flight << 4 | self.where


def stretches(units: Sequence[Unit]) -> int:
    """How many pieces of memory *units* lie in, in whatever order they are named."""
    # Model: neighbours in a prompt are neighbours in memory, in HBM and below; of several prompts
    # that part after a unit, one goes on behind it.
    names = {unit.id for unit in units}
    return len(units) - len({unit.parent for unit in units if unit.parent in names})


class Index:
    """The units of all tiers by id, for a trace with blocks of *trace_block_tokens* tokens.

    *tiers* are the bits of those that exist. Raises `InputError` if neither the trace's block nor
    the engine's, *engine_block_tokens*, is a multiple of the other.
    """

    def __init__(self, trace_block_tokens: int, engine_block_tokens: int, tiers: int = HBM) -> None:
        trace, engine = trace_block_tokens, engine_block_tokens
        if trace % engine and engine % trace:
            raise InputError(
                f"trace blocks of {trace} tokens and kv.block_tokens {engine}: one must be a "
                f"multiple of the other; choose kv.block_tokens accordingly"
            )
        self.blocks = trace, engine
        """Tokens of a block of the trace and of the engine."""
        self.unit_tokens = max(trace, engine)
        self.unit_blocks = self.unit_tokens // engine
        """Engine blocks a unit takes in HBM."""
        self.tiers = tiers
        self.units: dict[int, Unit] = {}
        self.find: Callable[[int], Unit | None] = self.units.get
        """The unit with an id, if it is known."""
        self.own = sum(NAMES)
        """Tiers in which a copy makes a unit known here."""
        self.copies: Counter[int] = Counter()
        """Units with a copy in each tier."""
        self.stride = self.unit_tokens // trace
        """Blocks of the trace a unit has."""
        self._below = {
            tier: sum(bit for bit in NAMES if bit > tier and tiers & bit) for tier in NAMES
        }

    def __len__(self) -> int:
        return len(self.units)

    # ---------------------------------------------------------------- prompts
    def ids(self, blocks: Sequence[int] | NDArray[np.int64], prompt_tokens: int) -> list[int]:
        """Ids of the whole units of a prompt with the trace's block ids *blocks*.

        As many as its tokens fill and *blocks* name; ends before an id that comes again.
        """
        stride = self.stride
        count = min(prompt_tokens // self.unit_tokens, len(blocks) // stride)
        part = blocks[stride - 1 : count * stride : stride]
        found: list[int] = part.tolist() if isinstance(part, np.ndarray) else list(part)
        if len(set(found)) < len(found):
            # Model: ids stand for all before them, so one that comes again in a prompt stands for
            # something else; nothing from there on is cached.
            seen: set[int] = set()
            for place, name in enumerate(found):
                if name in seen:
                    return found[:place]
                seen.add(name)
        return found

    def most_cached(self, prompt_tokens: int) -> int:
        """Units of a prompt that may come from a cache: a token is left, to get logits from."""
        return (prompt_tokens - 1) // self.unit_tokens

    def match(self, ids: Sequence[int], most: int | None = None) -> list[Unit]:
        """The longest prefix of *ids* (at most *most*) whose units all have a copy somewhere."""
        find, found = self.find, []
        for name in ids if most is None else ids[:most]:
            unit = find(name)
            if unit is None or not unit.where:
                break
            found.append(unit)
        return found

    def lasting(self, unit: Unit) -> Unit | int:
        """What stands for *unit* as long as it is known, and equals nothing else then."""
        return unit

    def leading(self, ids: Sequence[int], tier: int) -> int:
        """How many of *ids*, from the first on, have a copy in *tier*."""
        for place, name in enumerate(ids):
            unit = self.units.get(name)
            if unit is None or not unit.where & tier:
                return place
        return len(ids)

    def register(
        self, ids: Sequence[int], first: int = 0, tier: int = HBM
    ) -> tuple[list[Unit], list[Unit]]:
        """The units of *ids* from place *first* on have been computed: a copy of each is in *tier*.

        Returns all of them, and those that had no copy there before; makes what is unknown. What
        a caller holds for the others is there twice and may go.
        """
        units, bit = self.units, tier
        parent = ids[first - 1] if first else None
        every, fresh = [], []
        for depth in range(first, len(ids)):
            name = ids[depth]
            unit = units.get(name)
            if unit is None:
                units[name] = unit = Unit(name, parent, depth)
            if not unit.where & bit:
                unit.where |= bit
                fresh.append(unit)
            every.append(unit)
            parent = name
        self.copies[bit] += len(fresh)
        return every, fresh

    # ---------------------------------------------------------------- use
    def hold(self, units: Iterable[Unit]) -> list[Unit]:
        """A request uses *units* in HBM from now on; returns those that nobody used before."""
        idle = []
        for unit in units:
            if not unit.refs:
                idle.append(unit)
            unit.refs += 1
        return idle

    def used(self, units: Sequence[Unit], now: float) -> None:
        """Counts a use of *units*, the prefix of a prompt from its first unit on, at *now*."""
        behind = len(units)
        for unit in units:
            behind -= 1
            unit.behind = behind
            unit.uses += 1
            unit.last_use = now

    def release(self, units: Sequence[Unit]) -> list[Unit]:
        """A request no longer uses *units*; returns those nobody uses any more, the last first."""
        idle = []
        for unit in reversed(units):
            unit.refs -= 1
            assert unit.refs >= 0, f"unit {unit.id} released more often than held"
            if not unit.refs:
                idle.append(unit)
                if not unit.where & self.own:
                    self._forget(unit)
        return idle

    # ---------------------------------------------------------------- copies
    def place(self, unit: Unit, tier: int) -> None:
        """A complete copy of *unit* is in *tier* now."""
        self.place_all((unit,), tier)

    def place_all(self, units: Sequence[Unit], tier: int) -> None:
        """`place` each."""
        known, landed = self.units, ~tier
        for unit in units:
            assert not unit.where & tier, f"unit {unit.id} is in {NAMES[tier]} already"
            assert known.get(unit.id) is unit, f"unit {unit.id} has been forgotten"
            unit.where |= tier
            unit.flight &= landed
        self.copies[tier] += len(units)

    def drop(self, unit: Unit, tier: int) -> None:
        """The copy of *unit* in *tier* is gone; with the last one, the unit if nobody uses it."""
        self.drop_all((unit,), tier)

    def drop_all(self, units: Sequence[Unit], tier: int) -> None:
        """`drop` each."""
        known, keep, own = self.units, ~tier, self.own
        for unit in units:
            assert unit.where & tier, f"unit {unit.id} is not in {NAMES[tier]}"
            unit.where = where = unit.where & keep
            if not (unit.refs or (where | unit.flight) & own):
                del known[unit.id]
        self.copies[tier] -= len(units)

    def depart(self, unit: Unit, tier: int) -> None:
        """A copy of *unit* is on its way to *tier*."""
        unit.flight |= tier

    def abort(self, unit: Unit, tier: int) -> None:
        """The copy on its way to *tier* will not be one."""
        unit.flight &= ~tier
        self._forget(unit)

    def clean(self, unit: Unit, tier: int) -> bool:
        """Whether *tier* may lose its copy: a lower tier has one, or there is no lower tier."""
        below = self._below[tier]
        return not below or bool(unit.where & below)

    def highest(self, unit: Unit) -> int:
        """The tier nearest to the GPU with a copy of *unit*; 0 if there is none."""
        return unit.where & -unit.where

    def _forget(self, unit: Unit) -> None:
        if not (unit.refs or (unit.where | unit.flight) & self.own):
            del self.units[unit.id]
