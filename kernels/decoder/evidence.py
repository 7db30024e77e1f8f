"""What a report needs besides times: equal tokens in all loops, and a soak; records of both.

`python -m kernels.decoder.evidence --out FILE` runs the checks of 256 greedy steps and a soak of
10,000 resident steps on the GPU. One rule: a failure is a record too, with the reason in it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError
from .soak import SoakError, soak_decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

STEPS, SOAK_STEPS = 256, 10_000
SAME = {"model": "1b", "idle": None, "tokens": 1, "budget": 0, "context": 1000, "steps": STEPS}
PLAIN = {
    "model": "1b", "batch": 1, "tokens": 1, "kv_bits": 16, "weight_bits": 16, "budget_pages": 0,
    "page_tokens": 16, "steps": STEPS,
}  # fmt: skip
HARM = ("hangs", "lost_tokens", "leaked_pages")


def comparisons() -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
    """(what the record says, whose check, its case) of each comparison of tokens."""
    fused = "launches, CUDA graph and resident kernel: the same bytes"
    return [
        ({"kernels": "library", "batch": 1,
          "loops": "Python host, C host, CUDA graph and device re-launch: the same tokens"},
         "decoder", {"op": "modes", **PLAIN}),
        ({"kernels": "fused", "batch": 1, "loops": fused}, "fused_step",
         {"op": "same", **SAME, "batch": 1}),
        ({"kernels": "fused", "batch": 8, "loops": fused}, "fused_step",
         {"op": "same", **SAME, "batch": 8}),
        ({"kernels": "fused and library", "batch": 8, "loops": "the same tokens up to ties"},
         "fused_step", {"op": "library", **SAME, "batch": 8}),
    ]  # fmt: skip


def agreements(check: Callable[[str, dict[str, Any]], float]) -> Iterator[dict[str, Any]]:
    """A record a comparison; *check* runs a case of a folder and raises `CheckError`."""
    for about, folder, case in comparisons():
        record = {"kind": "agreement", "model": case["model"], **about, "steps": case["steps"]}
        try:
            check(folder, case)
        except CheckError as error:
            yield {**record, **verdict(str(error))}
        else:
            yield {**record, "equal": True}


def verdict(words: str) -> dict[str, Any]:
    """What a failed check says: tokens that differ by the tie rule alone are counted, not wrong."""
    ties = re.search(r"(\d+) of (\d+) tokens are ties", words)
    if ties:
        return {"equal": True, "ties": int(ties[1]), "of": int(ties[2])}
    return {"equal": False, "why": words[:200]}


def soaked(
    soak: Callable[[argparse.Namespace], str], mode: str, steps: int, **options: Any
) -> dict[str, Any]:
    """The record of a soak in *mode*; what was lost is told by the words of its error."""
    given = {"mode": mode, "model": "1b", "steps": steps, "batch": 8, "tokens": 1,
             "budget_pages": 0, "pages": 0, "seed": 1, **options}  # fmt: skip
    record = {"kind": "soak", "kernels": "fused", **given, **dict.fromkeys(HARM, 0)}
    try:
        return {**record, "said": soak(argparse.Namespace(**given))}
    except SoakError as error:
        words = str(error)
        hung = "nothing for" in words or "left because" in words
        harm = "hangs" if hung else "leaked_pages" if "pages" in words else "lost_tokens"
        return {**record, harm: 1, "said": words[:200]}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 all is well, 1 something was not."""
    parser = argparse.ArgumentParser("python -m kernels.decoder.evidence", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="JSON lines")
    parser.add_argument("--steps", type=int, default=SOAK_STEPS, help="of the soak")
    arguments = parser.parse_args(words)
    from ..backend import Gpu
    from ..fused_step import check as fused_check
    from . import check as decoder_check

    gpu = Gpu()

    def check(folder: str, case: dict[str, Any]) -> float:
        module: Any = {"decoder": decoder_check, "fused_step": fused_check}[folder]
        worst: float = module.check(gpu, case, np.random.default_rng(case["steps"]))
        return worst

    bad = 0
    with arguments.out.open("a", encoding="utf-8") as file:

        def keep(record: dict[str, Any]) -> None:
            nonlocal bad
            bad += not record.get("equal", not any(record.get(name) for name in HARM))
            print(", ".join(f"{name} {value}" for name, value in record.items()), flush=True)
            file.write(json.dumps(record) + "\n")
            file.flush()

        for record in agreements(check):
            keep(record)
        keep(soaked(lambda given: soak_decoder(gpu, given), "resident", arguments.steps))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
