"""The requests of a scenario: read from its file or drawn from its source, at its rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .changes import steps_of
from .rng import stream
from .source import knobs
from .traffic import Part, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenario import Scenario
    from .trace.chunk import Chunk, Tally
    from .trace.turns import Replay

SESSIONS_ONLY = ("sessions", "session_arrivals", "shared_prefix")


def chunks(scenario: Scenario, tally: Tally) -> Iterator[Chunk]:
    """The requests of the scenario, as its run plays them; fills *tally* while they are taken."""
    return _changed(scenario.trace, scenario.seed, scenario.model.shape.max_context, tally)


def _changed(trace: Trace, seed: int, max_context: int, tally: Tally) -> Iterator[Chunk]:
    """The requests of *trace* with all changes that it asks for."""
    if trace.merge is None:
        found = original(trace, seed, tally)
    else:
        found = _merged(trace.merge, seed, max_context, tally)
    return steps_of(trace, max_context).apply(found, seed, tally)


def _merged(parts: tuple[Part, ...], seed: int, max_context: int, tally: Tally) -> Iterator[Chunk]:
    """Several traces as one. Each has a seed of its own: a source listed twice is drawn twice."""
    from .trace.transforms import Source, merge

    def source(number: int, part: Part) -> Source:
        own = int(stream(seed, "trace.merge.seed", number).integers(2**63))
        name = f"trace.merge.{number} ({Path(part.file).name if part.file else part.source})"
        return Source(name, part.weight, lambda tally: _changed(part, own, max_context, tally))

    return merge([source(*at) for at in enumerate(parts)], seed, tally)


def original(trace: Trace, seed: int, tally: Tally) -> Iterator[Chunk]:
    """The requests of *trace*, read or generated, before any change."""
    if trace.file is not None:
        return _read(trace, seed, tally)
    from .trace.generate import generate

    assert trace.source is not None
    assert trace.requests is not None
    given = knobs(trace)
    found = generate(trace.source, trace.requests, seed, tally=tally, **given)
    if trace.sessions != "open":
        return found
    from .trace.unlinked import unlinked

    return unlinked(found, tally)


def _read(trace: Trace, seed: int, tally: Tally) -> Iterator[Chunk]:
    """The requests of the trace's file; notes the keys that had no effect on it."""
    from .trace.read import read

    assert trace.file is not None
    found = read(
        Path(trace.file), trace.format, limit=trace.requests, sort=trace.sort,
        bad_rows=trace.bad_rows, tally=tally, block_tokens=trace.block_tokens,
        replay=_replay(trace, seed),
    )  # fmt: skip
    if trace.format != "auto":
        tally.told_by = "trace.format"
    given = [key for key in SESSIONS_ONLY if getattr(trace, key) != Trace.model_fields[key].default]
    for chunk in found:
        if chunk.links is None:
            for key in given:
                tally.note(f"{key} has no effect: this {tally.format} file has no sessions")
            given = []
        yield chunk


def _replay(trace: Trace, seed: int) -> Replay:
    from .trace.turns import Replay

    starts = trace.session_arrivals
    if starts is None:
        return Replay(trace.sessions, seed=seed, shared_prefix=trace.shared_prefix)
    return Replay(
        trace.sessions, starts.rate, starts.arrivals, starts.burstiness, seed,
        trace.shared_prefix,
    )  # fmt: skip
