"""What an engine does around its kernels, as a few named terms over a profile of kernels.

The file holds these terms and names the profile of kernels that they go on top of (`over`): so that
somebody with a faster kernel can ask what it is worth in this engine. The one rule is the
profile's: whatever a file may hold, the answer is an `Engine` or findings of one line each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import shown
from .profile_check import finite
from .step_domain import AXES, Domain
from .step_profile import check_learned
from .step_ratios import read_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .profile import Profile
    from .profile_check import Finder
    from .step_ratios import Ratios

KIND = "engine"
MODES = ("host", "graph", "control", "resident")
HOSTS = ("python", "c")
KERNELS = ("library", "fused")
TERMS = {
    "step_s": "s a step",
    "decode_request_s": "s a decoding request and step",
    "submit_s": "s a launch of decode by the host",
    "prefill_step_s": "s a step with prefill",
    "prefill_request_s": "s a prefilling request and step",
    "prefill_token_s": "s a token of a prompt",
    "prefill_submit_s": "s a launch of prefill by the host",
    "enter_s": "s a first step behind prompts that only decodes",
    "leave_s": "s a first step with prompts behind such steps",
}
"""Terms and their units. submit_s and prefill_submit_s stand for those of the profile of kernels,
not given: that one's; the others are added and 0 where they are not given. step_s alone may be
negative: the step of the engine leaves something out that the profile's own loop had. A loop on
the device is entered and left (enter_s, leave_s); one that the host drives takes in who has joined
(enter_s)."""
_KEYS = {
    "schema", "kind", "name", "status", "over", "over_hash", "mode", "host", "kernels", "captured",
    "prefill", "terms", "log", "domain", "residuals", "noise_floor", "outliers", "ratios", "notes",
}  # fmt: skip
_LONGEST = 1e3


@dataclass(frozen=True, slots=True)
class Engine:
    """The content of such a file."""

    mode: str
    host: str
    kernels: str
    over: str
    """Name or path of the profile of kernels."""
    over_hash: str
    """Of the one that the terms were fitted over."""
    captured: tuple[int, ...] = ()
    """Sizes that decode batches are padded to, in whatever mode; (): those of the scenario."""
    apart: bool = False
    """Whether prompts are a pass of their own behind the decode step, not one pass with it."""
    prefill_kernels: str = "library"
    """Stages of a layer in steps with prefill: those launched one by one, or fused ones."""
    terms: Mapping[str, float] = field(default_factory=dict)
    domain: Domain | None = None
    ratios: Mapping[str, Ratios] | None = None
    """Of decode steps, first ones behind prompts (turned), and those with prompts."""
    residuals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    noise_floor: float | None = None
    outliers: Mapping[str, float] = field(default_factory=dict)
    log: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seams: tuple[str, ...] = ()
    """A phrase if the kernels below are other ones than the terms were fitted over."""

    def term(self, name: str) -> float:
        """Seconds of the term *name*, 0 where it is not given."""
        return self.terms.get(name, 0.0)

    def words(self) -> str:
        """Its loop, e.g. `host (c), library kernels`."""
        host = f" ({self.host})" if self.mode == "host" else ""
        return f"{self.mode}{host}, {self.kernels} kernels"


def check(finder: Finder, document: dict[str, Any]) -> None:
    """Notes in *finder* all that is wrong with *document*, a profile of kind engine."""
    for key in document.keys() - _KEYS:
        finder.add(shown(key), "no key of an engine over a profile of kernels; remove it")
    if document.get("schema") is True or document.get("schema") != 1:
        finder.add("schema", f"{shown(document.get('schema'))}; this version reads 1")
    for key in ("name", "status", "over", "over_hash"):
        finder.text(document, key, key)
    choices = (("mode", MODES), ("host", HOSTS), ("kernels", KERNELS))
    for key, among in choices:
        if document.get(key) not in among:
            finder.add(key, f"{shown(document.get(key))}; use {', '.join(among)}")
    prefill = finder.table(document, "prefill", "prefill")
    for key, among in (("pass", ("apart", "joint")), ("kernels", KERNELS)):
        if prefill.get(key) not in among:
            finder.add(f"prefill.{key}", f"{shown(prefill.get(key))}; use {', '.join(among)}")
    sizes = document.get("captured")
    good = isinstance(sizes, list) and all(type(one) is int and 0 < one < 1e6 for one in sizes)
    if not good or sorted(set(sizes or ())) != sizes:
        finder.add("captured", "not a list of ascending batch sizes; [] if there are none")
    terms = finder.table(document, "terms", "terms")
    for name, entry in terms.items():
        _check_term(finder, name, entry)
    check_learned(finder, document)


def _check_term(finder: Finder, name: str, entry: Any) -> None:
    if name not in TERMS:
        finder.add(f"terms.{shown(name)}", f"no term; one of {', '.join(TERMS)}")
        return
    value = entry.get("value") if isinstance(entry, dict) else None
    least = -_LONGEST if name == "step_s" else 0.0
    if value is None or not finite(value) or not least <= value <= _LONGEST:
        what = f"{shown(value)} is no number of seconds" + ("" if least else " >= 0")
        finder.add(f"terms.{name}.value", what)
    elif name.endswith("submit_s") and not value:
        finder.add(f"terms.{name}.value", "0: a launch takes some time; leave the term out")


def engine_of(document: Mapping[str, Any]) -> Engine:
    """The content of a checked *document*."""
    domain = document["domain"]
    return Engine(
        mode=document["mode"], host=document["host"], kernels=document["kernels"],
        over=document["over"], over_hash=document["over_hash"],
        captured=tuple(document["captured"]),
        apart=document["prefill"]["pass"] == "apart",
        prefill_kernels=document["prefill"]["kernels"],
        terms={name: float(entry["value"]) for name, entry in document["terms"].items()},
        domain=Domain(
            frozenset(map(tuple, domain["cells"])),
            {axis: (float(low), float(high)) for axis, (low, high) in domain["ranges"].items()},
        ),
        ratios=read_ratios(document["ratios"]),
        residuals={k: v for k, v in document["residuals"].items() if isinstance(v, dict)},
        noise_floor=document.get("noise_floor"), outliers=document["outliers"],
        log=document["log"], notes=tuple(document.get("notes", ())),
    )  # fmt: skip


def document(engine: Engine, name: str, over: str, ratios: Mapping[str, Any]) -> dict[str, Any]:
    """*engine* as JSON-able data; *over* is how its file calls the profile of kernels, *ratios* as
    `step_ratios.written_ratios` has them."""
    assert engine.domain is not None
    return {
        "schema": 1, "kind": KIND, "name": name, "status": "fitted", "over": over,
        "over_hash": engine.over_hash, "mode": engine.mode, "host": engine.host,
        "kernels": engine.kernels, "captured": list(engine.captured),
        "prefill": {
            "pass": "apart" if engine.apart else "joint", "kernels": engine.prefill_kernels,
        },
        "terms": {
            name: {"value": engine.terms[name], "unit": unit}
            for name, unit in TERMS.items() if name in engine.terms
        },
        "log": dict(engine.log),
        "domain": {
            "axes": list(AXES), "ranges": {k: list(v) for k, v in engine.domain.ranges.items()},
            "cells": sorted(map(list, engine.domain.cells)),
        },
        "residuals": dict(engine.residuals), "noise_floor": engine.noise_floor,
        "outliers": dict(engine.outliers),
        "ratios": ratios,
        "notes": list(engine.notes),
    }  # fmt: skip


def faults(engine: Engine, over: Profile) -> list[str]:
    """What is wrong with *engine* over the profile *over*."""
    if over.steps is not None or over.engine is not None:
        what = f"over: {over.name} is no profile of kernels; name the one below it"
        return [what]
    return []


def seams(engine: Engine, over_hash: str, over_name: str) -> tuple[str, ...]:
    """A phrase if the kernels below *engine* are other ones than it was fitted over."""
    if engine.over_hash == over_hash:
        return ()
    return (f"engine: its terms were fitted over other kernels than {over_name} ({over_hash})",)
