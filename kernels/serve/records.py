"""What a run of the engine leaves: rows of steps and of requests, and their files.

A step log is JSON lines, compressed: a header, then one object a step. Names are those of the
simulator's iterations where it has the column; `decode_ids` and `chunks` tell who took part.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from .request import Request

VERSION = 1


@dataclass(slots=True)
class Step:
    """One step, as the engine notes it: plain numbers, worked out afterwards.

    *start*, *planned*, *submitted*, *committed* and *end* are seconds of the engine's clock: the
    step begins; it is decided; the device has been given everything; the host holds the tokens;
    the next step could start.
    """

    path: str
    start: float
    planned: float
    submitted: float
    committed: float
    decode: tuple[int, ...]
    """Ids of the requests that decoded."""
    commits: tuple[int, ...] | None
    """Tokens that each of them got; None for one each."""
    rows: int
    """Tokens that each put through the model."""
    context: int
    chunks: tuple[tuple[int, int, int], ...]
    """(request, first token, tokens) of every chunk."""
    complete: int
    padded: int
    running: int
    waiting: int
    blocks: int
    """In use during the step."""
    preempted: tuple[int, ...]
    swapped_in: tuple[int, ...]
    gpu: float = nan
    """Seconds on the device, if they were taken."""
    end: float = nan
    seen: float = nan
    """Arrivals up to then were known when it was planned; nan: up to its start."""
    late: bool = False
    """A loop on the device ran it although it had been asked to leave: nobody was admitted."""
    turn: str = ""
    """`entered` or `left` if a loop on the device began with this step, or ended before it."""

    def record(self) -> dict[str, Any]:
        """The row of a step log."""
        decodes = len(self.decode)
        prefill = sum(chunk[2] for chunk in self.chunks)
        commits = decodes if self.commits is None else sum(self.commits)
        row: dict[str, Any] = {
            "start_s": round(self.start, 9),
            "duration_s": round(self.end - self.start, 9),
            "commit_s": round(self.committed, 9),
            "host_s": round(self.submitted - self.start + self.end - self.committed, 7),
            "submit_s": round(self.submitted - self.planned, 7),
            "kind": ("mixed" if decodes else "prefill") if prefill else "decode",
            "path": self.path,
            "decode_requests": decodes,
            "decode_tokens": decodes * self.rows,
            "padded_requests": self.padded,
            "prefill_requests": len(self.chunks),
            "prefill_tokens": prefill,
            "prefill_context_tokens": sum(chunk[1] for chunk in self.chunks),
            "context_tokens": self.context,
            "output_tokens": commits + self.complete,
            "running": self.running,
            "waiting": self.waiting,
            "kv_blocks": self.blocks,
        }
        if not isnan(self.gpu):
            row["gpu_s"] = round(self.gpu, 7)
        if not isnan(self.seen):
            row["seen_s"] = round(self.seen, 9)
        if self.late:
            row["late"] = True
        if self.turn:
            row["turn"] = self.turn
        if self.preempted:
            row["preempted"] = list(self.preempted)
        if self.swapped_in:
            row["swapped_in"] = list(self.swapped_in)
        return row

    def composition(self) -> dict[str, Any]:
        """Who took part: ids and tokens of those that decoded, and of every chunk."""
        found: dict[str, Any] = {"decode_ids": list(self.decode)}
        if self.commits is not None:
            found["decode_commits"] = list(self.commits)
        if self.chunks:
            found["chunks"] = [list(chunk) for chunk in self.chunks]
        return found


def write_steps(
    path: Path, header: dict[str, Any], steps: Iterable[Step], composition: bool = True
) -> None:
    """The step log of *steps* as gzip; the same steps make the same bytes."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        head = {"kind": "steps", "version": VERSION, **header}
        file.write((json.dumps(head) + "\n").encode())
        for step in steps:
            row = step.record() | (step.composition() if composition else {})
            file.write((json.dumps(row, separators=(",", ":")) + "\n").encode())


def request_rows(requests: Iterable[Request]) -> Iterator[dict[str, Any]]:
    """One row a request, by id; times in s, latencies in ms, None where it never got there."""
    for request in sorted(requests, key=lambda one: one.id):
        done = request.generated
        status = "rejected" if request.rejected else "finished"
        if not request.rejected and isnan(request.finished):
            status = "unfinished"
        span = request.finished - request.first_token
        yield {
            "request_id": request.id,
            "arrival_s": request.arrival,
            "prompt_tokens": request.prompt_tokens,
            "output_tokens": request.output_tokens,
            "status": status,
            "reason": request.rejected or None,
            "admitted_s": _number(request.admitted),
            "first_token_s": _number(request.first_token),
            "finished_s": _number(request.finished),
            "generated_tokens": done,
            "preemptions": request.preemptions,
            "queue_ms": _number((request.admitted - request.arrival) * 1e3),
            "ttft_ms": _number((request.first_token - request.arrival) * 1e3),
            "tpot_ms": _number(span / (done - 1) * 1e3) if done > 1 else None,
            "e2el_ms": _number((request.finished - request.arrival) * 1e3),
        }


def token_rows(steps: Sequence[Step]) -> Iterator[tuple[int, float, int]]:
    """(request, seconds, tokens) of every commit, in order of steps."""
    for step in steps:
        for i, request in enumerate(step.decode):
            count = 1 if step.commits is None else step.commits[i]
            yield request, step.committed, count
        for request, _, _ in step.chunks[: step.complete]:  # only the last may not be complete
            yield request, step.committed, 1


def _number(value: float) -> float | None:
    return None if isnan(value) else round(value, 9)
