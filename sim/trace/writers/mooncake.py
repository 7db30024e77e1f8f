"""Mooncake JSON lines that vLLM, AIPerf, Dynamo, SGLang and GuideLLM replay.

What each of them needs and tolerates, by their sources and documentation of 2026:

- vLLM, `bench serve --dataset-name timed_trace`: timestamp, input_length, output_length, hash_ids
  in every row; block size and unit of time are flags (--timed-trace-chunk-hash-size 512
  --timed-trace-sec-multiplier 0.001), and too few ids cut the prompt short in silence.
- SGLang, `bench_serving --dataset-name mooncake`: a timestamp in ms in every row; hash_ids as text.
- GuideLLM, data kind `mooncake`: these four in every row, ids of 32 bits that index a table (so
  they must be dense), exactly ceil(input_length / 512) of them.
- AIPerf, `mooncake_trace`: as many ids as blocks, the last one partial. Rows of a session_id are
  turns: a later one is sent `delay` ms after the answer before it, but at its timestamp if it has
  one, so later turns have none here. Their prompts are taken for what is new unless `context_mode`
  says that each is whole.
- Dynamo, `mooncake`: hash_ids needed; rows of a session_id are closed loop, with `delay` or else
  the difference of timestamps from completion on; a first turn has no delay.

So rows without sessions suit all five. Later turns of a closed session have a delay and no time,
which AIPerf and Dynamo replay; the other three need a trace read with open sessions.
Keys that a tool does not know do not disturb any of the five.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import IO, TYPE_CHECKING

import numpy as np

from sim.trace.arrow import digits, woven
from sim.trace.blocks import USUAL_TOKENS

from .ids import GlobalIds
from .spool import PART_ROWS, Spool, ends
from .threads import threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sim.trace.chunk import Chunk

    from .spool import Linked
    from .target import Target
    from .threads import Threads

_WHOLE_PROMPTS = '"context_mode": "message_array_with_responses", '


def write(chunks: Iterable[Chunk], file: IO[bytes], target: Target) -> int:
    """Write *chunks* to *file*; the number of requests."""
    ids = GlobalIds(target, target.block_tokens or USUAL_TOKENS)
    stream = iter(chunks)
    rows = 0
    for chunk in stream:
        if chunk.links is not None:
            return rows + _write_linked(itertools.chain((chunk,), stream), rows, file, ids, target)
        for part in chunk.split(PART_ROWS):
            times = digits(_milliseconds(part.arrival_s, target))
            file.write(woven('{"timestamp": ', times, *ends(part, ids.of(part))))
        rows += len(chunk)
    return rows


def _write_linked(
    chunks: Iterable[Chunk], before: int, file: IO[bytes], ids: GlobalIds, target: Target
) -> int:
    """Write *chunks*, from the first with links on; the number of requests."""
    with target.scratch() as scratch:
        spool = Spool(scratch, before)
        for chunk in chunks:
            for part in chunk.split(PART_ROWS):
                spool.add(part, ids.of(part))
        trace = spool.linked()
        found = threads(trace)
        _say_lost(trace, found, target)
        times = _milliseconds(trace.arrival_s, target, found.follows < 0)
        exact = trace.links.delay_s * 1e3
        target.lose("delays of # requests are rounded to milliseconds", _odd(exact))
        delays = np.rint(exact).astype(np.int64)
        spool.write(_heads(found, times.tolist(), delays.tolist()), file)
        return len(trace.arrival_s)


def _heads(found: Threads, times: Sequence[int], delays: Sequence[int]) -> Iterator[str]:
    """What each row begins with: its session, and its time or its delay."""
    rows = Counter(found.name)
    session = {
        name: f'"session_id": {json.dumps(name or None)}, '
        + (_WHOLE_PROMPTS if name and count > 1 else "")
        for name, count in rows.items()
    }
    if list(rows) == [""]:
        session = {"": ""}
    columns = (found.name, found.follows.tolist(), times, delays)
    for name, other, time, delay in zip(*columns, strict=True):
        when = f'"timestamp": {time}' if other < 0 else f'"delay": {delay}'
        yield f"{{{session[name]}{when}"


def _say_lost(trace: Linked, found: Threads, target: Target) -> None:
    links = trace.links
    follows = found.follows >= 0
    target.lose(
        "# requests that wait for others begin a session of their own at their earliest time: "
        "sessions do not fork",
        found.forks,
    )
    target.lose("# dependencies are not kept: sessions do not join", found.joins)
    pairs = zip(found.name, links.session, strict=True)
    target.lose(
        "# requests are in a session of another name: sessions are split at forks, and joined "
        "where one waits for another",
        sum(name != session for name, session in pairs),
    )
    target.lose("earliest times of # requests that wait for others are not kept", found.held_back)
    recorded = np.isfinite(links.recorded_s) & follows
    target.lose("recorded times of # later turns are not kept", int(recorded.sum()))
    if follows.any():
        target.lose(
            "later turns have a delay in place of a time, which AIPerf and Dynamo replay; vLLM, "
            "SGLang and GuideLLM need a trace written with --sessions open"
        )
    met: set[str] = set()
    timed = 0
    for name, waits in zip(found.name, follows.tolist(), strict=True):
        timed += name in met and not waits
        met.add(name or "")
        met.discard("")
    target.lose("# later turns have a time, before which AIPerf and Dynamo wait for answers", timed)


def _milliseconds(
    arrival_s: NDArray[np.float64], target: Target, which: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Times in whole milliseconds, non-decreasing like *arrival_s*."""
    exact = arrival_s * 1e3
    lost = _odd(exact if which is None else exact[which])
    target.lose("times of # requests are rounded to milliseconds", lost)
    return np.rint(exact).astype(np.int64)


def _odd(exact: NDArray[np.float64]) -> int:
    """How many of some milliseconds are not whole, but for a float's error."""
    return int((np.abs(exact - np.rint(exact)) > 1e-6 * np.maximum(1.0, exact * 1e-6)).sum())
