"""servegen and reasoning-like: the clients of ServeGen together, from its files or built in.

reasoning-like is the built-in population of deepseek-r1: one day, 16 requests a second on average;
its outputs have two modes, about 400 and 1,300 tokens, and a tail to 32,000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError, shown
from sim.trace.bounds import RATE_PER_S
from sim.trace.lengths import in_range, knots_of

from . import client_files, clients
from .catalog import POPULATIONS
from .clients import WINDOW_S, Clients, Lengths
from .population_clients import CLIENTS
from .population_lengths import LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.trace.chunk import Chunk, Tally

    from .knobs import Knobs

REASONING = "reasoning-like"
NAME = "servegen"
_DAY_S = 86400.0


def rows(source: str, seed: int, requests: int, knobs: Knobs, tally: Tally) -> Iterator[Chunk]:
    """The requests of *source*, one of servegen and reasoning-like; raises `InputError`."""
    if knobs.rate_per_s is not None:
        in_range("rate_per_s", knobs.rate_per_s, *RATE_PER_S)
    given = _given_lengths(knobs)
    if knobs.clients is not None:
        found = client_files.load(knobs.clients, given, tally)
    elif source == REASONING:
        found = population("deepseek-r1")
    else:
        found = population(knobs.population or POPULATIONS[0], given)
    start_s = 3600.0 * (knobs.start_hour or 0.0)
    span_s = found.windows * WINDOW_S
    if not 0 <= start_s < span_s:
        raise InputError(
            f"start_hour: {shown(knobs.start_hour)} is not in 0 to below {span_s / 3600:g}, the "
            "hours that the clients' data cover"
        )
    return clients.rows(found, seed, requests, knobs.rate_per_s, start_s)


def _given_lengths(knobs: Knobs) -> Lengths | None:
    if knobs.prompt is None or knobs.output is None:
        return None
    knobs.prompt.check("prompt")
    knobs.output.check("output")
    return Lengths((knobs.prompt,), knobs.output)


def population(name: str, given: Lengths | None = None) -> Clients:
    """The built-in clients of the model *name*, for one day; raises `InputError`."""
    if name not in POPULATIONS:
        known = ", ".join(POPULATIONS)
        raise InputError(f"population: {shown(name)} is unknown; write one of {known}")
    table = CLIENTS[name] | LENGTHS[name]
    windows = int(_DAY_S / WINDOW_S)
    total = np.repeat(table["rates"], windows // len(table["rates"]))
    quarter = np.arange(windows) * 4 // windows
    shares, shapes = np.array(table["clients"], dtype=np.float64).transpose(1, 2, 0)
    rate = total[:, None] * shares[quarter]  # [window, client]
    window, client = np.nonzero(rate)
    laws = [
        (_DAY_S / len(table["prompt"]) * part, Lengths((knots_of(prompt),), knots_of(output)))
        for part, (prompt, output) in enumerate(zip(table["prompt"], table["output"], strict=True))
    ]
    return Clients(
        client,
        window,
        rate[window, client],
        np.zeros(len(window), dtype=bool),
        shapes[quarter[window], client],
        windows,
        [laws if given is None else [(0.0, given)]],
    )
