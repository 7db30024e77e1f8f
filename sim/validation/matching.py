"""Which simulated request is which measured one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError

if TYPE_CHECKING:
    from .served import Served

_LEAST = 0.9


def matched(measured: Served, simulated: Served) -> tuple[Served, Served, list[str]]:
    """Both with the requests they share, in the same order, and what is to be said about it.

    By order of arrival if the token counts agree, else by request id, else by token counts in
    order of arrival. `InputError` if nine in ten do not match.
    """
    if len(measured) == len(simulated) and _alike(measured, simulated).all():
        return measured, simulated, []
    for pairs in (_by_id(measured, simulated), _by_counts(measured, simulated)):
        count = len(pairs)
        if count and count >= _LEAST * min(len(measured), len(simulated)):
            a, b = np.array(pairs).T
            said = []
            if count < max(len(measured), len(simulated)):
                said.append(
                    f"{count} requests matched, of {len(measured)} measured and {len(simulated)} "
                    "simulated; the others are left out"
                )
            return measured.take(a), simulated.take(b), said
    raise InputError(_reason(measured, simulated))


def _alike(a: Served, b: Served) -> np.ndarray:
    prompts = (a.prompt == b.prompt) | np.isnan(a.prompt) | np.isnan(b.prompt)
    same: np.ndarray = prompts & (a.output == b.output)
    return same


def _by_id(measured: Served, simulated: Served) -> list[tuple[int, int]]:
    place = {name: row for row, name in enumerate(simulated.ids)}
    if len(place) < len(simulated) or len(set(measured.ids)) < len(measured):
        return []
    pairs = [(row, place[name]) for row, name in enumerate(measured.ids) if name in place]
    if not pairs:
        return []
    a, b = np.array(pairs).T
    good = _alike(measured.take(a), simulated.take(b))
    return [pair for pair, same in zip(pairs, good, strict=True) if same]


def _by_counts(measured: Served, simulated: Served) -> list[tuple[int, int]]:
    """The next simulated request with the same counts, for each measured one."""
    queues: dict[tuple[float, float], list[int]] = {}
    for row in range(len(simulated) - 1, -1, -1):
        key = (float(simulated.prompt[row]), float(simulated.output[row]))
        queues.setdefault(key, []).append(row)
    pairs = []
    for row in range(len(measured)):
        queue = queues.get((float(measured.prompt[row]), float(measured.output[row])))
        if queue:
            pairs.append((row, queue.pop()))
    return pairs


def _reason(measured: Served, simulated: Served) -> list[str]:
    lines = [
        f"{measured.name} and {simulated.name}: not the same requests: {len(measured)} finished "
        f"measured, {len(simulated)} finished simulated; simulate the measured run's trace"
    ]
    rest = min(len(measured), len(simulated))
    wrong = ~_alike(measured.take(np.arange(rest)), simulated.take(np.arange(rest)))
    if wrong.any():
        row = int(wrong.argmax())
        lines.append(
            f"first that differs, in order of arrival: number {row}, measured "
            f"{measured.prompt[row]:g} prompt and {measured.output[row]:g} output tokens, "
            f"simulated {simulated.prompt[row]:g} and {simulated.output[row]:g}"
        )
    return lines
