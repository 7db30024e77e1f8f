"""Steps of several tokens and of selected pages: what runs would charge beside what was measured.

Through `Cost`, as a run asks, where `bench/decode_table.py` asks for one step by its stages.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
from wide import H200, drafting, scenario

from kernels.fit.decode_points import read_steps
from sim.cost import Cost
from sim.decode_step import DecodeShape, predict
from sim.models import PRESETS

STEPS = Path(__file__).parent.parent / "calibration" / "decode-run1.jsonl.gz"
MODELS = {"1b": "llama-3.2-1b", "8b": "llama-3.1-8b"}
pytestmark = pytest.mark.skipif(not STEPS.exists(), reason="no measured decode steps")


def charged(point) -> tuple[float, float]:
    """Seconds of the iteration that a run would charge, and those of the step by its stages."""
    cell, shape = point.cell, PRESETS[MODELS[point.cell["model"]]]
    mode, _, host = point.mode.partition("-")
    batch, tokens, budget = cell["batch"], cell["tokens"], cell["budget_tokens"] or None
    sections = {
        "model": shape.name,
        "kv": {"dtype": cell["kv"], "block_tokens": cell["page_tokens"]},
        "loop": {"mode": mode, "kernels": point.kernels, "host": host or "c",
                 "captured_batches": [batch], "max_batch": batch},
    }  # fmt: skip
    if budget:
        sections["sparse"] = {"select": "topk", "top_k_tokens": budget}
    if tokens > 1:
        sections["speculation"] = drafting("ngram", tokens - 1)
    cost = Cost(scenario(**sections), H200)
    cost.modes.schedule_base = cost.modes.schedule_each = 0.0  # the measured loop has none
    step = DecodeShape(
        shape, point.kernels, "bf16", cell["kv"], batch=batch, context=point.context,
        budget=budget, tokens=tokens, page_tokens=cell["page_tokens"],
    )  # fmt: skip
    decode = cost.decode(batch, batch * tokens, tokens - 1)
    read = (batch * step.attended, batch * step.pages) if budget else ()
    whole = batch * (point.context + tokens)
    return decode.seconds(whole, *read), predict(H200, step, point.mode).seconds


@pytest.fixture(scope="module")
def points():
    found = [p for p in read_steps(STEPS).points if p.cell["weights"] == "bf16"]
    wide = [p for p in found if p.cell["tokens"] > 1]
    sparse = [p for p in found if p.cell["budget_tokens"]]
    return {"wide": wide, "sparse": sparse}


@pytest.mark.parametrize(
    ("kind", "middle", "most"), [("wide", 0.02, 0.06), ("sparse", 0.015, 0.05)]
)
def test_what_runs_charge_keeps_the_bars_of_the_measured_loops(points, kind, middle, most) -> None:
    errors: dict[str, list[float]] = {}
    for point in points[kind]:
        found, _ = charged(point)
        name = f"{point.mode}/{point.kernels}"
        errors.setdefault(name, []).append(abs(found / point.seconds - 1.0))
    assert len(errors) == 8
    for name, found in errors.items():
        # The Python host's own launches vary by more than that where it is the limit.
        host = 2.5 if name.startswith("host-python") else 1.0
        assert median(found) <= middle, (name, median(found))
        assert max(found) <= most * host, (name, max(found))


def test_a_chain_is_charged_as_the_step_by_its_stages(points) -> None:
    for point in points["wide"]:
        found, by_stages = charged(point)
        assert found == pytest.approx(by_stages, rel=1e-12), (point.mode, point.kernels, point.cell)


def test_a_sparse_step_too_but_for_the_order_of_waits(points) -> None:
    """Scoring's and selection's growth counts as attention's, which is right behind them."""
    for point in points["sparse"]:
        found, by_stages = charged(point)
        # Where a host submits more slowly than the GPU works, it matters before which launch.
        near = 5e-3 if point.mode.startswith("host") else 1e-4
        assert found == pytest.approx(by_stages, rel=near), (point.mode, point.kernels, point.cell)
