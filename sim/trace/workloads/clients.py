"""Clients as ServeGen describes them, and the requests of all of them together.

One client has, in each window of ten minutes, a rate and a distribution of gaps, and in each six
hours a distribution of prompt and of output lengths (Xiang et al., ServeGen, arXiv 2505.09999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

import numpy as np

from sim.errors import InputError
from sim.rng import stream
from sim.trace.chunk import Chunk

from .arrivals import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sim.trace.lengths import Length

WINDOW_S = 600.0
MOST_IN_WINDOW = 20_000_000


@dataclass(frozen=True, slots=True)
class Pmf:
    """Token counts and the share of draws at or below each, [n] each."""

    tokens: NDArray[np.int64]
    ends: NDArray[np.float64]

    @classmethod
    def of(cls, tokens: Sequence[int], shares: Sequence[float]) -> Pmf:
        """Shares need not sum to 1, but to more than 0."""
        order = np.argsort(np.array(tokens, dtype=np.int64), kind="stable")
        ends = np.cumsum(np.array(shares, dtype=np.float64)[order])
        return cls(np.array(tokens, dtype=np.int64)[order], ends / ends[-1])

    def quantile(self, share: NDArray[np.float64]) -> NDArray[np.int64]:
        """The length at each *share*, from 0 to below 1."""
        at = np.searchsorted(self.ends, share, side="right")
        return self.tokens[np.minimum(at, len(self.tokens) - 1)]


Law = Union[Pmf, "Length"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths in one part of the day; a prompt is the sum of its parts (text, images)."""

    prompt: tuple[Law, ...]
    output: Law


@dataclass(frozen=True, slots=True)
class Clients:
    """All clients' windows in order of time, [n] each, and their lengths.

    `window` counts ten minutes from the start of the data, `client` from 0. `shape` is that of the
    gaps' distribution, Weibull where `weibull`, else gamma. `lengths` has, by client, the seconds
    from which on each `Lengths` holds; a single entry is that of all clients.
    """

    client: NDArray[np.int64]
    window: NDArray[np.int64]
    rate_per_s: NDArray[np.float64]
    weibull: NDArray[np.bool_]
    shape: NDArray[np.float64]
    windows: int
    lengths: Sequence[Sequence[tuple[float, Lengths]]]

    @property
    def mean_rate_per_s(self) -> float:
        """Of all clients over all windows."""
        return float(self.rate_per_s.sum()) / self.windows

    def lengths_at(self, client: int, at_s: float) -> Lengths:
        """What holds for *client* at *at_s* seconds from the start of the data."""
        known = self.lengths[client if len(self.lengths) > 1 else 0]
        return next((found for since, found in reversed(known) if since <= at_s), known[0][1])


