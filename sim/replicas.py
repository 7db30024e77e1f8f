"""Several GPUs of one host: the part of a scenario that says how many, and who gets what.

The one rule: one replica is what there is when nothing is said, and leaves no mark on the hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .node import Node

if TYPE_CHECKING:
    from .node import Place
    from .scenario import Scenario


class Replicas(Node):
    """How many GPUs of one host serve the trace, and who gets what."""

    count: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    """Replicas, each with HBM, batch, loop and PCIe links of its own; `hardware.hbm` is each's."""
    router: Literal["round_robin", "least_loaded", "prefix"] = "round_robin"
    """Where a request goes: in turn, where the fewest wait and run, or where the longest part of
    its prompt is in HBM."""
    slack: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 16
    """Requests that a replica may have above the least loaded and still get what `prefix` finds
    there."""
    tiers: Literal["shared", "own"] = "shared"
    """Whether the tiers below HBM are one store for all, or equal parts for each; the links to SSD
    and beyond are common to all in either case."""

    @property
    def parts(self) -> int:
        """Into how many equal parts the tiers of the host are divided."""
        return self.count if self.tiers == "own" else 1


def faults(scenario: Scenario) -> list[tuple[Place, str]]:
    """What several replicas cannot do together."""
    keys, sparse = scenario.replicas, scenario.sparse
    if keys.count == 1 or keys.tiers == "own" or sparse is None or sparse.offload is None:
        return []
    what = "shared; sparse.offload keeps what one replica decodes in a part of DRAM of its own"
    return [(("replicas", "tiers"), f"{what}; give own")]


def warnings(scenario: Scenario) -> list[str]:
    """One line for every key about replicas that was given and has no effect."""
    keys, given = scenario.replicas, scenario.replicas.model_fields_set
    why = {}
    if keys.router != "prefix":
        why["slack"] = "only with replicas.router: prefix"
    if scenario.hardware.dram is None:
        why["tiers"] = "only with hardware.dram"
    if keys.count == 1:
        why = dict.fromkeys(("router", "slack", "tiers"), "only with replicas.count above 1")
    lines = [
        f"replicas.{key}: has no effect here; {reason}"
        for key, reason in why.items()
        if key in given
    ]
    if keys.count > 1 and keys.router != "prefix" and scenario.kv.prefetch == "session":
        what = "only with replicas.router: prefix; else nobody knows where a turn will go"
        lines.append(f"kv.prefetch: has no effect here; {what}")
    return lines
