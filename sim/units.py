"""Quantities with units: '80 GiB', '4.8 TB/s', '5 us', '6 /s' to SI floats, and back for printing.

The one rule: outside the process a quantity carries its unit, inside it is a float in seconds,
bytes, bytes/second or requests/second. A bare number where a unit belongs is an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from .errors import shown

LARGEST = 1e18
"""In SI; more than an exabyte or the age of the universe is a slip of the keyboard."""

_NUMBER = re.compile(
    r"\s*([-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(.*?)\s*"
)
_NOT_FINITE = re.compile(r"\s*[-+]?\.?(?:nan|inf|infinity)\b.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unit:
    """A dimension: how messages call it, an example to copy, and the SI factor of each unit."""

    noun: str
    example: str
    factors: dict[str, float]

    def parse(self, value: object) -> float:
        """*value* such as '80 GiB' as an SI float.

        Raises `ValueError`, naming the units that fit, for a bare number, an unknown unit, the unit
        of another dimension, and for negative, infinite, undefined or absurdly large values.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"expected {self.noun}, e.g. {self.example!r}, got {shown(value)}")
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} has no unit; write e.g. {self.example!r}")
        if _NOT_FINITE.fullmatch(value):
            raise ValueError(f"{shown(value)} is not finite; write e.g. {self.example!r}")
        match = _NUMBER.fullmatch(value)
        if match is None:
            raise ValueError(f"{shown(value)} is not {self.noun}; write e.g. {self.example!r}")
        factor = self._factor(value, match[2])
        return self._checked(value, float(match[1].replace("_", "")) * factor)

    def validate(self, value: object, info: ValidationInfo) -> float:
        """`parse`, but takes a bare SI number where the context says ``{"si": True}``."""
        if info.context and info.context.get("si") and isinstance(value, float):
            return self._checked(value, value)
        return self.parse(value)

    def _factor(self, value: str, unit: str) -> float:
        if unit in self.factors:
            return self.factors[unit]
        if not unit:
            raise ValueError(f"{shown(value)} has no unit; write e.g. {self.example!r}")
        other = next((d.noun for d in _DIMENSIONS if unit in d.factors), None)
        what = f"is {other}, not {self.noun}" if other else f"has the unknown unit {shown(unit)}"
        raise ValueError(f"{shown(value)} {what}; units that fit: {', '.join(self.factors)}")

    def _checked(self, value: object, si: float) -> float:
        if not math.isfinite(si) or si > LARGEST:
            raise ValueError(f"{shown(value)} is absurdly large; write e.g. {self.example!r}")
        if si < 0:
            raise ValueError(f"{shown(value)} is negative; write e.g. {self.example!r}")
        return si


_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_IEC = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_BYTES = {prefix + "B": factor for prefix, factor in (_SI | _IEC).items()}

BYTES = Unit("an amount of memory", "80 GiB", _BYTES)
BYTES_PER_SECOND = Unit("a bandwidth", "4.8 TB/s", {f"{u}/s": f for u, f in _BYTES.items()})
SECONDS = Unit(
    "a time", "100 ms", {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
)
RATE = Unit(
    "a rate",
    "6 /s",
    {
        "/s": 1.0,
        "/min": 1.0 / 60.0,
        "/h": 1.0 / 3600.0,
        "req/s": 1.0,
        "req/min": 1.0 / 60.0,
        "req/h": 1.0 / 3600.0,
    },
)
WATTS = Unit("a power", "700 W", {"W": 1.0, "kW": 1e3, "MW": 1e6})
_DIMENSIONS = (BYTES, BYTES_PER_SECOND, SECONDS, RATE, WATTS)


def quantity(text: str) -> tuple[str, str, Unit] | None:
    """The number, the unit and the dimension of a text such as '80 GiB'; None if it is none."""
    match = _NUMBER.fullmatch(text)
    dimension = match and next((d for d in _DIMENSIONS if match[2] in d.factors), None)
    return (match[1].replace("_", ""), match[2], dimension) if match and dimension else None


Bytes = Annotated[float, BeforeValidator(BYTES.validate)]
BytesPerSecond = Annotated[float, BeforeValidator(BYTES_PER_SECOND.validate)]
Seconds = Annotated[float, BeforeValidator(SECONDS.validate)]
Rate = Annotated[float, BeforeValidator(RATE.validate)]
Watts = Annotated[float, BeforeValidator(WATTS.validate)]


def seconds_text(seconds: float) -> str:
    """0.0123 as '12.3 ms'; minutes from 1000 s on, hours from 10000 s on."""
    size = abs(seconds)
    if 1e3 <= size < 1e4:
        return f"{three_digits(seconds / 60.0)} min"
    if size >= 1e4:
        return f"{three_digits(seconds / 3600.0)} h"
    return _scaled(seconds, "s", ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")))


def bytes_text(size: float) -> str:
    """141e9 as '141 GB': decimal prefixes, as data sheets and bandwidths have them."""
    return _scaled(size, "B", _LARGE)


def bytes_per_second_text(bandwidth: float) -> str:
    """4.8e12 as '4.8 TB/s'."""
    return _scaled(bandwidth, "B/s", _LARGE)


def rate_text(per_second: float) -> str:
    """6.0 as '6 /s'."""
    return _scaled(per_second, "/s", _LARGE)


def count_text(count: float) -> str:
    """12345 as '12.3 k'; a number below a thousand stands alone."""
    return _scaled(count, "", _LARGE).rstrip()


def three_digits(value: float) -> str:
    """*value* to three significant digits, without an exponent below 10**6 and trailing zeros."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.3g}")
    if rounded == 0.0:
        return "0"
    if not 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.3g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def _scaled(value: float, unit: str, prefixes: tuple[tuple[float, str], ...]) -> str:
    """*value* with the largest of *prefixes* that leaves at least 1 after rounding."""
    if value == 0.0 or not math.isfinite(value):
        return f"{three_digits(value)} {unit}"
    rounded = float(f"{value:.3g}")  # first round, so that 999.9 becomes 1 k and not 1000
    factor, prefix = next(
        ((f, p) for f, p in prefixes if abs(rounded) >= f * (1.0 - 1e-9)), prefixes[-1]
    )
    return f"{three_digits(value / factor)} {prefix}{unit}"
