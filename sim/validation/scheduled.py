"""Whether a measured run's log, replayed by the planner of the simulated run, has its schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import InputError, shown
from sim.result import read_json
from sim.step_files import chunks, text_of

from .forced import scenario_of
from .replay import Asked, read_logged, replay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def schedule_line(
    measured: Path, run: Path, steps: Sequence[Path], profile: str | None
) -> str | None:
    """One line on the schedule of *measured*; None if no step log says who took part.

    The log is the one in *steps*, or the folder's `steps.jsonl.gz`. A log that cannot be replayed
    is said to be so.
    """
    log = steps[0] if len(steps) == 1 else measured / "steps.jsonl.gz"
    if not measured.is_dir() or not log.is_file() or not _says_who(log):
        return None
    try:
        scenario, _ = scenario_of(run, profile)
        blocks = read_json(run / "summary.json").get("kv_blocks_capacity")
        if not isinstance(blocks, int):
            raise InputError(f"{run}/summary.json: kv_blocks_capacity: {shown(blocks)}")
        found = replay(scenario, blocks, _asked(measured), read_logged(log))
    except InputError as error:
        return f"schedule: not replayed: {error.lines[0]}"
    if found.exact:
        return f"schedule: all {found.steps:,} steps alike"
    return f"schedule: {found.alike:,} steps alike, then {found.difference}"


def _says_who(log: Path) -> bool:
    if not log.name.removesuffix(".gz").endswith((".jsonl", ".json")):
        return False
    with text_of(log) as file:
        return any('"decode_ids"' in file.readline(1 << 20) for _ in range(2))


def _asked(measured: Path) -> list[Asked]:
    names = ("request_id", "arrival_s", "prompt_tokens", "output_tokens")
    found = []
    for part in chunks(measured / "requests.parquet"):
        try:
            columns = [part.columns[name] for name in names]
            found += [
                Asked(int(i), float(at), int(prompt), int(output))
                for i, at, prompt, output in zip(*columns, strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            what = f"needs numbers in {', '.join(names)} ({type(error).__name__}: {error})"
            raise InputError(f"{measured}/requests.parquet: {what}") from None
    return found
