"""A scenario: the frozen tree that says what is simulated, and the only place of its defaults.

The one rule: attribute names are the YAML keys, values are SI. Rules that bind several fields are
checked here too, each at the key that is to mend; where keys stand in a file is `load`'s business.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from . import block_decode, replicas, schedule, sparsity, speculative_checks, tiers
from .block_decode import BlockDecode  # noqa: TC001 (pydantic evaluates the annotation)
from .dtypes import BITS
from .errors import shown
from .identity import file_identity
from .models import PRESETS, ModelShape
from .moe import Moe, moe_faults
from .node import Flag, Node, Place, refuse, suggestion
from .replicas import Replicas
from .schedule import Schedule
from .sparsity import Sparse  # noqa: TC001 (pydantic evaluates the annotation)
from .speculative import Speculation  # noqa: TC001 (pydantic evaluates the annotation)
from .tiers import Format, Kv, Links, Remote, Tier
from .traffic import Trace  # noqa: TC001 (pydantic evaluates the annotation)
from .units import Bytes, Seconds

Batch = Annotated[int, Field(strict=True, ge=1, le=65_536)]


class Model(Node):
    """Which model is served: the name of a preset, a map with `preset`, or all dimensions."""

    shape: ModelShape
    """The dimensions; in YAML they stand in `model` itself."""
    weights: Format = "bf16"
    """Format of the linear weights; embeddings, LM head and norms stay at 16 bits."""

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"shape": _preset(value, ())}
        if not isinstance(value, dict):
            return value
        rest = {key: entry for key, entry in value.items() if key != "weights"}
        weights = {"weights": value["weights"]} if "weights" in value else {}
        dimensions = set(ModelShape.model_fields) - {"max_context"}
        if rest.get("preset") is None:
            rest.pop("preset", None)
            if not dimensions & set(rest):
                what = "missing preset; add e.g. `preset: llama-3.1-8b`"
                unknown = [key for key in rest if key != "max_context"]
                hint = suggestion(unknown[0], cls.keys(), "fields here") if unknown else ""
                refuse([((key,), f"no such field; {hint}") for key in unknown[:1]] or [((), what)])
            return weights | {"shape": rest}
        what = "not together with preset; remove it, or preset and give all dimensions"
        refuse([((key,), what) for key in rest if key in dimensions])
        preset = _preset(rest.pop("preset"), ("preset",))
        return weights | {"shape": preset.model_dump() | rest}

    @staticmethod
    def keys() -> list[str]:
        """The keys that may stand in `model`."""
        return ["preset", "weights", *ModelShape.model_fields]

    @property
    def weight_bits(self) -> int:
        """Bits of a linear weight."""
        return BITS[self.weights]


def _preset(name: Any, place: Place) -> ModelShape:
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    refuse([(place, f"no preset {shown(name)}; {suggestion(str(name), PRESETS, 'presets')}")])
    raise AssertionError("refuse() raises")


class Hbm(Node):
    """The GPU's memory."""

    capacity: Annotated[Bytes, Field(gt=0)] | None = None
    """Bytes; taken from the profile when not given."""
    utilization: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.9
    """Share of the capacity for weights and KV (vLLM's `gpu_memory_utilization`)."""


class Hardware(Node):
    """The GPU, and where its KV may go."""

    profile: Annotated[str, Field(strict=True, min_length=1, max_length=4096)] = "nvidia-h200"
    """Name of a shipped profile, or a path (with a / or .json) relative to the YAML file."""
    hbm: Hbm = Hbm()
    dram: Tier | None = None
    ssd: Tier | None = None
    remote: Remote | None = None
    step_noise: Literal["measured", "none"] = "measured"
    """With a profile of steps: whether iterations vary as those of its log do, or not at all."""
    mover: Literal["copy_engine", "batched", "gather"] = "copy_engine"
    """What copies between HBM and DRAM: a call for each piece, one for many, or a kernel."""
    links: Links = Links()

    @model_validator(mode="after")
    def _stacked(self) -> Hardware:
        refuse(tiers.faults(self))
        return self


