"""The report of the judged predictions, in words and tables; what is seen in them is in notes.

Sentences are made of the results alone. Beside the page lies notes.md: what it says under a
heading goes to the end of the section of that name, and new headings become sections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.blind_figures import NAMES
from bench.blind_judge import BARS
from bench.blind_rounds import AGAIN, NEWEST
from bench.blind_sections import (
    ablation,
    comparison,
    distributions,
    peers,
    replay,
    residence,
    steps,
    terms,
    usage,
)
from bench.blind_twice import section
from bench.blind_words import listed, name_of, paragraph, share, summary, table, with_notes

if TYPE_CHECKING:
    from collections.abc import Sequence

HALF = {
    "output_throughput": 0.05, "mean_tpot_ms": 0.005, "p99_itl_ms": 0.005, "median_ttft_ms": 0.05,
    "p90_ttft_ms": 0.05, "p99_ttft_ms": 0.05,
}  # fmt: skip
"""Half of the last digit that the engine prints."""


def page(found: dict[str, Any], earlier: Sequence[dict[str, Any]], notes: dict[str, str]) -> str:
    """The README of a round's report, with the results of *earlier* rounds."""
    parts = [
        head(found), comparison(found, earlier), errors(found), noise(found), ranking(found),
        steps(found), processes(found), distributions(found), residence(found),
        replay(found["replayed"]), ablation(found), terms(found), fits(found), peers(),
        usage(found),
    ]  # fmt: skip
    return "\n\n".join(with_notes(filter(None, parts), notes)) + "\n"


def head(found: dict[str, Any]) -> str:
    """What was done, and what came of it."""
    told = summary(found)
    run = {row["cell"] for row in found["rows"]}
    each = sorted({found["requests"][name] for name in run}, reverse=True)
    requests = " or ".join(f"{number:,}" for number in each)
    typical = ", ".join(f"{NAMES[m]} {share(value)}" for m, value in told["typical"].items())
    worst = "; ".join(
        f"{NAMES[m]} {share(row['errors'][m], '+')} ({name_of(row)})"
        for m, row in told["worst"].items()
    )
    orders, (kept, recorded) = told["orders"], told["steps"]
    intro = (
        "A real engine (`python -m kernels serve`, on H200s) served a recorded trace (Azure, "
        f"conversation, 2023) in {len(run)} cells, {requests} requests each, {len(found['rows'])} "
        "runs in all. A cell is a configuration of the engine, a part of the trace and a rate. "
        "Profiles were fitted to one run of each configuration over another part of the trace, "
        "and each prediction was written down before the first run of its cell began. "
        f"{_when(found)} Errors are predicted / measured - 1."
    )
    result = (
        f"**At loads up to 0.8, {told['within']} of {told['figures']} figures of {told['runs']} "
        f"runs lie within their bars; {told['good']} of {told['cells']} cells have all six within "
        "them in all their runs.**"
    )
    points = (
        f"Typical (median of |error|): {typical}.",
        f"Worst: {worst}.",
        f"Order of the loop modes: right in {orders['right']} of {sum(orders.values())}, within "
        f"noise in {orders['tie']}, wrong in {orders['wrong']}.",
        f"Single steps, teacher-forced: {kept} of {recorded} recorded runs keep both bars (median "
        "3 %, p90 7 %).",
    )
    return f"""# Predicted before it was measured

{paragraph(intro)}

{paragraph(result)}

{chr(10).join(paragraph(point, "- ") for point in points)}

![Errors of every run against the bars](errors.png)"""


def _when(found: dict[str, Any]) -> str:
    """Dates and machines of fit, prediction and measurement."""
    fit, run = (_places(found[key].values()) for key in ("fitted", "measured_on"))
    left = found["not_run"]
    made = [_minute(cell["made"]) for cell in found["cells"] if "made" in cell]
    counts = {one: made.count(one) for one in sorted(set(made))}
    times = [f"{one} ({n} cell{'s' if n > 1 else ''})" for one, n in counts.items()]
    told = f"predicted {' and '.join(times)}; " if times else ""
    blind = (
        f" **Not blind: predicted after the run: {listed(found['late'])}.**"
        if found["late"]
        else ""
    )
    missing = f" Predicted and not measured: {listed(left)}." if left else ""
    seeds = max(len(cell.get("by_seed", ())) for cell in found["cells"])
    mean = f" A prediction is the mean of {seeds} simulations." if seeds > 1 else ""
    return f"Fitted to runs of {fit}; {told}measured {run}.{blind}{missing}{mean}"


def _minute(date: str) -> str:
    return date[:16].replace("T", " ")


def _places(runs: Any) -> str:
    runs = list(runs)
    dates = sorted(_minute(one["date"]) for one in runs)
    machines = sorted({one["gpu"] for one in runs})
    if not dates:
        return "nothing recorded"
    many = "s" if len(machines) > 1 else ""
    return f"{dates[0]} to {dates[-1]} UTC on GPU{many} {', '.join(machines)}"


def processes(found: dict[str, Any]) -> str:
    """What a log of another process would have changed; nothing where none is kept."""
    told = found.get("twice") or {}
    if not told:
        return ""
    logs = [one["logs"] for one in told.values()]
    intro = (
        "Bias of single steps (median of predicted / measured - 1) of the round's profiles and of "
        "profiles fitted to another log of the same mode and ramp, which was made before: by GPU "
        f"{listed(sorted({a['gpu'] for a, _ in logs}))} the one, by GPU "
        f"{listed(sorted({b['gpu'] for _, b in logs}))} the other (the engine then had no prefill "
        "over whole multiples of rows). The second is not blind: it was made before the runs, and "
        "fitted after them."
    )
    rows = "\n".join(section(told))
    return f"## Two processes of one mode\n\n{paragraph(intro)}\n\n{rows}"


