"""Our own Parquet with links: sessions, and who waits for whom, by the numbers of rows.

One rule: what is left out takes those with it that wait for it. The whole trace is loaded, its
block ids as runs of consecutive numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import MAX_SECONDS, MAX_STAMP_S
from sim.trace.chunk import Chunk, Links
from sim.trace.idruns import Rows
from sim.trace.naming import said
from sim.trace.ragged import Ragged
from sim.trace.rows import BadRowError, no_requests

from . import columns
from .columns import AFTER, DELAY, RECORDED, SESSION
from .objects import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sim.trace.blocks import Blocks
    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

_BATCH_ROWS = 4096
_CHUNK_IDS = 2**21  # block ids in a chunk, unless one request alone has more


@dataclass(slots=True)
class _Held:
    """All rows of a file as columns; `left_out` flags those that are no requests.

    `counts` of block ids; `ids` gives the ids of some rows, None if the file has none.
    """

    time: NDArray[np.float64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    counts: NDArray[np.int64]
    ids: Rows | None
    session: list[str]
    after: Ragged
    delay_s: NDArray[np.float64]
    recorded_s: NDArray[np.float64]
    left_out: NDArray[np.bool_]

    def leave_out(self, row: int, reason: str, text: str, findings: Findings) -> None:
        """Row number *row*, from 0, is bad."""
        self.left_out[row] = True
        findings.add(row + 1, BadRowError(reason, text))


def chunks(
    path: Path,
    findings: Findings,
    tally: Tally,
    size: Blocks,
    replay: Replay,
    *,
    limit: int | None,
    sort: bool,
    chunk_rows: int,
) -> Iterator[Chunk]:
    """The requests of the file, in chunks, with `replay.sessions` as in `turns.chunks`."""
    held = _held(path, findings, tally)
    findings.check()
    _check_blocks(held, size, findings)
    _check_links(held, findings)
    findings.check()
    opened = replay.sessions == "open"
    if opened:
        _open(held, findings, tally)
    _follow(held, findings)
    findings.check()
    kept = _ordered(held, path, tally, sort=sort or opened)
    time_s = held.time[kept]
    after = _placed(held.after, kept, len(held.time), path)
    kept = kept[:limit]
    tally.rows += len(kept)
    waiting = int((after.lengths[: len(kept)] > 0).sum())
    if waiting:
        tally.note(f"closed loop: {waiting:,} requests wait for answers to others")
    ends = np.concatenate([[0], np.cumsum(held.counts[kept])])
    start = 0
    while start < len(kept):
        stop = int(np.searchsorted(ends, ends[start] + _CHUNK_IDS, side="right")) - 1
        stop = min(max(stop, start + 1), start + chunk_rows, len(kept))
        rows = kept[start:stop]
        yield Chunk(
            time_s[start:stop] - time_s[0],
            held.prompt[rows],
            held.output[rows],
            None if held.ids is None else held.ids.take(rows),
            Links(
                [held.session[row] for row in rows.tolist()],
                after.part(start, stop),
                held.delay_s[rows],
                held.recorded_s[rows] - time_s[0],
            ),
        )
        start = stop


def _held(path: Path, findings: Findings, tally: Tally) -> _Held:
    parts: list[Any] = []
    links: list[tuple[list[str], Ragged, NDArray[np.float64], NDArray[np.float64]]] = []
    left_out: list[NDArray[np.bool_]] = []
    counts: list[NDArray[np.int64]] = []
    runs: list[tuple[Ragged, Ragged]] = []
    for first, batch in columns.batches(path, tally, _BATCH_ROWS):
        with columns.arrow_errors(path):
            rows, bad = columns.plain_columns(batch, first)
            links.append(_links(batch))
        if bad.any():
            columns.report(batch, np.flatnonzero(bad).tolist(), rows, findings)
        parts.append((rows.time, rows.prompt, rows.output))
        left_out.append(bad)
        if rows.ids is not None:
            counts.append(rows.ids.lengths)
            runs.append(_runs(rows.ids))
    if not parts:
        raise no_requests(path, tally)
    time, prompt, output = (np.concatenate(column) for column in zip(*parts, strict=True))
    starts, lengths = ([pair[i] for pair in runs] for i in range(2))
    return _Held(
        time,
        prompt,
        output,
        np.concatenate(counts) if counts else np.zeros(len(time), dtype=np.int64),
        Rows(Ragged.joined(starts), Ragged.joined(lengths)) if runs else None,
        [name for names, *_ in links for name in names],
        Ragged.joined([after for _, after, _, _ in links]),
        np.concatenate([delay for *_, delay, _ in links]),
        np.concatenate([recorded for *_, recorded in links]),
        np.concatenate(left_out),
    )


def _runs(ids: Ragged) -> tuple[Ragged, Ragged]:
    """The first number of each run of consecutive ids of each row, and how many it has."""
    first = np.ones(len(ids.values) + 1, dtype=np.bool_)
    first[1:-1] = np.diff(ids.values) != 1
    first[ids.offsets] = True
    at = np.flatnonzero(first)  # ends with the number of ids
    offsets = np.searchsorted(at, ids.offsets)
    return Ragged(ids.values[at[:-1]], offsets), Ragged(np.diff(at), offsets)


def _links(batch: Any) -> tuple[list[str], Ragged, NDArray[np.float64], NDArray[np.float64]]:
    """The columns of links of a batch; a missing number is nan, a missing row number is -1."""
    import pyarrow.compute as pc

    rows = batch.num_rows

    def numbers(name: str) -> NDArray[np.float64]:
        if name not in batch.schema.names:
            return np.full(rows, np.nan)
        values = pc.fill_null(pc.cast(batch.column(name), "float64"), np.nan)
        found: NDArray[np.float64] = values.to_numpy(zero_copy_only=False)
        return found

    there = batch.schema.names
    names = batch.column(SESSION).to_pylist() if SESSION in there else [""] * rows
    after = columns.whole_lists(batch.column(AFTER), -1) if AFTER in there else Ragged.empty(rows)
    return [name or "" for name in names], after, numbers(DELAY), numbers(RECORDED)


def _check_blocks(held: _Held, size: Blocks, findings: Findings) -> None:
    if held.ids is None:
        return
    offsets = np.concatenate([[0], np.cumsum(held.counts)])
    # only the numbers of ids are looked at
    ids = Ragged(np.broadcast_to(np.int64(0), int(offsets[-1])), offsets)
    wrong = size.wrong(held.prompt, ids) & ~held.left_out
    for row in np.flatnonzero(wrong).tolist():
        held.left_out[row] = True
        findings.add(row + 1, size.bad(int(held.prompt[row]), int(held.counts[row])))


def _check_links(held: _Held, findings: Findings) -> None:
    """Find the rows whose links make no sense in themselves."""
    after, rows = held.after, np.arange(len(held.time))
    owner = np.repeat(rows, after.lengths)
    bad_after = columns.any_in_row(after, (after.values < 0) | (after.values >= owner))
    order = np.lexsort((after.values, owner))
    twice = np.zeros(len(owner), dtype=np.bool_)
    same = (np.diff(owner[order]) == 0) & (np.diff(after.values[order]) == 0)
    twice[order[1:][same]] = True
    bad_twice = columns.any_in_row(after, twice)
    waits = after.lengths > 0
    delay, recorded = held.delay_s, held.recorded_s
    bad_delay = waits & ~((delay >= 0) & (delay <= MAX_SECONDS))
    bad_recorded = ~np.isnan(recorded) & ~(np.abs(recorded) <= MAX_STAMP_S)
    odd_names = {
        name for name in set(held.session) if len(name) > MAX_NAME or not name.isprintable()
    }
    bad_name = np.zeros(len(rows), dtype=np.bool_)
    if odd_names:
        bad_name = np.array([name in odd_names for name in held.session], dtype=np.bool_)
    bad = (bad_after | bad_twice | bad_delay | bad_recorded | bad_name) & ~held.left_out
    for row in np.flatnonzero(bad).tolist():
        if bad_name[row]:
            text = f"{SESSION}: {shown(held.session[row])} is too long or not printable; rename it"
            held.leave_out(row, "bad session", text, findings)
        elif bad_after[row]:
            odd = next(other for other in after[row] if not 0 <= other < row)
            what = "a missing value" if odd == -1 else f"{odd:,}"
            text = f"{AFTER}: {what} is no row before this one, which is {row:,} counted from 0"
            held.leave_out(row, "bad after", f"{text}; correct it", findings)
        elif bad_twice[row]:
            text = f"{AFTER}: a row is named twice; name it once"
            held.leave_out(row, "bad after", text, findings)
        elif bad_delay[row]:
            text = f"{DELAY}: {delay[row]} is no delay; write seconds, 0 or more"
            held.leave_out(row, "bad delay", text, findings)
        else:
            text = f"{RECORDED}: {recorded[row]} is not a plausible time; correct it"
            held.leave_out(row, "bad time", text, findings)
    held.delay_s = np.where(waits, delay, 0.0)


def _open(held: _Held, findings: Findings, tally: Tally) -> None:
    """Every request at its recorded time, waiting for nobody."""
    waits = (held.after.lengths > 0) & ~held.left_out
    for row in np.flatnonzero(waits & np.isnan(held.recorded_s)).tolist():
        text = f"{RECORDED}: no recorded time to replay it at; set trace.sessions: closed"
        held.leave_out(row, "no time", f"{text} (--sessions)", findings)
    held.time = np.where(waits, held.recorded_s, held.time)
    held.after = Ragged.empty(len(held.time))
    held.delay_s = np.zeros(len(held.time))
    if waits.any():
        tally.note(
            f"open loop: {waits.sum():,} requests that follow others in a session are sent at "
            "their recorded times"
        )


def _follow(held: _Held, findings: Findings) -> None:
    """Leave out those that wait for what is left out."""
    if not held.left_out.any():
        return
    for row in np.flatnonzero((held.after.lengths > 0) & ~held.left_out).tolist():
        gone = [other for other in held.after[row] if held.left_out[other]]
        if gone:
            text = f"{AFTER}: row {gone[0] + 1}, which is left out; delete this one too"
            held.leave_out(row, "predecessor left out", text, findings)


def _ordered(held: _Held, path: Path, tally: Tally, *, sort: bool) -> NDArray[np.intp]:
    """The good rows in order of time; raises `InputError` if they are not and may not be sorted."""
    kept = np.flatnonzero(~held.left_out)
    if sort:
        kept = kept[np.argsort(held.time[kept], kind="stable")]
    if not len(kept):
        raise no_requests(path, tally)
    time = held.time[kept]
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back):
        before, here = kept[back[0] : back[0] + 2].tolist()
        raise InputError(
            f"{said(path)}:row {here + 1}: {columns.TIME[0]}: row {here + 1} arrives before row "
            f"{before + 1}; sort the file or set trace.sort: true (--sort)"
        )
    if time[-1] - time[0] > MAX_SECONDS:
        late = int(np.searchsorted(time - time[0], MAX_SECONDS, side="right"))
        raise InputError(
            f"{said(path)}:row {kept[late] + 1}: {columns.TIME[0]}: {time[late] - time[0]:,.10g} s "
            f"after the first request, a trace spans at most {MAX_SECONDS:,.10g} s (31 years); "
            "correct or delete the row"
        )
    return kept


def _placed(after: Ragged, kept: NDArray[np.intp], rows: int, path: Path) -> Ragged:
    """For whom the rows *kept*, of all *rows*, wait, by places among them; raises `InputError`."""
    position = np.full(rows, -1, dtype=np.int64)
    position[kept] = np.arange(len(kept))
    after = after.take(kept)
    after = Ragged(position[after.values], after.offsets)
    own = np.repeat(np.arange(len(kept)), after.lengths)
    late = np.flatnonzero(after.values >= own)
    if len(late):
        row = int(kept[own[late[0]]]) + 1
        raise InputError(
            f"{said(path)}:row {row}: {AFTER}: waits for a request that arrives later; "
            "correct arrival_s, which is the earliest time"
        )
    return after
