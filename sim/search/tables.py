"""What a search says on the console: the answer, a row a configuration, what speaks against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.units import three_digits

from .outcome import good
from .words import metric_text, value_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from .outcome import Document


TITLES = {"capacity": "Capacity by bisection", "halving": "Successive halving"}


def limits_text(search: Mapping[str, Any]) -> str:
    """The limits of a search in words: 'p99_ttft 2 s, mean_tpot 50 ms'."""
    limits = search["subject_to"].items()
    return ", ".join(f"{name} {metric_text(name, value)}" for name, value in limits)


def answer(document: Document) -> str:
    """What was found in a sentence, with its conditions."""
    if document["method"] == "halving":
        return _answer_of_halving(document)
    search, entries = document["search"], document["configurations"]
    path = next(iter(search["over"]))
    within = f"within {limits_text(search)}"
    able = [entry for entry in entries if entry["capacity"] is not None]
    if not able:
        if all(entry["status"] == "failed" for entry in entries):
            return "No capacity is known: the probes failed."
        low = search["over"][path]["from"]
        return f"No configuration stays {within}, not even at {path} {low:g}."
    if search["target"] is not None and (said := _answer_of_target(document, within)):
        return said
    goal, best = search["goal"], max(able, key=lambda entry: entry["capacity"])
    by = "the most"
    if goal is not None:
        name, sign = _goal(goal)
        known = [e for e in able if _value(e["at_capacity"], name) is not None]
        if known:
            best = max(known, key=lambda e: sign * (_value(e["at_capacity"], name) or 0.0))
            by = f"the best {name} ({metric_text(name, _value(best['at_capacity'], name))})"
    least = "at least " if best["status"] == "above" else ""
    return (
        f"{_named(best)} has {by} {within}: {least}{path} {value_text(best['capacity'])},"
        f" {three_digits(best['offered_per_s'])} requests/s (simulated)."
    )


def _answer_of_target(document: Document, within: str) -> str:
    """Which configuration serves the target rate with the least money, else the fewest GPUs."""
    needs = [e for e in document["configurations"] if e.get("provision")]
    if not needs:
        return ""
    rate, currency = document["search"]["target"]["rate"], document["currency"]

    def price(entry: dict[str, Any]) -> float:
        need = entry["provision"]
        return float(need["gpus"] if currency is None else need["cost_per_hour"])

    said = []
    for entry in sorted(needs, key=price):
        need = entry["provision"]
        held = {True: "", False: " (which do not hold it yet)", None: " (not tried)"}
        cost = "" if currency is None else f", {three_digits(need['cost_per_hour'])} {currency}/h"
        said.append(f"{need['gpus']} x {_named(entry)}{cost}{held[need['verified']]}")
    return f"{three_digits(rate)} requests/s {within} take {'; or '.join(said)} (simulated)."


def _answer_of_halving(document: Document) -> str:
    search, best = document["search"], document["configurations"][0]
    name, _ = _goal(search["goal"])
    if best["probes"][-1]["failure"] is not None:
        return "Every configuration failed."
    within = f" within {limits_text(search)}" if search["subject_to"] else ""
    if not best["keeps"]:
        within = f", though it breaks a limit ({', '.join(best['probes'][-1]['broken'])})"
    value = metric_text(name, _value(best["at_last"], name))
    return f"{_named(best)} is best in {name} ({value}){within} (simulated)."


def _goal(goal: Mapping[str, Any]) -> tuple[str, float]:
    return (goal["maximize"], 1.0) if goal["maximize"] else (goal["minimize"], -1.0)


def _value(estimates: Mapping[str, Any], name: str) -> float | None:
    found: float | None = estimates.get(name, {}).get("value")
    return found


def _named(entry: Mapping[str, Any]) -> str:
    """A configuration, with the mark of an estimated profile."""
    return f"{entry['name']} (estimated)" if _guessed(entry) else str(entry["name"])


def _guessed(entry: Mapping[str, Any]) -> bool:
    return bool(entry["profile_status"] == "estimated")


def print_search(document: Document, console: Console) -> None:
    """Answer, table and remarks."""
    from rich.table import Table
    from rich.text import Text

    rows = _rows(document)
    table = Table(title=f"{TITLES[document['method']]} (simulated)", title_justify="left")
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    for line in [answer(document), *remarks(document)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rows(document: Document) -> list[list[str]]:
    """The table, its head first."""
    search, currency = document["search"], document["currency"]
    halving = document["method"] == "halving"
    head = ["configuration"]
    head += ["rung", "limits"] if halving else ["capacity", "broken at", "requests/s"]
    head.append("goodput /s")
    names = [n for n in search["subject_to"] if n not in ("request_goodput", "request_throughput")]
    if search["target"] is not None:
        names = []  # the remarks have them
    if search["goal"] is not None and (goal := _goal(search["goal"])[0]) not in names:
        names += [goal] if goal not in ("request_goodput", "cost_per_mtok") else []
    head += names
    money = currency is not None
    head += [f"{currency} per Mtok"] if money else []
    energy = document["power_kind"] is not None
    head += [f"J/token, {document['power_kind']}"] if energy else []
    target = search["target"] is not None
    head += ["GPUs", "holds", *([f"{currency}/h"] if money else [])] if target else []
    rows = [head]
    for entry in document["configurations"]:
        found = entry["at_last"] if halving else entry["at_capacity"]
        row = [_named(entry)]
        row += _of_halving(entry) if halving else _of_capacity(entry)
        row.append(value_text(good(found)[0]))
        row += [metric_text(n, v) if (v := _value(found, n)) is not None else "-" for n in names]
        row += [value_text(_value(found, "cost_per_mtok"))] if money else []
        row += [value_text(_value(found, "energy_j_per_token"))] if energy else []
        if target:
            row += _of_target(entry.get("provision"), money)
        rows.append(row)
    return rows


def _of_halving(entry: Mapping[str, Any]) -> list[str]:
    failed = entry["probes"][-1]["failure"] is not None
    return [str(entry["rung"]), "failed" if failed else "kept" if entry["keeps"] else "broken"]


def _of_capacity(entry: Mapping[str, Any]) -> list[str]:
    least = ">= " if entry["status"] in ("above", "failed") and entry["capacity"] else ""
    low = "none" if entry["status"] == "below" else least + value_text(entry["capacity"])
    return [low, value_text(entry["broken_at"]), value_text(entry["offered_per_s"])]


def _of_target(need: Mapping[str, Any] | None, money: bool) -> list[str]:
    if need is None:
        return ["-", "-", *(["-"] if money else [])]
    holds = {True: "yes", False: "no", None: "not tried"}[need["verified"]]
    return [str(need["gpus"]), holds, *([value_text(need["cost_per_hour"])] if money else [])]


def remarks(document: Document) -> list[str]:
    """What to know beside the table: why each stopped there, what was tried, what is estimated."""
    said = []
    for entry in document["configurations"]:
        if document["method"] == "capacity":
            said.append(f"{entry['name']}: {entry['words']}")
            said += [f"{entry['name']}: {note}" for note in entry["notes"]]
            if entry.get("provision"):
                need = entry["provision"]
                each = three_digits(need["per_gpu_per_s"])
                said.append(f"{entry['name']}: {each} requests/s a GPU; {need['words']}")
        elif (failure := entry["probes"][-1]["failure"]) is not None:
            said.append(f"{entry['name']}: failed on rung {entry['rung']}: {failure}")
    if document["search"]["target"] is not None:
        said.append("GPUs: as independent replicas behind a router that deals evenly")
    front = document["pareto"]
    if front:
        names = dict.fromkeys(
            document["configurations"][point["configuration"]]["name"] for point in front
        )
        among = " on the last rung" if document["method"] == "halving" else ""
        said.append(f"not beaten in both cost and goodput{among}: {'; '.join(names)}")
    profiles = dict.fromkeys(
        f"{entry['profile']}, {entry['profile_status']}"
        for entry in document["configurations"]
        if entry["profile"] is not None
    )
    return [*said, f"costs: profile {'; '.join(profiles)}"] if profiles else said
