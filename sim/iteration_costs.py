"""What each of many iterations cost: busy and queueing time, launches, and how it was run.

Iterations that are alike are asked for together, since the cost model answers for arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .steps import Load
from .visited import Visited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .accounting import Charge
    from .cost import Cost

    Columns = dict[str, np.ndarray]

PATHS = ("host", "graph", "control", "resident", "partition", "engine")


def charged(
    cost: Cost,
    columns: Columns,
    load: Load | None,
    beside: np.ndarray,
    charges: tuple[Charge | None, ...],
    firsts: np.ndarray,
    slows: np.ndarray,
) -> Columns:
    """Size it is run as, busy, gap and queueing seconds, launches, syncs and path of rows."""
    length = len(beside)
    busy, tklqt = np.empty(length), np.empty(length)
    launches, syncs = np.empty(length, np.int32), np.empty(length, np.int32)
    path, barriers = np.empty(length, np.int8), np.zeros(length, np.int32)
    batches = columns["decode_requests"].astype(np.int64)
    if load is None:
        load = Load(batches, columns["context_tokens"], np.zeros_like(batches))
    padded = load.rows.astype(np.int32)
    _, factors = np.unique(slows, return_inverse=True)
    decode = columns["prefill_tokens"] == 0
    singles = [(row, charge) for row, charge in zip(firsts, charges, strict=True) if charge]
    if load.refreshed is not None:
        launched = (decode & (load.refreshed.requests > 0)).nonzero()[0].tolist()
        decode[launched] = False
        singles += [
            (row, cost.refresh(int(batches[row]), load.at(row), float(slows[row])))
            for row in launched
        ]
    for rows in _alike(decode, batches, load.rows, load.depth, beside, factors):
        one = int(rows[0])
        found = cost.decode(
            int(batches[one]), int(load.rows[one]), int(load.depth[one]),
            beside_prefill=bool(beside[one]), slow=float(slows[one]),
        )  # fmt: skip
        read = [None if c is None else c[rows].astype(np.float64) for c in load[3:6]]
        contexts = load.context[rows].astype(np.float64)
        busy[rows], tklqt[rows] = found.account(contexts, *read)
        launches[rows], syncs[rows] = found.launches, found.syncs
        barriers[rows] = found.barriers
        path[rows] = PATHS.index(found.timing.path)
        padded[rows] = found.padded
    if singles:
        rows = np.array([row for row, _ in singles])
        path[rows] = [PATHS.index(charge.path) for _, charge in singles]
        accounts = cost.account([charge for _, charge in singles])
        busy[rows], tklqt[rows], launches[rows], syncs[rows] = accounts
    if isinstance(cost, Visited):
        cost.saw(columns, busy)
    return {
        "padded_requests": padded,
        "path": path,
        "gpu_busy_s": busy,
        "gap_s": columns["duration_s"] - busy,
        "launches": launches,
        "syncs": syncs,
        "tklqt_s": tklqt,
        "barriers": barriers,
    }


def _alike(chosen: np.ndarray, *keys: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers of the *chosen* rows, those together that have all *keys* in common."""
    key = np.zeros(len(chosen), np.int64)
    for values in keys:
        key = key * (int(values.max(initial=0)) + 1) + values
    key[~chosen] = -1
    order = np.argsort(key, kind="stable")
    values, begins = np.unique(key[order], return_index=True)
    for value, rows in zip(values, np.split(order, begins[1:]), strict=True):
        if value >= 0:
            yield rows
