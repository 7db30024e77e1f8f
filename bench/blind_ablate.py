"""The predictions again with parts of the model removed, to see which error returns.

Only cells whose load carries a promise, each once: with the round's first seed, where a prediction
is a mean over several.
"""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.blind_judge import PROMISED
from bench.blind_predict import JOBS, predicted
from bench.blind_rounds import BLOCK
from bench.blind_scenario import METRICS, cell_scenario, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.blind_rounds import Engine, Round

    Document = dict[str, Any]

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Batches of which the engine has a captured graph."""
BESIDE = {"sink_tokens": BLOCK, "recent_tokens": BLOCK}
"""What the engine selects beside the pages that score best: the first and the newest."""
WHOLE = "as predicted"
KERNELS = "kernel profile, no engine log"
TERMS = {
    "KV read": ("context",),
    "prompts' attention": ("prefill_pair", "prefill_context"),
    "tokens computed": ("tokens",),
    "requests": ("decode_request", "prefill_request"),
    "step constant": ("step",),
}
"""Terms of the step profile that are set to nothing, by what they stand for."""
TURNS, HELD, KINDS = "first step behind prompts", "held batches", "noise by kind of step"
PADDING, NOISE, LATE = "padding", "step noise", "slots given away late"


def promised(chosen: Round) -> list[Document]:
    """The predicted cells at loads that carry a promise."""
    return [cell for cell in predicted(chosen) if round(cell["load"], 2) <= PROMISED]


def ablate(chosen: Round, windows: Path, out: Path, jobs: int = JOBS) -> None:
    """Writes *out*: figures by variant and cell."""
    found: dict[str, dict[str, Document]] = {}
    cells = promised(chosen)
    with ProcessPoolExecutor(jobs) as pool:
        rows = pool.map(partial(figures, chosen, windows), cells)
        for cell, own in zip(cells, rows, strict=True):
            for variant, one in own.items():
                found.setdefault(variant, {})[cell["cell"]] = one
            print(f"{cell['cell']}: {', '.join(own)}", flush=True)
    order = [WHOLE, *TERMS, TURNS, HELD, PADDING, LATE, KINDS, NOISE, KERNELS]
    out.write_text(lines({name: found[name] for name in order if name in found}))


def lines(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON of tables of rows, a row a line."""
    parts = []
    for name, rows in tables.items():
        own = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
        parts.append(f" {json.dumps(name)}: {{\n{own}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def figures(chosen: Round, windows: Path, cell: Document) -> dict[str, Document]:
    """By variant what is simulated of a *cell*."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in variants(chosen, cell, windows, Path(folder)):
            _, summary = simulated(data)
            found[name] = {metric: summary[metric] for metric in METRICS}
    return found


def variants(
    chosen: Round, cell: Document, windows: Path, folder: Path
) -> Iterator[tuple[str, Document]]:
    """The cell's scenario as it was, and with each part removed that there is of it."""
    engine = chosen.engine_of(cell)
    base = cell_scenario(chosen, cell, windows)
    yield WHOLE, base
    path = chosen.profile(engine.name)
    whole = json.loads(path.read_text())
    for number, (name, lesser) in enumerate(lessened(whole)):
        if lesser != whole:
            own = folder / f"{path.stem}-{number}.json"
            own.write_text(json.dumps(lesser))
            yield name, base | {"hardware": base["hardware"] | {"profile": str(own)}}
    every = list(range(1, engine.batch + 1))
    yield PADDING, base | {"loop": base["loop"] | {"captured_batches": every}}
    if base["schedule"].get("freed_late"):
        rest = {k: v for k, v in base["schedule"].items() if k != "freed_late"}
        yield LATE, base | {"schedule": rest}
    yield NOISE, base | {"hardware": base["hardware"] | {"step_noise": "none"}}
    yield KERNELS, of_kernels(engine, base)


def lessened(profile: Document) -> Iterator[tuple[str, Document]]:
    """The step *profile* without each of its parts, whether or not it has them."""
    for name, terms in TERMS.items():
        yield name, without(_copy(profile), terms)
    for name, key, value in ((TURNS, "turns", {}), (HELD, "held", False)):
        lesser = _copy(profile)
        for form in filter(None, (lesser["form"], lesser["gpu"])):
            if key in form:
                form[key] = value
        yield name, lesser
    lesser = _copy(profile)
    lesser["ratios"].pop("kinds", None)
    yield KINDS, lesser


def without(profile: Document, terms: tuple[str, ...]) -> Document:
    """The step *profile* with *terms* worth nothing, in all its lines; its turns stay."""
    for form in filter(None, (profile["form"], profile["gpu"])):
        for line in (*form["decode"], *form["mixed"]):
            for term in line:
                if term["term"] in terms:
                    term["value"] = 0.0
    return profile


def _copy(profile: Document) -> Document:
    found: Document = json.loads(json.dumps(profile))
    return found


def of_kernels(engine: Engine, base: Document) -> Document:
    """The scenario *base* by the shipped profile of kernels, in the simulator's own loop mode."""
    mode, _, host = engine.loop.partition("-")
    loop = {k: v for k, v in base["loop"].items() if k != "mode"}
    loop |= {"mode": mode, "kernels": engine.kernels}
    if host:
        loop["host"] = host
    if mode in ("graph", "control"):
        loop["captured_batches"] = [size for size in SIZES if size <= engine.batch]
    found = base | {"hardware": {"profile": "nvidia-h200"}, "loop": loop}
    if engine.budget_tokens:
        scored = engine.budget_tokens - sum(BESIDE.values())
        found["sparse"] = {"select": "topk", "top_k_tokens": scored} | BESIDE
    return {k: v for k, v in found.items() if k != "schedule"}
