"""What a timeline is drawn from: columns of a run's files, of a window of them alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError
from sim.result import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Columns = dict[str, np.ndarray]

NS = 1e9
LONGEST_S = 1e7
"""Times up to 115 days are told apart to the nanosecond."""


class File:
    """A Parquet file of a run; no rows and no columns if there is none."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.names: frozenset[str] = frozenset()
        self._file: Any = None
        if path.is_file():
            try:
                self._file = pq.ParquetFile(path)
            except (OSError, ValueError):
                raise self.damaged() from None
            self.names = frozenset(self._file.schema_arrow.names)

    def damaged(self, what: str = "is not a table of a run") -> InputError:
        """The error to raise."""
        return InputError(f"{self.path}: {what}; delete the run and repeat it")

    def columns(self, names: Sequence[str], chosen: np.ndarray | None = None) -> Columns:
        """Those of *names* that there are, of the rows *chosen* (a mask); row group by row group,
        so that memory follows what is chosen."""
        wanted = [name for name in names if name in self.names]
        found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        if not wanted:
            return {}
        at = 0
        try:
            for number in range(self._file.num_row_groups):
                rows = self._file.metadata.row_group(number).num_rows
                mask = np.ones(rows, bool) if chosen is None else chosen[at : at + rows]
                at += rows
                if mask.any():
                    table = self._file.read_row_group(number, columns=wanted)
                    for name in wanted:
                        found[name].append(table[name].to_numpy()[mask])
        except (OSError, ValueError):
            raise self.damaged() from None
        return {name: np.concatenate(v) if v else np.empty(0) for name, v in found.items()}

    def seconds(self, *names: str, gaps: bool = False) -> list[np.ndarray]:
        """Columns of times of all rows, checked; with *gaps* a time may be missing (NaN)."""
        columns = self.columns(names)
        if self.names and set(columns) != set(names):
            missing = sorted(set(names) - set(columns))
            raise self.damaged(f"has no column {missing[0]}")
        found = []
        for name in names:
            try:
                values = columns.get(name, np.empty(0)).astype(np.float64)
            except (TypeError, ValueError):
                raise self.damaged(f"has no numbers in column {name}") from None
            known = values[~np.isnan(values)] if gaps else values
            # NaN fails the comparison as well.
            if not ((known >= 0.0) & (known <= LONGEST_S)).all():
                raise self.damaged(f"has times in column {name} that no run can have")
            found.append(values)
        return found


@dataclass(frozen=True)
class Recorded:
    """The files of a run, and when each row of them begins and ends, in seconds."""

    folder: Path
    summary: dict[str, Any]
    scenario: dict[str, Any]
    iterations: File
    requests: File
    transfers: File
    begins: np.ndarray
    """Of iterations."""
    ends: np.ndarray
    lives: tuple[np.ndarray, np.ndarray]
    """Arrival and last token of requests; the end of the run where there is none."""
    moves: tuple[np.ndarray, np.ndarray]
    """Start and end of transfers."""

    @property
    def kind(self) -> str:
        """simulated or measured."""
        return "measured" if self.summary.get("kind") == "measured" else "simulated"

    @property
    def end(self) -> float:
        """When the last thing ends, in seconds."""
        times = (self.ends, self.lives[1], self.moves[1])
        return max((float(values.max()) for values in times if len(values)), default=0.0)


def read(folder: Path) -> Recorded:
    """The run in *folder*; `InputError` if there is none or it is damaged."""
    if (folder / "study.json").exists():
        raise InputError(f"{folder}: is a study; name one of its runs, {folder}/points/...")
    if not (folder / "summary.json").is_file():
        raise InputError(f"{folder}: is not a run's folder; name one that `residentsim run` wrote")
    summary = read_json(folder / "summary.json")
    scenario = folder / "scenario.json"
    iterations = File(folder / "iterations.parquet")
    requests = File(folder / "requests.parquet")
    transfers = File(folder / "transfers.parquet")
    if not requests.names:
        raise InputError(f"{requests.path}: no such file; delete {folder} and run it again")
    begins, lengths = iterations.seconds("start_s", "duration_s")
    arrival, last = _lives(requests)
    start, end = transfers.seconds("start_s", "end_s")
    if (end < start).any():
        raise transfers.damaged("has a transfer that ends before it starts")
    ends = begins + lengths
    latest = max((float(v.max()) for v in (ends, arrival, end) if len(v)), default=0.0)
    known = np.fmax(last, arrival)
    last = np.where(np.isnan(last), max(latest, float(known.max(initial=0.0))), known)
    return Recorded(
        folder, summary, read_json(scenario) if scenario.is_file() else {},
        iterations, requests, transfers, begins, ends, (arrival, last), (start, end),
    )  # fmt: skip


def _lives(requests: File) -> tuple[np.ndarray, np.ndarray]:
    """Arrival and last token; that of a rejected request is its arrival."""
    arrival, finished = requests.seconds("arrival_s", "finished_s", gaps=True)
    if np.isnan(arrival).any():
        raise requests.damaged("has a request without an arrival")
    status = requests.columns(("status",)).get("status")
    if status is not None:
        finished = np.where(status == "rejected", arrival, finished)
    return arrival, finished


def nanoseconds(seconds: np.ndarray) -> np.ndarray:
    """Whole nanoseconds: what the format keeps of a time."""
    whole: np.ndarray = np.rint(seconds * NS).astype(np.int64)
    return whole
