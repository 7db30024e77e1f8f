"""The scenarios that stand for runs of the engine: its own settings, in the simulator's words."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.blind_rounds import ACCEPTANCE, BLOCK, BUDGET, CONTEXT, Engine

if TYPE_CHECKING:
    from bench.blind_rounds import Round

METRICS = (
    "output_throughput", "median_ttft_ms", "p90_ttft_ms", "p99_ttft_ms", "mean_tpot_ms",
    "p99_tpot_ms", "median_itl_ms", "p99_itl_ms", "mean_e2el_ms",
)  # fmt: skip
PRESETS = {"1b": "llama-3.2-1b", "8b": "llama-3.1-8b"}


def scenario(
    engine: Engine, profile: Path, trace: Path, rate_scale: float,
    clip: int, requests: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The scenario of a run: the engine's own settings."""
    traffic = {
        "file": str(trace.resolve()), "rate_scale": rate_scale, "clip_prompt": {"to": clip},
    }  # fmt: skip
    if requests is not None:
        traffic["requests"] = requests
    hbm_blocks = engine.batch * CONTEXT // BLOCK
    return _engine_part(engine) | {
        "name": f"{engine.name}-{rate_scale:g}",
        "trace": traffic,
        "hardware": {"profile": str(profile.resolve()), "step_noise": "measured"},
        "loop": {"mode": "engine", "max_batch": engine.batch, "token_budget": BUDGET},
        "kv": {"block_tokens": BLOCK, "hbm_blocks": hbm_blocks, "prefix_cache": False},
    }


def _engine_part(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": {"preset": PRESETS[engine.model], "max_context": CONTEXT},
        "schedule": {"order": "prefill_alone" if engine.alone else "decode_first"},
    }
    if engine.late:
        found["schedule"]["freed_late"] = True
    if engine.tokens > 1:
        found["speculation"] = {
            "draft": "ngram", "width": engine.tokens - 1, "acceptance": ACCEPTANCE,
        }  # fmt: skip
    return found


def cell_scenario(
    chosen: Round, cell: dict[str, Any], windows: Path, seed: int | None = None
) -> dict[str, Any]:
    """The scenario of a predicted *cell*, with the requests in the folder *windows*.

    *seed*: not given, the first of the round.
    """
    engine = chosen.engine_of(cell)
    requests = engine.requests if engine.requests < chosen.longest else None
    found = scenario(
        engine, chosen.profile(engine.name), chosen.window_of(cell, windows), cell["rate_scale"],
        chosen.clip, requests,
    )  # fmt: skip
    seeds = chosen.seeds if seed is None else (seed,)
    return found | {"seed": seeds[0]} if seeds else found


def simulated(data: dict[str, Any], folder: Path | None = None) -> tuple[Any, dict[str, Any]]:
    """The scenario and its summary."""
    from sim.scenario import Scenario
    from sim.simulate import run

    chosen = Scenario.model_validate(data)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return chosen, run(chosen, folder)
    with tempfile.TemporaryDirectory() as name:
        return chosen, run(chosen, Path(name))


def planned(head: dict[str, Any]) -> dict[str, Any]:
    """The scenario whose planner replays a log with the header *head*."""
    given = head["options"]
    options = given if isinstance(given, dict) else dict(word.split("=", 1) for word in given)
    engine = Engine(
        "", head["model"], head["mode"], head["kernels"], head["max_batch"],
        tokens=int(head.get("tokens") or options.get("tokens", 1)),
    )  # fmt: skip
    return _engine_part(engine) | {
        "trace": {"source": "synthetic", "requests": 1, "rate": "1 /s", "prompt_tokens": 1,
                  "output_tokens": 1},
        "loop": {"mode": "host", "max_batch": engine.batch, "token_budget": BUDGET},
        "kv": {"block_tokens": BLOCK},
    }  # fmt: skip
