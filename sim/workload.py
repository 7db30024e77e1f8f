"""The requests of a scenario: read from its file or drawn from its source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenario import Scenario
    from .trace.chunk import Chunk, Tally
    from .trace.lengths import Length


def chunks(scenario: Scenario, tally: Tally) -> Iterator[Chunk]:
    """The requests of the scenario's trace, read or generated."""
    trace = scenario.trace
    if trace.file is not None:
        from .trace.read import read

        return read(
            Path(trace.file), trace.format, limit=trace.requests, sort=trace.sort,
            bad_rows=trace.bad_rows, tally=tally,
        )  # fmt: skip
    from .trace.generate import generate

    assert trace.source is not None
    assert trace.requests is not None
    if trace.source != "synthetic":
        return generate(trace.source, trace.requests, scenario.seed)
    return generate(
        trace.source, trace.requests, scenario.seed, rate_per_s=trace.rate,
        arrivals=trace.arrivals, burstiness=trace.burstiness,
        prompt=_length(trace.prompt_tokens), output=_length(trace.output_tokens),
    )  # fmt: skip


def _length(length: Any) -> Length:
    from .trace.lengths import Length

    names = Length.__dataclass_fields__
    return Length(**{name: getattr(length, name) for name in names})
