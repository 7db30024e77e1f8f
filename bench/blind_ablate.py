"""The predictions again with parts of the model removed, to see which error returns."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from bench.blind import CELLS, METRICS, MODES, scenario, simulated

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Batches of which the engine has a captured graph."""
REMOVED = {
    "KV read": ("context",),
    "prompts' attention": ("prefill_pair", "prefill_context"),
    "tokens computed": ("tokens",),
    "step constant": ("step",),
}
"""Terms of the step profile that are set to nothing, by what they stand for."""
KERNELS = "kernel profile, no engine log"


def ablate(trace: Path, profiles: Path, out: Path) -> None:
    """Writes *out*: figures by variant and cell."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode, scale in CELLS:
            profile = profiles / f"h200-1b-{mode}.json"
            for name, data in variants(mode, profile, trace, scale, Path(folder)):
                _, summary = simulated(data)
                figures = {metric: summary[metric] for metric in METRICS}
                found.setdefault(name, {})[f"{mode}-{scale:g}"] = figures
                print(f"{mode}-{scale:g}: {name}: {figures['mean_tpot_ms']:.3f} ms TPOT")
    out.write_text(json.dumps(found, indent=1) + "\n")


def variants(
    mode: str, profile: Path, trace: Path, scale: float, folder: Path
) -> list[tuple[str, dict[str, Any]]]:
    """The cell's scenario as it was, and with each part removed."""
    base = scenario(mode, profile, trace, scale)
    every = list(range(1, MODES[mode] + 1))
    chosen = [
        ("as predicted", base),
        ("step noise", base | {"hardware": base["hardware"] | {"step_noise": "none"}}),
        ("padding", base | {"loop": base["loop"] | {"captured_batches": every}}),
    ]
    for name, terms in REMOVED.items():
        lesser = folder / f"{profile.stem}-{'-'.join(terms)}.json"
        lesser.write_text(json.dumps(without(json.loads(profile.read_text()), terms)))
        chosen.append((name, scenario(mode, lesser, trace, scale)))
    return [*chosen, (KERNELS, of_kernels(base, mode))]


def without(profile: dict[str, Any], terms: tuple[str, ...]) -> dict[str, Any]:
    """The step *profile* with *terms* worth nothing, in all its lines."""
    for form in (profile["form"], profile["gpu"]):
        for line in (*form["decode"], *form["mixed"]) if form else ():
            for term in line:
                if term["term"] in terms:
                    term["value"] = 0.0
    return profile


def of_kernels(base: dict[str, Any], mode: str) -> dict[str, Any]:
    """The same cell by the shipped profile of kernels, in the simulator's own loop mode."""
    words, _, kernels = mode.rpartition("-")
    loop = {k: v for k, v in base["loop"].items() if k != "mode"}
    loop |= {"mode": words.partition("-")[0], "kernels": kernels}
    if words.startswith("host"):
        loop["host"] = words.partition("-")[2]
    if loop["mode"] in ("graph", "control"):
        loop["captured_batches"] = [size for size in SIZES if size <= loop["max_batch"]]
    rest = {k: v for k, v in base.items() if k != "schedule"}
    return rest | {"hardware": {"profile": "nvidia-h200"}, "loop": loop}
