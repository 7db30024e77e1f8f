"""What the first seed did with tiers on the device, on plain data: as it was, and mended.

One rule: the functions named `seed_*` follow the seed to the letter, defects included, so that its
numbers can be reproduced; those named `mended_*` do the same job and never exceed a budget.

The seed (gpu-resident-inference-lab) labels pages with tiers and counts moves; nothing in it takes
time. Its defects, all by design: the movement plan has no order, batches nothing and knows neither
cost nor room; rebalance never demotes a selected page, so more selected pages than a tier holds
overfill it, and a page may fall two tiers in one step; eviction knows no recency and counts what it
skips once a pass, so twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


class Tier(IntEnum):
    """Where a page is."""

    HBM = 0
    DRAM = 1
    SSD = 2


def seed_tier(page: int) -> Tier:
    """The seed's place of a page: by its number alone, two of five in HBM, two in DRAM."""
    return (Tier.HBM, Tier.HBM, Tier.DRAM, Tier.DRAM, Tier.SSD)[page % 5]


# ---------------------------------------------------------------- movement
@dataclass(frozen=True, slots=True)
class MovementPlan:
    """Where each selected page is, in the order of selection; one that is not in HBM is a copy."""

    sources: tuple[Tier, ...]
    page_bytes: int

    def count(self, tier: Tier) -> int:
        """Pages that are in *tier*."""
        return self.sources.count(tier)

    @property
    def dma_ops(self) -> int:
        """Pages that have to move."""
        return len(self.sources) - self.count(Tier.HBM)

    @property
    def bytes_moved(self) -> int:
        """Bytes of these."""
        return self.dma_ops * self.page_bytes


def seed_movement(
    pages: Sequence[int], page_bytes: int, tier: Callable[[int], Tier] = seed_tier
) -> MovementPlan:
    """For each selected page: nothing, or a copy into HBM from where it is, on its own."""
    return MovementPlan(tuple(tier(page) for page in pages), page_bytes)


class Staged(NamedTuple):
    """A page with its place in the double buffer."""

    page: int
    tier: Tier
    slot: int


def seed_staging(pages: Sequence[int], tier: Callable[[int], Tier] = seed_tier) -> list[Staged]:
    """The selected pages, those in HBM first, then DRAM, then SSD; buffer slots 0 and 1 in turn."""
    order = sorted(pages, key=tier)
    return [Staged(page, tier(page), place % 2) for place, page in enumerate(order)]


class Run(NamedTuple):
    """Neighbouring pages of one tier that move at once, from *first* on."""

    tier: Tier
    first: int
    pages: int


def mended_movement(
    pages: Collection[int], room: int, tier: Callable[[int], Tier] = seed_tier
) -> tuple[list[Run], list[int]]:
    """What to load into *room* free pages of HBM, in order, and the pages that have to wait.

    The nearest tier first, so that most pages are there soonest; in a tier by number; neighbours
    are one run and so one operation.
    """
    missing = sorted({page for page in pages if tier(page) is not Tier.HBM})
    missing.sort(key=tier)
    runs: list[Run] = []
    for page in missing[:room]:
        last = runs[-1] if runs else None
        if last and last.tier is tier(page) and last.first + last.pages == page:
            runs[-1] = last._replace(pages=last.pages + 1)
        else:
            runs.append(Run(tier(page), page, 1))
    return runs, missing[room:]


# ---------------------------------------------------------------- rebalance
class Move(NamedTuple):
    """A page that changes its tier by one."""

    page: int
    source: Tier
    target: Tier


