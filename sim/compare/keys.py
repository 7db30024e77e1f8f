"""Which keys two resolved scenarios have differently, with values and units."""

from __future__ import annotations

import json
import types
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from sim.scenario import Scenario
from sim.units import (
    BYTES,
    BYTES_PER_SECOND,
    RATE,
    SECONDS,
    Unit,
    bytes_per_second_text,
    bytes_text,
    rate_text,
    seconds_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OURS = {"units", "hash", "profile", "name"}
"""Of a resolved scenario, what is no key of the file, or says nothing about the run."""
MISSING = object()
_TEXT = {
    id(BYTES): bytes_text, id(SECONDS): seconds_text, id(RATE): rate_text,
    id(BYTES_PER_SECOND): bytes_per_second_text,
}  # fmt: skip


_POWERS = (("TiB", 2**40), ("GiB", 2**30))
"""How a size is said that is a whole number of them."""


class Key(NamedTuple):
    """A dotted key and what each scenario says, as text; `-` where it says nothing."""

    key: str
    a: str
    b: str


def different(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Key]:
    """Keys that differ, in the order of the scenarios."""
    ours, others = dict(_leaves(a)), dict(_leaves(b))
    found = []
    for key in dict.fromkeys([*ours, *others]):
        one, other = ours.get(key, MISSING), others.get(key, MISSING)
        if key.partition(".")[0] not in OURS and one != other:
            found.append(Key(key, said(key, one), said(key, other)))
    return found


def said(key: str, value: Any) -> str:
    """*value* of *key* with its unit, as a file would have it."""
    if value is MISSING:
        return "-"
    if value is None:
        return "null"
    if isinstance(value, int | float) and not isinstance(value, bool):
        unit = _unit(key)
        whole = next((name for name, size in _POWERS if value and value % size == 0), None)
        if unit is BYTES and whole is not None:
            return f"{value / dict(_POWERS)[whole]:.12g} {whole}"
        return _TEXT[id(unit)](float(value)) if unit is not None else f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def _leaves(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty map is a value."""
    for key, value in data.items():
        path = f"{before}{key}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _unit(key: str) -> Unit | None:
    """The unit in which a scenario's *key* is written; None if it has none."""
    kinds: list[Any] = [Scenario]
    unit = None
    for name in key.split("."):
        fields = [
            kind.model_fields[name]
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, BaseModel) and name in kind.model_fields
        ]
        found = [part for field in fields for part in _parts(field.annotation)]
        found += [extra for field in fields for extra in field.metadata]
        unit = next((u for u in map(_of_validator, found) if u is not None), None)
        kinds = found
    return unit


def _parts(annotation: Any) -> Iterator[Any]:
    """The types in an annotation and what is annotated to them."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _parts(argument)
    else:
        yield annotation


def _of_validator(found: Any) -> Unit | None:
    owner = getattr(found.func, "__self__", None) if isinstance(found, BeforeValidator) else None
    return owner if isinstance(owner, Unit) else None
