"""What page scoring computes, in float64, as the definition says it and not as the kernel does."""

from __future__ import annotations

from typing import Any

import numpy as np


def page_scores(q: Any, low: Any, high: Any, reduce: str = "max") -> Any:
    """Scores [pages] of one KV head, from its query rows *q* [rows, head_dim].

    *low* and *high* [pages, head_dim] are the channel minima and maxima of each page's keys. A
    row's score is the sum over channels of max(q * high, q * low), an upper bound of its products
    with the page's keys; *reduce* joins the rows by "max" or "sum".
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    rows = [(row * high).clip(row * low).sum(axis=1) for row in q.astype(np.float64)]
    total = rows[0]
    for row in rows[1:]:
        total = row.clip(total) if reduce == "max" else total + row
    return total


def pages_of(length: int, tokens: int, page_tokens: int) -> int:
    """Pages that hold *length* committed tokens and the step's *tokens*; 0 for an idle slot."""
    return 0 if length < 0 else -(-(length + tokens) // page_tokens)
