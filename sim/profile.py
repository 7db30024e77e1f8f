"""The profile: the JSON file that is the only link between kernels and simulator, and its loader.

A profile holds constants (launch, graph, barrier, copies) and, for each kernel, a functional form
with parameters, domain and held-out residuals. Every value carries its kind: measured, fitted or
estimated. The one rule: whatever a file may hold, the loader answers with a `Profile` or with
`InputError`, and never with another exception.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import engine as engines
from .errors import InputError
from .forms import (
    CachedBytes,
    ChunkedPrefill,
    LinearBytes,
    RampedFlops,
    RampedScores,
    Roofline,
    SplitKv,
    StreamRows,
    Waves,
)
from .profile_check import SCORES
from .profile_files import profile_document, shipped
from .profile_loops import Loop, loops
from .step_profile import KIND, Steps, steps_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Constant", "Kernel", "Profile", "build_form", "load_profile", "shipped"]

Prefill = RampedFlops | ChunkedPrefill
Small = LinearBytes | CachedBytes
Form = Roofline | SplitKv | Prefill | Small | StreamRows | Waves
STANDS_FOR = {"decode_attention.int8": "decode_attention.fp8"}
STANDS_FOR |= {other: name for name, other in STANDS_FOR.items()}


@dataclass(frozen=True, slots=True)
class Constant:
    """One number of the profile in SI *unit*, with its kind, source id and note."""

    value: float
    unit: str
    kind: str
    source: str
    note: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: its form, where that holds (*domain*) and how well (*residuals*)."""

    name: str
    form: Form
    form_name: str
    parameters: Mapping[str, float]
    kind: str
    domain: Mapping[str, tuple[float, float]]
    source: str
    residuals: Mapping[str, Any]
    note: str
    includes_node_gap: bool
    fixed: Mapping[str, Mapping[str, str]]
    """Parameters that the fit of this kernel did not free, each with kind and note."""

    def outside(self, **axes: float) -> list[str]:
        """One phrase for each axis whose value leaves the domain: the model extrapolates there."""
        found = []
        for axis, value in axes.items():
            low, high = self.domain.get(axis, (value, value))
            if not low <= value <= high:
                found.append(f"{self.name}: {axis} {value:g} outside {low:g} to {high:g}")
        return found


