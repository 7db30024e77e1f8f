"""Whether a seed can change anything: what a scenario draws, told from its keys alone.

The one rule: nothing is said to be without chance that might draw. A draw that is the same with
every seed by accident (a rate of acceptance of 1, a distribution of one value) counts as a draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .block_decode import BlockDecode
    from .length import Length
    from .scenario import Scenario
    from .speculative import Speculation
    from .study import Study
    from .traffic import Trace


def idle_seeds(study: Study) -> list[str]:
    """A warning if the replications of some points are all alike, since nothing is drawn."""
    if study.seeds == 1:
        return []
    first = [point for point in study.points if point.replication == 0]
    alike = sum(not draws(point.scenario) for point in first)
    if not alike:
        return []
    on = f" on {alike} of {len(first)} points" if alike < len(first) else ""
    what = f"nothing is drawn at random, so that the {study.seeds} runs of a point are alike"
    return [f"warning: sweep.seeds: has no effect{on}; {what}"]


def draws(scenario: Scenario) -> list[str]:
    """The keys by which *scenario* may draw at random; empty if its seed changes nothing."""
    found = _of_trace(scenario.trace, "trace")
    if scenario.speculation is not None and _accepts_by_chance(scenario.speculation):
        found.append("speculation.acceptance")
    if scenario.block_decode is not None and _refines_by_chance(scenario.block_decode):
        found.append("block_decode.steps")
    return found


def _of_trace(trace: Trace, name: str) -> list[str]:
    if trace.merge is not None:  # each part is thinned by chance to its share
        found = [f"{name}.merge"]
    elif trace.file is None:
        found = [] if _regular(trace) else [f"{name}.source"]
    else:
        found = [f"{name}.session_arrivals"] if trace.session_arrivals is not None else []
    if trace.dither != "off":
        found.append(f"{name}.dither")
    if trace.thin is not None and trace.thin < 1.0:
        found.append(f"{name}.thin")
    if trace.replica is not None and trace.replica.by == "random":
        found.append(f"{name}.replica")
    return found


def _regular(trace: Trace) -> bool:
    """Whether a source sends requests of one length at constant gaps, so that nothing is drawn."""
    gaps = trace.arrivals if trace.source == "synthetic" else trace.source
    lengths = (trace.prompt_tokens, trace.output_tokens)
    return gaps == "constant" and all(map(_one_length, lengths))


def _one_length(length: Length | None) -> bool:
    return length is not None and length.fixed is not None and length.tail is None


def _accepts_by_chance(speculation: Speculation) -> bool:
    return speculation.acceptance.mismatch_stride is None


def _refines_by_chance(block_decode: BlockDecode) -> bool:
    return block_decode.steps.rate is not None or block_decode.order == "drawn"
