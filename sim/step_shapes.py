"""What a log is once it is loaded: a list of rows, a table of columns, or a map that holds one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from .errors import InputError, shown

STEPS = ("steps", "iterations", "iters", "step_log", "iteration_stats", "stats")
REQUESTS = ("requests", "request_log", "outputs", "results")


def rows(loaded: Any, place: str, wanted: tuple[str, ...] = STEPS) -> Iterable[Any]:
    """The rows of *loaded*; of several lists in a map the one that is called as in *wanted*.

    A list of dictionaries or objects, a map with such a list in it, a map of equally long columns,
    or a frame of pandas. Raises `InputError` for anything else.
    """
    if hasattr(loaded, "to_dict") and not isinstance(loaded, Mapping):
        return list(loaded.to_dict("records"))  # a frame of pandas
    if not isinstance(loaded, Mapping):
        if isinstance(loaded, str | bytes) or not isinstance(loaded, Iterable):
            raise InputError(f"{place}: {shown(loaded)} is no list of rows; write [{{...}}, ...]")
        return loaded
    lists = {str(k): v for k, v in loaded.items() if isinstance(v, list | tuple) and len(v)}
    held = {k: v for k, v in lists.items() if isinstance(v[0], Mapping)}
    if len(held) > 1:
        named = [k for name in wanted for k in held if k.lower() == name]
        if not named:
            names = ", ".join(map(shown, held))
            raise InputError(f"{place}: several lists ({names}); call one {wanted[0]}, or write it "
                             "alone")  # fmt: skip
        return lists[named[0]]
    if held:
        return next(iter(held.values()))
    columns = {str(k): v for k, v in loaded.items() if _is_column(v)}
    sizes = [len(v) for v in columns.values()]
    size = max(sizes, key=sizes.count, default=0)
    columns = {k: v for k, v in columns.items() if len(v) == size}
    if len(columns) < 2:
        raise InputError(f"{place}: holds no list of {wanted[0]}; write [{{...}}, ...]")
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def holds_rows(loaded: Mapping[str, Any]) -> bool:
    """Whether *loaded* is a map that holds rows, and not a row itself."""
    values = list(loaded.values())
    lists = [v for v in values if isinstance(v, list) and v]
    if any(isinstance(v[0], Mapping) for v in lists):
        return True
    return len(lists) > 1 and len({len(v) for v in lists}) == 1 and len(lists) > len(values) // 2


def as_row(value: Any) -> dict[str, Any] | None:
    """*value* as a dictionary if it is one, a dataclass or a plain object; else None."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return dict(value.model_dump())
    if hasattr(value, "_asdict"):
        return dict(value._asdict())
    fields = getattr(value, "__dict__", None)
    return dict(fields) if fields and not isinstance(value, type) else None


def _is_column(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return True
    return hasattr(value, "tolist") and getattr(value, "ndim", 1) == 1