class Loop(Node):
    """How iterations are launched and what one may hold."""

    mode: Literal["host", "graph", "control", "resident", "engine"] = "graph"
    """Launched kernel by kernel, replayed as a CUDA graph, a graph that the GPU launches again by
    itself, or resident on the GPU; engine: as the engine did whose steps the profile is of."""
    host: Literal["python", "c"] = "python"
    """Language of the host loop: the cost of a launch differs."""
    kernels: Literal["fused", "library"] = "fused"
    """Which list of stages a layer has."""
    max_batch: Batch = 256
    """Running requests at most."""
    token_budget: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] = 2048
    """Tokens of one iteration, decode and prefill chunks together; at least `max_batch`."""
    captured_batches: Annotated[tuple[Batch, ...], Field(min_length=1)] | None = None
    """Batch sizes with a captured graph; not given: 1, 2, 4, multiples of 8, and `max_batch`."""
    prefill: Literal["exit", "partition"] = "exit"
    """Resident loop: leave it for a prefill, or run the prefill on a share of the SMs."""
    prefill_share: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.25
    """Share of the SMs that `prefill: partition` sets aside."""

    @model_validator(mode="after")
    def _sizes(self) -> Loop:
        faults: list[tuple[Place, str]] = []
        given = self.model_fields_set
        if self.token_budget < self.max_batch:
            key = "max_batch" if "token_budget" not in given else "token_budget"
            what = f"token_budget ({self.token_budget}) is less than max_batch ({self.max_batch})"
            faults.append(((key,), f"{what}; every running request decodes one token"))
        sizes = self.captured_batches or ()
        for i, size in enumerate(sizes):
            place: Place = ("captured_batches", i)
            if size > self.max_batch:
                faults.append((place, f"{size} is more than max_batch ({self.max_batch})"))
            elif i and size <= sizes[i - 1]:
                faults.append((place, f"{size} after {sizes[i - 1]}; sizes must increase"))
        refuse(faults)
        return self

    @property
    def leaves(self) -> bool:
        """Whether the loop runs on the device and leaves it for every prefill."""
        return self.mode == "control" or (self.mode == "resident" and self.prefill == "exit")

    @property
    def captures(self) -> tuple[int, ...]:
        """The batch sizes with a captured graph, ascending; the default written out."""
        if self.captured_batches is not None:
            return self.captured_batches
        usual = {1, 2, 4, *range(8, self.max_batch + 1, 8), self.max_batch}
        return tuple(sorted(size for size in usual if size <= self.max_batch))


class Admission(Node):
    """Who enters the loop."""

    policy: Literal["fifo"] = "fifo"
    """fifo: in order of arrival."""


Limit = Annotated[Seconds, Field(gt=0)]


class Slo(Node):
    """Limits that a request must meet to count as good; a limit not given binds nobody."""

    ttft: Limit | None = None
    """Time from arrival to the first token."""
    tpot: Limit | None = None
    """Time per output token after the first."""
    e2el: Limit | None = None
    """Time from arrival to the last token."""


class Stop(Node):
    """When the run ends before the last request does."""

    at: Limit | None = None
    """Simulated time; what is left then is counted as unfinished."""


class Record(Node):
    """What a run writes."""

    iterations: Flag = True
    """Whether `iterations.parquet` is written."""


