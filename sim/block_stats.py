"""What block-parallel decode did in a run, for the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .block_decode import BlockDecode
    from .iteration_log import Columns
    from .quantiles import Summary


class BlockStats:
    """Accumulates slices of iterations of a scenario with the section *given*."""

    def __init__(self, given: BlockDecode | None) -> None:
        self.given = given
        self.steps = self.rows = self.commits = 0
        self.refreshes = self.refreshed_tokens = self.late = 0
        self.iterations = self.most = 0

    def add(self, columns: Columns) -> None:
        """Takes a slice of iterations."""
        if self.given is None:
            return
        self.steps += int(columns["decode_requests"].sum())
        self.rows += int(columns["decode_rows"].sum())
        self.commits += int(columns["commits"].sum())
        if self.given.refresh is not None:
            refreshing = columns["refreshing_requests"]
            self.refreshes += int(refreshing.sum())
            self.refreshed_tokens += int(columns["refreshed_tokens"].sum())
            self.late += int(columns["refresh_late"].sum())
            self.iterations += int((refreshing > 0).sum())
            self.most = max(self.most, int(refreshing.max(initial=0)))

    def summary(self) -> Summary:
        """Keys with the prefix `block_`; none without the section.

        Steps of all requests, tokens that they put through the model, and output tokens a step. Of
        refreshes: how many, the tokens that they computed again, iterations with any, most
        requests in one, and steps by which one came too late on average.
        """
        if self.given is None:
            return {}
        summary: Summary = {
            "block_steps": self.steps,
            "block_rows": self.rows,
            "block_tokens_per_step": self.commits / (self.steps or 1),
        }
        if self.given.refresh is not None:
            summary |= {
                "block_refreshes": self.refreshes,
                "block_refreshed_tokens": self.refreshed_tokens,
                "block_refresh_iterations": self.iterations,
                "block_refresh_max_requests": self.most,
                "block_refresh_mean_late_steps": self.late / (self.refreshes or 1),
            }
        return summary
