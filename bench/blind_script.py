"""The shell script that runs the engine through cells or ramps: a queue, and its runner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.blind_rounds import AGAIN
from bench.blind_traffic import ramp_of, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.blind_rounds import Round

START_S = 12.0
"""Until a run's first arrival: weights, kernels, warm-up; and what comes after its last token."""
DRAIN_S = 6.0
"""After the last arrival of a ramp, which ends with more than the engine serves."""
SCRIPT = """\
#!/usr/bin/env bash
# {what}, in the order in which they matter, on every GPU of the machine:
#     bash FILE COMMIT SECONDS [DONE]
# COMMIT is the code's, for the record; no run is begun that would not end within SECONDS; DONE is a
# file that names runs to leave out. Needs kernels/, cubins/ and the CSV files beside it, and Python
# with numpy. Runs come back in $OUT (else ./out) as runs-GPU-PART.tar, beside log.txt.
# ENGINE replaces the engine's command, GPUS=0 uses one GPU of two.
set -eu
[ $# -ge 2 ] || {{ sed -n '2,8s/^# \\?//p' "$0"; exit 2; }}
cd "$(dirname "$0")"
export KERNEL_CACHE="$PWD/cubins" PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
cat > queue.tsv <<'QUEUE'
{queue}
QUEUE
cat > runner.py <<'RUNNER'
{runner}RUNNER
exec python3 runner.py queue.tsv "$@"
"""


def script(what: str, lines: Iterable[tuple[float, str, str]]) -> str:
    """The script that runs *lines*: seconds that each needs, its name, the engine's options."""
    queue = "\n".join(f"{need:.0f}\t{name}\t{options}" for need, name, options in lines)
    runner = Path(__file__).with_name("blind_runner.py").read_text()
    return SCRIPT.format(what=what, queue=queue, runner=runner)


def calibration(chosen: Round) -> Iterator[tuple[float, str, str]]:
    """A run over its ramp for every engine."""
    for engine in chosen.engines.values():
        options = f"--trace {ramp_of(engine)} --clip-prompt {chosen.clip} {engine.options}"
        yield START_S + seconds(engine) + DRAIN_S, engine.name, options


def measurements(
    chosen: Round, cells: Sequence[dict[str, Any]], runs: Sequence[str]
) -> Iterator[tuple[float, str, str]]:
    """All *runs* by name; one that ends in -again repeats its cell."""
    known = {cell["cell"]: cell for cell in cells}
    for name in runs:
        cell = known[name.removesuffix(AGAIN)]
        engine = chosen.engine_of(cell)
        window = chosen.window_of(cell, Path())
        options = f"--trace {window} --requests {engine.requests} --clip-prompt {chosen.clip} "
        options += f"--rate-scale {cell['rate_scale']:g} {engine.options}"
        yield START_S + cell["duration_s"], name, options
