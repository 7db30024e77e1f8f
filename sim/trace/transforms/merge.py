"""Several traces as one, each with its share of the requests.

Weights act by thinning: of the source that is short of requests for its share all are taken, of the
others a random part, whole sessions together. So every source keeps its own clock, its bursts and
its delays; the merged rate is what then comes, and `rate_scale` changes it. The merged trace ends
with the shortest source, since the shares hold no longer than that. Each source is gone through
twice, the first time for its rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.errors import InputError
from sim.trace.chunk import Tally
from sim.trace.ragged import Ragged

from .clip import renamed
from .held import CHUNK_ROWS, joined, no_links, taken, waiting_for, whole_ticks
from .pick import thinned
from .record import blank, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk

_SMALL_ID = 2**55
_Blocks = tuple[int | None, Literal["partial", "full"]]
"""Prompt tokens of a block id, and the rounding of the last block."""


@dataclass(frozen=True, slots=True)
class Source:
    """One of the traces: what messages call it, its weight, and how to read it from the start."""

    name: str
    weight: float
    read: Callable[[Tally], Iterator[Chunk]]


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the first pass finds: all arrivals in s, sessions, and whether there are ids, links."""

    arrival_s: NDArray[np.float64]
    sessions: frozenset[str]
    ids: bool
    links: bool
    blocks: _Blocks | None


def merge(sources: Sequence[Source], seed: int, tally: Tally) -> Iterator[Chunk]:
    """The requests of all *sources* in order of time, of each the share that its weight is.

    Block ids of different sources differ, and so do sessions: one whose name an earlier source has
    already gets another. *tally* gets the sums of what the sources' say, and one record. Raises
    `InputError` for sources that cannot be read, or whose blocks have different sizes.
    """
    weights = [source.weight for source in sources]
    record = blank("merge", {"weights": [w / sum(weights) for w in weights], "seed": seed})
    tally.changes.append(record)
    return _merged(sources, seed, tally, record)


def _merged(
    sources: Sequence[Source], seed: int, tally: Tally, record: dict[str, Any]
) -> Iterator[Chunk]:
    surveys = [_survey(source) for source in sources]
    tally.format, tally.told_by = "merge", f"{len(sources)} sources"
    tally.block_tokens, tally.last_block = _blocks(sources, surveys)
    end = min(float(survey.arrival_s[-1]) for survey in surveys)
    counts = [int(np.searchsorted(s.arrival_s, end, side="right")) for s in surveys]
    scarcity = [source.weight / count for source, count in zip(sources, counts, strict=True)]
    record |= {"end_s": end, "remark": f"to {end:.6g} s", "sources": []}
    feeds = []
    names: set[str] = set()
    for k, (source, survey) in enumerate(zip(sources, surveys, strict=True)):
        renames = _renames(survey.sessions, names, k)
        names |= {renames.get(name, name) for name in survey.sessions}
        share = scarcity[k] / max(scarcity)
        part = {
            "source": source.name, "weight": source.weight, "requests": len(survey.arrival_s),
            "requests_after_end": len(survey.arrival_s) - counts[k], "kept_share": share,
            "requests_out": 0, "sessions_renamed": len(renames),
        }  # fmt: skip
        record["sources"].append(part)
        own = Tally()
        chunks = counted(_up_to(source.read(own), end), record, "in")
        if share < 1:
            chunks = thinned(chunks, share, seed, f"trace.merge.{k}")
        feeds.append(_Feed(chunks, k, len(sources), renames, part, own))
    ids, links = (any(getattr(s, key) for s in surveys) for key in ("ids", "links"))
    for chunk in counted(_woven(feeds, ids, links), record, "out"):
        tally.rows += len(chunk)
        yield from chunk.split(CHUNK_ROWS)
    for source, feed in zip(sources, feeds, strict=True):
        _add(tally, feed.tally, source.name)
    record["complete"] = True


def _up_to(chunks: Iterator[Chunk], end_s: float) -> Iterator[Chunk]:
    """*chunks* up to and with *end_s*; the rest is read, for what there is to say about it."""
    for chunk in chunks:
        part = chunk.part(0, int(np.searchsorted(chunk.arrival_s, end_s, side="right")))
        if len(part):
            yield part


def _survey(source: Source) -> _Survey:
    tally = Tally()
    times: list[NDArray[np.float64]] = []
    sessions: set[str] = set()
    ids = links = False
    for chunk in source.read(tally):
        times.append(chunk.arrival_s)
        ids |= chunk.block_ids is not None
        if chunk.links is not None:
            links = True
            sessions.update(chunk.links.session)
    arrival_s = np.concatenate([np.zeros(0), *times])
    if not len(arrival_s):
        raise InputError(f"{source.name}: no requests to merge; leave it out")
    blocks = (tally.block_tokens, tally.last_block) if ids else None
    return _Survey(arrival_s, frozenset(sessions - {""}), ids, links, blocks)