@dataclass(frozen=True, slots=True)
class Profile:
    """A loaded profile; *hash* is 12 hex digits over its content, whatever the file's layout."""

    name: str
    status: str
    hash: str
    date: str
    commit: str | None
    device: Mapping[str, Any]
    sources: Mapping[str, str]
    constants: Mapping[str, Constant]
    kernels: Mapping[str, Kernel]
    loops: Mapping[str, Loop]
    """Constants of whole steps by mode and kernel set (`graph/library`), where measured."""
    in_step: Mapping[str, Kernel]
    """Kernels as they run inside a decode step, which is not quite as they run alone."""
    checks: tuple[Mapping[str, Any], ...]
    steps: Steps | None = None
    """Of whole steps of an engine, where the profile is of these and not of kernels."""
    engine: engines.Engine | None = None
    """What an engine does around these kernels, where its log was fitted over them."""

    def constant(self, name: str) -> float:
        """Value of the constant *name* in SI units; `InputError` if the profile has none."""
        if name not in self.constants:
            raise InputError(f"{self.name}: constants.{name}: missing; add it to the profile")
        return self.constants[name].value

    def kind(self, name: str) -> str:
        """measured, fitted or estimated: the kind of the constant or kernel *name*.

        Estimated if another kernel stands for it, whatever that one's kind is.
        """
        if name in self.constants:
            return self.constants[name].kind
        kernel = self.kernel(name)
        return kernel.kind if kernel.name == name else "estimated"

    def kernel(self, name: str) -> Kernel:
        """The kernel *name*, or one that stands for it; `InputError` if the profile has neither.

        # Model: where one of int8 and fp8 is not measured, decode attention takes the other's time:
        # the same bytes, a similar conversion. A report that uses it says estimated.
        """
        found = self.kernels.get(name) or self.kernels.get(STANDS_FOR.get(name, ""))
        if found is None:
            have = ", ".join(self.kernels)
            raise InputError(f"{self.name}: kernels.{name}: not in this profile; it has {have}")
        return found

    def inside(self, name: str, place: str, matrix: str = "") -> Form:
        """The form of kernel *name* inside a decode step of *place* (see `sim/decoder.py`).

        That of its *matrix* ("2048x8192", n and k) or kind ("selected") where the profile has one
        of its own.
        """
        for own in (f"{name}.{matrix}.{place}", f"{name}.{matrix}", f"{name}.{place}"):
            if own in self.in_step:
                return self.in_step[own].form
        return self.kernel(name).form

    def gemm(self, weights: str) -> Roofline:
        """Product with weights in bf16, fp8, int8 or int4 (the last two weight-only)."""
        form = self.kernel(f"gemm.{weights}").form
        assert isinstance(form, Roofline)
        return form

    def decode_attention(self, kv_dtype: str) -> SplitKv:
        """Decode attention over a cache in bf16, fp8, int8 or int4, as far as measured."""
        form = self.kernel(decode_kernel(kv_dtype)).form
        assert isinstance(form, SplitKv)
        return form

    def prefill_attention(self) -> Prefill:
        """Causal attention of a prefill chunk, bf16."""
        form = self.kernel("prefill_attention.bf16").form
        assert isinstance(form, Prefill)
        return form

    def elementwise(self, stage: str = "") -> Small:
        """One small node: norm, rotary embedding, append, activation, residual add.

        That of *stage* (`norm`, `sample`) where the profile has one of its own, else all together.
        """
        own = f"elementwise.{stage}"
        form = self.kernel(own if own in self.kernels else "elementwise").form
        assert isinstance(form, Small)
        return form

    def estimated(self) -> list[str]:
        """Constants, kernels and fixed parameters (`gemm.fp8.flops_per_s`) nobody has measured."""
        kinds = [(name, entry.kind) for name, entry in self.constants.items()]
        for name, kernel in self.kernels.items():
            kinds.append((name, kernel.kind))
            kinds += [(f"{name}.{key}", entry["kind"]) for key, entry in kernel.fixed.items()]
        return [name for name, kind in kinds if kind == "estimated"]


def decode_kernel(kv_dtype: str) -> str:
    """Name of the decode attention kernel over a cache in *kv_dtype*."""
    return f"decode_attention.{kv_dtype}"


def load_profile(name_or_path: str | Path) -> Profile:
    """The shipped profile of that name, else the one in the file of that path.

    Raises `InputError`, one line for each finding, if there is no such file or its content is not
    a profile of schema 1. A data sheet that names what it is derived from is scaled on the way.
    Read once for all points of a study, as long as the file stays as it is.
    """
    try:
        facts = os.stat(name_or_path)
        stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    except (OSError, ValueError):
        stamp = None  # a shipped one, or a fault that is found below
    found = _loaded(name_or_path, stamp)
    return found if found.engine is None else _over(found, found.engine, Path(name_or_path))


def _over(stub: Profile, engine: engines.Engine, place: Path) -> Profile:
    """The profile of kernels that *engine*, of the file *place*, goes over, with it."""
    over: str | Path = engine.over
    if over not in shipped():
        over = place.parent / over
    below = load_profile(over)
    wrong = engines.faults(engine, below)
    if wrong:
        raise InputError([f"{place}: {one}" for one in wrong])
    both = hashlib.blake2b(f"{stub.hash} {below.hash}".encode(), digest_size=6).hexdigest()
    engine = replace(engine, over=below.name, seams=engines.seams(engine, below.hash, below.name))
    return replace(below, name=stub.name, status=stub.status, hash=both, engine=engine)


