"""Whole blocks of CSV lines at once, through Arrow, if every line is plainly good.

One rule: never more lenient than the cells one by one. Where Arrow takes more (hexadecimal numbers,
quotes, dates without a time of day), the block is given back for the careful way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Found = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]

# marks that plain lines do not have: quotes, what ends a C string, numbers to base 16
_ODD = (b'"', b"\0", b"0x", b"0X")
_STAMP = r"^20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)?$"
_ZONES = ("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class PlainTable:
    """Reads blocks of lines under a header of *width* columns: a time and two counts *at* places.

    Times are *stamps*, calendar times in UTC to be given as nanoseconds since 1970, or seconds.
    No line may be longer than *line_limit*.
    """

    width: int
    at: tuple[int, int, int]
    stamps: bool
    line_limit: int

    def columns(self, data: bytes) -> Found | None:
        """The columns of all lines of *data*, or None if one of them is not plain."""
        import pyarrow as pa
        import pyarrow.csv as pc

        if any(mark in data for mark in _ODD) or not data.isascii():
            return None
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        rows = data.count(b"\n") + (not data.endswith(b"\n"))
        if len(data) > self.line_limit and max(map(len, data.split(b"\n"))) > self.line_limit:
            return None
        if b"\r" in data or data.count(b",") != rows * (self.width - 1):
            return None
        names = [str(place) for place in range(self.width)]
        wanted = [names[place] for place in self.at]
        time = pa.string() if self.stamps else pa.float64()
        try:
            table = pc.read_csv(
                pa.BufferReader(data),
                read_options=pc.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=names
                ),
                parse_options=pc.ParseOptions(quote_char=False, ignore_empty_lines=False),
                convert_options=pc.ConvertOptions(
                    column_types=dict(zip(wanted, (time, pa.int64(), pa.int64()), strict=True)),
                    include_columns=wanted, null_values=[], check_utf8=False,
                ),
            )  # fmt: skip
            if table.num_rows != rows:
                return None
            times, prompt, output = (column.combine_chunks() for column in table.columns)
            times = _nanoseconds(times) if self.stamps else times.to_numpy()
        except pa.ArrowException:
            return None
        if times is None or (not self.stamps and not np.isfinite(times).all()):
            return None
        return times, prompt.to_numpy(), output.to_numpy()


def _nanoseconds(stamps: Any) -> NDArray[np.int64] | None:
    """Calendar times as nanoseconds since 1970, if they are written alike and plainly."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(stamps, _STAMP)).as_py():
        return None
    first = stamps[0].as_py()
    zone = next((zone for zone in _ZONES if first.endswith(zone)), "")
    if zone:
        ends = pc.ends_with(stamps, zone)
        if not pc.all(ends).as_py():
            return None
        stamps = pc.utf8_slice_codeunits(stamps, 0, -len(zone))
    found: NDArray[np.int64] = stamps.cast(pa.timestamp("ns")).to_numpy().astype(np.int64)
    return found
