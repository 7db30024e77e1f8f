"""The end of the decoder's report: constants, soaks, what is missing, how it was measured."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from .decoder_draw_ladder import ladder_places
from .decoder_looks import short
from .decoder_steps import Rung, spread
from .words import NONE, fixed, listed, percent, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .decoder_goals import Goal
    from .decoder_steps import Steps

SHOWN = ("soak", "agreement", "constant")
"""Kinds of lines besides steps that the report shows."""


def facts(head: Mapping[str, Any]) -> dict[str, Any]:
    """A header with its device's facts beside its own."""
    device = head.get("device")
    inner = device if isinstance(device, dict) else {"name": device} if device else {}
    return {**head, **inner, **(head.get("facts") or {})}


def constants(steps: Steps) -> list[str]:
    """What the loops cost besides their stages, measured and fitted on this decoder."""
    rows = []
    for entry in steps.others.get("constant", []):
        samples = [1e6 * float(value) for value in entry.get("seconds") or ()]
        if not samples:
            continue
        low, middle, high = np.percentile(samples, (10, 50, 90))
        rung = Rung(str(entry.get("mode")), str(entry.get("kernels")))
        nodes = f", {entry['nodes']} nodes" if entry.get("nodes") else ""
        rows.append([f"`{entry.get('name')}`{nodes}", rung.name,
                     str(entry.get("model", "")).upper(), f"{entry.get('batch') or NONE}",
                     short(int(entry["context"])) if entry.get("context") else NONE,
                     fixed(float(middle), 2), f"{low:.2f} to {high:.2f}",
                     f"{len(samples)}"])  # fmt: skip
    head = ("constant", "rung", "model", "batch", "context", "us", "p10 to p90", "samples")
    lines = ["Measured, medians:", "", *table(head, rows, "lllrrrrr")] if rows else []
    fits = [
        [Rung(*name.split("/")).name if name.count("/") == 1 else name, str(loop.get("kind", "")),
         ", ".join(_quantity(key, value) for key, value in loop.get("parameters", {}).items()),
         str(loop.get("note", ""))]
        for name, loop in sorted(steps.ceiling.loops.items())
    ]  # fmt: skip
    if fits:
        lines += ["In the profile, per step and mode:", ""]
        lines += table(("rung", "kind", "constants", "what"), fits, "llll")
    return ["## Constants of the loops", "", *lines] if lines else []


def _quantity(name: str, value: Any) -> str:
    """A constant with its unit, by the ending of its name."""
    number = float(value)
    if name.endswith("bytes_per_s"):
        return f"{name.removesuffix('_per_s')} {number * 1e-12:.3g} TB/s"
    if name.endswith("_s"):
        return f"{name.removesuffix('_s')} {number * 1e6:.3g} us"
    if name.endswith("bytes"):
        return f"{name} {number * 1e-6:.3g} MB"
    return f"{name} {number:.4g}"


def others(steps: Steps) -> list[str]:
    """Soaks and comparisons of tokens, a line each."""
    lines = []
    for entry in steps.others.get("soak", []):
        said = entry.get("said") or f"{entry.get('steps')} steps"
        lines.append(f"- Soak of `{entry.get('mode')}`, {_what(entry)}: {said}.")
    for entry in steps.others.get("agreement", []):
        result = "equal" if entry.get("equal") else f"**not equal**: {entry.get('why')}"
        if entry.get("ties"):
            result += f", {entry['ties']} of {entry.get('of')} tokens by the tie rule"
        lines.append(f"- {entry.get('steps')} greedy steps, {_what(entry)}, {entry.get('loops')}: "
                     f"{result}.")  # fmt: skip
    same = [
        bool(cell.record["same_tokens"])
        for mine in steps.cells.values()
        for cell in mine.values()
        if cell.record.get("same_tokens") is not None
    ]
    if same:
        lines.append(f"- Of {len(same):,} timed steps' modes {sum(same):,} gave the tokens of the "
                     "first mode timed with the same kernels in that cell.")  # fmt: skip
    return ["## Soaks and equal tokens", "", *lines, ""] if lines else []


def _what(entry: Mapping[str, Any]) -> str:
    model = str(entry.get("model", "")).upper()
    return f"{entry.get('kernels')} kernels, {model}, batch {entry.get('batch')}"


def missing(steps: Steps, timeline: Mapping[str, Any] | None, found: list[Goal]) -> list[str]:
    """What was planned and is not there."""
    lines = [f"- Not measured: {goal.what}." for goal in found if goal.verdict == "not measured"]
    everywhere = steps.rungs()
    for place in ladder_places(steps):
        absent = [rung.name for rung in everywhere if rung not in steps.cells[place]]
        if absent:
            lines.append(f"- {place.text}: no step of {listed(absent)}.")
    if not timeline:
        lines.append("- No timeline of a resident step was given.")
    if not steps.errors():
        lines.append("- No step was predicted.")
    extra = sorted(set(steps.others) - set(SHOWN))
    if extra:
        counts = [f"{len(steps.others[kind])} of `{kind}`" for kind in extra]
        lines.append(f"- Lines that this report does not show: {listed(counts)}.")
    return [*(lines or ["Nothing that was planned."]), ""]


def method(steps: Steps) -> list[str]:
    """How the steps were timed, how they scatter, and with what."""
    lines = [
        "- A step's time is the host's: from its begin until the tokens are copied back (R1, R2:",
        "  from token to token in pinned memory). Warmed up before; all samples are kept.",
    ]
    sizes = [len(c.record["seconds"]) for mine in steps.cells.values() for c in mine.values()]
    lines.append(f"- {min(sizes)} to {max(sizes)} samples a step, {sum(sizes):,} in all.")
    scatter = [c.high / c.low - 1.0 for mine in steps.cells.values() for c in mine.values()]
    text = "- The 90th percentile of a step's samples is above the 10th by "
    text += f"{percent(statistics.median(scatter), 1)} in the median of the steps, "
    lines.append(text + f"{percent(max(scatter), 1)} at most.")
    if steps.again:
        moved = spread([value for _, _, value, _ in steps.again])
        far = sum(other for *_, other in steps.again)
        text = (
            f"- {len(steps.again)} steps were measured twice, {far} of them on two machines; the "
        )
        text += "last file's time is shown; their medians differ by "
        lines.append(f"{text}{percent(moved[0], 1)} in the median, {percent(moved[2], 1)} at most.")
    shas = sorted({str(c.record.get("sha")) for m in steps.cells.values() for c in m.values()})
    lines.append(f"- Steps of commit {listed(shas)}.")
    if steps.headers:
        head = facts(steps.headers[-1])
        libraries = head.get("libraries") or head.get("packages")
        named = ", ".join(f"{name} {what}" for name, what in (libraries or {}).items())
        lines += [f"- Versions: {named}."] if named else []
    return lines
