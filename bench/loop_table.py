"""The measured loop table beside what the simulator predicts for the same cells.

    python bench/loop_table.py [--samples FILE] [--profile NAME|FILE] [--out FILE.json]

Reads the cells that `python -m kernels bench` measured of `loop_control` on a GPU and predicts each
from the profile alone; needs no GPU. Nothing of the loop table is fitted: stages come from kernels
timed one by one, the rest from constants measured with empty stages.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a benchmark may see both packages; neither sees the other

from kernels.fit.samples import SamplesError, read  # noqa: E402
from sim.errors import InputError  # noqa: E402
from sim.kernel_loop import MODES, LoopShape, predict  # noqa: E402
from sim.profile import load_profile  # noqa: E402


def main() -> int:
    """Prints the table and its errors; 0 done, 2 a file is at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--samples", type=Path, default=ROOT / "calibration" / "h200-run1.jsonl.gz", metavar="FILE"
    )
    parser.add_argument("--profile", default="nvidia-h200", metavar="NAME|FILE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="predictions as JSON")
    arguments = parser.parse_args()
    try:
        rows = compare(arguments.samples, arguments.profile)
    except (InputError, SamplesError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(rows)
    return 0


def compare(samples: Path, profile_name: str) -> list[dict[str, Any]]:
    """One row a cell and mode: measured and predicted seconds of a step, measured of each stage."""
    profile = load_profile(profile_name)
    found = []
    for record in read(samples).named("loop_control"):
        if record.get("mode") not in MODES or "samples_s" not in record:
            continue
        budget = 2048 if record["sparse"] else None
        shape = LoopShape(batch=record["slots"], context=record["context"], budget=budget)
        step = predict(profile, shape, record["mode"])
        found.append(
            {
                "batch": record["slots"],
                "context": record["context"],
                "sparse": record["sparse"],
                "mode": record["mode"],
                "measured_s": statistics.median(record["samples_s"]),
                "predicted_s": step.seconds,
                "stages_s": step.stages,
                "measured_stages_s": {
                    name: statistics.median(values) for name, values in record["stage_s"].items()
                },
            }
        )
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """One line a cell with all modes, then the errors by mode."""
    print("microseconds a step, measured (simulated); the fastest measured mode last")
    print(f"{'batch':>5} {'context':>7} {'':6} " + " ".join(f"{mode:>17}" for mode in MODES))
    cells: dict[tuple[int, int, bool], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["batch"], row["context"], row["sparse"]), {})[row["mode"]] = row
    for (batch, context, sparse), modes in sorted(cells.items()):
        line = f"{batch:5d} {context:7d} {'sparse' if sparse else 'dense':6} "
        for mode in MODES:
            row = modes.get(mode)
            text = f"{row['measured_s'] * 1e6:.0f} ({row['predicted_s'] * 1e6:.0f})" if row else "-"
            line += f" {text:>17}"
        print(line, " ", min(modes, key=lambda mode: modes[mode]["measured_s"]))
    for mode in MODES:
        errors = [
            row["predicted_s"] / row["measured_s"] - 1.0 for row in rows if row["mode"] == mode
        ]
        if errors:
            sizes = sorted(abs(error) for error in errors)
            print(
                f"{mode:12} n {len(errors):3d}  |error| median {statistics.median(sizes):6.1%}  "
                f"p90 {sizes[int(0.9 * (len(sizes) - 1))]:6.1%}  max {sizes[-1]:6.1%}  "
                f"signed median {statistics.median(errors):+6.1%}  "
                f"within 5 %: {sum(size <= 0.05 for size in sizes)} of {len(sizes)}"
            )


if __name__ == "__main__":
    sys.exit(main())
