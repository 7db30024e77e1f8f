"""What a change did to a trace, counted while the requests pass through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.trace.chunk import Chunk, Tally

    Made = Callable[[Iterator[Chunk], dict[str, Any]], Iterator[Chunk]]
    """The chunks as they become; counts what it likes in the record, `requests_changed` first."""

_COUNTS = ("requests", "prompt_tokens", "output_tokens")


def blank(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A record of nothing so far."""
    record: dict[str, Any] = {"change": name, "parameters": parameters, "complete": False}
    record |= {f"{count}_{way}": 0 for count in _COUNTS for way in ("in", "out")}
    return record | {"requests_changed": 0}


def recorded(
    name: str, parameters: dict[str, Any], chunks: Iterator[Chunk], tally: Tally, made: Made
) -> Iterator[Chunk]:
    """*chunks* as *made* makes them, with a record of it at the end of `tally.changes`.

    The record holds the name as `change`, the parameters, and requests and tokens going in and out,
    each as counted so far; `complete` once all have passed. Chunks without requests do not come
    out. Raises `InputError` at the end if none came out at all.
    """
    record = blank(name, parameters)
    tally.changes.append(record)
    return _passing(chunks, record, made)


def _passing(chunks: Iterator[Chunk], record: dict[str, Any], made: Made) -> Iterator[Chunk]:
    for chunk in made(counted(chunks, record, "in"), record):
        if len(chunk):
            yield from counted(iter((chunk,)), record, "out")
    if not record["requests_out"]:
        raise InputError(none_left(record))
    record["complete"] = True


def counted(chunks: Iterator[Chunk], record: dict[str, Any], way: str) -> Iterator[Chunk]:
    """*chunks*, each added to the requests and tokens that go *way*, "in" or "out"."""
    for chunk in chunks:
        record[f"requests_{way}"] += len(chunk)
        record[f"prompt_tokens_{way}"] += int(chunk.prompt_tokens.sum())
        record[f"output_tokens_{way}"] += int(chunk.output_tokens.sum())
        yield chunk


def none_left(record: dict[str, Any]) -> str:
    """The finding about a change after which no request is left."""
    given = ", ".join(f"{key} {value}" for key, value in record["parameters"].items())
    return (
        f"trace: {record['change']} ({given}) leaves none of {record['requests_in']:,} requests; "
        "change it or take a longer trace"
    )


def said(record: dict[str, Any]) -> str:
    """A record as one line for people."""
    given = ", ".join(f"{key} {_short(value)}" for key, value in record["parameters"].items())
    before, after = record["requests_in"], record["requests_out"]
    if before == after or not record["complete"]:
        parts = [f"{after:,} requests" + ("" if record["complete"] else ", no more were needed")]
    else:
        parts = [f"{before:,} to {after:,} requests"]
    if record["requests_changed"] and record["requests_changed"] != after:
        parts.append(f"{record['requests_changed']:,} changed")
    for key in ("prompt_tokens", "output_tokens"):
        tokens = record[f"{key}_in"], record[f"{key}_out"]
        if tokens[0] != tokens[1] and (record["complete"] or before == after):
            parts.append(f"{key.replace('_', ' ')} {tokens[0]:,} to {tokens[1]:,}")
    if record.get("remark"):
        parts.append(record["remark"])
    return f"{record['change']} ({given}): {', '.join(parts)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " : ".join(map(_short, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
