"""Values of a step log: raw cells to numbers, and columns that follow from others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, shown

if TYPE_CHECKING:
    from .step_files import Chunk
    from .step_names import Source

Columns = dict[str, np.ndarray]

_OF_PROMPTS = ("prefill_tokens", "prefill_context_tokens")
_EMPTY = ("", "nan", "none", "null", "na", "n/a")


def place_of(chunk: Chunk, row: int, place: str) -> str:
    number = chunk.first + row
    return f"{place}:{number}" if chunk.lines else f"{place}: row {number}"


def numbers(raw: Any, ours: str, theirs: str, chunk: Chunk, place: str) -> np.ndarray:
    """*raw* as float64; empty cells are nan; lists count as sums, or of requests as lengths."""
    if isinstance(raw, np.ndarray):
        return raw.astype(np.float64)
    try:
        whole = np.array(raw, dtype=np.float64)
        if whole.ndim == 1 and not np.isinf(whole).any():
            return whole
    except (TypeError, ValueError, OverflowError):
        pass
    found = np.empty(len(raw))
    for row, value in enumerate(raw):
        number = _number(value, ours)
        if number is None:
            said = f"{place_of(chunk, row, place)}: {theirs}: {shown(value)}"
            raise InputError(f"{said} is no number ({ours}); mend it or map another column")
        found[row] = number
    return found


def _number(value: Any, ours: str) -> float | None:
    """*value* as a number, nan if there is none, None if it is something else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY):
        return float("nan")
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if isinstance(value, list | tuple | set | dict):
        inner = list(value.values()) if isinstance(value, dict) else list(value)
        if ours.endswith("requests"):
            return float(len(inner))
        numbers = [_number(one, ours) for one in inner]
        return None if None in numbers else float(sum(n for n in numbers if n is not None))
    if isinstance(value, str) and ours in ("start_s", "end_s") and ("T" in value or ":" in value):
        return instant(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else (float("nan") if number != number else None)


def chunks_of(found: dict[str, Source], chunk: Chunk) -> Columns:
    """A column `chunks` where cells of prompts' tokens are lists: of each step its prompts' pairs
    (tokens, tokens before), None where there is no list; and how many they are, if no other column
    says so. Nothing where none is a list."""
    cells = [_listed(found.get(name), chunk) for name in _OF_PROMPTS]
    if cells[0] is None or not any(isinstance(one, list) for one in cells[0]):
        return {}
    column = np.empty(chunk.rows, object)
    for row, sizes in enumerate(cells[0]):
        if not isinstance(sizes, list) or None in (own := [_number(one, "") for one in sizes]):
            continue
        past = cells[1][row] if cells[1] is not None else None
        offsets = [_number(one, "") for one in past] if isinstance(past, list) else []
        if len(offsets) != len(sizes) or None in offsets:
            offsets = [0.0] * len(sizes)
        column[row] = tuple(zip(own, offsets, strict=True))
    if "prefill_requests" in found:
        return {"chunks": column}
    count = [0.0 if one is None else float(len(one)) for one in column.tolist()]
    return {"chunks": column, "prefill_requests": np.array(count)}


def _listed(source: Source | None, chunk: Chunk) -> list[Any] | None:
    """The cells of the one column that *source* is, lists of all kinds as such; None without."""
    raw = chunk.columns.get(source.terms[0][0]) if source and len(source.terms) == 1 else None
    if raw is None or (isinstance(raw, np.ndarray) and raw.dtype != object):
        return None
    plain = (one.tolist() if hasattr(one, "tolist") else one for one in raw)
    return [list(one) if isinstance(one, tuple) else one for one in plain]


def instant(value: str) -> float | None:
    """Seconds since 1970 of an ISO time, or one as of TensorRT-LLM (11-21-2026 08:00:00.5)."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        try:
            found = datetime.strptime(value.strip(), "%m-%d-%Y %H:%M:%S.%f")
        except ValueError:
            return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def derived(columns: Columns, place: str) -> Columns:
    """*columns* with what follows from others: durations, and the two kinds of requests."""
    have = dict(columns)
    if "duration_s" not in have:
        have["duration_s"] = have["end_s"] - have["start_s"]
    elif "start_s" not in have and "end_s" in have:
        have["start_s"] = have["end_s"] - have["duration_s"]
    have.pop("end_s", None)
    _apart(have)
    if "decode_requests" not in have:
        have["decode_requests"] = have["decode_tokens"].copy()
    have.setdefault("decode_tokens", have["decode_requests"].copy())
    if "prefill_tokens" not in have:
        have["prefill_tokens"] = np.zeros(len(have["duration_s"]))
    short = have["decode_tokens"] < have["decode_requests"]
    have["decode_tokens"] = np.where(short, have["decode_requests"], have["decode_tokens"])
    if "prefill_requests" in have:
        none = (have["prefill_requests"] == 0) & (have["prefill_tokens"] > 0)
        have["prefill_requests"] = np.where(none, 1.0, have["prefill_requests"])
    return have


def _apart(have: Columns) -> None:
    """Requests and tokens of all kinds together, told apart by what else the log says."""
    phase = have.pop("phase", None)
    requests, tokens = have.pop("requests", None), have.pop("tokens", None)
    if "decode_requests" in have or "decode_tokens" in have:
        if tokens is not None and "prefill_tokens" not in have:
            own = have["decode_tokens"] if "decode_tokens" in have else have["decode_requests"]
            have["prefill_tokens"] = np.maximum(0.0, tokens - own)
        return
    if phase is not None:
        decodes = np.array(["decode" in one or one == "generation" for one in phase], bool)
        count = requests if requests is not None else tokens
        assert count is not None
        have["decode_requests"] = np.where(decodes, count, 0.0)
        have.setdefault("prefill_requests", np.where(decodes, 0.0, count if requests is not None
                                                     else 1.0))  # fmt: skip
        have.setdefault("prefill_tokens", np.where(decodes, 0.0, count if tokens is None
                                                   else tokens))  # fmt: skip
        return
    if "prefill_tokens" in have and tokens is not None:
        have["decode_tokens"] = np.maximum(0.0, tokens - have["prefill_tokens"])
    elif "prefill_requests" in have and requests is not None:
        have["decode_requests"] = np.maximum(0.0, requests - have["prefill_requests"])
    elif requests is not None:
        have["decode_requests"] = requests
        if tokens is not None:
            extra = tokens > requests
            have["prefill_tokens"] = np.where(extra, tokens - requests, 0.0)
    else:
        assert tokens is not None
        have["decode_tokens"] = tokens
