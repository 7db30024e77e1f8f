"""The policies as what they do to scores: the slow, explicit specification of `sparse/sizes.py`.

The one rule: blocks of a request are numbered from its first token, a selection is a list of them
in ascending order, and of equal scores the lower block is better. A NaN counts as -inf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Blocks = np.ndarray
"""Numbers of selected blocks, ascending."""


def dense(total: int) -> Blocks:
    """All of *total* blocks."""
    return np.arange(total)


def window(total: int, sink: int, recent: int) -> Blocks:
    """The first *sink* and the last *recent* of *total* blocks."""
    return np.union1d(np.arange(min(sink, total)), np.arange(max(total - recent, 0), total))


def topk(scores: Sequence[float] | np.ndarray, top: int, sink: int, recent: int) -> Blocks:
    """The *top* blocks that score best between the first *sink* and the last *recent*."""
    total = len(scores)
    middle = np.arange(min(sink, total), max(total - recent, 0))
    return np.union1d(window(total, sink, recent), best(middle, np.asarray(scores)[middle], top))


def h2o(mass: Sequence[float] | np.ndarray, heavy: int, recent: int) -> Blocks:
    """The last *recent* blocks, and of the others the *heavy* with most attention so far."""
    return topk(mass, heavy, 0, recent)


def cluster(
    labels: Sequence[int], scores: Sequence[float] | np.ndarray, top: int, sink: int, recent: int
) -> Blocks:
    """All blocks of the *top* clusters whose centroids score best, and sink and recent.

    *labels* has the cluster of each block; those of sink and recent belong to none.
    """
    total = len(labels)
    middle = np.arange(min(sink, total), max(total - recent, 0))
    own = np.asarray(labels, dtype=int)[middle]
    clusters = np.unique(own)
    chosen = best(clusters, np.asarray(scores)[clusters], top)
    return np.union1d(window(total, sink, recent), middle[np.isin(own, chosen)])


def best(things: np.ndarray, scores: np.ndarray, top: int) -> np.ndarray:
    """The *top* of *things* by their *scores*."""
    values = np.where(np.isnan(scores), -np.inf, scores.astype(float))
    return np.sort(things[np.argsort(-values, kind="stable")[:top]])


def tokens(chosen: Blocks, context: int, block_tokens: int) -> int:
    """Tokens of the *chosen* blocks of a request of *context* tokens."""
    starts = chosen * block_tokens
    return int((np.minimum(starts + block_tokens, context) - starts).sum())
