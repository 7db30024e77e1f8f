"""What a trace is to the rest of the project: consecutive requests as columns.

Readers and generators yield chunks, so a trace larger than memory never exists as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from .ragged import Ragged


@dataclass(frozen=True, slots=True)
class Links:
    """Sessions, and who waits for whom: columns beside those of a chunk, of the same length n.

    `session` the name of the session a request belongs to, "" for none.
    `after` the requests whose completion a request waits for, as their positions in the trace
    (from 0, always below its own); empty for those that wait for nobody.
    `delay_s` float64, seconds from the last of these completions until the request is sent (a tool
    runs, a user thinks); 0 where `after` is empty.
    `recorded_s` float64, seconds from the trace's first request to the time at which the file has
    this one, or nan where it has none.

    A request is sent at max(its `arrival_s`, the last completion of `after` + `delay_s`).
    """

    session: list[str]
    after: Ragged
    delay_s: NDArray[np.float64]
    recorded_s: NDArray[np.float64]

    def part(self, start: int, stop: int) -> Links:
        """The requests from *start* to before *stop*; positions still count from the trace's."""
        return Links(
            self.session[start:stop],
            self.after.part(start, stop),
            self.delay_s[start:stop],
            self.recorded_s[start:stop],
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive requests of a trace; all columns have the same length n.

    `arrival_s` float64, seconds since the trace's first request, non-decreasing over all chunks.
    Of a request that waits for others it is the earliest: when it would be sent if those before it
    took no time.
    `prompt_tokens`, `output_tokens` int64, both at least 1.
    `block_ids` the prefix block ids of each prompt (none where unknown), or None if the trace has
    none at all.
    `links` sessions and dependencies, or None if the trace has none at all: open loop.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    block_ids: Ragged | None = None
    links: Links | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def part(self, start: int, stop: int) -> Chunk:
        """The requests from *start* to before *stop*, as views."""
        return Chunk(
            self.arrival_s[start:stop],
            self.prompt_tokens[start:stop],
            self.output_tokens[start:stop],
            None if self.block_ids is None else self.block_ids.part(start, stop),
            None if self.links is None else self.links.part(start, stop),
        )

    def split(self, rows: int) -> Iterator[Chunk]:
        """The same requests in chunks of at most *rows*."""
        if len(self) <= rows:
            yield self
            return
        for start in range(0, len(self), rows):
            yield self.part(start, min(start + rows, len(self)))

    def at(self, arrival_s: NDArray[np.float64]) -> Chunk:
        """The same requests at other times."""
        return replace(self, arrival_s=arrival_s)


@dataclass(slots=True)
class Tally:
    """What a reader found out: the format and by what, block size, good and bad rows, remarks."""

    rows: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    """The first few bad rows, as `file:line: what`."""
    format: str = ""
    told_by: str = ""
    block_tokens: int | None = None
    """Prompt tokens of a prefix block id, or None where there are no ids (yet)."""
    last_block: Literal["partial", "full"] = "partial"
    """Whether a last block that is not full has an id ("partial": ceil), or not ("full": floor)."""
    notes: list[str] = field(default_factory=list)
    """What a user should know: columns not used, how a quirk was read."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """What was changed on the way, in order: JSON-able, `change` its name, then its settings and
    counts."""

    def skip(self, reason: str, rows: int = 1) -> None:
        """Count *rows* that are left out under *reason*."""
        self.skipped += rows
        self.reasons[reason] = self.reasons.get(reason, 0) + rows

    def note(self, text: str) -> None:
        """Remember a remark, once."""
        if text not in self.notes:
            self.notes.append(text)
