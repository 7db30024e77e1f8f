"""Merging documents: a file over its parent, `--set` and a sweep's point over the file.

The one rule: maps merge deeply and all else is replaced; of alternatives that exclude each other
(file, source or merge, preset or dimensions, one distribution) the upper one removes the lower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .marks import Document
from .models import ModelShape
from .source import KEYS, keys_of
from .traffic import FILE_ONLY, ORIGINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Place

Data = dict[str, Any]

_WHOLE: set[Place] = {("trace", "prompt_tokens"), ("trace", "output_tokens")}
_DIMENSIONS = set(ModelShape.model_fields) - {"max_context"}


def _whole(place: Place) -> bool:
    """Whether a map at *place* is one value: a length, an axis of a sweep, a variant."""
    if place[:1] != ("sweep",) or len(place) == 1 or place == ("sweep", "variants"):
        return place in _WHOLE
    return True


def merged(base: Document, over: Document) -> Document:
    """*over* on *base*; every value keeps the mark of the document that it came from."""
    values = base.values | over.values
    if isinstance(base.data.get("model"), str):  # becomes {preset: ...} under a map
        values.setdefault(("model", "preset"), base.values[("model",)])
    return Document(
        data=_merged(base.data, over.data, ()),
        values=values,
        keys=base.keys | over.keys,
        bad=base.bad | over.bad,
        findings=base.findings + over.findings,
    )


def overlay(place: Place, source: Document, origin: Place, around: Place) -> Document:
    """A document with nothing but what *source* has at *origin*, moved to *place*.

    The maps around it stand where the key *around* of *source* does.
    """
    data: Any = source.data
    for step in origin:
        data = data[step]
    inner = list(_places(data))
    values = {(*place, *rest): source.mark((*origin, *rest)) for rest in inner}
    keys = {(*place, *rest): source.mark((*origin, *rest), key=True) for rest in inner if rest}
    bad = {(*place, *rest) for rest in inner if (*origin, *rest) in source.bad}
    outside = source.mark(around, key=True)
    for i, step in reversed(list(enumerate(place))):
        data = {step: data}
        keys[place[: i + 1]] = values[place[:i]] = outside
    return Document(data, values, keys, bad)


def _places(data: Any, place: Place = ()) -> Iterator[Place]:
    """The places of *data* and of everything in it."""
    yield place
    if isinstance(data, dict | list):
        for step, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _places(value, (*place, step))


def apply(base: Document, layer: Document, place: Place) -> Document:
    """*base* with an `overlay` at *place*; the maps around it keep their marks."""
    document = merged(base, layer)
    for i in range(len(place)):
        if base.has(place[:i]):
            document.values[place[:i]] = base.values.get(place[:i], layer.values[place[:i]])
            if place[:i] in base.keys:
                document.keys[place[:i]] = base.keys[place[:i]]
    return document


def _merged(base: Data, over: Data, place: Place) -> Data:
    if place == ("trace",):
        base = _without(base, _replaced_in_trace(base, over))
    elif place == ("model",) and ("preset" in over or ("preset" in base and _DIMENSIONS & {*over})):
        base = _without(base, {*base} - {"weights"})
    result = dict(base)
    for key, value in over.items():
        here = (*place, key)
        old = result.get(key)
        if here == ("model",) and isinstance(old, str):
            old = {"preset": old}
        if isinstance(old, dict) and isinstance(value, dict) and not _whole(here):
            result[key] = _merged(old, value, here)
        else:
            result[key] = value
    return result


def _without(data: Data, keys: set[str]) -> Data:
    return {key: value for key, value in data.items() if key not in keys}


def _replaced_in_trace(base: Data, over: Data) -> set[str]:
    """The keys of a parent's trace that a child's file, source or merge makes void."""
    void: set[str] = set()
    for origin in ORIGINS:
        if over.get(origin) is not None:
            others = {*ORIGINS} - {origin}
            void |= others
            void |= {"requests"} if others & {*base} else set()
            void |= {*FILE_ONLY} if origin != "file" else set()
            void |= {*KEYS} - keys_of(over.get("source"))
    return void
