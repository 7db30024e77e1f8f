"""What another process would have made of a prediction: profiles of a second log of the same mode.

An engine that is started again, on another GPU or the same, is a little faster or slower for as
long as it lives. A round may keep, in its folder `earlier`, logs of its ramps from other processes;
here they are fitted, too, and both profiles are held to the steps of the measured runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.blind_pack import device_of, header
from bench.blind_steps import log_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.blind_rounds import Round

HEAD = (
    "| run | decode steps: the round's profile | of the other log | steps with prompts: "
    "the round's | of the other log |\n| :-- | --: | --: | --: | --: |"
)


def twice(chosen: Round, runs: Sequence[Path]) -> dict[str, Any]:
    """By engine: where and when both logs were made, and the bias of both profiles by run."""
    from sim.step_fit import fit_steps
    from sim.step_log import read_steps

    found: dict[str, Any] = {}
    for other in sorted((chosen.folder / "earlier").glob("*.jsonl.gz")):
        engine = other.name.removesuffix(".jsonl.gz")
        logs = chosen.folder / "fitted" / other.name, other
        forms = [fit_steps(read_steps([log])).form for log in logs]
        own = [run for run in runs if run.name.startswith(f"{engine}-") and _is_of(run, engine)]
        found[engine] = {
            "logs": [_told(log) for log in logs],
            "runs": {run.name: [biases(form, run) for form in forms] for run in own},
        }
    return found


def biases(form: Any, run: Path) -> dict[str, float]:
    """The median of predicted / measured - 1 over a run's steps, without and with prompts."""
    from sim.step_ready import load_of

    log = log_of(run)
    load = load_of(log)
    ratio = form.seconds(load) / log.get("duration_s") - 1.0
    prompts = load.prefill_tokens > 0
    return {
        "decode only": float(np.median(ratio[~prompts])),
        "with prefill": float(np.median(ratio[prompts])),
    }


def section(found: dict[str, Any]) -> list[str]:
    """The table, engine by engine, as Markdown; nothing if no second log is kept."""
    if not found:
        return []
    lines = [HEAD]
    for told in found.values():
        for run, both in told["runs"].items():
            words = [f"{100 * one[kind]:+.1f} %" for kind in ("decode only", "with prefill")
                     for one in both]  # fmt: skip
            lines.append(f"| {run} | " + " | ".join(words) + " |")
    return lines


def _is_of(run: Path, engine: str) -> bool:
    """Whether *run* is of just this engine: what follows its name is a window's."""
    return run.name.removeprefix(f"{engine}-").split("-")[0] in ("A", "B")


def _told(log: Path) -> dict[str, str]:
    head = header(log)
    return {"gpu": device_of(head), "date": head["date"], "commit": head["commit"]}
