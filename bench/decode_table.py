"""Measured decode steps beside what the simulator predicts for the same cells.

    python bench/decode_table.py --steps FILE [--profile NAME|FILE] [--all] [--out FILE.json]

Reads steps of the real decoder as they were measured on a GPU and predicts each from the profile
alone; needs no GPU. Tables are of held-out cells, which no fit has seen (`--all`: of all of them).
`blind` is what the profile says with everything left out that was fitted to decode steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a benchmark may see both packages; neither sees the other

from kernels.fit.decode_points import MODES, read_steps  # noqa: E402
from kernels.fit.samples import SamplesError  # noqa: E402
from sim.decode_step import DecodeShape, predict  # noqa: E402
from sim.errors import InputError  # noqa: E402
from sim.models import PRESETS  # noqa: E402
from sim.profile import Profile, load_profile  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kernels.fit.decode_points import StepPoint

MODELS = {"1b": "llama-3.2-1b", "8b": "llama-3.1-8b"}
WEIGHTS = {"bf16": "bf16", "w4a16": "int4"}
TARGET = 0.03, 0.07
"""Median and 90th percentile that the held-out cells of a mode are to keep."""
Row = dict[str, Any]


def main() -> int:
    """Prints the tables; 0 done, 2 a file is at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=Path, default=ROOT / "calibration" / "decode-run1.jsonl.gz", metavar="FILE"
    )
    parser.add_argument("--profile", default="nvidia-h200", metavar="NAME|FILE")
    parser.add_argument("--all", action="store_true", help="training cells too")
    parser.add_argument("--cells", action="store_true", help="one line a step as well")
    parser.add_argument("--out", type=Path, metavar="FILE", help="rows and tables as JSON")
    arguments = parser.parse_args()
    try:
        rows = compare(arguments.steps, arguments.profile)
    except (InputError, SamplesError) as error:
        print(error, file=sys.stderr)
        return 2
    judged = rows if arguments.all else [row for row in rows if not row["train"]]
    if arguments.out:
        document = {"rows": rows, "tables": tables(judged)}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.cells:
        show_cells(judged)
    show(tables(judged), len(judged), len(rows))
    return 0


def compare(steps: Path, profile_name: str) -> list[Row]:
    """One row a measured step: cell, measured and predicted seconds, both of each stage."""
    profile = load_profile(profile_name)
    alone = {name: k for name, k in profile.in_step.items() if k.source != "decode"}
    blind = replace(profile, loops={}, in_step=alone)
    return [_row(point, profile, blind) for point in read_steps(steps).points]


def _row(point: StepPoint, profile: Profile, blind: Profile) -> Row:
    cell = point.cell
    shape = DecodeShape(
        PRESETS[MODELS[cell["model"]]],
        point.kernels,
        WEIGHTS[cell["weights"]],
        cell["kv"],
        batch=cell["batch"],
        context=point.context,
        budget=cell["budget_tokens"] or None,
        tokens=cell["tokens"],
        page_tokens=cell["page_tokens"],
    )
    step = predict(profile, shape, point.mode)
    before = predict(blind, shape, point.mode).seconds
    return {
        **cell,
        "kernels": point.kernels,
        "mode": point.mode,
        "train": point.train,
        "measured_s": point.seconds,
        "predicted_s": step.seconds,
        "blind_s": before,
        "stages_s": step.stages,
        "measured_stages_s": point.stages,
    }


def errors(rows: Iterable[Row], which: str = "predicted_s") -> Row:
    """n, and what the signed relative errors of *which* come to."""
    signed = sorted(row[which] / row["measured_s"] - 1.0 for row in rows if row[which])
    if not signed:
        return {"n": 0}
    sizes = sorted(map(abs, signed))
    return {
        "n": len(sizes),
        "median": statistics.median(sizes),
        "p90": sizes[min(len(sizes) - 1, round(0.9 * (len(sizes) - 1)))],
        "max": sizes[-1],
        "signed_median": statistics.median(signed),
    }


def tables(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Errors by mode and kernel set, whole and in parts, and those of the blind prediction."""
    parts: dict[str, Callable[[Row], bool]] = {
        "all": lambda row: True,
        "dense": lambda row: not row["budget_tokens"],
        "sparse": lambda row: bool(row["budget_tokens"]),
        "8b": lambda row: row["model"] == "8b",
        "w4a16": lambda row: row["weights"] == "w4a16",
        "int8": lambda row: row["kv"] == "int8",
    }
    found: dict[str, dict[str, Row]] = {}
    for kernels in ("library", "fused"):
        for mode in MODES:
            mine = [row for row in rows if row["mode"] == mode and row["kernels"] == kernels]
            if not mine:
                continue
            table = {name: errors(filter(part, mine)) for name, part in parts.items()}
            table["blind"] = errors(mine, "blind_s")
            found[f"{mode}/{kernels}"] = {name: e for name, e in table.items() if e["n"]}
    return found


def show(found: dict[str, dict[str, Row]], judged: int, of: int) -> None:
    """One line a part of a mode and kernel set."""
    print(f"|predicted / measured - 1| of {judged} of {of} steps; * within 3 % and 7 %")
    print(f"{'loop':20} {'part':7} {'n':>4} {'median':>8} {'p90':>8} {'max':>8} {'signed':>8}")
    for loop, table in found.items():
        for part, e in table.items():
            good = e["median"] <= TARGET[0] and e["p90"] <= TARGET[1]
            print(
                f"{loop:20} {part:7} {e['n']:4d} {e['median']:8.1%} {e['p90']:8.1%} "
                f"{e['max']:8.1%} {e['signed_median']:+8.1%} {'*' if good else ''}"
            )


def show_cells(rows: list[Row]) -> None:
    """One line a step, in microseconds."""
    for row in sorted(rows, key=lambda r: (r["kernels"], r["mode"], r["model"], r["batch"])):
        blind = f"{row['blind_s'] * 1e6:9.1f}" if row["blind_s"] else f"{'-':>9}"
        print(
            f"{row['kernels']:8} {row['mode']:12} {row['model']} {row['weights']:5} {row['kv']:4} "
            f"B {row['batch']:2d} T {row['tokens']} L {row['context']:6d} "
            f"{row['budget_tokens']:5d} "
            f"{row['measured_s'] * 1e6:9.1f} {row['predicted_s'] * 1e6:9.1f} {blind} "
            f"{row['predicted_s'] / row['measured_s'] - 1.0:+7.1%} "
            f"{'fit' if row['train'] else ''}"
        )


if __name__ == "__main__":
    sys.exit(main())
