"""Iterations with prefill, accounted for in bulk."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from sim.accounting import account
from sim.timing import LaunchQueue, Segment


def charge(head: list[float], attends: bool, prefill: float | None, submit: float = 3e-6):
    queue = LaunchQueue(
        submit, 2e-6, Segment(head), Segment([5e-6]), attends, prefill, Segment([4e-6, 6e-6]),
        Segment([9e-6]), 3,
    )  # fmt: skip
    attention = 7e-6 if attends else 0.0
    return SimpleNamespace(queue=queue, attention=attention, path="host", slow=1.0, extra=None)


def test_iterations_of_different_stages_are_not_taken_for_alike():
    charges = [
        charge([], True, 8e-6),
        charge([1e-6], True, 8e-6),
        charge([], True, None),
        charge([], False, 8e-6),
        charge([], True, 8e-6, submit=9e-6),
        charge([], True, 2e-5),
    ]
    together = account(charges, 1e-6)  # type: ignore[arg-type]
    for column, whole in zip(together._fields, together, strict=True):
        alone = [getattr(account([one], 1e-6), column)[0] for one in charges]  # type: ignore[list-item]
        assert np.array_equal(whole, alone), column
    assert len(set(together.busy)) > 4
