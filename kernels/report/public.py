"""Kernel times that others published for this GPU: a yardstick, never measured by us.

One rule: a public time is shown only for the very shape, or with words that say how it differs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..fit.samples import SamplesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NUMBERS = ("heads", "kv_heads", "head_dim", "batch", "ctx", "m", "n", "k")


@dataclass(frozen=True, slots=True)
class Public:
    """One row of the public tables."""

    op: str
    source: str
    """Framework and kernel."""
    dtype: str
    mode: str
    axes: Mapping[str, float]
    seconds: float
    bytes: float | None


class PublicTable:
    """All rows, by operation."""

    def __init__(self, rows: list[Public]) -> None:
        self.rows: dict[str, list[Public]] = {}
        for row in rows:
            self.rows.setdefault(row.op, []).append(row)

    def all(self, op: str, dtype: str = "", mode: str = "", **axes: float) -> Iterator[Public]:
        """Rows of *op* at exactly these *axes*."""
        for row in self.rows.get(op, []):
            if dtype and row.dtype != dtype:
                continue
            if mode and not row.mode.endswith(mode):
                continue
            if all(row.axes.get(name) == value for name, value in axes.items()):
                yield row

    def best(self, op: str, dtype: str = "", mode: str = "", **axes: float) -> Public | None:
        """The fastest row at exactly these *axes*."""
        return min(self.all(op, dtype, mode, **axes), key=lambda row: row.seconds, default=None)


def read_public(path: Path | None) -> PublicTable:
    """The rows of *path*, none if there is no file; raises `SamplesError` for a damaged one."""
    if path is None or not path.exists():
        return PublicTable([])
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    rows.append(_row(row))
                except (KeyError, ValueError, TypeError) as error:
                    raise SamplesError(f"{path}:{number}: no public row ({error})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SamplesError(f"{path}: cannot be read ({error})") from None
    return PublicTable(rows)


def _row(row: Mapping[str, str]) -> Public:
    kernel = "" if row["kernel"] in ("torch_flow", "trt_flow_") else f" {row['kernel']}"
    return Public(
        op=row["op"],
        source=row["impl"] + kernel,
        dtype=row["dtype"],
        mode=row["score_mode"],
        axes={name: float(row[name]) for name in NUMBERS if row[name]},
        seconds=float(row["us"]) * 1e-6,
        bytes=float(row["bytes"]) if row["bytes"] else None,
    )
