"""Scenarios whose iterations are widened, for tests of what they cost."""

from __future__ import annotations

from typing import Any

from sim.cost import Cost
from sim.profile import load_profile
from sim.scenario import Scenario

H200 = load_profile("nvidia-h200")
MODES = ("host", "graph", "control", "resident")
ACCEPTED = {"rate": 0.7}


def scenario(**sections: Any) -> Scenario:
    """Llama 3.1 8B with *sections*."""
    trace = {"source": "azure-conv-like", "requests": 1}
    return Scenario.model_validate({"trace": trace, "model": "llama-3.1-8b"} | sections)


def drafting(draft: Any, width: int = 4, **rest: Any) -> dict[str, Any]:
    """A `speculation` section with a fixed width; a word in *rest* is `rule`'s."""
    rule = {"rule": rest.pop("rule")} if "rule" in rest else {}
    return {"draft": draft, "width": width, "acceptance": ACCEPTED | rule, **rest}


def cost_of(mode: str = "graph", kernels: str = "library", **sections: Any) -> Cost:
    """The cost model of such a scenario on the H200, its host loop in C."""
    loop = {"mode": mode, "kernels": kernels, "host": "c"} | sections.pop("loop", {})
    return Cost(scenario(loop=loop, **sections), H200)
