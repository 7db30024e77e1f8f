"""What a writer is told, and what it tells: block sizes, and what the target could not hold."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from sim.trace.blocks import USUAL_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    from sim.trace.blocks import LastBlock
    from sim.trace.chunk import Tally


@dataclass(slots=True)
class Target:
    """A format to be written.

    `block_tokens` the size of the blocks whose ids are written, None for the source's. `tally` is
    the source's, filled while its chunks are taken; None for a source whose blocks are of
    `block_tokens` (512 if that is None). `folder` is where the file will be.
    """

    format: str
    block_tokens: int | None = None
    tally: Tally | None = None
    folder: Path | None = None
    _lost: dict[str, int] = field(default_factory=dict)

    @property
    def source_tokens(self) -> int:
        """Prompt tokens a block of the source; to be asked when its first ids are there."""
        if self.tally is not None:
            return self.tally.block_tokens or USUAL_TOKENS
        return self.block_tokens or USUAL_TOKENS

    @property
    def source_last(self) -> LastBlock:
        """Whether the source has ids for last blocks that are not full."""
        return "partial" if self.tally is None else self.tally.last_block

    def scratch(self) -> IO[bytes]:
        """A file for what has to wait, where there should be room for it; to be closed."""
        return tempfile.TemporaryFile(dir=self.folder)

    def lose(self, text: str, count: int = 1) -> None:
        """Count something that is not kept, or say it once: # in *text* stands for the count."""
        if count:
            self._lost[text] = self._lost.get(text, 0) + count

    @property
    def lost(self) -> list[str]:
        """What is not kept, one line each, the target's name first."""
        return [
            f"{self.format}: {text.replace('#', f'{count:,}')}"
            for text, count in self._lost.items()
        ]
