"""One decode iteration taken apart: work of the GPU by stage, and what orchestration adds.

The one rule: the parts add up to what the cost model says the iteration takes; nothing is left over
and nothing is counted twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .curve import Curve, Read
from .decode_cost import layer_time
from .measured import scaled

if TYPE_CHECKING:
    from .cost import Cost
    from .measured import Layer
    from .model_cost import ModelCost
    from .modes import Modes
    from .stages import Pass, Stage
    from .steps import Load

WORK = ("gemm", "attention", "score", "select", "verify", "small", "draft")
"""Of the GPU. verify: sampling or verification, and commit; small: everything else."""
ORCHESTRATION = ("fetch", "launch", "gap", "barrier", "sync", "schedule")
"""fetch: waiting for KV or experts from DRAM; launch: the GPU waits for a launch; gap: between two
kernels; barrier: between two stages of a persistent kernel, less what prefetch of weights hides;
sync: the host waits for the GPU, and copies; schedule: on the CPU, or on the GPU in its place."""
PARTS = (*WORK, *ORCHESTRATION)
_VERIFY = ("verify", "commit", "record", "sample")


def by_stage(cost: Cost, batch: int, load: Load) -> dict[str, float]:
    """Seconds of each of `PARTS` in an iteration of *batch* requests with *load*."""
    decode = cost.decode(batch, load.rows, load.depth)
    mode, padded, rows = cost.run_as(batch, load.rows)
    model = cost.headed if load.depth else cost.model
    found = dict.fromkeys(PARTS, 0.0)
    verify = _pass(model, decode.layer, (mode, padded, rows, batch), load, found)
    x = layer_time(decode.layer, load.context, load.attended, load.pages, whole=False)
    alone = decode.timing.seconds(x)
    found["fetch"] += alone - verify
    without = alone
    if decode.draft is not None:
        busy = decode.timing.busy(x)
        without = decode.draft.beside(alone, busy, float(load.context))
    found["draft"] += without - alone
    whole = decode.seconds(load.context, load.attended, load.pages, load.fetched)
    found["fetch"] += whole - without
    return found


def _pass(
    model: ModelCost,
    layer: Layer,
    size: tuple[str, int, int, int],
    load: Load,
    found: dict[str, float],
) -> float:
    """Adds the parts of a pass of *model* to *found*; returns its seconds."""
    mode, _, _, batch = size
    work, modes, factor = model.run(*size)
    layers = work.body.layers
    streamed = mode == "resident" and modes.stream is not None
    node = 0.0 if streamed else modes.node
    _stages(work, modes, streamed, node, found)
    _orchestrate(mode, modes, batch, found)
    if mode == "resident":
        found["gap"] = 0.0
        if not streamed:
            stages = work.stages()
            ramp, ahead = modes.prefetched(stages)
            found["gemm"] -= ramp
            found["barrier"] += (len(stages) + layers) * modes.barrier - ahead
    for name in found:
        found[name] *= factor
    for name, seconds in _reads(layer, load).items():
        found[name] += layers * seconds
    found["attention"] -= layers * node
    found["gap"] += layers * node if mode != "resident" else 0.0
    x = layer_time(layer, load.context, load.attended, load.pages, whole=False)
    seconds = scaled(modes.run(mode, work, batch), factor).seconds(x)
    rest = seconds - sum(found.values())
    if mode != "resident":
        found["launch"] += rest
    elif rest >= 0.0:
        found["barrier"] += rest
    else:
        # The stream of weights goes on during attention and hides a part of it.
        hidden = min(-rest, found["attention"])
        found["attention"] -= hidden
        found["gemm"] -= -rest - hidden
    return seconds


def _stages(work: Pass, modes: Modes, streamed: bool, node: float, found: dict[str, float]) -> None:
    """Adds the stages of *work*, each less the gap *node* that its time contains."""
    for stage in work.stages():
        if not streamed:
            found[_part(stage)] += stage.seconds - node
            found["gap"] += node
        elif modes.stream is not None and stage.name not in ("begin", "commit"):
            # Both are in what the loop takes around a step.
            weights = stage.weight_bytes / modes.stream.bytes_per_s
            found[_part(stage)] += weights or stage.seconds


def _part(stage: Stage) -> str:
    if stage.name.startswith("draft"):
        return "draft"
    if stage.weight_bytes:
        return "gemm"
    if stage.name in ("score", "select"):
        return stage.name
    return "verify" if stage.name in _VERIFY else "small"


def _reads(layer: Layer, load: Load) -> dict[str, float]:
    """What a layer does with the KV, by part; what is in stages of their own left out."""
    if isinstance(layer, Curve):
        return {"attention": layer.seconds(float(load.context))}
    attended = load.context if load.attended is None else load.attended
    read = Read(float(load.context), float(attended), float(load.pages or 0))
    found: dict[str, float] = {}
    for part in layer.parts:
        held = part.weight * part.curve.seconds(0.0) if part.axis == "pages" else 0.0
        found[part.name] = found.get(part.name, 0.0) + part.seconds(read) - held
    return found


def _orchestrate(mode: str, modes: Modes, batch: int, found: dict[str, float]) -> None:
    """Adds what a mode's constants say."""
    found["schedule"] += modes.around(batch)
    if modes.asynchronous:
        return  # hidden, or the GPU waits for a launch
    if mode in ("host", "graph"):
        found["schedule"] += modes.schedule_base + modes.schedule_each * batch
        found["sync"] += modes.copy_back + (modes.sync if mode == "host" else 0.0)
        found["launch"] += modes.graph_launch if mode == "graph" else 0.0
    elif mode == "control":
        found["launch"] += modes.control_around - modes.device_base
        found["schedule"] += modes.device_base + modes.device_each * batch
    elif modes.stream is not None:
        found["schedule"] += modes.stream.around_s
    else:
        found["schedule"] += modes.device_base + modes.device_each * batch
