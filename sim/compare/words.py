"""The answer in sentences: what moved, and the parts of the sum that moved it."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from sim.tables import provenance
from sim.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .comparison import Comparison
    from .moved import Moved

FEW = 3
"""Metrics that the answer names at most."""
UNEXPLAINED = 0.3
"""Causes are named until they leave at most this share of a difference."""
NAMED = 3
FAMILIES = (
    ("p99_ttft_ms", "mean_ttft_ms"), ("mean_tpot_ms",), ("mean_e2el_ms",),
    ("request_goodput", "output_throughput"),
)  # fmt: skip
NOTHING = 1e-9
MOVES = 0.005
"""A metric that moves less is not worth a sentence."""
_BY_METRIC = {
    "p99_ttft_ms": "slow_ttft", "mean_ttft_ms": "ttft", "mean_tpot_ms": "tpot",
    "mean_e2el_ms": "e2el",
}  # fmt: skip
_CAUSES = {
    "queue": "waiting in the queue",
    "load": "waiting for KV",
    "prefill": "prefill",
    "prefill_gpu": "the GPU's work from admission to the first token",
    "prefill_gap": "gaps of the loop before the first token",
    "prefill_rest": "an idle loop before the first token",
    "decode": "decode",
    "decode_gpu": "the GPU's work in decode iterations",
    "decode_gap": "gaps of the loop in decode iterations",
    "decode_prompts": "iterations with prompts of others",
    "decode_rest": "a loop that stands still",
}


def answer(found: Comparison) -> list[str]:
    """Sentences, the most important first."""
    rows = {row.metric.name: row for row in found.metrics}
    moved = []
    for family in FAMILIES:
        members = [rows[name] for name in family if name in rows and _moves(rows[name])]
        # Of one family, the number that moved most.
        moved += sorted(members, key=lambda row: -_size(row))[:1]
    moved.sort(key=lambda row: -_size(row))
    if not moved:
        return ["No latency and no throughput differs by more than 0.5 %."]
    said = [f"{_metric(row)}{_why(found, row)}." for row in moved[:FEW]]
    if (line := _iterations(found)) is not None:
        said.append(line)
    return said


def _size(row: Moved) -> float:
    relative = row.relative
    return float("inf") if relative is None else abs(relative)


def _moves(row: Moved) -> bool:
    """Whether it is worth a sentence."""
    return _size(row) > MOVES and row.a != row.b


def _metric(row: Moved) -> str:
    a, b = values(row)
    values_ = f"{b} instead of {a}"
    relative = row.relative
    if relative is None:
        return f"B's {row.metric.label} is {values_}"
    change = f"{_percent(relative)} {'lower' if relative < 0 else 'higher'}"
    if relative > 1:
        change = f"{1 + relative:.3g} times as high"
    chance = ", which may be chance" if row.sure is False else ""
    return f"B's {row.metric.label} is {change} ({values_}){chance}"


def values(row: Moved) -> tuple[str, str]:
    """The metric in A and B with its unit, with so many digits that they differ."""
    unit, name = row.metric.unit, row.metric.name
    if unit in ("ms", "s") or name == "duration":
        scale = 1e-3 if unit == "ms" else 1.0
        return times(row.a * scale, row.b * scale)
    if name.endswith(("_fraction", "_rate", "_share", "_utilization")):
        return _told_apart(lambda number, digits: f"{100 * number:.{digits}g} %", row.a, row.b)
    if unit == "B":
        return bytes_text(row.a), bytes_text(row.b)

    def said(number: float, digits: int) -> str:
        whole = abs(number) >= 1000 or number == int(number)
        return f"{f'{number:,.0f}' if whole else f'{number:.{digits}g}'} {unit}".rstrip()

    return _told_apart(said, row.a, row.b)


def times(a: float, b: float) -> tuple[str, str]:
    """Two times in seconds in the unit that fits the longer one, told apart."""
    longest = max(abs(a), abs(b))
    if not longest:
        return "0", "0"
    unit, scale = next((u for u in _UNITS if longest >= 1 / u[1]), _UNITS[-1])

    def said(seconds: float, digits: int) -> str:
        number = seconds * scale
        decimals = max(0, digits - 1 - floor(log10(abs(number)))) if number else 0
        return f"{number:,.{min(decimals, 6)}f} {unit}"

    return _told_apart(said, a, b)


_UNITS = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_DIGITS = (3, 4, 5, 6)


def _told_apart(said: Callable[[float, int], str], a: float, b: float) -> tuple[str, str]:
    for digits in _DIGITS:
        found = said(a, digits), said(b, digits)
        if found[0] != found[1] or a == b:
            break
    return found


def _percent(share: float) -> str:
    return f"{100 * abs(share):.2g} %" if abs(share) < 0.1 else f"{100 * abs(share):.0f} %"


def _why(found: Comparison, row: Moved) -> str:
    """The parts that make up most of a latency's difference."""
    name = _BY_METRIC.get(row.metric.name)
    if name is None:
        return _why_throughput(found, row)
    changes = sorted(
        ((b - a, part) for part, a, b in found.means(name)),
        key=lambda change: -abs(change[0]),
    )
    total = sum(change for change, _ in changes)
    # The mean of the slowest need not move as their limit does.
    if not total or (total > 0) != (row.b > row.a):
        return ""
    causes: list[str] = []
    rest = total
    for change, part in changes:
        if abs(rest) <= UNEXPLAINED * abs(total) or len(causes) == NAMED:
            break
        causes.append(f"{_signed(change)} for {_CAUSES[part]}")
        rest -= change
    of = "of the slowest 1 %, " if name == "slow_ttft" else ""
    return f"; {of}{_signed(total)} in the mean: {', '.join(causes)}"


