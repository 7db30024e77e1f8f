"""What is counted of decode steps, summed over the requests of an iteration.

The one rule: everything counted is a whole number and a function of a request's own step, the same
for one step and for arrays of them, so that sums over a batch do not depend on order or engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .forms import Prompts
from .refreshing import HEIGHT
from .steps import Course, Load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .refreshing import Rule
    from .steps import Counts, Selection, Speculator, Step, Whole

ROWS, COMMITS, CONTEXT, HELD, KEPT, LOWER = range(6)
_FIXED = 6
_READS = 6
"""How many a selection adds, `Load`'s first; those about drafts come behind them."""
RECALL_UNIT = 2.0**-30
"""Shares of attention mass are summed in whole numbers of this."""


class Measures:
    """What is counted of a step, as rows of a table.

    Rows: tokens through the model, tokens committed, KV entries; KV blocks in HBM during the step
    and after it; blocks in DRAM. With *selection* KV entries read, pages scored, blocks fetched,
    read and there, and recall. If anything is drafted, how many drafts, drafts accepted, blocks
    in HBM for drafts alone; then for every level up to `max_depth` whether it was drafted, and
    whether a draft of it was accepted. Last, with *refresh*, what the batch computes again, which
    is no request's own.
    """

    def __init__(
        self,
        block_tokens: int,
        speculator: Speculator,
        selection: Selection | None = None,
        refresh: Rule | None = None,
    ) -> None:
        self.block_tokens = block_tokens
        self.speculator = speculator
        self.selection = selection
        self.partial = selection is not None and (selection.offload or selection.drop)
        """Whether HBM holds less than all KV of a decoding request."""
        self.lower_capacity = 0
        """Blocks that DRAM has for what is not in HBM."""
        self.levels = speculator.max_depth
        self.drafts = _FIXED + (_READS if selection is not None else 0)
        self.drafted = self.drafts + (3 if self.levels else 0)
        self.accepted = self.drafted + self.levels
        self.refresh = refresh
        self.refreshed = self.accepted + self.levels
        self.height = self.refreshed + (0 if refresh is None else HEIGHT)
        levels = np.arange(self.levels + 1)
        self._reached = (levels > levels[:-1, None]).astype(np.int64)
        """Which levels are reached, a column for each number of them."""
        self._plain: Counts | None = None
        """The table of steps of one token, a column a context."""

    def of(
        self, context: Whole, rows: Whole, commits: Whole, proposed: Whole, accepted: Whole
    ) -> list[Any]:
        """The counts of a step that begins with *context* KV entries, or of each of many."""
        now, after = context + rows, context + commits
        held, kept, lower = self._memory(context, rows, now, after)
        counts: list[Any] = [rows, commits, now, held, kept, lower]
        read = self.selection
        if read is not None:
            recall = read.recall(now, rows) / RECALL_UNIT // 1.0
            counts += [
                read.attended(now, rows), read.pages(now, rows), read.fetched(now, rows, commits),
                read.chosen(now, rows), self._in_blocks(now), recall,
            ]  # fmt: skip
        if self.levels:
            whole = self._in_blocks(now) if self.partial else held
            # Blocks of one token more are those of the tokens before, the last one always begun.
            counts += [proposed, accepted, whole - context // self.block_tokens - 1]
        return counts

    def step(self, context: int, step: Step) -> list[int]:
        """The counts of a *step*."""
        counts = [int(count) for count in self.of(context, *step)]
        depth = self.speculator.depth(step.proposed)
        for reached in (depth, step.accepted):
            counts += [reached > level for level in range(self.levels)]
        return counts + [0] * (self.height - self.refreshed)

    def lower_fits(self, context: int) -> bool:
        """Whether DRAM has room for what HBM does not keep of so many KV entries."""
        return int(self.lower(context)) <= self.lower_capacity

    def table(self, context: int, course: Course) -> Counts:
        """The counts of a *course* that begins with *context* KV entries, a column a step."""
        if self.speculator.most_rows == 1 and not self.speculator.stalls:
            return self._one_token(context, len(course.rows))
        return self._table(context, course)

    def _one_token(self, context: int, steps: int) -> Counts:
        end = context + steps
        if self._plain is None or self._plain.shape[1] < end:
            ones, none = np.ones(2 * end, np.int64), np.zeros(2 * end, np.int64)
            self._plain = self._table(0, Course(ones, ones, none, none))
        return self._plain[:, context:end]

    def _table(self, context: int, course: Course) -> Counts:
        contexts = course.commits.cumsum()
        contexts -= course.commits
        contexts += context
        table = np.empty((self.height, len(contexts)), np.int64)
        for row, values in enumerate(self.of(contexts, *course)):
            table[row] = values
        if self.levels:
            depth = self.speculator.depth(course.proposed)
            reached = self._reached.take
            reached(depth, 1, table[self.drafted : self.accepted], "clip")
            reached(course.accepted, 1, table[self.accepted : self.refreshed], "clip")
        if self.refresh is not None:
            table[self.refreshed :] = 0
        return table

    def _memory(
        self, context: Whole, rows: Whole, now: Whole, after: Whole
    ) -> tuple[Any, Any, Any]:
        """Blocks of HBM during the step and after it, and of DRAM."""
        if not self.partial:
            return self._in_blocks(now), self._in_blocks(after), 0
        assert self.selection is not None
        kept = self.blocks(after)
        held = np.maximum(self.selection.resident(now, rows), kept)
        # Model: what a step appends is in HBM until it ends, and what leaves HBM then has had its
        # place in DRAM since the step began.
        lower = np.maximum(self.lower(context), self.lower(after))
        return np.maximum(held, self.blocks(context)), kept, lower

    def _in_blocks(self, tokens: Whole) -> Whole:
        return (tokens + (self.block_tokens - 1)) // self.block_tokens

    def blocks(self, context: Any) -> Any:
        """Blocks of HBM that a request with so many KV entries holds between two iterations."""
        if self.partial:
            assert self.selection is not None
            return self.selection.resident(context, 1 + 0 * context)
        return self._in_blocks(context)

    def lower(self, context: Any) -> Any:
        """Blocks of DRAM that it holds."""
        if self.selection is None or not self.selection.offload:
            return 0 * context
        return self.selection.offloaded(context, 1 + 0 * context)

    def load_of(self, sums: Sequence[int]) -> Load:
        """What the cost of an iteration with *sums* depends on."""
        depth = sum(count > 0 for count in sums[self.drafted : self.accepted])
        attended, pages, fetched = sums[_FIXED : _FIXED + 3] if self.selection else [None] * 3
        again = None
        if self.refresh is not None:
            again = Prompts(*sums[self.refreshed : self.refreshed + 3])
        return Load(sums[ROWS], sums[CONTEXT], depth, attended, pages, fetched, again)

    def load(self, sums: Counts) -> Load:
        """What the cost of iterations with *sums* depends on."""
        levels = (sums[self.drafted : self.accepted] > 0).view(np.int8)
        depth = np.add.reduce(levels, axis=0, dtype=np.int8)  # of 64 at most
        read = () if self.selection is None else sums[_FIXED : _FIXED + 3]
        load = Load(sums[ROWS], sums[CONTEXT], depth, *read)
        if self.refresh is None:
            return load
        return load._replace(refreshed=Prompts(*sums[self.refreshed : self.refreshed + 3]))

    def columns(self, sums: Counts) -> dict[str, np.ndarray]:
        """What iterations' records say of *sums*, by column; `accepted_at` has one a level."""
        columns: dict[str, np.ndarray] = {"decode_rows": sums[ROWS], "commits": sums[COMMITS]}
        if self.levels:
            names = ("draft_tokens", "accepted_tokens", "kv_draft_blocks", "drafts")
            columns |= dict(zip(names, sums[self.drafts : self.drafts + 4], strict=True))
            columns["accepted_at"] = sums[self.accepted : self.refreshed].T
        if self.selection is not None:
            names_read = (
                "attended_tokens", "pages_scored", "kv_blocks_fetched", "kv_blocks_selected",
                "kv_blocks_total", "recall",
            )  # fmt: skip
            columns |= dict(zip(names_read, sums[_FIXED : _FIXED + _READS], strict=True))
        if self.partial:
            columns["kv_blocks_lower"] = sums[LOWER]
        if self.refresh is not None:
            again = ("refreshing_requests", "refreshed_tokens", "refreshed_squares", "refresh_late")
            columns |= dict(zip(again, sums[self.refreshed :], strict=True))
        return columns
