"""What the pictures of a trace show, as data: the same panels are drawn to a file and on a page.

One rule: a panel takes any number of traces, so a comparison has the pictures of a single trace
with one more line in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .words import span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .inspection import Inspection
    from .lengths import Lengths

Named = tuple[str, "Inspection"]
Values = NDArray[np.floating[Any]]
_LEAST_S = 1e-3  # on logarithmic axes
_LONG = 30  # times the mean, of gaps that need a logarithmic axis
Colour = Literal["a", "b", "grey"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `step`: y[i] holds from x[i] to x[i + 1], and x may be one longer than y."""

    label: str
    x: Values
    y: Values
    colour: Colour = "a"
    step: bool = False
    dashed: bool = False
    filled: bool = False
    dots: bool = False


@dataclass(slots=True)
class Panel:
    """One pair of axes; `low` and `high` bound the y axis, else the lines do."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line] = field(default_factory=list)
    x_log: bool = False
    y_log: bool = False
    low: float | None = None
    high: float | None = None


def panels(traces: Sequence[Named]) -> list[Panel]:
    """The panels of one trace or of several, those only for which a trace has something."""
    makers: tuple[Callable[[Sequence[Named]], Panel], ...] = (
        _rate, _tokens, _prompt_tokens, _output_tokens, _gaps, _burstiness, _prompts, _outputs,
        _sizes, _reuse, _turns, _between, _hours,
    )  # fmt: skip
    found = [make(traces) for make in makers]
    return [panel for panel in found if any(not line.dashed for line in panel.lines)]


def _colours(traces: Sequence[Named]) -> list[tuple[str, Inspection, Colour]]:
    colours: tuple[Colour, Colour] = ("a", "b")
    return [(name, x, colours[at % 2]) for at, (name, x) in enumerate(traces)]


def _time_unit(traces: Sequence[Named]) -> tuple[str, float]:
    longest = max(x.duration_s for _, x in traces)
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if longest >= 3 * size:
            return unit, size
    return "s", 1.0


def _over_time(traces: Sequence[Named], title: str, y_label: str) -> tuple[Panel, float]:
    unit, unit_s = _time_unit(traces)
    return Panel(title, f"time since the first request ({unit})", y_label, low=0.0), unit_s


def _bars(inspection: Inspection, column: int, unit_s: float) -> tuple[Values, ...]:
    """Edges in the unit, and the rate a second in each bar; the last one is not full."""
    width_s, sums = inspection.timeline.bars(120)
    rates = sums[column] / width_s
    whole = rates[:-1] if len(rates) > 1 else rates
    return np.arange(len(whole) + 1) * width_s / unit_s, whole


def _rate(traces: Sequence[Named]) -> Panel:
    panel, unit_s = _over_time(traces, "Arrival rate", "requests per s")
    for name, x, colour in _colours(traces):
        edges, rates = _bars(x, 0, unit_s)
        alone = len(traces) == 1
        panel.lines.append(Line(name, edges, rates, colour, step=True, filled=alone))
        mean = x.mean_rate_per_s
        if mean is not None and alone:
            ends = np.array([0.0, edges[-1]])
            panel.lines.append(Line(f"mean {mean:.3g}", ends, np.full(2, mean), "b", dashed=True))
    return panel


def _tokens(traces: Sequence[Named]) -> Panel:
    panel, unit_s = _over_time(traces, "Prompt and output tokens", "tokens per s")
    panel.low, panel.y_log = None, True
    if len(traces) == 1:
        kinds: tuple[tuple[str, int, Colour], ...] = (("prompt", 3, "a"), ("output", 4, "b"))
        for kind, column, colour in kinds:
            edges, rates = _bars(traces[0][1], column, unit_s)
            panel.lines.append(Line(kind, edges, _positive(rates), colour, step=True))
    return panel


def _prompt_tokens(traces: Sequence[Named]) -> Panel:
    return _tokens_of("Prompt", 3, traces)


def _output_tokens(traces: Sequence[Named]) -> Panel:
    return _tokens_of("Output", 4, traces)


def _tokens_of(kind: str, column: int, traces: Sequence[Named]) -> Panel:
    panel, unit_s = _over_time(traces, f"{kind} tokens", "tokens per s")
    if len(traces) > 1:
        for name, x, colour in _colours(traces):
            edges, rates = _bars(x, column, unit_s)
            panel.lines.append(Line(name, edges, rates, colour, step=True))
    return panel


def _positive(values: Values) -> Values:
    """*values* for a logarithmic axis: gaps where there is nothing."""
    return np.where(values > 0, values, np.nan)


def _thin(x: Values, y: Values, most: int = 300) -> tuple[Values, Values]:
    """At most about *most* points of a long curve, both ends kept, dense towards the end."""
    if len(x) <= most:
        return x, y
    early = np.linspace(0, len(x) - 1, most // 2)
    late = len(x) - np.geomspace(1, len(x), most // 2)
    at = np.unique(np.concatenate([early, late]).astype(np.int64))
    return x[at], y[at]


def _gaps(traces: Sequence[Named]) -> Panel:
    panel = Panel(
        "Time between arrivals", "gap (s)", "share of gaps that are longer", y_log=True, high=1.0
    )
    panel.x_log = any(x.gaps.most > _LONG * x.gaps.mean for _, x in traces)
    for name, x, colour in _colours(traces):
        if x.gaps.cv is None:
            continue
        gaps, shares = x.gaps.sorted()
        floor = 0.5 / x.gaps.count
        there = gaps >= (_LEAST_S if panel.x_log else 0.0)
        at, longer = _thin(gaps[there], np.maximum(1.0 - shares[there], floor))
        label = f"{name}, CV {x.gaps.cv:.2f}"
        panel.lines.append(Line(label, at, longer, colour, step=True))
        if colour == "a":
            last_s = -np.log(floor) * x.gaps.mean
            spaced = np.geomspace if panel.x_log else np.linspace
            poisson = spaced(_LEAST_S if panel.x_log else 0.0, max(last_s, 2 * _LEAST_S), 60)
            shown = np.exp(-poisson / x.gaps.mean)
            panel.lines.append(
                Line("Poisson of this rate, CV 1", poisson, shown, "grey", dashed=True)
            )
    return panel


def _burstiness(traces: Sequence[Named]) -> Panel:
    panel = Panel(
        "Burstiness over time scales", "window (s)", "index of dispersion (variance / mean)",
        x_log=True, y_log=True,
    )  # fmt: skip
    for name, x, colour in _colours(traces):
        curve = {size: value for size, value in x.dispersion(least=5).items() if value > 0}
        if curve:
            sizes, values = np.array(list(curve)), np.array(list(curve.values()))
            panel.lines.append(Line(name, sizes, values, colour, dots=True))
    if panel.lines:
        ends = np.array([min(line.x[0] for line in panel.lines),
                         max(line.x[-1] for line in panel.lines)])  # fmt: skip
        panel.lines.append(Line("Poisson", ends, np.ones(2), "grey", dashed=True))
    return panel


def _prompts(traces: Sequence[Named]) -> Panel:
    return _density("Prompt lengths", traces, lambda x: x.prompt)


def _outputs(traces: Sequence[Named]) -> Panel:
    return _density("Output lengths", traces, lambda x: x.output)


def _density(title: str, traces: Sequence[Named], pick: Callable[[Inspection], Lengths]) -> Panel:
    panel = Panel(title, "tokens", "requests a bin, four an octave (%)", x_log=True, low=0.0)
    for name, x, colour in _colours(traces):
        edges, counts = pick(x).density()
        shares = 100.0 * counts / max(1, int(counts.sum()))
        said = f"{name}: median {pick(x).quantile(0.5):,.0f}"
        alone = len(traces) == 1
        panel.lines.append(Line(said, edges, shares, colour, step=True, filled=alone))
    return panel


def _sizes(traces: Sequence[Named]) -> Panel:
    panel = Panel(
        "Prefix reuse by cache size (LRU)", "cache size (blocks)", "block references that hit (%)",
        x_log=True, low=0.0,
    )  # fmt: skip
    curves = [(name, x.curve(), x.bound(), colour) for name, x, colour in _colours(traces)]
    ends = [curve.distances[-1:] for _, curve, _, _ in curves if curve is not None]
    end = float(np.concatenate([[1e5], *ends]).max())
    sizes = np.unique(np.round(np.geomspace(10, 2 * end, 120)))
    for name, curve, bound, colour in curves:
        if curve is None:
            continue
        rates = 100.0 * np.array([curve.hit_rate(size) for size in sizes.tolist()])
        said = "exact" if curve.exact else f"from 1/{round(1 / curve.rate)} of the blocks"
        panel.lines.append(Line(f"{name}, {said}", sizes, rates, colour))
        if bound is not None:
            at = np.array([size for size in bound if size <= 2 * end])
            best = np.array([100.0 * bound[size] for size in at.tolist()])
            panel.lines.append(Line("Belady's bound", at, best, colour, dots=True, dashed=True))
        top = np.full(2, 100.0 * curve.hit_rate(inf))
        label = f"any size, {top[0]:.1f} %"
        panel.lines.append(Line(label, sizes[[0, -1]], top, colour, dashed=True))
    return panel


def _reuse(traces: Sequence[Named]) -> Panel:
    panel, unit_s = _over_time(
        traces, "Prefix reuse over time, cache of any size", "block references that hit (%)"
    )
    panel.high = 100.0
    for name, x, colour in _colours(traces):
        if not x.reuse.blocks or not x.reuse.exact:
            continue
        width_s, sums = x.timeline.bars(60)
        blocks, hits = sums[1], sums[2]
        there = blocks > 0
        ends = (np.arange(len(blocks)) + 1) * width_s / unit_s
        if len(traces) == 1:
            middles = (ends - 0.5 * width_s / unit_s)[there]
            rates = 100 * hits[there] / blocks[there]
            panel.lines.append(Line(f"in each {span(width_s)}", middles, rates))
        total = np.cumsum(blocks)
        since = 100 * np.cumsum(hits)[total > 0] / total[total > 0]
        second: Colour = "b" if len(traces) == 1 else colour
        label = "since the start" if len(traces) == 1 else name
        panel.lines.append(Line(label, ends[total > 0], since, second))
    return panel


def _turns(traces: Sequence[Named]) -> Panel:
    panel = Panel(
        "Turns a session", "turns", "share of sessions at or below", x_log=True, low=0.0, high=1.0
    )
    for name, x, colour in _colours(traces):
        values, shares = x.sessions.turns.cdf()
        if len(values):
            # from 0 at the left end
            ends = np.concatenate([values[:1], values]).astype(np.float64)
            panel.lines.append(
                Line(name, *_thin(ends, np.concatenate([[0.0], shares])), colour, step=True)
            )
    return panel


def _between(traces: Sequence[Named]) -> Panel:
    panel = Panel("Between turns", "seconds", "share at or below", x_log=True, low=0.0, high=1.0)
    for name, x, colour in _colours(traces):
        alone = len(traces) == 1
        for kind, spread, second, dashed in (
            ("gap to the turn before", x.sessions.gap_s, colour, False),
            ("delay after its answer", x.sessions.delay_s, "b" if alone else colour, not alone),
        ):
            values, shares = spread.sorted()
            above = values >= _LEAST_S
            if above.any():
                label = kind if alone else f"{kind}, {name}"
                at, below = _thin(values[above], shares[above])
                panel.lines.append(Line(label, at, below, second, step=True, dashed=dashed))
    return panel


def _hours(traces: Sequence[Named]) -> Panel:
    panel = Panel(
        "Rate by hour of the day", "hour, the first request in hour 0", "rate over mean", low=0.0
    )
    for name, x, colour in _colours(traces):
        profile = x.hours.profile(x.duration_s)
        if profile is not None:
            panel.lines.append(Line(name, np.arange(25.0), profile, colour, step=True))
    return panel