def _why_throughput(found: Comparison, row: Moved) -> str:
    """More requests in time, or a run that is shorter because its loop is."""
    a, b = (side.run.summary for side in found.both)
    if not a["duration"]:
        return ""
    if row.metric.name == "request_goodput" and abs(b["duration"] / a["duration"] - 1) <= MOVES:
        good = [round(s["request_goodput"] * s["duration"]) for s in (a, b)]
        return f"; {good[1]:,} requests meet the SLO instead of {good[0]:,}"
    one, other = found.a.loop, found.b.loop
    same = len(found.a.requests.id) == len(found.b.requests.id)
    same &= found.a.run.replicas == found.b.run.replicas
    if one is None or other is None or not same or one.whole_s == other.whole_s:
        return ""
    changes = {
        "decode iterations": other.decode.total_s - one.decode.total_s,
        "iterations with prefill": other.prompts.total_s - one.prompts.total_s,
        "times without any": other.rest_s - one.rest_s,
    }
    said = [
        f"{_signed(change)} for {name}" for name, change in changes.items() if abs(change) > NOTHING
    ]
    longer = other.whole_s - one.whole_s
    total = f"{seconds_text(abs(longer))} {'less' if longer < 0 else 'more'}"
    return f"; the run as a whole takes {total}: {', '.join(said)}"


def _signed(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'}{seconds_text(abs(seconds))}"


def _iterations(found: Comparison) -> str | None:
    """How decode iterations differ."""
    if found.a.loop is None or found.b.loop is None:
        return None
    a, b = found.a.loop.decode, found.b.loop.decode
    if not a.count or not b.count:
        return None
    longer = b.each_s / a.each_s - 1
    if abs(longer) <= MOVES:
        return f"Decode iterations are as long ({seconds_text(b.each_s)})."
    how = f"{_percent(longer)} {'shorter' if longer < 0 else 'longer'}"
    pairs = ((a.each_s, b.each_s), (a.gpu_s, b.gpu_s), (a.gap_s, b.gap_s))
    each, gpu, gap = (" -> ".join(times(*pair)) for pair in pairs)
    return (
        f"Decode iterations are {how} ({each}): GPU {gpu}, gap {gap};"
        f" there are {a.count:,} -> {b.count:,} of them."
    )


def notes(found: Comparison) -> list[str]:
    """What the two runs do not have in common, and what their numbers rest on."""
    a, b = found.both
    said = []
    if a.kind != b.kind:
        said.append(f"A is {a.kind}, B is {b.kind}: a difference is also the model's error")
    hashes = [side.run.summary.get("scenario_hash") for side in found.both]
    if hashes[0] is not None and hashes[0] == hashes[1] and not found.keys:
        said.append("both ran the same scenario")
    for name, side in zip("AB", found.both, strict=True):
        if side.without_scenario:
            said.append(f"{name} has no scenario.json: keys are not compared")
    counts = [len(side.requests.sent[0]) for side in found.both]
    if counts[0] != counts[1]:
        said.append(
            f"A was sent {counts[0]:,} requests, B {counts[1]:,}: totals and tails differ by that"
        )
    elif not found.paired:
        said.append("their requests differ in prompt or output tokens: nothing is paired")
    for name, side in zip("AB", found.both, strict=True):
        left = len(side.requests.sent[0]) - len(side.requests.id)
        if left:
            said.append(f"{name}: {left:,} requests did not finish; latencies are of the others")
    gpus = [side.run.replicas for side in found.both]
    if gpus[0] != gpus[1]:
        said.append(f"A has {gpus[0]} replicas, B {gpus[1]}: totals are over all of them")
    if not found.divided:
        said.append("iterations were not recorded in both: prefill and decode are not divided")
    profiles = {str(side.run.summary.get("cost_profile_hash")) for side in found.both}
    if len(profiles) > 1:
        names = [side.run.summary.get("cost_profile") for side in found.both]
        said.append(f"their profiles differ: A {names[0]}, B {names[1]}")
    simulated = [side.run.summary for side in found.both if side.kind == "simulated"]
    simulated = [summary for summary in simulated if set(summary) >= _SAYS]
    if simulated:
        said += provenance(*simulated)
    return said


_SAYS = {"cost_profile", "cost_profile_status", "cost_estimated", "cost_extrapolated"}
