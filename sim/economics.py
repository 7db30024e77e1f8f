"""What a run costs in money and energy, from a price table and a power model.

The one rule: without a table no money is named, and watts that nobody has calibrated say
`estimated` wherever they appear.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from .errors import InputError
from .node import Node
from .sheets import shipped_sheet, shipped_sheets
from .units import Watts, three_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .node import Place

JOULES_PER_KWH = 3.6e6
ProfileName = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Price = Annotated[float, Field(strict=True, ge=0, le=1e9)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]


class Prices(Node):
    """A price table; there is no default, and no price is known without it."""

    currency: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z]{1,12}$")]
    """What the numbers are in, e.g. USD."""
    gpu_hour: Annotated[dict[ProfileName, Price], Field(min_length=1)]
    """Price of an hour of one GPU, by the name of its profile."""
    host_hour: Price = 0.0
    """Price of an hour of the part of the host that goes with one GPU, where not in `gpu_hour`."""
    energy_kwh: Price = 0.0
    """Price of a kilowatt-hour, where energy is paid beside the hours."""


class GpuPower(Node):
    """What one GPU draws."""

    idle: Annotated[Watts, Field(gt=0)] | None = None
    """While nothing runs on it."""
    peak: Annotated[Watts, Field(gt=0)] | None = None
    """While its tensor cores are busy all the time; not given: the data sheet's limit."""


class Power(Node):
    """A linear power model: idle, and a share of the rest for what the GPU is busy with.

    # Model: P = idle + (peak - idle) * (memory_bound * busy without a prompt + compute_bound * busy
    with one), busy as shares of time; peak is the data sheet's limit. That decoding without a
    prompt draws a bit over half of the range and prefill all of it is a rule of thumb from public
    traces of power under serving, as is an idle GPU at 15 % of its limit; nobody has measured it
    for these kernels, so `kind` says estimated until the user's own figures are in.
    """

    gpu: dict[ProfileName, GpuPower] = Field(default={})
    """Watts by the name of a profile, where other than by its data sheet."""
    idle_share: Share = 0.15
    """Idle watts as a share of the peak, where `gpu` does not say."""
    memory_bound: Share = 0.6
    """Share of the range between idle and peak while only decoding."""
    compute_bound: Share = 1.0
    """The same in iterations that hold prompt tokens."""
    host: Watts = 0.0
    """Watts of the part of the host that goes with one GPU, drawn all the time."""
    kind: Literal["estimated", "calibrated"] = "estimated"
    """Write `calibrated` where these figures were measured on the machine in question."""


