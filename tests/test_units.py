"""Quantities in, SI out, and back; and what may not stand for a quantity."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sim.units import (
    BYTES,
    BYTES_PER_SECOND,
    RATE,
    SECONDS,
    Seconds,
    Unit,
    bytes_per_second_text,
    bytes_text,
    count_text,
    rate_text,
    seconds_text,
    three_digits,
)


@pytest.mark.parametrize(
    ("unit", "text", "si"),
    [
        (BYTES, "80 GiB", 85_899_345_920.0),
        (BYTES, "141 GB", 141e9),
        (BYTES, "0 B", 0.0),
        (BYTES, "1_024KiB", 1_048_576.0),
        (BYTES_PER_SECOND, "4.8 TB/s", 4.8e12),
        (BYTES_PER_SECOND, "2 MiB/s", 2_097_152.0),
        (SECONDS, " 5 us ", 5e-6),
        (SECONDS, "1e-3 s", 1e-3),
        (SECONDS, "+.5 ms", 0.5e-3),
        (SECONDS, "2 min", 120.0),
        (SECONDS, "1.5 h", 5400.0),
        (RATE, "2 /s", 2.0),
        (RATE, "6 req/s", 6.0),
        (RATE, "90/min", 1.5),
        (RATE, "7200 req/h", 2.0),
    ],
)
def test_quantities(unit: Unit, text: str, si: float) -> None:
    assert unit.parse(text) == pytest.approx(si, rel=1e-15)


@pytest.mark.parametrize(
    ("unit", "value", "message"),
    [
        (BYTES, 80, "80 has no unit; write e.g. '80 GiB'"),
        (BYTES, "80", "'80' has no unit; write e.g. '80 GiB'"),
        (SECONDS, True, "expected a time, e.g. '100 ms', got True"),
        (SECONDS, None, "expected a time, e.g. '100 ms', got None"),
        (SECONDS, "soon", "'soon' is not a time; write e.g. '100 ms'"),
        (SECONDS, "-5 us", "'-5 us' is negative; write e.g. '100 ms'"),
        (SECONDS, "nan s", "'nan s' is not finite; write e.g. '100 ms'"),
        (SECONDS, "-.inf s", "'-.inf s' is not finite; write e.g. '100 ms'"),
        (SECONDS, "1e19 s", "'1e19 s' is absurdly large; write e.g. '100 ms'"),
        (SECONDS, "1e999 s", "'1e999 s' is absurdly large; write e.g. '100 ms'"),
        (RATE, "6 Hz", "'6 Hz' has the unknown unit 'Hz'; units that fit: /s, /min, /h"),
        (
            SECONDS,
            "5 GB",
            "'5 GB' is an amount of memory, not a time; units that fit: ns, us, ms, s, min, h",
        ),
        (BYTES, "5 GB/s", "'5 GB/s' is a bandwidth, not an amount of memory; units that fit: B"),
    ],
)
def test_what_is_no_quantity(unit: Unit, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        unit.parse(value)


def test_a_bare_number_is_taken_only_where_the_context_says_si() -> None:
    seconds = TypeAdapter(Seconds)
    assert seconds.validate_python(0.25, context={"si": True}) == 0.25
    with pytest.raises(ValidationError, match="has no unit"):
        seconds.validate_python(0.25)
    with pytest.raises(ValidationError, match="negative"):
        seconds.validate_python(-0.25, context={"si": True})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (0.0, "0 s"),
        (5e-6, "5 us"),
        (5e-10, "0.5 ns"),
        (0.99951, "1 s"),
        (-0.25, "-250 ms"),
        (59.95, "60 s"),
        (1230.0, "20.5 min"),
        (36_000.0, "10 h"),
    ],
)
def test_seconds_text(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_other_texts() -> None:
    assert bytes_text(141e9) == "141 GB"
    assert bytes_text(131_072) == "131 kB"
    assert bytes_per_second_text(4.8e12) == "4.8 TB/s"
    assert rate_text(6.0) == "6 /s"
    assert rate_text(0.5) == "0.5 /s"
    assert count_text(12_345) == "12.3 k"
    assert count_text(999.6) == "1 k"
    assert count_text(7) == "7"
    assert three_digits(1234.5) == "1230"


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_printed_time_reads_back_to_three_digits(seconds: float) -> None:
    assert SECONDS.parse(seconds_text(seconds)) == pytest.approx(seconds, rel=5.1e-3)


@given(st.floats(min_value=1.0, max_value=1e17))
def test_printed_bytes_read_back_to_three_digits(size: float) -> None:
    assert BYTES.parse(bytes_text(size)) == pytest.approx(size, rel=5.1e-3)


@given(st.text())
def test_random_text_is_a_quantity_or_a_value_error(text: str) -> None:
    si, message = 0.0, "; "
    try:
        si = BYTES.parse(text)
    except ValueError as error:
        message = str(error)
    assert "; " in message
    assert 0 <= si <= 1e18
