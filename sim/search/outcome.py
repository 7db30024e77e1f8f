"""What a search found as one document, `probes.json`: answer, table, figures all come from it.

The one rule: same study, same bytes; nothing in it depends on when or on how many workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.pareto import pareto
from sim.result import read_json

from .capacity import notes, words
from .provision import offered, unsteady
from .words import configuration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .capacity import Capacity
    from .halving import Standing
    from .probes import Probe, Prober
    from .provision import Provision

Document = dict[str, Any]


def of_capacity(
    found: Sequence[Capacity], needs: Sequence[Provision | None] | None, prober: Prober
) -> Document:
    """The document of a search for capacity, configurations in the file's order."""
    entries = []
    for i, capacity in enumerate(found):
        bracket, best = capacity.bracket, capacity.best
        entry = {
            "axes": capacity.axes,
            "name": configuration(capacity.axes),
            **_profile(capacity.probes),
            "status": bracket.status,
            "capacity": bracket.low,
            "broken_at": bracket.high,
            "offered_per_s": None if best is None else offered(best),
            "words": words(capacity, prober),
            "notes": [*notes(capacity, prober), *unsteady(best)],
            "at_capacity": {} if best is None else _estimates(best),
            "probes": [_probe(probe) for probe in capacity.probes],
        }
        need = None if needs is None else needs[i]
        if need is not None:
            entry["provision"] = {
                "gpus": need.gpus,
                "gpus_by_capacity": need.by_capacity,
                "per_gpu_per_s": need.per_gpu,
                "cost_per_hour": need.cost_per_hour,
                "verified": need.verified,
                "words": need.words,
                "probes": [_probe(probe) for probe in need.probes],
            }
        entries.append(entry)
    return _document("capacity", entries, prober)


def of_halving(found: Sequence[Standing], prober: Prober) -> Document:
    """The document of a search by halving, the best configuration first."""
    entries = [
        {
            "axes": standing.axes,
            "name": configuration(standing.axes),
            **_profile(standing.probes),
            "rung": standing.rung,
            "keeps": standing.probes[-1].keeps,
            "at_last": _estimates(standing.probes[-1]),
            "probes": [_probe(probe) for probe in standing.probes],
        }
        for standing in found
    ]
    return _document("halving", entries, prober)


def _document(method: str, entries: list[dict[str, Any]], prober: Prober) -> Document:
    prices, power = prober.prices, prober.power
    return {
        "kind": "simulated",
        "method": method,
        "search": prober.search.model_dump(mode="json"),
        "currency": None if prices is None else prices.currency,
        "power_kind": None if power is None else power.kind,
        "configurations": entries,
        "pareto": _front(entries),
    }


def _profile(probes: Sequence[Probe]) -> dict[str, Any]:
    run = next((probe.runs[0] for probe in probes if probe.runs), None)
    summary: Mapping[str, Any] = {} if run is None else run.summary
    return {
        "profile": summary.get("cost_profile"),
        "profile_status": summary.get("cost_profile_status"),
    }


def _estimates(probe: Probe) -> dict[str, Any]:
    return {
        name: {"value": e.value, "low": e.low, "high": e.high, "n": e.n}
        for name, e in probe.estimates.items()
    }


def _probe(probe: Probe) -> dict[str, Any]:
    return {
        "set": probe.sets,
        "ids": list(probe.ids),
        "keeps": probe.keeps,
        "broken": [name for name, kept in probe.kept.items() if not kept],
        "failure": probe.failure,
        "estimates": _estimates(probe),
    }


def good(estimates: Mapping[str, Any]) -> tuple[float | None, str]:
    """Goodput of a probe and its metric's name; throughput where there are no limits of an SLO."""
    for name in ("request_goodput", "request_throughput"):
        value = estimates.get(name, {}).get("value")
        if value is not None:
            return value, name
    return None, "request_goodput"


def operating_points(entries: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, float, float]]:
    """(configuration, probe, cost of a million output tokens, goodput) where limits are kept."""
    found = []
    for i, entry in enumerate(entries):
        probes = entry["probes"] if "rung" not in entry else entry["probes"][-1:]
        first = 0 if "rung" not in entry else len(entry["probes"]) - 1
        for j, probe in enumerate(probes, first):
            cost = probe["estimates"].get("cost_per_mtok", {}).get("value")
            value, _ = good(probe["estimates"])
            if probe["keeps"] and cost is not None and value is not None:
                found.append((i, j, cost, value))
    return found


def _front(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Which operating points no other beats in both cost and goodput.

    Of a halving, those of the last rung: runs of other lengths are no rivals.
    """
    last = max((entry.get("rung", 0) for entry in entries), default=0)
    points = [
        point for point in operating_points(entries) if entries[point[0]].get("rung", 0) == last
    ]
    front = pareto([(cost, value) for _, _, cost, value in points], ("lower", "higher"))
    return [
        {"configuration": points[i][0], "probe": points[i][1], "cost_per_mtok": points[i][2],
         "goodput_per_s": points[i][3]}
        for i in front
    ]  # fmt: skip


def read_probes(folder: Path) -> Document | None:
    """The document of the search in a study's *folder*; None if there was none.

    Raises `InputError` if it is damaged.
    """
    path = folder / "probes.json"
    if not path.exists():
        return None
    document = read_json(path)
    try:
        whole = document["method"] in ("capacity", "halving") and isinstance(
            document["pareto"], list
        )
        for entry in document["configurations"]:
            whole = whole and isinstance(entry["name"], str) and isinstance(entry["axes"], dict)
            for probe in entry["probes"]:
                whole = whole and isinstance(probe["set"], dict) and "keeps" in probe
                operating_points([entry])
    except (TypeError, KeyError, AttributeError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{path}: is damaged; delete it and run `residentsim sweep` again")
    return document