def errors(found: dict[str, Any]) -> str:
    """A row a run."""
    rows, doubtful, printed = [], [], False
    for row in found["rows"]:
        words = []
        for metric, bar in BARS.items():
            error = f"{100 * row['errors'][metric]:+.1f}"
            words.append(f"**{error}**" if metric in row["missed"] else error)
            if row["kind"] == "printed" and row["promised"] and _doubtful(row, metric, bar):
                doubtful.append(f"{name_of(row)} {NAMES[metric]}")
        promise = ("within" if not row["missed"] else "**missed**") if row["promised"] else "-"
        mark = "~" if row["kind"] == "printed" else ""
        printed |= bool(mark)
        rows.append([name_of(row) + mark, f"{row['load']:.2f}", *words, promise])
    said = ""
    if printed:
        said = " `~`: the run's folder was lost, so the figure is the line that the engine printed,"
        said += f" rounded ([printed.json]({_data(found)}/printed.json))."
    if doubtful:
        said += f" Rounding could turn the verdict on {', '.join(doubtful)}."
    names = ["cell", "load", *(f"{NAMES[m]} ({bar:g})" for m, bar in BARS.items()), "all six"]
    text = (
        "Per cent; bars in brackets; **bold** is outside. The load is the rate over the most that "
        "the simulator says the configuration can serve of this window. Loads above 0.8 carry no "
        f"promise.{said}"
    )
    return f"""## Errors by cell

{paragraph(text)}

{table(names, rows)}"""


def _data(found: dict[str, Any]) -> str:
    up = "../.." if found["round"] == NEWEST else "../../.."
    return f"{up}/calibration/serve/round-{found['round']}"


def _doubtful(row: dict[str, Any], metric: str, bar: float) -> bool:
    value: float = row["measured"][metric]
    predicted: float = (1.0 + row["errors"][metric]) * value
    sides = [abs(predicted / (value + s * HALF[metric]) - 1.0) > bar / 100.0 for s in (-1, 1)]
    return bool(sides[0] != sides[1])


def noise(found: dict[str, Any]) -> str:
    """How far runs of a cell differ."""
    if not found["noise"]:
        return ""
    on = found["measured_on"]
    rows = []
    for cell, spread in found["noise"].items():
        gpus = [one["gpu"] for run, one in on.items() if run.partition(AGAIN)[0] == cell]
        words = [f"{100 * spread[metric]:.1f}" for metric in BARS]
        rows.append([cell, *words, ", ".join(dict.fromkeys(gpus)) or "-"])
    return f"""## Noise floor

How far runs of one cell differ (largest over smallest - 1, per cent), and on which GPUs those ran
that are recorded. An error smaller than this says nothing about the simulator, and a cell that was
measured once may be luckier than it deserves.

{table(["cell", *(NAMES[m] for m in BARS), "GPUs"], rows)}"""


def ranking(found: dict[str, Any]) -> str:
    """Which loop is best, by rate."""
    if not found["ranking"]:
        return ""
    groups: dict[str, dict[str, str]] = {}
    modes: dict[str, int] = {}
    misses = []
    for row in found["ranking"]:
        verdict = row["verdict"]
        where = ", ".join(filter(None, [row["rival"], row["window"], f"{row['rate_scale']:g}x"]))
        word = f"**{verdict}**" if verdict == "wrong" else verdict
        groups.setdefault(where, {})[row["metric"]] = word
        modes[where] = len(row["measured"])
        if verdict != "right":
            misses.append(
                f"- {where}, {NAMES[row['metric']]}, {verdict}: "
                f"predicted {' < '.join(row['predicted'])}, measured {' < '.join(row['measured'])}"
            )
    rows = [
        [where, f"{modes[where]}", *(words[m] for m in BARS)] for where, words in groups.items()
    ]
    orders = summary(found)["orders"]
    listing = (
        "\n".join(["", "", "Best first, where it is not right:", "", *misses]) if misses else ""
    )
    text = (
        f"Right in {orders['right']} of {len(found['ranking'])}; a *tie* is a wrong order of modes "
        "whose measured figures differ by less than the largest noise of either mode above. Ranked "
        "are the modes of which there are measured runs; rates are times as fast as recorded."
    )
    return f"""## Ranking of the modes

{paragraph(text)}

{table(["model, kernels, window, rate", "modes", *(NAMES[m] for m in BARS)], rows)}{listing}"""


def fits(found: dict[str, Any]) -> str:
    """Configurations, their profiles and capacities."""
    rows: dict[str, dict[str, str]] = {}
    outside = []
    for cell in found["cells"]:
        name, window = found["engines"][cell["cell"]], cell.get("window", "")
        own = rows.setdefault(name, {"hash": cell["profile_hash"]})
        own[window] = f"{cell['requests_per_s'] / cell['load']:.1f}"
        if cell["extrapolated"]:
            outside.append(cell["cell"])
    windows = sorted({cell.get("window", "") for cell in found["cells"]})
    names = [f"most requests/s{', ' if w else ''}{w}" for w in windows]
    lines = []
    for name, own in rows.items():
        log: dict[str, str] = found["fitted"].get(name) or found["fitted"].get(f"1b-{name}") or {}
        facts = [log.get("gpu", "-"), _minute(log.get("date", "-"))]
        lines.append([name, own["hash"][:12], *facts, *(own.get(w, "-") for w in windows)])
    said = f" Where the simulation left what the log covers: {listed(outside)}." if outside else ""
    text = (
        "One log each of `python -m kernels serve`; capacity as simulated, all requests there at "
    )
    return f"""## Profiles

{paragraph(f"{text}once.{said}")}

{table(["configuration", "profile", "log's GPU", "log's date, UTC", *names], lines)}"""