def _blocks(sources: Sequence[Source], surveys: Sequence[_Survey]) -> _Blocks:
    """The block size and rounding that all sources with ids have; raises `InputError`."""
    found: dict[_Blocks, str] = {}
    for source, survey in zip(sources, surveys, strict=True):
        if survey.blocks is not None:
            found.setdefault(survey.blocks, source.name)
    if len({size for size, _ in found}) > 1:
        said = " and ".join(f"{name} has {size}" for (size, _), name in found.items())
        raise InputError(
            f"merge: blocks of different sizes: {said} tokens a block id; leave one of them out, "
            "or its ids: write it as vidur first"
        )
    # Model: rows may round their last block in two ways; "full" then never counts one too many
    return min(found, key=lambda blocks: blocks[1], default=(None, "partial"))


def _renames(sessions: frozenset[str], taken_names: set[str], k: int) -> dict[str, str]:
    """Other names for those of *sessions* that are taken already."""
    renames = {}
    free = set(sessions)
    for name in sorted(sessions & taken_names):
        other, number = f"{name}@{k}", k
        while other in taken_names or other in free:
            number += 1
            other = f"{name}@{k}.{number}"
        renames[name] = other
        free.add(other)
    return renames


def _add(tally: Tally, own: Tally, name: str) -> None:
    tally.skipped += own.skipped
    for reason, count in own.reasons.items():
        tally.reasons[reason] = tally.reasons.get(reason, 0) + count
    tally.examples.extend(own.examples)
    for note in own.notes:
        tally.note(f"{name}: {note}")
    tally.changes.extend(change | {"source": name} for change in own.changes)


class _Feed:
    """One source on its way into the merged trace: what is ready, and where its requests went."""

    def __init__(
        self,
        chunks: Iterator[Chunk],
        number: int,
        of: int,
        renames: dict[str, str],
        part: dict[str, Any],
        tally: Tally,
    ) -> None:
        self.tally = tally
        self._chunks = whole_ticks(chunks)
        self._number, self._of = number, of
        self._renames = renames
        self._part = part
        self._to: list[NDArray[np.int64]] = []  # new positions of the requests so far
        self.ready: Chunk | None = None
        self.pull()

    def pull(self) -> None:
        """Makes the next chunk ready, None after the last."""
        self.ready = next(self._chunks, None)

    def take(self, until_s: float) -> Chunk | None:
        """What is ready up to *until_s*, with ids and sessions of its own; None for nothing."""
        if self.ready is None:
            return None
        count = int(np.searchsorted(self.ready.arrival_s, until_s, side="right"))
        chunk, rest = self.ready.part(0, count), self.ready.part(count, len(self.ready))
        if len(rest):
            self.ready = rest
        else:
            self.pull()
        self._part["requests_out"] += count
        return self._own(chunk) if count else None

    def _own(self, chunk: Chunk) -> Chunk:
        ids, links = chunk.block_ids, chunk.links
        if ids is not None:
            ids = Ragged(_apart(ids.values, self._number, self._of), ids.offsets)
        if links is not None and self._renames:
            session = [self._renames.get(name, name) for name in links.session]
            links = replace(links, session=session)
        return replace(chunk, block_ids=ids, links=links)

    def placed(self, positions: NDArray[np.int64]) -> None:
        """The requests taken last have these positions in the merged trace."""
        self._to.append(positions)

    def position_of(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the requests at the positions *own* of this source are in the merged trace."""
        if len(self._to) > 1:
            self._to = [np.concatenate(self._to)]
        return self._to[0][own] if len(own) else own


def _apart(ids: NDArray[np.int64], number: int, of: int) -> NDArray[np.int64]:
    """*ids* of source *number* as ids that no other of *of* sources has."""
    small = ids < _SMALL_ID
    return np.where(small, np.where(small, ids, 0) * of + number, renamed(ids, number))


def _woven(feeds: Sequence[_Feed], ids: bool, links: bool) -> Iterator[Chunk]:
    """All requests in order of time; of one time those of earlier feeds first."""
    position = 0
    while ready := [feed.ready for feed in feeds if feed.ready is not None]:
        until = min(float(chunk.arrival_s[-1]) for chunk in ready)
        parts = [(feed, part) for feed in feeds if (part := feed.take(until)) is not None]
        each = [_with(part, ids, links) for _, part in parts]
        whole = joined(each)
        order = np.argsort(whole.arrival_s, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = position + np.arange(len(order))
        after, at = [], 0
        for feed, part in parts:
            feed.placed(place[at : at + len(part)])
            if part.links is not None:
                after.append(feed.position_of(part.links.after.values))
            at += len(part)
        if links:
            whole = waiting_for(whole, np.concatenate([np.zeros(0, dtype=np.int64), *after]))
        yield taken(whole, order)
        position += len(whole)


def _with(chunk: Chunk, ids: bool, links: bool) -> Chunk:
    """*chunk* with empty ids and links where the merged trace has some."""
    if ids and chunk.block_ids is None:
        chunk = replace(chunk, block_ids=Ragged.empty(len(chunk)))
    if links and chunk.links is None:
        chunk = replace(chunk, links=no_links(len(chunk)))
    return chunk
