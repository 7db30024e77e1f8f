"""The file: what is shown of a run, in which order, and what the file says about itself."""

from __future__ import annotations

import gzip
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.delays import token_delay
from sim.trace.write import replacing

from . import loop_tracks, other_tracks
from .events import named
from .loop_tracks import Iterations
from .other_tracks import Links, Requests
from .rows import read
from .stages import COLUMNS as STAGE_COLUMNS
from .stages import NAMES, Model
from .window import Window, choose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .rows import Columns, Recorded

MOST = 200_000
"""Events of a file by default, of 150 bytes at most: it opens in a second or two."""
LEVEL = 5
"""Of gzip: 25 MB take half a second."""
LINES = 4096


@dataclass(frozen=True, slots=True)
class Written:
    """What went into a file."""

    events: int
    window: Window
    notes: tuple[str, ...]
    """What was left out or could not be worked out, a line each."""


def write(
    folder: Path,
    path: Path,
    begin: float | None = None,
    end: float | None = None,
    most: int = MOST,
    profile: Path | None = None,
) -> Written:
    """Writes the run in *folder* from *begin* to *end* seconds to *path*, packed if that ends in
    `.gz`; at most *most* events beside the names of tracks. *profile* is that of the run where it
    is a file.

    Raises `InputError` for what is no run's folder, or a damaged one, and for a *path* that cannot
    be written.
    """
    run = read(folder)
    window = choose(run, begin, end, most)
    model = Model(run.scenario if window.stages and run.kind == "simulated" else {}, profile)
    document = Document(run, window, model)
    notes = [*window.notes, *document.notes]
    with replacing(path) as raw, _packed(raw, path.name.endswith(".gz")) as file:
        head = {"displayTimeUnit": "ms", "otherData": document.about(notes)}
        file.write(json.dumps(head)[:-1].encode() + b',"traceEvents":[\n')
        count = _write_lines(file, document.events())
        file.write(b"\n]}\n")
    return Written(count, window, tuple(notes))


@contextmanager
def _packed(raw: IO[bytes], packed: bool) -> Iterator[IO[bytes]]:
    """*raw*, or gzip over it with neither name nor time in its head."""
    if not packed:
        yield raw
        return
    with gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file:
        yield file  # type: ignore[misc]


def _write_lines(file: IO[bytes], events: Iterator[str]) -> int:
    """Writes *events* with commas between them; how many."""
    count, lines = 0, []
    for event in events:
        lines.append(event)
        count += 1
        if len(lines) == LINES:
            file.write(((",\n" if count > LINES else "") + ",\n".join(lines)).encode())
            lines = []
    if lines:
        file.write(((",\n" if count > len(lines) else "") + ",\n".join(lines)).encode())
    return count


class Document:
    """A window of a run as events."""

    def __init__(self, run: Recorded, window: Window, model: Model) -> None:
        self.run, self.window = run, window
        self.notes: list[str] = []
        rows = self._iterations()
        parts = np.full((len(rows["start_s"]), len(NAMES) if window.stages else 0), np.nan)
        if window.stages and len(parts):
            parts = self._stages(rows, model)
        replica = rows.get("replica", np.zeros(len(parts), np.int64))
        count = max(len(run.summary.get("replicas") or (None,)), int(replica.max(initial=0)) + 1)
        self.loops = [
            Iterations.of(1 + n, {k: v[replica == n] for k, v in rows.items()}, parts[replica == n])
            for n in range(count)
        ]
        inside = window.overlaps(*run.lives)
        requests = run.requests.columns(other_tracks.REQUESTS, inside)
        self.requests = Requests(count + 1, requests, run.end, window, token_delay(run.scenario))
        moved = window.overlaps(*run.moves)
        transfers = run.transfers.columns(other_tracks.TRANSFERS, moved)
        self.links = Links(count + 2, transfers, count > 1) if transfers else None

    def _iterations(self) -> Columns:
        run = self.run
        if not run.iterations.names:
            self.notes.append("no iterations.parquet (record.iterations: false): no iterations")
            return {name: np.empty(0) for name in ("start_s", "duration_s")}
        names = dict.fromkeys((*loop_tracks.COLUMNS, *STAGE_COLUMNS))
        return run.iterations.columns(list(names), self.window.overlaps(run.begins, run.ends))

    def _stages(self, rows: Columns, model: Model) -> np.ndarray:
        """Seconds of the stages of *rows*, NaN where they are not known."""
        nothing = np.full((len(rows["start_s"]), len(NAMES)), np.nan)
        if self.run.kind != "simulated":
            self.notes.append("a measured run: iterations are not divided into stages")
            return nothing
        if model.why is not None:
            self.notes.append(f"no stages of iterations: {model.why}")
            return nothing
        if not {"decode_requests", "context_tokens", "prefill_tokens"} <= set(rows):
            self.notes.append("no stages of iterations: iterations.parquet lacks their columns")
            return nothing
        parts = model.parts(rows)
        decode = rows["prefill_tokens"] == 0
        unknown = int((decode & np.isnan(parts[:, 0])).sum())
        if unknown:
            share = f"{unknown:,} of {int(decode.sum()):,} decode iterations"
            self.notes.append(
                f"{share} show GPU busy and gap alone: beside transfers, a prefill partition or"
                " a refresh their stages are not known"
            )
        return parts

    def about(self, notes: list[str]) -> dict[str, Any]:
        """What the file says of itself."""
        run, window = self.run, self.window
        said = ("scenario", "scenario_hash", "loop_mode", "cost_profile", "cost_profile_status")
        about = {key: run.summary[key] for key in said if key in run.summary}
        return about | {
            "kind": run.kind,
            "from_s": window.begin,
            "to_s": window.end,
            "run_ends_s": run.end,
            "categories": {
                "recorded": "as the run's records say",
                "computed": "from the scenario and the profile; the parts add up to the recorded"
                " iteration. Each is a sum over layers: their order in an iteration is not known",
                "mark": "an arrival, drawn 1 us long so that arrows can begin there",
            },
            "spans": "of requests are cut at the ends of the window; iterations and transfers are"
            " whole",
            "not_recorded": "when a request was preempted; its span says how often",
            "left_out": notes,
        }

    def events(self) -> Iterator[str]:
        """All events; slices before those inside them."""
        kind = self.run.kind
        mode = self.run.summary.get("loop_mode", "")
        for number, loop in enumerate(self.loops):
            name = f"replica {number}" if len(self.loops) > 1 else "loop"
            said = ", ".join(filter(None, (mode, kind)))
            yield from named(loop.pid, f"{name} ({said})", loop.pid)
            yield from loop.names()
        yield from named(self.requests.pid, f"requests ({kind})", 0)
        yield from self.requests.names()
        if self.links is not None:
            yield from named(self.links.pid, f"links ({kind})", self.links.pid)
            yield from self.links.names()
            yield from self.links.slices()
        yield from self.requests.arrivals()
        yield from self.requests.spans()
        for loop in self.loops:
            yield from loop.whole()
            yield from loop.idle()
        yield from self.requests.flows(self.loops)
        if self.links is not None:
            yield from self.links.flows(self.loops)
        for loop in self.loops:
            yield from loop.inside()
            yield from loop.counters()
