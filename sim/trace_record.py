"""What a run played: `trace.json` in its folder, and what the console says about it.

The one rule: whatever was left out, found out or changed on the way from the file to the run stands
here. Wall-clock facts and folders have no place in it, so the same scenario has the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .identity import file_identity
from .trace.naming import said

if TYPE_CHECKING:
    from .arrival import Arrivals
    from .scenario import Scenario
    from .trace.chunk import Tally
    from .traffic import Trace

Record = dict[str, Any]


def trace_record(scenario: Scenario, tally: Tally, arrivals: Arrivals) -> Record:
    """The content of `trace.json`, after a run."""
    trace, links = scenario.trace, arrivals.links
    parts = trace.merge or (trace,)
    files = [part.file for part in parts if part.file is not None]
    drawn = len(files) < len(parts) or any(part.session_arrivals for part in parts)
    closed = links is not None and links.waiting > 0
    not_sent = links.not_sent if links else 0
    origin: Record = {"source": trace.source} if trace.file is None else {"file": _origin(trace)}
    if trace.merge is not None:
        origin = {"source": "merge", "sources": [_origin(part) for part in parts]}
    return origin | {
        "seed": scenario.seed if drawn else None,
        "format": tally.format or None,
        "told_by": tally.told_by or None,
        "block_tokens": tally.block_tokens,
        "rows": tally.rows if files else None,
        "rows_skipped": tally.skipped,
        "rows_skipped_by_reason": dict(sorted(tally.reasons.items())),
        "rows_skipped_first": [_without_folders(text, files) for text in tally.examples],
        "notes": [_without_folders(text, files) for text in tally.notes],
        "changes": tally.changes,
        "requests": arrivals.count + not_sent,
        "requests_not_sent": not_sent,
        "replay": "closed loop" if closed else "open loop",
        "sessions": len(links.sessions) if links else 0,
        "requests_that_wait": links.waiting if links else 0,
        "answers_waited_for": links.answers_awaited if links else 0,
    }


def _origin(trace: Trace) -> str:
    """The source of *trace*, or name and digest of its file."""
    return str(trace.source) if trace.file is None else file_identity(trace.file)


def _without_folders(text: str, files: list[str]) -> str:
    """*text* with names in the place of the paths of *files*, which differ by machine."""
    for file in files:
        text = text.replace(said(Path(file)), Path(file).name)
    return text


def lines(record: Record) -> list[str]:
    """What was played, in a few sentences."""
    from .trace.transforms.record import said as change_said

    origins = record.get("sources") or [record.get("file") or record["source"]]
    text = f"trace: {' and '.join(origin.partition('#')[0] for origin in origins)}"
    if record["format"] is not None:
        text += f", read as {record['format']} ({record['told_by']})"
    if record["sessions"]:
        text += f"; {record['sessions']:,} sessions"
    if record["replay"] == "closed loop":
        text += (
            f" in closed loop, {record['requests_that_wait']:,} of {record['requests']:,} requests"
            " wait for answers"
        )
    return [text, *(f"trace changed by {change_said(change)}" for change in record["changes"])]


def remarks(record: Record) -> list[str]:
    """What a user should know: rows left out, and what the reader has to say."""
    found = []
    if record["rows_skipped"]:
        reasons = record["rows_skipped_by_reason"].items()
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        first = record["rows_skipped_first"][:1]
        example = f"; the first: {first[0]}" if first else ""
        found.append(f"warning: trace: {record['rows_skipped']:,} rows skipped: {counts}{example}")
    return found + [f"note: trace: {note}" for note in record["notes"]]
