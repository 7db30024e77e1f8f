"""Decode steps that nobody measured: the cost model's own, with other parameters and with noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kernels.fit.decode_blocks import blocks
from kernels.fit.decode_free import start_of
from kernels.fit.decode_model import layers, seconds
from kernels.fit.decode_points import MODES, StepPoint

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "sim" / "profiles" / "nvidia-h200.json"
SAMPLES = ROOT / "calibration" / "h200-run1.jsonl.gz"
NAMES = [f"{mode}/{kernels}" for kernels in ("library", "fused") for mode in MODES]
NAMES.remove("resident/library")


def bare() -> dict[str, Any]:
    """The shipped profile without what was fitted to decode steps."""
    document: dict[str, Any] = json.loads(PROFILE.read_text())
    document.pop("loops", None)
    document.pop("in_step", None)
    return document


def points(batches: tuple[int, ...], contexts: tuple[int, ...]) -> list[StepPoint]:
    """Cells of the 1B shape in every mode and kernel set, dense and sparse, not yet timed."""
    found = []
    for name in NAMES:
        mode, _, kernels = name.partition("/")
        for batch in batches:
            for context in contexts:
                for budget in (0, 2048):
                    if (budget and context <= budget) or (kernels == "fused" and batch > 16):
                        continue
                    cell = {
                        "model": "1b", "weights": "bf16", "kv": "bf16", "batch": batch,
                        "tokens": 1, "context": context, "budget_tokens": budget,
                        "page_tokens": 16,
                    }  # fmt: skip
                    found.append(StepPoint(cell, kernels, mode, 1.0, 30, None))
    return found


def write(
    path: Path,
    batches: tuple[int, ...] = (1, 2, 4, 16, 64),
    contexts: tuple[int, ...] = (1024, 8192, 16384),
) -> Path:
    """A file of steps at *path*."""
    document, rng = bare(), np.random.default_rng(5)
    kernels, constants = start_of(document, NAMES)
    for table in [*(entry["parameters"] for entry in kernels.values()), *constants.values()]:
        for key in table:
            if key.endswith("_s"):
                spread = 0.02 if key.endswith("_per_s") else 0.15
                table[key] *= float(np.exp(rng.normal(0.0, spread)))
    gap = document["constants"]["graph_node_s"]["value"]
    lines = [{"kind": "header", "device": {"name": "none"}, "driver": "none", "date": "never"}]
    for block in blocks(points(batches, contexts)):
        loop = constants[block.first.loop]
        times = seconds(block, kernels, loop, gap)
        stages = {}
        if block.first.mode == "graph":
            stages = layers(block, kernels, loop["node_s"] - gap).stages()
        for i, point in enumerate(block.points):
            noise = np.exp(rng.normal(0.0, 0.005, 3))
            lines.append(
                {
                    "kind": "step", **point.cell, "kernels": point.kernels, "mode": point.mode,
                    "seconds": (times[i] * noise).tolist(), "nodes": None, "barriers": None,
                    "stages": {k: float(v[i]) for k, v in stages.items()} or None, "sha": "0",
                }
            )  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
