"""Blocks of JSON lines that are all written alike, digit by digit: several times as fast as Arrow.

One rule: every byte is accounted for. A line is three whole numbers and a list of whole numbers, or
no list, in a fixed text around them that is taken from the first line of the block; what stands
between the numbers must be that text, byte by byte, in every line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    Numbers = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Ragged | None]

_DIGITS = re.compile(rb"[0-9]+")
_KEY = rb'%b"([a-z_]+)": ?'
_FIRST, _NEXT = (re.compile(_KEY % mark) for mark in (rb"\{", rb", ?"))
_MAX_DIGITS = 16
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)  # of eight digits, their values
# pairs of digits, of pairs, of fours: how far apart, and where the sums stand
_STEPS = ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF))


@dataclass(frozen=True, slots=True)
class Form:
    """The text around the numbers of a line.

    `gaps` what stands before each of the three numbers and before the list's first one, if there
    is a list; `comma` between two of the list; `end` after the last number. `order` says which of
    the wanted keys the first, second and third number belong to.
    """

    gaps: tuple[bytes, ...]
    comma: bytes
    end: bytes
    order: tuple[int, ...]

    @classmethod
    def of(cls, line: bytes, keys: Collection[str], ids: str) -> Form | None:
        """The form of *line* if it is an object of *keys* and, maybe, last, a list *ids*."""
        between = _DIGITS.split(line)
        if len(between) < 4:
            return None
        gaps, rest = between[:3], between[3:]
        names = [
            gap.fullmatch(text) for gap, text in zip((_FIRST, _NEXT, _NEXT), gaps, strict=True)
        ]
        found = [name[1].decode() if name else "" for name in names]
        if sorted(found) != sorted(keys):
            return None
        order = tuple(list(keys).index(name) for name in found)
        if rest == [b"}"]:
            return cls(tuple(gaps), b"", b"}", order)
        match = _NEXT.fullmatch(rest[0].removesuffix(b"["))
        if not match or not rest[0].endswith(b"[") or match[1] != ids.encode() or rest[-1] != b"]}":
            return None
        comma = rest[1] if len(rest) > 2 else b", " if gaps[1].startswith(b", ") else b","
        return cls((*gaps, rest[0]), comma, b"]}", order) if comma in (b", ", b",") else None


def numbers(data: bytes, form: Form) -> Numbers | None:
    """The three numbers of each line of *data* by key, and the lists; None if a line is not so."""
    raw = np.frombuffer(data, dtype=np.uint8)
    digit = (raw - np.uint8(48)) < 10
    edges = np.flatnonzero(digit[1:] != digit[:-1]) + 1
    line_ends = np.flatnonzero(raw == 10)
    if not data.endswith(b"\n"):
        line_ends = np.append(line_ends, len(data))
    if len(edges) % 2 or not len(edges):
        return None
    starts, ends = np.ascontiguousarray(edges[::2]), np.ascontiguousarray(edges[1::2])
    last = np.searchsorted(ends, line_ends, side="right")
    first = np.concatenate([[0], last[:-1]])
    count = last - first
    if last[-1] != len(ends) or count.min() < len(form.gaps):
        return None
    close = ends[last - 1]
    if (line_ends - close != len(form.end)).any() or not _all_are(data, close, form.end):
        return None
    before = np.empty(len(ends), dtype=np.intp)  # where the text before each number begins
    before[1:] = ends[:-1]
    before[first[1:]] = line_ends[:-1] + 1
    before[0] = 0
    if not _text_is_so(data, raw, form, before, starts, first):
        return None
    values = _values(data, raw, starts, ends)
    if values is None:
        return None
    columns = [values[first + form.order.index(key)] for key in range(3)]
    if len(form.gaps) == 3:
        if (count != 3).any():
            return None
        return columns[0], columns[1], columns[2], None
    inside = np.ones(len(values), dtype=np.bool_)
    for at in range(3):
        inside[first + at] = False
    offsets = np.zeros(len(count) + 1, dtype=np.int64)
    np.cumsum(count - 3, out=offsets[1:])
    return columns[0], columns[1], columns[2], Ragged(values[inside], offsets)


def _text_is_so(
    data: bytes,
    raw: NDArray[np.uint8],
    form: Form,
    before: NDArray[np.intp],
    starts: NDArray[np.intp],
    first: NDArray[np.intp],
) -> bool:
    """Whether what stands before each number is the text of *form*."""
    lengths = starts - before
    good = np.zeros(len(starts), dtype=np.bool_)
    if form.comma:
        good = (lengths == len(form.comma)) & (raw[before] == form.comma[0])
        if len(form.comma) == 2:
            good &= raw[starts - 1] == form.comma[1]
    for at, gap in enumerate(form.gaps):
        if (lengths[first + at] != len(gap)).any() or not _all_are(data, before[first + at], gap):
            return False
        good[first + at] = True
    return bool(good.all())


def _all_are(data: bytes, at: NDArray[np.intp], text: bytes) -> bool:
    """Whether *text* stands at each of the positions *at*, from which it is inside *data*."""
    kind = f"S{len(text)}"
    windows = np.ndarray((len(data) - len(text) + 1,), dtype=kind, buffer=data, strides=(1,))
    return bool((windows[at] == np.bytes_(text)).all())


def _values(
    data: bytes, raw: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.int64] | None:
    """The numbers from *starts* to before *ends*; None if one is not as JSON has it, or long."""
    lengths = ends - starts
    longest = lengths.max()
    if ((raw[starts] == 48) & (lengths > 1)).any() or longest > _MAX_DIGITS:
        return None
    # an object begins with a key of nine characters or more, which stands before any number
    words = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    if longest <= 8:
        return _of_words(words[ends - 8], lengths).view(np.int64)
    found = _of_words(words[ends - 8], np.minimum(lengths, 8))
    long = np.flatnonzero(lengths > 8)
    high = _of_words(words[ends[long] - 16], lengths[long] - 8)
    found[long] += high * np.uint64(10**8)
    return found.view(np.int64)


def _of_words(words: NDArray[np.uint64], digits: NDArray[np.intp]) -> NDArray[np.uint64]:
    """The numbers that the last *digits* bytes of each word spell, the first byte the lowest."""
    shift = (8 * (8 - digits)).astype(np.uint64)
    value = ((words & _NIBBLES) >> shift) << shift
    for step, mask in _STEPS:
        value = value * np.uint64(10 ** (step // 8)) + (value >> np.uint64(step))
        value &= np.uint64(mask)
    return value
