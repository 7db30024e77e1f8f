"""From a YAML file to a validated scenario: `extends`, `--set`, and every error's place.

The one rule: all findings of a scenario come at once, each as `file:line:column: path: what; how
to mend`, and nothing is read that the file does not say: no interpolation, no environment.

`extends: base.yaml` merges the file over one parent: maps deeply, everything else is replaced.
What excludes each other replaces as a whole: a trace's file and source (with the keys that belong
to them, and `requests`), a length's distribution, a model's preset and dimensions (`weights`
stays, but a plain model name replaces all). `name` is not inherited. `--set` and the axes of a
sweep merge in the same way; a parent's axis, filters or variant of that name are replaced.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .errors import InputError, shown
from .findings import findings_of
from .marks import Document, Finding, Mark
from .merge import apply, merged
from .scenario import Scenario
from .study_sections import sections, unpriced
from .yamlfile import parse_value, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .node import Place

    Faults = Callable[[Scenario], list[tuple[Place, str]]]
    """Finds what else is wrong with a valid scenario: places and remedies."""

MAX_PARENTS = 16

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,9}")
OF_FILE = ("name", "extends", "sweep")
"""Keys that belong to the file and not to a point of a sweep."""

_FILES = ("file", "clients", "table")
"""Keys of a section that name a file, and those that hold such keys in turn."""
_HOLDS_FILES = ("merge", "prompt_tokens", "output_tokens", "mixture", "acceptance")


def load(path: Path | str, overrides: Sequence[str] = (), faults: Faults | None = None) -> Scenario:
    """The scenario of a file, with *overrides* such as 'loop.max_batch=64' on top.

    What a study says beside its scenario (prices, power, statistics) is checked and left out.
    Raises `InputError` with all findings at once, those of *faults* included, and for a file with
    a sweep or a search.
    """
    return load_run(path, overrides, faults)[0]


def load_run(
    path: Path | str, overrides: Sequence[str] = (), faults: Faults | None = None
) -> tuple[Scenario, dict[str, Any]]:
    """As `load`, with the sections that are no part of a scenario, by name, where given."""
    return load_document(read(Path(path), overrides), str(path), faults)


def load_document(
    document: Document, path: str, faults: Faults | None = None
) -> tuple[Scenario, dict[str, Any]]:
    """As `load_run`, of what messages call *path*."""
    for key in ("sweep", "search"):
        if key in document.data:
            what = f"{key}: this file is a study of several runs; use `residentsim sweep {path}`"
            document.findings.append(Finding(document.mark((key,), key=True), what))
            document = document.without(key)
    whole, (found, document) = document, sections(document)
    scenario, findings = validated(document)
    if scenario is not None and not document.findings:
        findings += late(faults, scenario, document) + unpriced(found, [scenario], whole)
    if scenario is None or document.findings or findings:
        raise input_error([*document.findings, *findings], path)
    return scenario, found


def late(faults: Faults | None, scenario: Scenario, document: Document) -> list[Finding]:
    """What *faults* finds, each at its place in the document."""
    if faults is None:
        return []
    return [
        Finding(document.mark(place), f"{'.'.join(map(str, place))}: {what}")
        for place, what in faults(scenario)
    ]


def input_error(findings: Iterable[Finding], first: str) -> InputError:
    """All *findings* once, those of the file *first* before its parents', each by line."""
    ordered = sorted(dict.fromkeys(findings), key=lambda f: (f.mark.file != first, f.mark))
    return InputError([str(finding) for finding in ordered])


def place_of(dotted: str) -> Place:
    """The place that 'loop.max_batch' names."""
    return tuple(dotted.split("."))


def read(path: Path, overrides: Sequence[str]) -> Document:
    """The file merged over its parents, with the overrides on top."""
    roots = (_real(path).parent, Path.cwd().resolve())
    document = _with_parents(path, str(path), roots, ())
    stem = re.sub(r"[^a-z0-9._-]", "-", path.stem.lower()).lstrip("._-")[:64]
    document.data.setdefault("name", stem or "scenario")
    for text in overrides:
        document = overridden(document, text)
    return document


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{shown(str(path))}: not a file name ({error})") from None