class HasSummary(Protocol):
    """A run, or whatever else has a summary."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """The content of summary.json."""


METRICS: dict[str, tuple[str, str, Literal["lower", "higher"] | None]] = {
    "gpu_hours": ("GPU-hours", "h", "lower"),
    "cost": ("cost of the run", "currency", "lower"),
    "cost_per_mtok": ("cost of a million output tokens", "currency", "lower"),
    "cost_per_mtok_total": ("cost of a million tokens, prompts included", "currency", "lower"),
    "cost_per_1k_requests": ("cost of 1,000 requests", "currency", "lower"),
    "cost_per_good_request": ("cost of a request within the SLO", "currency", "lower"),
    "energy_kwh": ("energy", "kWh", "lower"),
    "energy_j_per_token": ("energy of an output token", "J", "lower"),
    "mean_w": ("power", "W", "lower"),
}
"""Label, unit (`currency` stands for that of the table) and better direction of each figure."""


def faults(
    prices: Prices | None, power: Power | None, profiles: Iterable[str]
) -> list[tuple[Place, str]]:
    """What price table and power model lack for runs with these *profiles* (names), with remedy."""
    found: list[tuple[Place, str]] = []
    for name in dict.fromkeys(profiles):
        if prices is not None and name not in prices.gpu_hour:
            have = ", ".join(prices.gpu_hour)
            what = f"no price for {name}; add `{name}: ...` (there is {have})"
            found.append((("prices", "gpu_hour"), what))
        model = power or (Power() if prices is not None and prices.energy_kwh else None)
        if model is not None:
            try:
                watts(model, name)
            except InputError as error:
                found += [(("power", "gpu"), line) for line in error.lines]
    return found


def watts(power: Power, profile: str) -> tuple[float, float]:
    """Idle and peak watts of one GPU with that profile; `InputError` if nobody states them."""
    own = power.gpu.get(profile, GpuPower())
    peak = own.peak
    if peak is None:
        if profile not in shipped_sheets():
            raise InputError(
                f"no watts for {profile}, which has no data sheet here; add"
                f" `power: {{gpu: {{{profile}: {{peak: 700 W}}}}}}`"
            )
        peak = shipped_sheet(profile).peak_w
    idle = own.idle if own.idle is not None else power.idle_share * peak
    if idle > peak:
        raise InputError(
            f"{profile}: idle {three_digits(idle)} W is above peak {three_digits(peak)} W;"
            " correct one of them"
        )
    return idle, peak


def economics(run: HasSummary, prices: Prices | None, power: Power | None) -> dict[str, Any]:
    """GPU-hours, cost and energy of a *run*, by the names in `METRICS` and in SI but for these.

    Figures that have no ground are None: all money without *prices*, all energy without *power*
    (unless *prices* has a price of energy, which takes the data sheets' watts), what is divided by
    nothing. Raises `InputError` if table or model lack the run's profile.
    """
    return of_summary(run.summary, prices, power)


def of_summary(
    summary: Mapping[str, Any], prices: Prices | None, power: Power | None
) -> dict[str, Any]:
    """`economics` of what a run's summary.json holds."""
    name = str(summary["cost_profile"])
    if found := faults(prices, power, (name,)):
        raise InputError([f"{'.'.join(map(str, place))}: {what}" for place, what in found])
    if power is None and prices is not None and prices.energy_kwh:
        power = Power()
    gpus = len(summary.get("replicas", (None,)))
    duration = float(summary["duration"])
    hours = gpus * duration / 3600.0
    mean_w = None if power is None else _mean_watts(summary, power, name, gpus)
    joules = None if mean_w is None else mean_w * duration
    cost = None
    if prices is not None:
        cost = hours * (prices.gpu_hour[name] + prices.host_hour)
        if prices.energy_kwh:
            cost = None if joules is None else cost + joules / JOULES_PER_KWH * prices.energy_kwh
    output = float(summary["total_output_tokens"])
    goodput = summary["request_goodput"]
    return {
        "gpu_hours": hours,
        "currency": None if prices is None else prices.currency,
        "cost": cost,
        "cost_per_mtok": _each(cost, output / 1e6),
        "cost_per_mtok_total": _each(cost, (summary["total_input_tokens"] + output) / 1e6),
        "cost_per_1k_requests": _each(cost, summary["completed"] / 1e3),
        "cost_per_good_request": _each(cost, (goodput or 0.0) * duration),
        "energy_kwh": _each(joules, JOULES_PER_KWH),
        "energy_j_per_token": _each(joules, output),
        "mean_w": mean_w,
        "power_kind": None if power is None else power.kind,
    }


def _each(whole: float | None, parts: float) -> float | None:
    """*whole* a part; None where there is none of either."""
    return None if whole is None or not parts > 0.0 else whole / parts


def _mean_watts(summary: Mapping[str, Any], power: Power, profile: str, gpus: int) -> float | None:
    """Watts of all GPUs and their part of the host, on average over the run.

    # Model: iterations with prompt tokens are compute-bound, all others memory-bound; a GPU that
    waits for its host or for work idles, though a resident loop polls meanwhile.
    """
    busy, prompts = summary.get("loop_gpu_busy_s"), summary.get("loop_gpu_busy_prefill_s")
    duration = float(summary["duration"])
    if busy is None or prompts is None or not duration > 0.0:
        return None  # a run of an older version
    idle, peak = watts(power, profile)
    active = power.memory_bound * (busy - prompts) + power.compute_bound * prompts
    share = min(active / (gpus * duration), 1.0)
    drawn = gpus * (idle + (peak - idle) * share + power.host)
    return drawn if math.isfinite(drawn) else None


def money(value: float | None, currency: str | None) -> str:
    """0.4567 USD as '0.457 USD'; a dash where there is none."""
    return "-" if value is None or currency is None else f"{three_digits(value)} {currency}"


def line(summary: Mapping[str, Any], prices: Prices | None, power: Power | None) -> str | None:
    """What a run costs in one line for the console; None without *prices* and *power*."""
    if prices is None and power is None:
        return None
    found = of_summary(summary, prices, power)
    said = [f"{three_digits(found['gpu_hours'])} GPU-hours"]
    currency = found["currency"]
    if found["cost"] is not None:
        said.append(f"{money(found['cost_per_mtok'], currency)} per million output tokens")
        said.append(f"{money(found['cost_per_1k_requests'], currency)} per 1,000 requests")
        if found["cost_per_good_request"] is not None:
            good = money(found["cost_per_good_request"], currency)
            said.append(f"{good} per request within the SLO")
    if found["mean_w"] is not None and power is not None:
        each = found["energy_j_per_token"]
        said.append(
            f"{three_digits(found['energy_kwh'])} kWh, {three_digits(found['mean_w'])} W on average"
            + (f", {three_digits(each)} J per output token" if each is not None else "")
            + f" ({found['power_kind']})"
        )
    return "cost: " + "; ".join(said)
