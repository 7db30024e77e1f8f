"""What a trace is to the rest of the project: consecutive requests as columns.

Readers and generators yield chunks, so a trace larger than memory never exists as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

FORMATS = ("mooncake", "azure", "vidur", "parquet")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive requests of a trace, in order of arrival; all columns have the same length n.

    `arrival_s` float64, seconds since the trace's first request, non-decreasing over all chunks.
    `prompt_tokens`, `output_tokens` int64, both at least 1.
    `block_ids` one tuple of prefix block ids a request, or None where the trace has none.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    block_ids: list[tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def part(self, start: int, stop: int) -> Chunk:
        """The requests from *start* to before *stop*, as views."""
        return Chunk(
            self.arrival_s[start:stop],
            self.prompt_tokens[start:stop],
            self.output_tokens[start:stop],
            None if self.block_ids is None else self.block_ids[start:stop],
        )

    def split(self, rows: int) -> Iterator[Chunk]:
        """The same requests in chunks of at most *rows*."""
        for start in range(0, len(self), rows):
            yield self.part(start, start + rows)


@dataclass(slots=True)
class Tally:
    """What a reader met: good rows given out, bad rows skipped, and why they were bad."""

    rows: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count one bad row under *reason*."""
        self.skipped += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