@dataclass(slots=True)
class Rebalanced:
    """Tiers of all pages after a step, and the moves that led there, in order.

    `waiting` are selected pages that found no room one tier up.
    """

    tiers: list[Tier]
    moves: list[Move]
    waiting: tuple[int, ...] = ()

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Moves up into HBM, up into DRAM, down into DRAM, down to SSD."""
        ways = [(move.source, move.target) for move in self.moves]
        return (
            ways.count((Tier.DRAM, Tier.HBM)),
            ways.count((Tier.SSD, Tier.DRAM)),
            ways.count((Tier.HBM, Tier.DRAM)),
            ways.count((Tier.DRAM, Tier.SSD)),
        )

    def move(self, page: int, by: int) -> None:
        """Moves *page* up (-1) or down (1)."""
        source = self.tiers[page]
        self.tiers[page] = Tier(source + by)
        self.moves.append(Move(page, source, self.tiers[page]))


def seed_rebalance(
    tiers: Sequence[Tier], selected: Collection[int], hbm: int, dram: int
) -> Rebalanced:
    """One step: selected pages go up a tier; then others, the last first, go down until each of
    *hbm* and *dram* pages is kept to, as far as pages that are not selected allow.
    """
    out = Rebalanced([Tier(tier) for tier in tiers], [])
    chosen = set(selected)
    for page in sorted(chosen):
        if out.tiers[page] is not Tier.HBM:
            out.move(page, -1)
    for tier, cap in ((Tier.HBM, hbm), (Tier.DRAM, dram)):
        over = out.tiers.count(tier) - cap
        for page in reversed(range(len(out.tiers))):
            if over <= 0:
                break
            if out.tiers[page] is tier and page not in chosen:
                out.move(page, 1)
                over -= 1
    return out


def mended_rebalance(
    tiers: Sequence[Tier], selected: Collection[int], hbm: int, dram: int, ssd: int | None = None
) -> Rebalanced:
    """The same step within *hbm*, *dram* and *ssd* pages (None: no limit), at every instant.

    Before a page goes up, room is made by sending down the last page that is not selected, and
    before that one more from the tier below if it is full too; a page moves once a step. A selected
    page that finds no room one tier up waits where it is. Pages in DRAM come before those on disk.
    *tiers* must keep to the budgets.
    """
    out = Rebalanced([Tier(tier) for tier in tiers], [])
    caps = {Tier.HBM: hbm, Tier.DRAM: dram, Tier.SSD: len(tiers) if ssd is None else ssd}
    for tier, cap in caps.items():
        assert out.tiers.count(tier) <= cap, f"{tier.name} holds more than {cap} pages"
    fixed, waiting = set(selected), []  # selected, or moved already
    wishes = sorted(
        (page for page in fixed if out.tiers[page] is not Tier.HBM),
        key=lambda page: (out.tiers[page], page),
    )
    for page in wishes:
        above = Tier(out.tiers[page] - 1)
        if _room(out, above, caps, fixed):
            out.move(page, -1)
        else:
            waiting.append(page)
    out.waiting = tuple(sorted(waiting))
    return out


def _room(out: Rebalanced, tier: Tier, caps: dict[Tier, int], fixed: set[int]) -> bool:
    """Whether *tier* has room for a page, if need be after sending one that is not *fixed* down."""
    if out.tiers.count(tier) < caps[tier]:
        return True
    going = [page for page, place in enumerate(out.tiers) if place is tier and page not in fixed]
    if tier is Tier.SSD or not going or not _room(out, Tier(tier + 1), caps, fixed):
        return False
    out.move(going[-1], 1)
    fixed.add(going[-1])
    return True


# ---------------------------------------------------------------- eviction
@dataclass(frozen=True, slots=True)
class Page:
    """What the seed's eviction looks at."""

    pinned: bool = False
    selected: bool = False
    draft: bool = False
    resident: bool = True


@dataclass(slots=True)
class Evicted:
    """Pages that went, in order, and the seed's counts, which count every page once a pass."""

    pages: list[int]
    draft: int = 0
    committed: int = 0
    scanned: int = 0
    pinned_skipped: int = 0
    selected_skipped: int = 0


def seed_eviction(pages: Sequence[Page], budget: int) -> Evicted:
    """Up to *budget* resident pages, neither pinned nor selected: drafts first, by place."""
    out = Evicted([])
    for draft in (True, False):
        for place, page in enumerate(pages):
            if len(out.pages) >= budget:
                return out
            out.scanned += 1
            if not page.resident or place in out.pages:
                continue
            if page.pinned:
                out.pinned_skipped += 1
            elif page.selected:
                out.selected_skipped += 1
            elif page.draft is draft:
                out.pages.append(place)
                if draft:
                    out.draft += 1
                else:
                    out.committed += 1
    return out
