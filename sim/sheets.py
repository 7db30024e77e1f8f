"""Data sheets: what a GPU's maker states, from which profiles and power figures are estimated.

One small JSON file a GPU in `profiles/sheets`, or one of the user's. The one rule: what stands here
was published by the maker, and nothing computed from it is ever called measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from .errors import InputError, shown
from .profile_check import finite

_TEXTS = ("name", "gpu", "source", "derived_from")
_OPTIONAL = ("derived_from", "fp8_flops_per_s")
_SMALLEST, _LARGEST = 1.0, 1e18


@dataclass(frozen=True, slots=True)
class Sheet:
    """One GPU in SI; rates are peaks, tensor rates dense, PCIe in one direction."""

    name: str
    gpu: str
    sms: float
    hbm_bytes: float
    hbm_bytes_per_s: float
    bf16_flops_per_s: float
    fp8_flops_per_s: float | None
    """None: no fp8 tensor cores."""
    l2_bytes: float
    shared_bytes_per_sm: float
    pcie_bytes_per_s: float
    peak_w: float
    source: str
    derived_from: str | None = None
    """Name of the measured profile that is scaled to this GPU; None for one that is measured."""


def shipped_sheets() -> list[str]:
    """Names of the data sheets that come with the package."""
    folder = resources.files(__package__) / "profiles" / "sheets"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def sheet_text(name: str) -> bytes:
    """Content of the shipped data sheet *name*."""
    return (resources.files(__package__) / "profiles" / "sheets" / f"{name}.json").read_bytes()


@cache
def shipped_sheet(name: str) -> Sheet:
    """The shipped data sheet *name*; `InputError` if there is none."""
    if name not in shipped_sheets():
        have = ", ".join(shipped_sheets())
        raise InputError(f"{shown(name)}: no data sheet of that name; shipped are {have}")
    return sheet_of(json.loads(sheet_text(name)), f"{name}.json")


def sheet_of(document: dict[str, Any], place: str) -> Sheet:
    """The data sheet in a JSON *document*; `InputError` with all that is wrong in the file *place*.

    Keys are the fields of `Sheet`, and `schema`, which is 1.
    """
    keys = [field.name for field in fields(Sheet)]
    lines = []
    if document.get("schema") is True or document.get("schema") != 1:
        lines.append(f"schema: {shown(document.get('schema'))}; this version reads 1")
    unknown = sorted(document.keys() - {"schema", *keys})
    if unknown:
        lines.append(f"{shown(unknown[0])}: no field of a data sheet; it has {', '.join(keys)}")
    known: dict[str, Any] = {}
    for key in keys:
        value = document.get(key)
        if value is None and key in _OPTIONAL:
            known[key] = None
        elif key in _TEXTS:
            known[key] = value
            if not isinstance(value, str) or not 0 < len(value) <= 1000:
                lines.append(f"{key}: missing or not a text")
        elif value is None or not finite(value):
            lines.append(f"{key}: {shown(value)} is no finite number; write it in SI units")
        else:
            known[key] = float(value)
            if not _SMALLEST <= known[key] <= _LARGEST:
                lines.append(f"{key}: {shown(value)} is not in {_SMALLEST:g} to {_LARGEST:g}")
    if lines:
        raise InputError([f"{place}: {line}" for line in lines])
    return Sheet(**known)