class Scenario(Node):
    """Everything that a run depends on."""

    name: Annotated[str, Field(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] = "scenario"
    """How results are called; not given: the file's name."""
    trace: Trace
    model: Model
    hardware: Hardware = Hardware()
    replicas: Replicas = Replicas()
    loop: Loop = Loop()
    schedule: Schedule = Schedule()
    kv: Kv = Kv()
    sparse: Sparse | None = None
    speculation: Speculation | None = None
    block_decode: BlockDecode | None = None
    moe: Moe | None = None
    admission: Admission = Admission()
    slo: Slo = Slo()
    stop: Stop = Stop()
    record: Record = Record()
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Seed of every random stream."""

    @model_validator(mode="after")
    def _selects(self) -> Scenario:
        refuse(sparsity.faults(self.sparse, self.hardware, self.kv, self.model.shape))
        refuse(moe_faults(self.moe, self.model.shape))
        refuse(block_decode.faults(self))
        refuse(replicas.faults(self))
        refuse(schedule.faults(self))
        return self

    def resolved(self) -> dict[str, Any]:
        """The scenario as JSON-able data in SI: keys as in YAML, defaults included.

        Files stand there as name and digest, so that it does not matter where they lie.
        """
        data = self.model_dump(mode="json")
        data["model"] = data["model"].pop("shape") | data["model"]
        data["trace"] = self.trace.resolved(data["trace"])
        for key, always in (
            ("hardware", ("profile", "hbm")), ("kv", ("block_tokens", "dtype")), ("replicas", ()),
            ("schedule", ()),
        ):  # fmt: skip
            data[key] = tiers.without_defaults(getattr(self, key), data[key], always)
        for key in ("sparse", "moe", "block_decode", "speculation"):
            section = getattr(self, key)
            if section is None:
                del data[key]
            else:
                data[key] = section.resolved(data[key])
        for key in ("replicas", "schedule"):
            if not data[key]:
                del data[key]
        if "/" in self.hardware.profile:
            data["hardware"]["profile"] = file_identity(self.hardware.profile)
        return {"units": "SI: seconds, bytes, requests/second, tokens"} | data

    @classmethod
    def from_resolved(cls, data: dict[str, Any]) -> Scenario:
        """The scenario that `resolved` wrote; raises pydantic's `ValidationError`."""
        fields = {key: value for key, value in data.items() if key != "units"}
        return cls.model_validate(fields, context={"si": True})

    @cached_property
    def hash(self) -> str:
        """12 hex digits of all that has an effect; the same for '1 TiB' and '1024 GiB'."""
        data = self.resolved()
        del data["name"], data["units"]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def warnings(self) -> list[str]:
        """One line for every key that was given and has no effect beside the others."""
        loop, given = self.loop, self.loop.model_fields_set
        partition = loop.mode == "resident" and loop.prefill == "partition"
        idle = {
            "captured_batches": (
                loop.mode not in ("graph", "control", "engine"),
                "only with loop.mode: graph, control or engine",
            ),
            "prefill": (loop.mode != "resident", "only with loop.mode: resident"),
            "prefill_share": (not partition, "only with loop.mode: resident, prefill: partition"),
            "host": (partition, "not with loop.mode: resident, prefill: partition"),
        }
        lines = [
            f"loop.{key}: has no effect here; {why}"
            for key, (useless, why) in idle.items()
            if useless and key in given
        ]
        if self.trace.arrivals != "gamma" and "burstiness" in self.trace.model_fields_set:
            lines.append("trace.burstiness: has no effect here; only with trace.arrivals: gamma")
        starts = self.trace.session_arrivals
        if starts and starts.arrivals != "gamma" and "burstiness" in starts.model_fields_set:
            what = "has no effect here; only with trace.session_arrivals.arrivals: gamma"
            lines.append(f"trace.session_arrivals.burstiness: {what}")
        offloads = self.sparse is not None and self.sparse.offload is not None
        lines += schedule.warnings(self) + replicas.warnings(self)
        experts = self.moe is not None and self.moe.offload is not None
        lines += tiers.warnings(self.hardware, self.kv, offloads, experts)
        lines += speculative_checks.warnings(self.speculation)
        lines += block_decode.warnings(self.block_decode, self.loop)
        return [*lines, *sparsity.warnings(self.sparse)]
