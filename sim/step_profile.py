"""Step-level profiles: what `residentsim profile fit` learned from an engine's log, as JSON.

Beside the profiles of kernels (`sim/profile.py`), whose loader reads these, too. A file says how
long whole steps of one engine take, and nothing of what they are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import shown
from .profile_check import finite
from .step_domain import AXES, Domain
from .step_form import UNITS, Form, Regime, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .profile_check import Finder
    from .step_fit import Fit

KIND = "steps"
MODES = ("engine", "host", "graph", "control", "resident")
_KEYS = {
    "schema", "kind", "name", "status", "mode", "log", "form", "gpu", "domain", "residuals",
    "noise_floor", "outliers", "ratios", "notes",
}  # fmt: skip
_LONGEST = 1e4
_SLOW = 1.5
"""Times as long as usual from which on a step is a rare slow one."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Measured over predicted seconds, the *values* at shares *at* of all steps."""

    at: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, ratios: np.ndarray) -> Ratios:
        """Those of a log: hundredths of the usual steps, then tenths of the rare slow ones."""
        slow = ratios > _SLOW * np.median(ratios)
        share, part = float(slow.mean()), np.linspace(0.0, 1.0, 101)
        at, values = part * (1.0 - share), np.quantile(ratios[~slow], part)
        values *= float(ratios[~slow].mean()) / float(np.trapezoid(values, part))
        if slow.any():
            tenth = np.linspace(0.0, 1.0, 11)
            tail = np.quantile(ratios[slow], tenth)
            tail *= float(ratios[slow].mean()) / float(np.trapezoid(tail, tenth))
            at = np.append(at, (1.0 - share) + tenth * share)
            values = np.append(values, np.maximum(tail, values[-1]))
        at[-1] = 1.0
        return cls(at, values)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """The ratios at shares *uniform*."""
        found: np.ndarray = np.interp(uniform, self.at, self.values)
        return found


@dataclass(frozen=True, slots=True)
class Steps:
    """The content of a step-level profile."""

    mode: str
    """`loop.mode` of the scenarios that it fits."""
    form: Form
    gpu: Form | None
    """Seconds in which the GPU works, where the log said so."""
    domain: Domain
    ratios: Ratios
    log: Mapping[str, Any]
    residuals: Mapping[str, Mapping[str, float]]
    noise_floor: float | None
    outliers: Mapping[str, float]
    notes: tuple[str, ...]


# ---------------------------------------------------------------- writing
def document(fit: Fit, name: str, mode: str, log: Mapping[str, Any]) -> dict[str, Any]:
    """The profile of *fit* as JSON-able data; *log* says which files and columns it is from."""
    pace = fit.pace
    ratios = Ratios.of(fit.ratios)
    domain = fit.domain
    return {
        "schema": 1, "kind": KIND, "name": name, "status": "fitted", "mode": mode,
        "log": dict(log) | {
            "steps": fit.rows, "warm_up_steps": fit.warm_up, "pace": pace.basis,
            "between_s": pace.between_s, "overlap": pace.overlap, "idle_share": pace.idle_share,
        },
        "form": _form(fit.form),
        "gpu": None if fit.gpu is None else _form(fit.gpu),
        "domain": {
            "axes": list(AXES), "ranges": {k: list(v) for k, v in domain.ranges.items()},
            "cells": sorted(map(list, domain.cells)),
        },
        "residuals": fit.residuals, "noise_floor": fit.noise,
        "outliers": {"share": fit.outliers, "time_lost": fit.lost},
        "ratios": {"at": ratios.at.tolist(), "values": ratios.values.tolist()},
        "notes": fit.notes,
    }  # fmt: skip


def _form(form: Form) -> dict[str, Any]:
    return {
        "captured": list(form.captured), "context_of": form.context_of,
        "decode": _regime(form.decode), "mixed": _regime(form.mixed),
        "grains": [form.decode.grain, form.mixed.grain],
    }  # fmt: skip


def _regime(regime: Regime) -> list[list[dict[str, Any]]]:
    return [[_term(term) for term in branch] for branch in regime.branches]


def _term(term: Term) -> dict[str, Any]:
    found: dict[str, Any] = {"term": term.name, "value": term.seconds, "unit": UNITS[term.name]}
    if term.name == "tokens":
        found |= {"from": term.low, "to": term.high}
    return found


# ---------------------------------------------------------------- reading
def check(finder: Finder, document: dict[str, Any]) -> None:
    """Notes in *finder* all that is wrong with *document*, a profile of kind steps."""
    for key in document.keys() - _KEYS:
        finder.add(shown(key), "no key of a profile of steps; remove it")
    if document.get("schema") is True or document.get("schema") != 1:
        finder.add("schema", f"{shown(document.get('schema'))}; this version reads 1")
    for key in ("name", "status"):
        finder.text(document, key, key)
    if document.get("mode") not in MODES:
        finder.add("mode", f"{shown(document.get('mode'))}; use {', '.join(MODES)}")
    _check_form(finder, finder.table(document, "form", "form"), "form")
    if document.get("gpu") is not None:
        _check_form(finder, finder.table(document, "gpu", "gpu"), "gpu")
    check_learned(finder, document)


