"""Times that grow with what is read while a batch stands still, for one iteration or for many.

The one rule: a scalar method and its array twin perform the same operations in the same order, so
that both engines of the simulator see the same bits.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from .timing import scalars

if TYPE_CHECKING:
    from collections.abc import Sequence

Number = TypeVar("Number", float, np.ndarray)


class Curve:
    """base + sqrt((scale * read + offset)^2 + spread) seconds, *read* tokens or pages."""

    __slots__ = ("_arrays", "base", "offset", "scale", "spread")

    def __init__(self, base: float, scale: float, offset: float, spread: float) -> None:
        self.base, self.scale, self.offset, self.spread = base, scale, offset, spread
        self._arrays = scalars(base, scale, offset, spread)

    def seconds(self, read: float) -> float:
        """Time over *read* tokens or pages of all requests together."""
        streamed = self.scale * read + self.offset
        return self.base + sqrt(streamed * streamed + self.spread)

    def into(self, read: np.ndarray) -> np.ndarray:
        """`seconds` in place of each element of *read* (float64), equal to the last bit."""
        base, scale, offset, spread = self._arrays
        read *= scale
        read += offset
        read *= read
        read += spread
        np.sqrt(read, read)
        read += base
        return read


class Read(NamedTuple):
    """What the requests of an iteration read together: numbers, or arrays over iterations."""

    context: float | np.ndarray
    """KV entries that dense attention reads, those of the iteration's own tokens included."""
    attended: float | np.ndarray
    """Those that it reads where pages are selected."""
    pages: float | np.ndarray
    """Pages that are scored."""


class Part(NamedTuple):
    """A share *weight* of the layers reads what `Read` calls *axis*, and takes as long as
    *curve*."""

    name: str
    """What runs there: attention, score or select."""
    weight: float
    axis: str
    curve: Curve

    def seconds(self, read: Read) -> float:
        """Its share of the mean layer; *read* holds numbers."""
        return self.weight * self.curve.seconds(float(getattr(read, self.axis)))


class Mix:
    """The mean over layers of several curves, less *held* seconds that are counted elsewhere."""

    __slots__ = ("_arrays", "const", "held", "parts", "terms")

    def __init__(self, parts: Sequence[Part], held: float) -> None:
        self.parts, self.held = tuple(parts), held
        # Weights go into the curves, so that a layer of many parts takes few operations.
        self.const = sum(part.weight * part.curve.base for part in parts) - held
        self.terms = [
            (
                Read._fields.index(part.axis),
                part.weight * part.curve.scale,
                part.weight * part.curve.offset,
                part.weight * part.weight * part.curve.spread,
            )
            for part in parts
        ]
        self._arrays = [(axis, scalars(*numbers)) for axis, *numbers in self.terms]

    def seconds(self, read: Read) -> float:
        """Seconds of a layer; *read* holds numbers."""
        total = self.const
        for axis, scale, offset, spread in self.terms:
            term = float(read[axis]) * scale
            term += offset
            if spread:
                term *= term
                term += spread
                term = sqrt(term)
            total += term
        return total

    def array(self, read: Read) -> np.ndarray:
        """`seconds` for arrays, equal to the last bit."""
        total: np.ndarray | float = self.const
        for axis, (scale, offset, spread) in self._arrays:
            term: np.ndarray = np.multiply(read[axis], scale)
            term += offset
            if spread:
                term *= term
                term += spread
                np.sqrt(term, term)
            term += total
            total = term
        assert isinstance(total, np.ndarray)
        return total
