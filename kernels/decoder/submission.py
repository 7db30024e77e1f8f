"""What handing over costs on the real step: launches from C, and turns of a loop on the device.

    python -m kernels.decoder.submission --steps FILE [--batches 1 8] [--context 1024]

Appends lines of kind `constant` to a file of decode steps, each with every sample in seconds:

- `submit`, a launch: a step's launches from C while its stream is held, over their number;
- `turn`, a turn: `nodes` empty kernels, repeated by a WHILE node (`while`), by a graph that starts
  itself (`tail`), by a C host that waits for each graph (`host`) or does not (`stream`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Gpu
from ..fused_step.launch import FusedStep, Model
from ..graph_control.cost import turns
from .library import LibraryStep
from .nodes import HostC
from .shape import SHAPES
from .state import DecoderState
from .weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLES = 30


def records(gpu: Gpu, batches: Sequence[int], context: int) -> Iterator[dict[str, Any]]:
    """Lines for a file of decode steps of the 1B model."""
    for one in turns(gpu):
        about = {"kernels": "empty", "mode": one["way"], "batch": 0, "context": 0}
        yield _line("turn", about, one["nodes"], one["samples_s"])
    weights = Weights(gpu, SHAPES["1b"])
    model = Model(gpu, weights)
    for batch in batches:
        room = -(-(context + 256) // 64) * 64
        state = DecoderState(gpu, weights.shape, batch, text_size=room)
        state.fill([context] * batch, [1 << 20] * batch, np.random.default_rng(1))
        saved = state.save()
        for step in (LibraryStep(gpu, weights, state), FusedStep(gpu, model, state)):
            state.load(saved)
            host: Any = HostC(step)
            host.run(5)
            seconds = host.list.submission(gpu, SAMPLES)
            about = {"kernels": step.name, "mode": host.name, "batch": batch, "context": context}
            yield _line("submit", about, host.nodes, seconds / host.nodes)
            host.close()


def _line(name: str, about: dict[str, Any], nodes: int, seconds: Any) -> dict[str, Any]:
    samples = [round(float(one), 10) for one in seconds]
    return {"kind": "constant", "name": name, "model": "1b", **about} | {
        "nodes": nodes,
        "seconds": samples,
    }


def main() -> int:
    """0 done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--context", type=int, default=1024)
    arguments = parser.parse_args()
    for record in records(Gpu(), arguments.batches, arguments.context):
        with arguments.steps.open("a") as file:
            file.write(json.dumps(record) + "\n")
        middle = statistics.median(record["seconds"]) * 1e6
        names = ("name", "kernels", "mode", "batch", "nodes")
        print(*(record[name] for name in names), f"{middle:.3f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
