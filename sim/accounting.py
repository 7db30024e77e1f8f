"""What single iterations with prefill did, worked out in bulk after the fact.

Their lengths are needed at once, to go on; how busy the GPU was and how launches queued is not, and
costs less over arrays of iterations with the same stages than one by one.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .timing import LaunchQueue, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .drafting import Draft


class Extra(NamedTuple):
    """Work beside a queue: seconds, seconds of them on the GPU, launches.

    How long the launches of *prefill*, the drafter's own, and of *draft* at *context* KV entries
    queue is worked out later.
    """

    seconds: float
    busy: float
    launches: int
    prefill: LaunchQueue | None = None
    draft: Draft | None = None
    context: float = 0.0


class Charge(NamedTuple):
    """A single iteration with prefill: its length, and what it is worked out from later.

    *attention* is decode attention's time in a layer, 0 if nothing decodes; *slow* how many times
    longer the GPU takes beside transfers of KV.
    """

    seconds: float
    path: str
    queue: LaunchQueue
    attention: float
    slow: float = 1.0
    extra: Extra | None = None
    """What drafting adds to it."""


class Accounts(NamedTuple):
    """Columns, an element an iteration: seconds, seconds, counts, counts."""

    busy: np.ndarray
    tklqt: np.ndarray
    launches: np.ndarray
    syncs: np.ndarray


def account(charges: Sequence[Charge], node: float) -> Accounts:
    """The columns of *charges*; *node* is the gap within each kernel's time, in seconds.

    Chunks of a resident loop's partition are not launched: no launches, syncs or queueing.
    """
    busy, tklqt = np.zeros(len(charges)), np.zeros(len(charges))
    launches, syncs = np.zeros(len(charges), np.int64), np.zeros(len(charges), np.int64)
    alike: dict[tuple[object, ...], list[int]] = {}
    for row, charge in enumerate(charges):
        alike.setdefault((*_shape(charge.queue), charge.path), []).append(row)
    for (*_, path), members in alike.items():
        rows = np.array(members)
        x = np.array([charges[row].attention for row in members])
        queue = _stacked([charges[row].queue for row in members])
        attention = queue.layers * x if queue.attends else 0.0
        busy[rows] = queue.kernel_seconds() + attention - queue.launches * node
        if path == "host":
            tklqt[rows] = queue.total(x, np.maximum)
            launches[rows], syncs[rows] = queue.launches, 1
    _add_extras(charges, node, busy, tklqt, launches)
    slow = np.array([charge.slow for charge in charges])
    if (slow != 1.0).any():
        busy *= slow
    return Accounts(busy, tklqt, launches, syncs)


def _add_extras(
    charges: Sequence[Charge],
    node: float,
    busy: np.ndarray,
    tklqt: np.ndarray,
    launches: np.ndarray,
) -> None:
    """Adds what drafting did beside the *charges* to their columns."""
    extras = [(row, charge.extra) for row, charge in enumerate(charges) if charge.extra]
    for row, extra in extras:
        busy[row] += extra.busy
        launches[row] += extra.launches
    _add_drafts(extras, tklqt)
    queues = [(row, extra.prefill) for row, extra in extras if extra.prefill]
    if queues:
        own = [
            charges[row]._replace(queue=queue, attention=0.0, extra=None) for row, queue in queues
        ]
        tklqt[[row for row, _ in queues]] += account(own, node).tklqt


def _add_drafts(extras: Sequence[tuple[int, Extra]], tklqt: np.ndarray) -> None:
    """Adds how long the launches of drafts queue."""
    alike: dict[int, list[tuple[int, Extra]]] = {}
    for row, extra in extras:
        alike.setdefault(id(extra.draft), []).append((row, extra))
    for members in alike.values():
        draft = members[0][1].draft
        if draft is not None:
            contexts = np.array([extra.context for _, extra in members])
            tklqt[[row for row, _ in members]] += draft.tklqt(contexts, np.maximum)


def _shape(queue: LaunchQueue) -> tuple[object, ...]:
    """What iterations must have in common to be worked out together: all but kernel times."""
    segments = (queue.head, queue.before, queue.after, queue.tail)
    lengths = (len(segment.kernels) for segment in segments)
    same = queue.submit, queue.latency, queue.attends, queue.prefill is None, queue.layers
    return (*lengths, *same)


def _stacked(queues: list[LaunchQueue]) -> LaunchQueue:
    """One queue whose kernel times are arrays over *queues*, which have the same `_shape`."""
    first = queues[0]

    def stack(segments: list[Segment]) -> Segment:
        kernels = chain.from_iterable(segment.kernels for segment in segments)
        times = np.fromiter(kernels, np.float64).reshape(len(segments), -1)
        return Segment(list(np.ascontiguousarray(times.T)))

    return LaunchQueue(
        first.submit,
        first.latency,
        stack([queue.head for queue in queues]),
        stack([queue.before for queue in queues]),
        first.attends,
        None if first.prefill is None else np.array([queue.prefill for queue in queues]),  # type: ignore[arg-type]
        stack([queue.after for queue in queues]),
        stack([queue.tail for queue in queues]),
        first.layers,
    )