@lru_cache(maxsize=64)
def _loaded(name_or_path: str | Path, stamp: tuple[int, ...] | None) -> Profile:
    """The profile as the file of that *stamp* has it."""
    document = profile_document(name_or_path)
    if document.get("kind") == KIND:
        return _stub(document, steps=steps_of(document))
    if document.get("kind") == engines.KIND:
        return _stub(document, engine=engines.engine_of(document))
    constants = {
        name: Constant(**_constant(entry)) for name, entry in document["constants"].items()
    }
    kernels = {name: _kernel(name, entry) for name, entry in document["kernels"].items()}
    return Profile(
        name=document["name"],
        status=document["status"],
        hash=_hash(document),
        date=document["date"],
        commit=document["commit"],
        device=document["device"],
        sources=document["sources"],
        constants=constants,
        kernels=kernels,
        loops=loops(document),
        in_step={n: _kernel(n, entry) for n, entry in document.get("in_step", {}).items()},
        checks=tuple(document["checks"]),
    )


def _hash(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()


def _stub(document: dict[str, Any], **content: Any) -> Profile:
    """The profile in the checked *document*, which has no kernels of its own."""
    return Profile(
        name=document["name"], status=document["status"], hash=_hash(document), date="",
        commit=None, device={"name": document["name"]}, sources={}, constants={}, kernels={},
        loops={}, in_step={}, checks=(), **content,
    )  # fmt: skip


def _constant(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The checked *entry* as arguments of `Constant`."""
    return {
        "value": float(entry["value"]),
        **{key: entry[key] for key in ("unit", "kind", "source", "note")},
    }


def _kernel(name: str, entry: Mapping[str, Any]) -> Kernel:
    """The checked *entry* as a `Kernel`."""
    parameters = {key: float(value) for key, value in entry["parameters"].items()}
    return Kernel(
        name=name,
        form=build_form(entry["form"], parameters),
        form_name=entry["form"],
        parameters=parameters,
        kind=entry["kind"],
        domain={axis: (float(low), float(high)) for axis, (low, high) in entry["domain"].items()},
        source=entry["source"],
        residuals=entry["residuals"],
        note=entry["note"],
        includes_node_gap=entry["includes_node_gap"],
        fixed=entry.get("fixed", {}),
    )


def build_form(form: str, parameters: Mapping[str, float]) -> Form:
    """The form named *form* with checked *parameters* (names as in the profile)."""
    p = parameters
    match form:
        case "roofline":
            return Roofline(p["t0_s"], p["bytes_per_s"], p["flops_per_s"], p["q"])
        case "roofline_gemv":
            own = p["t0_s"], p["bytes_per_s"], p["flops_per_s"], p["q"]
            gemv = p["gemv_t0_s"], p["gemv_bytes_per_s"], p["gemv_flops_per_s"], p["q"]
            return Roofline(*own, gemv=Roofline(*gemv))
        case "ramped_gemv":
            own = p["t0_s"], p["bytes_per_s"], p["flops_per_s"], p["q"]
            gemv = p["gemv_t0_s"], p["gemv_bytes_per_s"], p["gemv_flops_per_s"], p["q"]
            ramp = None, p["gemv_ramp_s"], p["gemv_half_bytes"], p["gemv_input_s"]
            return Roofline(*own, gemv=Roofline(*gemv, *ramp))
        case "split_kv" | "split_kv_columns":
            return SplitKv(**p)
        case "ramped_flops":
            return RampedFlops(**p)
        case "chunked_prefill":
            fresh = RampedScores(**{key: p[key] for key in SCORES})
            cached = RampedScores(**{key: p[f"cached_{key}"] for key in SCORES})
            return ChunkedPrefill(fresh, cached)
        case "cached_bytes":
            return CachedBytes(**p)
        case "stream_rows":
            return StreamRows(**p)
        case "waves":
            return Waves(**p)
        case _:
            return LinearBytes(**p)
