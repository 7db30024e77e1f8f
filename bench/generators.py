"""How close the built-in trace sources are to the traces that they are shaped like.

    python bench/generators.py [--traces DIR]

Kolmogorov-Smirnov distances of prompt lengths, output lengths and gaps between arrivals, measured
against the real files somewhere under DIR (default: traces/; the README says where to get them).
Mooncake's time stamps lie on a 3 s grid, so its requests are spread within the step first.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.rng import stream
from sim.trace.generate import generate
from sim.trace.look.inspection import Inspection
from sim.trace.read import read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.trace.chunk import Chunk

# source, its real file, the step of the file's time stamps in s (None: none)
SUBJECTS: tuple[tuple[str, str, float | None], ...] = (
    ("azure-conv-like", "AzureLLMInferenceTrace_conv.csv", None),
    ("mooncake-conversation-like", "conversation_trace.jsonl", 3.0),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A generated trace against the real one of as many requests."""

    source: str
    requests: int
    ks: dict[str, float]  # prompt, output, gap
    figures: dict[str, tuple[float, float]]  # name to (real, generated)


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference between the empirical distribution functions of two samples."""
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    below = [np.searchsorted(x, at, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def compare(source: str, path: Path, step_s: float | None, seed: int) -> Comparison:
    """*source* with *seed* against the trace at *path*."""
    real = list(read(path))
    arrival_s = np.concatenate([chunk.arrival_s for chunk in real])
    if step_s is not None:
        within = stream(seed, "bench.dither").uniform(0.0, step_s, len(arrival_s))
        arrival_s = np.sort(arrival_s + within)
    made = list(generate(source, len(arrival_s), seed))
    gaps = np.diff(arrival_s), np.diff(np.concatenate([chunk.arrival_s for chunk in made]))
    ks = {"gap": ks_distance(*gaps)}
    for name in ("prompt", "output"):
        columns = [
            np.concatenate([getattr(chunk, f"{name}_tokens") for chunk in chunks])
            for chunks in (real, made)
        ]
        ks[name] = ks_distance(*columns)
    real_figures, made_figures = _figures(real, arrival_s), _figures(made, None)
    figures = {name: (real_figures[name], made_figures[name]) for name in real_figures}
    return Comparison(source, len(arrival_s), ks, figures)


def _figures(chunks: Iterable[Chunk], arrival_s: np.ndarray | None) -> dict[str, float]:
    """Rate, burstiness and reuse; with the times *arrival_s* in the place of the chunks'."""
    inspection = Inspection()
    at = 0
    for chunk in chunks:
        if arrival_s is not None:
            moved = arrival_s[at : at + len(chunk)] - arrival_s[0]
            at += len(chunk)
            chunk = chunk.at(moved)
        inspection.add(chunk)
    dispersion = inspection.dispersion()
    figures = {
        "rate/s": (inspection.requests - 1) / inspection.duration_s,
        "gap CV": inspection.gaps.cv or 0.0,
        "dispersion 1 s": dispersion[1.0],
        "dispersion 10 s": dispersion[10.0],
        "dispersion 60 s": dispersion[60.0],
    }
    if inspection.reuse.blocks:
        figures["prefix hits"] = inspection.reuse.hit_rate
    return figures


def main() -> None:
    """Print a comparison for each source whose real file is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, default=Path("traces"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for source, name, step_s in SUBJECTS:
        path = next(iter(sorted(options.traces.rglob(name))), None)
        if path is None:
            print(f"{source}: skipped, no {name} under {options.traces}; see the README")
            continue
        found = compare(source, path, step_s, options.seed)
        print(f"{source}: {found.requests:,} requests, seed {options.seed}, against {name}")
        for column, distance in found.ks.items():
            print(f"  KS distance, {column:<10} {distance:10.4f}")
        for figure, (real, made) in found.figures.items():
            print(f"  {figure:<23} {made:10.4f}   real {real:10.4f}")


if __name__ == "__main__":
    main()
