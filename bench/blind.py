"""Predictions of the engine's runs before they are made, and what became of them.

    python bench/blind.py cut --trace azure.csv --out windows
    python bench/blind.py ramp --trace azure.csv --out windows
    python bench/blind.py commands --calibrate > calibrate.sh    (runs, for a machine with GPUs)
    python bench/blind.py pack --calibrate RUN...
    python bench/blind.py fit
    python bench/blind.py predict --windows windows
    python bench/blind.py commands > measure.sh                  (likewise)
    python bench/blind.py replay RUN...
    python bench/blind.py pack RUN...
    python bench/blind.py ablate --windows windows
    python bench/blind.py judge [--windows windows]

All of it is for one round, the newest unless `--round` says otherwise; its files lie in
calibration/serve/round-N, its page in reports/validation. A cell is a configuration of the engine,
a window of the trace and a rate; its load is the share of the requests a second that the simulator
says the configuration can serve of this window at most. Profiles are fitted to runs over another
part of the trace; nothing of the predicted windows was measured before.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.blind_predict import document, fit, predict
from bench.blind_rounds import NEWEST, ROUNDS, Round
from bench.blind_scenario import METRICS, planned

if TYPE_CHECKING:
    from collections.abc import Iterable


def commands(chosen: Round, calibrate: bool) -> None:
    """Prints the script of the runs."""
    from bench import blind_script

    if calibrate:
        what, lines = "Ramps to calibrate on", blind_script.calibration(chosen)
    else:
        told = document(chosen)
        what, lines = (
            "Predicted runs", blind_script.measurements(chosen, told["cells"], told["runs"])
        )  # fmt: skip
    print(blind_script.script(what, lines), end="")


def replay(runs: Iterable[Path], out: Path) -> None:
    """Writes how much of each run's schedule the planner plans alike."""
    from bench.blind_pack import replayed

    lines = ",\n ".join(json.dumps(row) for row in replayed(runs, planned))
    out.write_text(f"[\n {lines}\n]\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = ("cut", "ramp", "fit", "predict", "commands", "replay", "pack", "ablate", "judge")
    parser.add_argument("what", choices=what)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of the engine's runs")
    parser.add_argument("--round", type=int, choices=tuple(ROUNDS), default=NEWEST)
    parser.add_argument("--trace", type=Path, help="Azure's conversation trace of 2023, as a CSV")
    parser.add_argument("--windows", type=Path, help="the folder that cut and ramp wrote")
    parser.add_argument("--calibrate", action="store_true", help="of the runs to calibrate on")
    parser.add_argument("--out", type=Path, help="default: where the round's files are")
    given = parser.parse_intermixed_args()
    chosen, out = ROUNDS[given.round], given.out
    for name, users in (("trace", ("cut", "ramp")), ("windows", ("predict", "ablate"))):
        if given.what in users and getattr(given, name) is None:
            parser.error(f"{given.what} needs --{name}")
    if given.what in ("cut", "ramp"):
        from bench import blind_traffic

        write = blind_traffic.cut if given.what == "cut" else blind_traffic.ramps
        write(given.trace, chosen, out or Path("windows"))
    elif given.what == "fit":
        fit(chosen, out or chosen.folder)
    elif given.what == "predict":
        predict(chosen, given.windows, out or chosen.folder / "predictions.json")
    elif given.what == "commands":
        commands(chosen, given.calibrate)
    elif given.what == "replay":
        replay(given.runs, out or chosen.folder / "replayed.json")
    elif given.what == "pack":
        from bench.blind_pack import pack_all

        pack_all(given.runs, out or chosen.folder, METRICS, given.calibrate)
    elif given.what == "ablate":
        from bench.blind_ablate import ablate

        ablate(chosen, given.windows, out or chosen.folder / "ablation.json")
    else:
        from bench.blind_judge import judge

        judge(chosen, given.windows, out or chosen.report)


if __name__ == "__main__":
    main()
