"""From pydantic's errors to findings: the place in the file, what is wrong, how to mend it.

The one rule: nobody who mends a scenario has to know pydantic, so every kind of error that our
fields can raise is said in the words of YAML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from .errors import shown
from .marks import Finding
from .node import Node, suggestion
from .scenario import Model, Scenario

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from .marks import Document
    from .node import Place

_EXPECTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "string_type": "expected a word",
    "tuple_type": "expected a list",
    "string_too_short": "expected a word",
    "string_too_long": "expected a shorter word",
    "model_type": "expected a map",
    "model_attributes_type": "expected a map",
    "dict_type": "expected a map",
}

OF_STUDY = ("sweep", "statistics", "search", "prices", "power")
"""Keys of a file that make it a study, and are no part of a scenario."""

_EXAMPLES = {
    "trace": "trace: {source: azure-conv-like, requests: 2000}",
    "model": "model: llama-3.1-8b",
}


def findings_of(
    error: ValidationError, document: Document, root: type[Node] = Scenario, above: Place = ()
) -> list[Finding]:
    """One finding for every error whose place is not known to be bad already.

    The error is about what *document* has at *above*, read as a *root*.
    """
    findings = []
    for details in error.errors(include_url=False):
        place = (*above, *_place(details["loc"]))
        if details["type"] == "faults":
            faults = [((*place, *at), what) for at, what in details["ctx"]["faults"]]
        else:
            faults = [(place, _what(details, place, root, len(above)))]
        for at, what in faults:
            key = what.startswith("no such field") or "; remove " in what  # not its value's fault
            if key or not any(at[:i] in document.bad for i in range(len(at) + 1)):
                text = f"{_dotted(at)}: {what}" if at else what
                findings.append(Finding(document.mark(at, key=key), text))
    return findings


def fields_at(place: Place, root: type[Node] = Scenario) -> list[str]:
    """The keys that may stand in the map at *place* of a *root*; none for no map."""
    node = root
    for step in place:
        if isinstance(step, int):  # of a list of maps, whose node stands for all of them
            continue
        field = node.model_fields.get(step)
        kinds = [] if field is None else _kinds(field.annotation)
        nodes = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Node)]
        if not nodes:
            return []
        node = nodes[0]
    if node is Scenario:
        return [*Scenario.model_fields, "extends", *OF_STUDY]
    if node is Model:
        return Model.keys()
    return list(node.model_fields)


def _kinds(annotation: Any) -> list[Any]:
    """*annotation* and all that it is made of."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]


def _place(loc: tuple[int | str, ...]) -> Place:
    """The place in the file: a model's shape stands in `model` itself."""
    return (loc[0], *loc[2:]) if loc[:2] == ("model", "shape") else loc


def _dotted(place: Place) -> str:
    text = ".".join(map(str, place))
    return text if len(text) <= 100 else text[:97] + "..."


def _what(details: ErrorDetails, place: Place, root: type[Node], depth: int) -> str:
    """What is wrong and how to mend it, in our words; *place* is in a *root* from *depth* on."""
    kind, value = details["type"], details["input"]
    ctx: dict[str, Any] = details.get("ctx", {})
    if kind == "extra_forbidden":
        known = fields_at(place[depth:-1], root)
        return f"no such field; {suggestion(str(place[-1]), known, 'fields here')}"
    if kind == "missing":
        example = _EXAMPLES.get(_dotted(place))
        return f"missing; add e.g. `{example}`" if example else "missing; it has no default"
    if kind in ("too_short", "too_long"):
        bound = ctx.get("min_length", ctx.get("max_length"))
        return f"expected {bound} values, got {ctx['actual_length']}"
    if kind == "literal_error":
        known = [word.strip("'") for word in ctx["expected"].replace(" or ", ", ").split(", ")]
        near = suggestion(str(value), known, "known")
        return f"expected one of {', '.join(known)}, got {_shown(value)}" + (
            f"; {near}" if near.startswith("did") else ""
        )
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} may hold a-z, 0-9, '.', '_' and '-' only, 64 at most"
    if kind in _EXPECTED:
        keys = fields_at(place[depth:], root) if "map" in _EXPECTED[kind] else []
        hint = f" of {', '.join(keys)}" if keys else ""
        return f"{_EXPECTED[kind]}{hint}, got {_shown(value)}"
    limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    for limit, sign in limits.items():
        if limit in ctx:
            return f"must be {sign} {ctx[limit]}, got {_shown(value)}"
    return str(details["msg"]).removeprefix("Value error, ")


def _shown(value: object) -> str:
    """*value* as YAML spells it."""
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    return shown(value)
