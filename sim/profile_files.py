"""Where profiles come from: the shipped files, the user's, and data sheets scaled on the way.

The one rule is the profile's: whatever stands in a file, the answer is a checked document or
`InputError`.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from . import engine
from .errors import InputError, shown
from .profile_check import Finder
from .profile_derive import base_name, derived
from .sheets import sheet_text, shipped_sheets
from .step_profile import KIND, check


def shipped() -> list[str]:
    """Names of the profiles that come with the package, those derived from data sheets too."""
    return sorted({*_measured(), *shipped_sheets()})


def _measured() -> list[str]:
    folder = resources.files(__package__) / "profiles"
    names = (entry.name for entry in folder.iterdir())
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def profile_document(name_or_path: str | Path) -> dict[str, Any]:
    """The checked JSON document that `load_profile` builds from, a derived one in full."""
    text, place = _read(name_or_path)
    document = Finder(place).document(text)
    own = {KIND: check, engine.KIND: engine.check}.get(str(document.get("kind")))
    if own is not None:
        finder = Finder(place)
        own(finder, document)
        finder.raise_if_any()
        return document
    base = base_name(document, place)
    if base is not None:
        if base not in _measured():
            have = ", ".join(_measured())
            raise InputError(f"{place}: derived_from: no measured profile {shown(base)}; {have}")
        document = derived(document, profile_document(base), place)
    finder = Finder(place)
    finder.profile(document)
    finder.raise_if_any()
    return document


def read_sheet(name_or_path: str) -> tuple[dict[str, Any], str]:
    """The unchecked JSON object of a shipped data sheet, or of a file; and its place."""
    if name_or_path in shipped_sheets():
        return json.loads(sheet_text(name_or_path)), f"{name_or_path}.json"
    text, place = _read(name_or_path)
    return Finder(place).document(text), place


def _read(name_or_path: str | Path) -> tuple[bytes, str]:
    """Content and printable place of the profile; `InputError` if unreadable or too large."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in shipped():
        if name not in _measured():
            return sheet_text(name), f"{name}.json"
        path = resources.files(__package__) / "profiles" / f"{name}.json"
        return path.read_bytes(), f"{name}.json"
    try:
        file_path = Path(name_or_path)
        if file_path.exists() and not (file_path.is_file() or file_path.is_dir()):
            raise OSError("not a regular file")  # a pipe would wait for ever
        with file_path.open("rb") as file:
            text = file.read(Finder.LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        have = ", ".join(shipped())
        raise InputError(
            f"{shown(name, 300)}: {reason}; give a profile's path or one of: {have}"
        ) from None
    if len(text) > Finder.LIMIT:
        raise InputError(f"{shown(name)}: larger than {Finder.LIMIT} bytes; this is no profile")
    return text, name
