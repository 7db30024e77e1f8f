"""Step-level profiles: what `residentsim profile fit` learned from an engine's log, as JSON.

Beside the profiles of kernels (`sim/profile.py`), whose loader reads these, too. A file says how
long whole steps of one engine take, and nothing of what they are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import shown
from .profile_check import finite
from .step_cold import SHAPES, Cold
from .step_domain import AXES, Domain
from .step_form import UNITS, Branch, Form, Regime, Term
from .step_ratios import Ratios, check_ratios, read_ratios, written_ratios

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .profile_check import Finder
    from .step_fit import Fit

KIND = "steps"
MODES = ("engine", "host", "graph", "control", "resident")
_KEYS = {
    "schema", "kind", "name", "status", "mode", "log", "form", "gpu", "domain", "residuals",
    "noise_floor", "outliers", "ratios", "notes",
}  # fmt: skip
_LONGEST = 1e4
_TURNS = ("step", "decode_request")


@dataclass(frozen=True, slots=True)
class Steps:
    """The content of a step-level profile."""

    mode: str
    """`loop.mode` of the scenarios that it fits."""
    form: Form
    gpu: Form | None
    """Seconds in which the GPU works, where the log said so."""
    domain: Domain
    ratios: Mapping[str, Ratios]
    """Of decode steps, turned ones (`step_fit.Fit.ratios`) and those with prefill."""
    log: Mapping[str, Any]
    residuals: Mapping[str, Mapping[str, float]]
    noise_floor: float | None
    outliers: Mapping[str, float]
    notes: tuple[str, ...]


# ---------------------------------------------------------------- writing
def document(fit: Fit, name: str, mode: str, log: Mapping[str, Any]) -> dict[str, Any]:
    """The profile of *fit* as JSON-able data; *log* says which files and columns it is from."""
    pace = fit.pace
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
        "ratios": written_ratios(fit.ratios),
        "notes": fit.notes,
    }  # fmt: skip


def _form(form: Form) -> dict[str, Any]:
    cold = {} if form.cold is None else {"cold": form.cold._asdict()}
    return {
        "captured": list(form.captured), "held": form.held, "context_of": form.context_of,
        "decode": _regime(form.decode), "mixed": _regime(form.mixed),
        "grains": [form.decode.grain, form.mixed.grain],
        "turns": {
            "decode": list(map(_term, form.decode.turn)), "mixed": list(map(_term, form.mixed.turn))
        },
    } | cold  # fmt: skip


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
    check_ratios(finder, document)
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
    if not isinstance(form.get("held", False), bool):
        finder.add(f"{path}.held", f"{shown(form['held'])}; true or false")
    cold = form.get("cold", {"seconds": 0.0, "by": SHAPES[0]})
    good = isinstance(cold, dict) and set(cold) == {"seconds", "by"} and cold["by"] in SHAPES
    if not good or not finite(cold["seconds"]) or not 0.0 <= cold["seconds"] <= _LONGEST:
        what = f"no table of seconds (>= 0) and by ({' or '.join(SHAPES)})"
        finder.add(f"{path}.cold", f"{shown(form['cold'])}; {what}")
    turns = form.get("turns", {})
    if not isinstance(turns, dict) or not set(turns) <= {"decode", "mixed"}:
        finder.add(f"{path}.turns", "not a table with decode and mixed, each a list of terms")
        turns = {}
    for kind, terms in turns.items():
        place = f"{path}.turns.{kind}"
        if not isinstance(terms, list):
            finder.add(place, "not a list of terms")
            continue
        for number, term in enumerate(terms):
            _check_term(finder, term, f"{place}[{number}]", _TURNS)
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


def _check_term(finder: Finder, term: Any, path: str, names: Iterable[str] = UNITS) -> None:
    if not isinstance(term, dict) or str(term.get("term")) not in names:
        finder.add(path, f"{shown(term)}: no term; one of {', '.join(names)}")
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
        ratios=read_ratios(ratios),
        log=document["log"],
        residuals={k: v for k, v in document["residuals"].items() if isinstance(v, dict)},
        noise_floor=document.get("noise_floor"),
        outliers=document["outliers"],
        notes=tuple(document.get("notes", ())),
    )


def _read_form(form: Mapping[str, Any]) -> Form:
    turns, cold = form.get("turns", {}), form.get("cold")
    regimes = [
        Regime(tuple(map(_read_branch, form[kind])), grain, _read_branch(turns.get(kind, ())))
        for kind, grain in zip(("decode", "mixed"), form["grains"], strict=True)
    ]
    return Form(
        regimes[0], regimes[1], tuple(form["captured"]), form["context_of"],
        form.get("held", False), None if cold is None else Cold(float(cold["seconds"]), cold["by"]),
    )  # fmt: skip


def _read_branch(terms: Iterable[Mapping[str, Any]]) -> Branch:
    return tuple(map(_read_term, terms))


def _read_term(term: Mapping[str, Any]) -> Term:
    high = term.get("to")
    return Term(
        term["term"], float(term["value"]), float(term.get("from", 0.0)),
        None if high is None else float(high),
    )  # fmt: skip
