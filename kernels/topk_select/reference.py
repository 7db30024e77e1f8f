"""What the selection computes, by a plain sort."""

from __future__ import annotations

from typing import Any

import numpy as np


def select(
    scores: Any, pages: int, new_pages: int, budget: int, sink: int, recent: int
) -> np.ndarray[Any, Any]:
    """The pages of one row, ascending: *scores* [max_pages], of which the first *pages* count.

    A NaN counts as -inf; of equal scores the lower page is better. The last
    max(*recent*, *new_pages*) pages and the first *sink* are in, within *budget*.
    """
    if pages <= budget:
        return np.arange(pages, dtype=np.int32)
    recent = min(max(recent, new_pages), budget)
    sink = min(sink, budget - recent)
    middle = np.asarray(scores[sink : pages - recent], np.float32)
    order = np.argsort(-np.where(np.isnan(middle), -np.inf, middle), kind="stable")
    best = sink + order[: budget - sink - recent]
    chosen = np.concatenate((np.arange(sink), best, np.arange(pages - recent, pages)))
    return np.sort(chosen).astype(np.int32)