def _with_parents(
    path: Path, name: str, roots: Sequence[Path], children: Sequence[Path]
) -> Document:
    """The document of *path* merged over its parents; *children* are the files that led here."""
    document = read_document(path, name)
    if "extends" not in document.data:
        return document
    parent = document.data.pop("extends")
    chain = (*children, _real(path))
    fault = _parent_fault(parent, path, roots, chain)
    if fault is not None:
        finding = Finding(document.values[("extends",)], f"extends: {fault}")
        raise input_error([*document.findings, finding], name)
    try:
        base = _with_parents(path.parent / parent, _beside(name, parent), roots, chain)
    except InputError as error:
        raise InputError([*map(str, document.findings), *error.lines]) from None
    base.data.pop("name", None)
    return merged(base, document)


def _beside(name: str, other: str) -> str:
    """How messages call the file *other*, named in the file that they call *name*."""
    return os.path.normpath(os.path.join(os.path.dirname(name), other))


def _parent_fault(
    parent: Any, path: Path, roots: Sequence[Path], chain: Sequence[Path]
) -> str | None:
    """What is wrong with `extends: parent` in the file *path*, if anything."""
    if not isinstance(parent, str) or not parent:
        return f"expected the name of one file, got {shown(parent)}"
    if Path(parent).is_absolute():
        return f"{shown(parent)} is absolute; name the parent relative to this file"
    target = _real(path.parent / parent)
    if not any(target.is_relative_to(root) for root in roots):
        return f"{shown(parent)} leaves the scenario's folder; move it to {shown(str(roots[0]))}"
    if target in chain:
        return f"{shown(parent)} extends this file in turn; break the cycle"
    if len(chain) > MAX_PARENTS:
        return f"more than {MAX_PARENTS} parents; merge some of them"
    if not target.is_file():
        return f"no such file {shown(parent)}; it is sought beside this file"
    return None


def overridden(document: Document, text: str) -> Document:
    """*document* with the override 'path=value' on top, or with a finding about it."""
    name = f"--set {text if text.isprintable() else ascii(text)}"
    dotted, equals, value = text.partition("=")
    if not equals or not DOTTED.fullmatch(dotted):
        what = "write PATH=VALUE, e.g. --set loop.max_batch=64"
        document.findings.append(Finding(Mark(name), what))
        return document
    if place_of(dotted)[0] in OF_FILE:
        what = f"{dotted}: cannot be set here; write it in the file"
        document.findings.append(Finding(Mark(name), what))
        return document
    return apply(document, parse_value(value, name, place_of(dotted)), place_of(dotted))


def validated(document: Document) -> tuple[Scenario | None, list[Finding]]:
    """The scenario of a document, or all that pydantic has against it."""
    data = dict(document.data)
    node = data.get("hardware")
    if isinstance(node, dict) and isinstance(value := node.get("profile"), str):
        mark = document.mark(("hardware", "profile"))
        data["hardware"] = node | {"profile": _anchored(value, mark, maybe_name=True)}
    for section in ("trace", "speculation"):
        if section in data:
            data[section] = _with_paths(data[section], (section,), document)
    try:
        return Scenario.model_validate(data), []
    except ValidationError as error:
        return None, findings_of(error, document)


def _with_paths(node: Any, place: Place, document: Document) -> Any:
    """*node* of a section with the names of files in it anchored."""
    if isinstance(node, list):
        return [_with_paths(item, (*place, i), document) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        here = (*place, key)
        if key in _FILES and isinstance(value, str):
            found[key] = _anchored(value, document.mark(here), maybe_name=False)
        else:
            found[key] = _with_paths(value, here, document) if key in _HOLDS_FILES else value
    return found


def _anchored(value: str, mark: Mark, *, maybe_name: bool) -> str:
    """*value* as an absolute path, relative to the file where it stands (`--set`: to here)."""
    if not value or (maybe_name and "/" not in value and not value.endswith(".json")):
        return value
    folder = os.path.dirname(mark.file) if mark.line else ""
    return os.path.abspath(os.path.join(folder, value))