def check_learned(finder: Finder, document: dict[str, Any]) -> None:
    """Notes what is wrong with what *document* says of its log: errors, coverage, noise."""
    finder.table(document, "log", "log")
    for key in ("residuals", "outliers"):
        for name, entry in finder.table(document, key, key).items():
            good = finite(entry) or (isinstance(entry, dict) and all(map(finite, entry.values())))
            if not good:
                finder.add(f"{key}.{shown(name)}", "no numbers; fit the log again")
    _check_domain(finder, finder.table(document, "domain", "domain"))
    _check_ratios(finder, finder.table(document, "ratios", "ratios"))
    floor = document.get("noise_floor")
    if floor is not None and not finite(floor):
        finder.add("noise_floor", f"{shown(floor)} is no finite number; write null if unknown")
    notes = document.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(one, str) for one in notes):
        finder.add("notes", "not a list of texts")


def _check_form(finder: Finder, form: dict[str, Any], path: str) -> None:
    sizes = form.get("captured")
    good = isinstance(sizes, list) and all(type(one) is int and 0 < one < 1e6 for one in sizes)
    if not good or sorted(set(sizes or ())) != sizes:
        finder.add(f"{path}.captured", "not a list of ascending batch sizes; [] if there are none")
    if form.get("context_of") not in ("decode", "prefix", "all"):
        finder.add(f"{path}.context_of", f"{shown(form.get('context_of'))}; decode, prefix or all")
    grains = form.get("grains")
    if not (isinstance(grains, list) and len(grains) == 2 and all(map(_is_count, grains))):
        finder.add(f"{path}.grains", "not two whole numbers, of decode and of mixed steps")
    for kind in ("decode", "mixed"):
        branches = form.get(kind)
        if not isinstance(branches, list) or not branches:
            finder.add(f"{path}.{kind}", "not a list of branches, each a list of terms")
            continue
        for at, branch in enumerate(branches):
            place = f"{path}.{kind}[{at}]"
            if not isinstance(branch, list) or not branch:
                finder.add(place, "not a list of terms")
                continue
            for number, term in enumerate(branch):
                _check_term(finder, term, f"{place}[{number}]")


def _check_term(finder: Finder, term: Any, path: str) -> None:
    if not isinstance(term, dict) or term.get("term") not in UNITS:
        finder.add(path, f"{shown(term)}: no term; one of {', '.join(UNITS)}")
        return
    value: Any = term.get("value")
    if not finite(value) or not 0.0 <= value <= _LONGEST:
        finder.add(f"{path}.value", f"{shown(value)} is no number of seconds >= 0")
    if term["term"] == "tokens":
        low: Any = term.get("from")
        high: Any = term.get("to")
        if not finite(low) or (high is not None and (not finite(high) or high <= low)):
            finder.add(path, "from and to: not ascending numbers (to: null for no end)")


def _check_domain(finder: Finder, domain: dict[str, Any]) -> None:
    ranges = finder.table(domain, "ranges", "domain.ranges")
    finder.domain(ranges, "domain.ranges")
    for axis in AXES:
        if axis not in ranges:
            finder.add(f"domain.ranges.{axis}", "missing; write [low, high]")
    cells = domain.get("cells")
    if not isinstance(cells, list) or not cells or not all(map(_is_cell, cells)):
        finder.add("domain.cells", "not a list of [whole number, whole number, whole number]")


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 65_536


def _is_cell(cell: Any) -> bool:
    return (
        isinstance(cell, list) and len(cell) == 3
        and all(type(one) is int and 0 <= one < 1000 for one in cell)
    )  # fmt: skip


def _check_ratios(finder: Finder, ratios: dict[str, Any]) -> None:
    at, values = ratios.get("at"), ratios.get("values")
    for name, numbers in (("at", at), ("values", values)):
        good = isinstance(numbers, list) and len(numbers) > 1 and all(map(finite, numbers))
        if not good or sorted(numbers or ()) != numbers or min(numbers) < 0:
            finder.add(f"ratios.{name}", "not a list of ascending numbers >= 0")
            return
    assert isinstance(at, list)
    assert isinstance(values, list)
    if len(at) != len(values) or at[0] != 0 or at[-1] != 1:
        finder.add("ratios.at", "not from 0 to 1 with as many values")


def steps_of(document: Mapping[str, Any]) -> Steps:
    """The content of a checked *document*."""
    domain, ratios = document["domain"], document["ratios"]
    return Steps(
        mode=document["mode"],
        form=_read_form(document["form"]),
        gpu=None if document.get("gpu") is None else _read_form(document["gpu"]),
        domain=Domain(
            frozenset(map(tuple, domain["cells"])),
            {axis: (float(low), float(high)) for axis, (low, high) in domain["ranges"].items()},
        ),
        ratios=Ratios(np.array(ratios["at"], float), np.array(ratios["values"], float)),
        log=document["log"],
        residuals={k: v for k, v in document["residuals"].items() if isinstance(v, dict)},
        noise_floor=document.get("noise_floor"),
        outliers=document["outliers"],
        notes=tuple(document.get("notes", ())),
    )


def _read_form(form: Mapping[str, Any]) -> Form:
    regimes = [
        Regime(tuple(tuple(map(_read_term, branch)) for branch in form[kind]), grain)
        for kind, grain in zip(("decode", "mixed"), form["grains"], strict=True)
    ]
    return Form(regimes[0], regimes[1], tuple(form["captured"]), form["context_of"])


def _read_term(term: Mapping[str, Any]) -> Term:
    high = term.get("to")
    return Term(
        term["term"], float(term["value"]), float(term.get("from", 0.0)),
        None if high is None else float(high),
    )  # fmt: skip