def rows(
    clients: Clients, seed: int, requests: int, rate_per_s: float | None, start_s: float
) -> Iterator[Chunk]:
    """*requests* requests of all *clients* from *start_s* of their data on, the first at 0 s.

    Their mean rate becomes *rate_per_s*, if that is given. After the last window comes the first
    one again, with other draws. Raises `InputError` if a window has too many requests.
    """
    scale = 1.0 if rate_per_s is None else rate_per_s / clients.mean_rate_per_s
    held: list[Chunk] = []
    count, first, first_s, number = 0, 0, -1.0, 0
    starts = np.searchsorted(clients.window, np.arange(clients.windows + 1))
    while requests > 0:
        window = (int(start_s // WINDOW_S) + number) % clients.windows
        part = slice(int(starts[window]), int(starts[window + 1]))
        if part.start < part.stop:
            rng = stream(seed, "trace.servegen.window", number)
            made = _window(clients, part, window, scale, rng)
        if part.start < part.stop and len(made):
            if first_s < 0:
                first, first_s = number, float(made.arrival_s[0])
            since_s = (number - first) * WINDOW_S - first_s
            made = made.at(np.maximum(made.arrival_s + since_s, 0.0))
            held.append(made.part(0, min(requests, len(made))))
            count += len(held[-1])
            requests -= len(held[-1])
        number += 1
        if held and (count >= ROWS or requests <= 0 or number % 1000 == 0):
            yield _joined(held)
            held, count = [], 0


def _window(
    clients: Clients, part: slice, window: int, scale: float, rng: np.random.Generator
) -> Chunk:
    """One window of all clients that send something in it, in order of time from its start."""
    expected = clients.rate_per_s[part] * (WINDOW_S * scale)
    if expected.sum() > MOST_IN_WINDOW:
        raise InputError(
            f"rate_per_s: {expected.sum():,.0f} requests in ten minutes, {MOST_IN_WINDOW:,} is the "
            "most; ask for a lower rate"
        )
    counts = np.floor(expected + rng.random(len(expected))).astype(np.int64)
    # Model: as many requests as the rate says, and gaps stretched to fill the window, as the
    # publisher's generator does it; one more gap leads from the last of them to its end.
    spans = counts + (counts > 0)
    ends = np.cumsum(spans)
    shape = np.repeat(clients.shape[part], spans)
    gaps = _gaps(np.repeat(clients.weibull[part], spans), shape, spans, rng)
    sums = np.concatenate([[0.0], np.cumsum(gaps)])
    before, totals = sums[ends - spans], sums[ends] - sums[ends - spans]
    last = np.zeros(len(gaps), dtype=bool)
    last[ends[spans > 0] - 1] = True
    which = np.repeat(np.arange(len(spans)), spans)[~last]
    with np.errstate(invalid="ignore", divide="ignore"):
        at = (sums[1:][~last] - before[which]) / totals[which]
    # gaps of a tiny shape can all be too small for a float: then the requests come at random
    lost = ~np.isfinite(at)
    at[lost] = rng.random(int(lost.sum()))
    order = np.argsort(at, kind="stable")
    client = clients.client[part][which[order]]
    shares = rng.random((2, len(order)))
    prompt, output = _lengths(clients, client, window, shares, rng)
    return Chunk(np.clip(at[order], 0.0, 1.0) * WINDOW_S, prompt, output)


def _gaps(
    weibull: NDArray[np.bool_],
    shape: NDArray[np.float64],
    spans: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Gaps of these shapes, the *spans* of each client together, in units of its largest one.

    So a client whose gaps are huge takes nothing from the precision of those added up with it.
    """
    starts = (np.cumsum(spans) - spans)[spans > 0]
    with np.errstate(divide="ignore"):
        logs = np.where(
            weibull,
            np.log(rng.standard_exponential(len(shape))) / shape,
            np.log(rng.standard_gamma(shape)),
        )
    largest = np.maximum.reduceat(logs, starts) if len(starts) else logs
    largest = np.where(np.isfinite(largest), largest, 0.0)
    return np.asarray(np.exp(logs - np.repeat(largest, spans[spans > 0])), dtype=np.float64)


def _lengths(
    clients: Clients,
    client: NDArray[np.int64],
    window: int,
    shares: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and output tokens of requests of *client*, by *shares* uniform, [2, n]."""
    prompt, output = (np.ones(len(client), dtype=np.int64) for _ in range(2))
    alone = len(clients.lengths) == 1
    groups = [np.arange(len(client))] if alone else _groups(client)
    for rows in groups:
        if not len(rows):
            continue
        laws = clients.lengths_at(int(client[rows[0]]), window * WINDOW_S)
        first, *others = laws.prompt
        tokens = first.quantile(shares[0, rows])
        for law in others:
            tokens = tokens + law.quantile(rng.random(len(rows)))
        prompt[rows] = np.maximum(tokens, 1)
        output[rows] = np.maximum(laws.output.quantile(shares[1, rows]), 1)
    return prompt, output


def _groups(client: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Positions of the requests of each client."""
    order = np.argsort(client, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(client[order])) + 1)


def _joined(parts: Sequence[Chunk]) -> Chunk:
    return Chunk(
        np.concatenate([part.arrival_s for part in parts]),
        np.concatenate([part.prompt_tokens for part in parts]),
        np.concatenate([part.output_tokens for part in parts]),
    )
