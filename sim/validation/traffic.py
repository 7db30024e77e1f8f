"""The traffic of a measured run, to simulate it: arrivals and lengths from its log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError

from .columns import read_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def traffic(
    log: Path, maps: Sequence[str] = (), unit: str | None = None
) -> tuple[list[tuple[float, int, int]], str, int]:
    """Arrival in seconds from the first, prompt and generated tokens of each request of *log*.

    In order of arrival; then what the columns were taken for, and how many requests without a
    known arrival, prompt or output are left out. Aborted requests count with what they generated.
    """
    path = log / "requests.parquet" if log.is_dir() else log
    columns = read_columns(path, maps, unit)
    arrival, prompt, output = map(columns.get, ("arrival_s", "prompt_tokens", "output_tokens"))
    for name, values in (("arrival_s", arrival), ("prompt_tokens", prompt)):
        if values is None:
            raise InputError(f"{log}: no column for {name}; say which with --map {name}=NAME")
    assert arrival is not None
    assert prompt is not None
    if output is None:
        times = columns.lists("token_times") or columns.lists("itl_s")
        if times is None:
            raise InputError(
                f"{log}: no column for output_tokens; say which with --map output_tokens=NAME"
            )
        more = 0 if columns.lists("token_times") else 1
        output = np.array([len(one) + more if isinstance(one, list) else 0.0 for one in times])
    good = np.isfinite(arrival) & (prompt >= 1) & (output >= 1)
    if not good.any():
        raise InputError(f"{log}: no request with a prompt and an output; check --map")
    rows = np.flatnonzero(good)
    rows = rows[np.argsort(arrival[rows], kind="stable")]
    first = float(arrival[rows[0]])
    found = [(float(arrival[n]) - first, int(prompt[n]), int(output[n])) for n in rows.tolist()]
    said = ", ".join(f"{ours} = {theirs}" for ours, theirs in columns.said.items())
    return found, said, int((~good).sum())
