"""The report as Markdown: the answer first, then tables and pictures, at last what is missing.

One rule: every figure in the text is computed from the inputs; the report has no date of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import attention_tables, tables
from .families import FAMILIES
from .loop_tables import answer, gap_table, predicted_answer, shown_places, stage_table, step_table
from .phrases import CHECKS, GAPS, LOOP, MARKS, RESIDUALS, STAGES
from .public_tables import against_public, public_answer
from .words import TARGET_ALIGN, TARGET_HEAD, beyond, listed, table, target_cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .inputs import Evidence
    from .loops import Loops
    from .targets import Row

WORST = 6
FAILURES = 12


def build(evidence: Evidence, rows: Sequence[Row], loops: Loops, pictures: set[str]) -> str:
    """The whole document; *pictures* names the files that were drawn."""
    parts = [
        f"# Calibration report: {_device(evidence).get('name', 'unknown GPU')}",
        "",
        *_answer(evidence, rows, loops),
        *MARKS.format(ceiling=_ceiling(evidence)).split("\n"),
        "",
        "## Targets",
        "",
        *_targets(evidence, rows),
        "## Models against measurements",
        "",
        *_models(evidence),
        "## Against public times",
        "",
        *_public(evidence),
        *_families(evidence, pictures),
        *_selection(evidence, pictures),
        *_loop(loops, pictures),
        *_tiers(evidence, pictures),
        "## Ceilings",
        "",
        *_picture(pictures, "streams", "read and copy streams by setting"),
        "## Constants",
        "",
        *(_picture(pictures, "control", "costs of control") if "control.png" in pictures else []),
        *tables.constants(evidence),
        "## What is missing",
        "",
        *_missing(evidence, rows),
        "## How it was measured",
        "",
        *_method(evidence),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


# ------------------------------------------------------------------------------ the answer
def _device(evidence: Evidence) -> Mapping[str, Any]:
    runs = evidence.samples.runs
    found: Mapping[str, Any] = runs[-1].get("device", {}) if runs else {}
    return found


def _ceiling(evidence: Evidence) -> str:
    return f"{evidence.read.bytes_per_s / 1e12:.2f} TB/s, {evidence.read.note}"


def _answer(evidence: Evidence, rows: Sequence[Row], loops: Loops) -> list[str]:
    """Where and what, how many targets hold, which misses are worst, how good the models are."""
    device, samples = _device(evidence), evidence.samples
    dates = sorted({str(run.get("date", "")) for run in samples.runs if run.get("date")})
    commits = list(dict.fromkeys(str(run.get("commit")) for run in samples.runs))
    kernels = {key[0] for key in samples.points}
    machines = len({str(run.get("device", {}).get("id")) for run in samples.runs})
    name = device.get("name", "unknown GPU")
    where = f"Measured on {'one ' if machines < 2 else f'{machines} machines with one '}{name}"
    where += f"{' each' if machines > 1 else ''}, driver {device.get('driver')}, "
    where += f"CUDA {device.get('cuda')}, {device.get('cpu')} with {device.get('cores')} cores; "
    where += f"{_span(dates)}; commit {listed(commits) or 'unknown'}. "
    where += f"{len(samples.points):,} points of {len(kernels)} kernels, {len(samples.repeats)} of "
    where += f"them twice, {len(samples.failed)} failed. Clocks were not locked."
    barred = [row for row in rows if row.target.bar is not None]
    met = [row for row in barred if row.verdict == "met"]
    missed = sorted((r for r in barred if r.verdict == "missed"), key=lambda row: -row.gap)
    absent = [row for row in barred if row.verdict == "not measured"]
    count = f"**Of {len(barred)} targets {len(met)} are met"
    count += f" ({sum(row.stretched for row in met)} with their stretch goal)"
    count += f", {len(missed)} missed, {len(absent)} not measured.** "
    if missed:
        worst = [
            f"#{row.target.number} {row.target.case} ({_value(row)}, {beyond(row)} beyond)"
            for row in missed[:WORST]
        ]
        count += f"The worst misses: {'; '.join(worst)}."
    lines = [where, "", count, "", _models_answer(evidence), ""]
    beside = public_answer(evidence)
    lines += [beside, ""] if beside else []
    told = " ".join(filter(None, (answer(loops), predicted_answer(loops))))
    return [*lines, f"**The loop.** {told}", ""] if told else lines


def _span(dates: Sequence[str]) -> str:
    if not dates:
        return "date unknown"
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _value(row: Row) -> str:
    cells = target_cells(row)
    return f"{cells[3]} {row.target.unit}, target {cells[10]}"


def _models_answer(evidence: Evidence) -> str:
    judged = {name: tables.model_verdict(fit) for name, fit in evidence.fits.items()}
    judged = {name: text for name, text in judged.items() if text != "no held-out points"}
    if not judged:
        return "No kernel model could be judged on held-out points."
    good = [name for name, text in judged.items() if text == "met"]
    text = f"**Of {len(judged)} fitted kernel models {len(good)} hold on points no fit has seen** "
    text += "(median <= 5 %, p90 <= 12 %, and median <= 10 % on the fifth with the most bytes when "
    text += "fitted without it)."
    bad = [f"`{name}` ({why.removeprefix('missed: ')})" for name, why in judged.items()
           if why != "met"]  # fmt: skip
    text += f" Those that do not: {'; '.join(bad)}." if bad else ""
    points = [p for p in evidence.samples.points.values() if p.kernel != "streams"]
    covered = sum(evidence.prediction(point) is not None for point in points)
    text += f" The models cover {covered:,} of {len(points):,} points; the others lie outside the "
    return (
        text + "domains that the models claim, and their residuals stand apart where there are any."
    )


# ------------------------------------------------------------------------------ sections
def _targets(evidence: Evidence, rows: Sequence[Row]) -> list[str]:
    lines = table(TARGET_HEAD, [target_cells(row) for row in rows], TARGET_ALIGN)
    lines += ["Bars and references were set before the kernels were measured.", ""]
    notes = [(r.target.number, r.found.note) for r in rows if r.found and r.found.note]
    lines += [f"- #{number}: {note}" for number, note in notes]
    return [*lines, ""]


def _models(evidence: Evidence) -> list[str]:
    if not evidence.fits:
        return ["The profile holds no model for these samples.", ""]
    lines = [
        *RESIDUALS.split("\n"),
        "",
        *tables.models(evidence),
        tables.uncovered(evidence),
        "",
        "Largest misses on held-out points, two a model:",
        "",
        *tables.largest_misses(evidence),
        "",
        "Parameters:",
        "",
        *(f"- `{name}`: {tables.parameters(fit)}" for name, fit in evidence.fits.items()),
        "",
    ]
    checks = tables.checks(evidence)
    if checks:
        lines += [*CHECKS.split("\n"), "", *checks]
    estimated = tables.estimated_models(evidence)
    if estimated:
        lines += ["In the profile without measurements of their own:", "", *estimated, ""]
    return lines


def _public(evidence: Evidence) -> list[str]:
    found = against_public(evidence)
    if not found:
        return ["No shape with a public time was measured.", ""]
    lines = [
        "Our time over the best public time at the very same shape. Public times are others', with",
        "other versions on another machine; below 1 ours is shorter.",
        "",
    ]
    return [*lines, *found]


def _families(evidence: Evidence, pictures: set[str]) -> list[str]:
    lines = []
    for family in FAMILIES:
        points = family.points(evidence)
        lines += [f"## {family.title.split(':')[0]}", ""]
        if not points:
            lines += [f"No samples of `{family.folder}`.", ""]
            continue
        lines += [*_picture(pictures, family.name, family.title), tables.summary(evidence, points)]
        lines += [family.note] * bool(family.note) + [""]
        lines += _beside(family.name, evidence)
    return lines


def _beside(name: str, evidence: Evidence) -> list[str]:
    """Tables that belong to a picture."""
    match name:
        case "attention-sparse":
            found = attention_tables.sparse(evidence)
            chain = attention_tables.chain(evidence)
            lines = ["Attention alone, us (speed-up over all tokens, of the ratio of bytes):", ""]
            lines = [*lines, *found] if found else []
            if chain:
                lines += ["With page scores and selection, each timed alone, us, to 2,048 tokens:"]
                lines += ["", *chain]
            return lines
        case "attention-uneven":
            found = attention_tables.skew(evidence)
            note = "*long*: one request holds half of all tokens. Equal lengths, if not measured: "
            note += "between half and twice the length, linear."
            return [note, "", *found] if found else []
    return []


def _selection(evidence: Evidence, pictures: set[str]) -> list[str]:
    points = [p for p in evidence.samples.of("topk_select") if not p.axes.get("cold")]
    lines = ["## Page selection", ""]
    if not points:
        return [*lines, "No samples of `topk_select`.", ""]
    lines += _picture(pictures, "topk", "page selection by distribution of the scores")
    lines += ["128 rows, 128 pages kept, scores warm in L2, microseconds:", ""]
    return lines + tables.selection(evidence)


def _loop(loops: Loops, pictures: set[str]) -> list[str]:
    """Steps under four kinds of control, and where the difference comes from."""
    lines = ["## The loop: who decides the next step", ""]
    if not loops.cells:
        return [*lines, "No samples of whole steps in `loop_control`.", ""]
    lines += [*LOOP.split("\n"), ""]
    for sparse in (False, True):
        kind = "sparse" if sparse else "dense"
        rows = step_table(loops, sparse)
        if rows:
            lines += _picture(pictures, f"loop-{kind}", f"{kind} steps by batch and context")
            lines += [f"{kind.capitalize()} steps, microseconds, medians:", "", *rows]
            name = f"loop-predicted-{kind}"
            if f"{name}.png" in pictures:
                lines += _picture(pictures, name, f"the simulator's prediction of {kind} steps")
    if "loop-gaps.png" in pictures:
        lines += _picture(pictures, "loop-gaps", "where the time of a step goes")
        lines += [*GAPS.split("\n"), "", *gap_table(loops, shown_places(loops))]
        stages = stage_table(loops, shown_places(loops))
        lines += [*STAGES.split("\n"), "", *stages] if stages else []
    return lines


def _tiers(evidence: Evidence, pictures: set[str]) -> list[str]:
    lines = ["## Copies, files, interference", ""]
    if not any(key[0] == "tier_copy" for key in evidence.samples.records):
        return [*lines, "No samples of `tier_copy`.", ""]
    lines += _picture(pictures, "copies", "GB/s against size for each mover")
    lines += tables.copies(evidence)
    lines += _picture(pictures, "interference", "decode work beside a mover")
    lines += tables.interference(evidence)
    return lines + _picture(pictures, "disk", "reads and writes of a file by size")


def _picture(pictures: set[str], name: str, text: str) -> list[str]:
    if f"{name}.png" not in pictures:
        return ["No samples for this picture.", ""]
    return [f"![{text}]({name}.png)", ""]


def _missing(evidence: Evidence, rows: Sequence[Row]) -> list[str]:
    """What was not measured, what failed, what could not be joined."""
    lines = [f"- Target #{row.target.number}, {row.target.case}: no samples."
             for row in rows if row.verdict == "not measured"]  # fmt: skip
    lines += [f"- {trouble}" for trouble in evidence.troubles]
    lines += [f"- `{folder}` `{name}` ended early: {why}"
              for (folder, name), why in sorted(evidence.samples.incomplete.items())]  # fmt: skip
    failed = sorted(evidence.samples.failed.items())
    if failed:
        lines.append(f"- {len(failed)} points failed; the first {min(FAILURES, len(failed))}:")
        lines += [f"  - `{folder}` {axes}: {why}" for (folder, axes), why in failed[:FAILURES]]
    return [*(lines or ["Nothing that was planned."]), ""]


def _method(evidence: Evidence) -> list[str]:
    device = _device(evidence)
    packages = ", ".join(f"{name} {what}" for name, what in device.get("packages", {}).items())
    profile = evidence.profile
    return [
        "- Each point is checked against a float64 reference before it is timed: random data,",
        "  outputs poisoned with NaN. A time is that of a call within a replayed CUDA graph, so it",
        "  holds the gap between two nodes; inputs rotate over more than five times the L2 cache",
        "  unless a point says that it is warm. About 30 samples a point, all kept; medians here.",
        "- Points run in an order drawn once. A tenth is measured a second time.",
        f"- Versions: {packages or 'unknown'}; Python {device.get('python')}.",
        f"- Profile: `{profile.get('name')}`, {profile.get('status')}, {profile.get('date')}, "
        f"commit {profile.get('commit')}. Compiled files: {len(evidence.samples.cubins)}.",
        "- Public rows: H200 tables of ai-dynamo/aiconfigurator, commit 095f58a, copyright NVIDIA,",
        "  Apache-2.0. Not measured by us; their machines, clocks and versions are not ours.",
    ]
