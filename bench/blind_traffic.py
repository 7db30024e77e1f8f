"""The requests of predictions: windows of a recorded trace, and ramps of its first minutes.

A ramp has the trace's lengths and its bursts, at a rate that rises from a fifth of what an engine
is thought to serve to more than that: one run then shows every load that a profile must know.
"""

from __future__ import annotations

import csv
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from bench.blind_rounds import Engine, Round

FIT_S = 600.0
"""Where the part of the trace ends that profiles are fitted to."""
FROM, TO = 0.2, 1.15
"""Shares of the capacity between which a ramp's rate rises."""
RAMP_S = 22.0
LARGE_RAMP_S = 30.0
"""Of slower models, which serve fewer requests in a second."""


def read(trace: Path) -> tuple[list[str], list[list[str]], np.ndarray]:
    """Header, rows and seconds since the first row of an Azure *trace*."""
    with trace.open(newline="") as file:
        header, *rows = csv.reader(file)
    times = [datetime.fromisoformat(row[0][:26]) for row in rows]
    return header, rows, np.array([(at - times[0]).total_seconds() for at in times])


def cut(trace: Path, chosen: Round, out: Path) -> None:
    """Writes the windows of *trace* to the folder *out*: rows from their begin on, unchanged."""
    header, rows, times = read(trace)
    out.mkdir(parents=True, exist_ok=True)
    for name, begin in chosen.windows.values():
        first = int(np.searchsorted(times, begin))
        own = rows[first : first + chosen.longest]
        with (out / name).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *own])
        print(f"{out / name}: {len(own)} requests from {begin:g} s on")


def span(trace: Path, requests: int) -> float:
    """Seconds from the first to the last of the first *requests* of an Azure trace."""
    _, _, times = read(trace)
    return float(times[:requests][-1])


def seconds(engine: Engine) -> float:
    """How long its ramp takes."""
    return RAMP_S if engine.model == "1b" else LARGE_RAMP_S


def count(engine: Engine) -> int:
    """The requests of its ramp."""
    rise = np.log(TO / FROM)
    return round(engine.capacity * seconds(engine) * (TO - FROM) / rise)


def rising(times: np.ndarray, capacity: float) -> np.ndarray:
    """Arrivals in the order and with the bursts of *times*, at a rate that rises steadily.

    The trace's time, in units of its mean gap, becomes the rate's integral, whose inverse is known.
    """
    rise = np.log(TO / FROM)
    passed = (times - times[0]) * (len(times) - 1) / (times[-1] - times[0])
    whole = (len(times) - 1) * rise / (capacity * (TO - FROM))  # seconds from first to last
    found: np.ndarray = whole / rise * np.log1p(passed * rise / (FROM * capacity * whole))
    return found


def ramps(trace: Path, chosen: Round, out: Path) -> None:
    """Writes a ramp for every engine to the folder *out*."""
    _, rows, times = read(trace)
    own = int(np.searchsorted(times, FIT_S))
    out.mkdir(parents=True, exist_ok=True)
    for engine in chosen.engines.values():
        requests = count(engine)
        if requests > own:
            raise SystemExit(f"{engine.name}: {requests} requests, and {own} within {FIT_S:g} s")
        at = rising(times[:requests], engine.capacity)
        with (out / ramp_of(engine)).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("arrival_s", "prompt_tokens", "output_tokens"))
            for arrival, row in zip(at, rows, strict=False):
                writer.writerow((f"{arrival:.6f}", *row[1:3]))
        print(f"{out / ramp_of(engine)}: {requests} requests in {at[-1]:.1f} s")


def ramp_of(engine: Engine) -> str:
    """The file of its ramp."""
    return f"ramp-{engine.name}.csv"
