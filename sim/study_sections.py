"""The sections of a study that are no part of its scenarios: how its results are read and priced.

The one rule: they change no run. Each is checked like a scenario, with every error at its place,
and taken out of the document before a scenario is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .economics import Power, Prices, faults
from .errors import InputError
from .findings import findings_of
from .marks import Document, Finding
from .profile import load_profile
from .search.settings import Search
from .stats.settings import Statistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .node import Node
    from .scenario import Scenario

NODES: dict[str, type[Node]] = {
    "statistics": Statistics,
    "search": Search,
    "prices": Prices,
    "power": Power,
}


def sections(document: Document) -> tuple[dict[str, Any], Document]:
    """The sections that *document* has, validated, and the document without them.

    A section that is wrong is left out, and what is wrong joins the document's findings.
    """
    found: dict[str, Any] = {}
    for name in NODES:
        if name in document.data:
            node = _validated(document, name)
            if node is not None:
                found[name] = node
            document = document.without(name)
    return found, document


def _validated(document: Document, name: str) -> Node | None:
    try:
        return NODES[name].model_validate(document.data[name])
    except ValidationError as error:
        document.findings += findings_of(error, document, NODES[name], (name,))
        return None


def unpriced(
    found: dict[str, Any], scenarios: Iterable[Scenario], document: Document
) -> list[Finding]:
    """What prices and power of *document* lack for runs of *scenarios*."""
    prices, power = found.get("prices"), found.get("power")
    if prices is None and power is None:
        return []
    profiles = dict.fromkeys(scenario.hardware.profile for scenario in scenarios)
    names = []
    for profile in profiles:
        try:
            names.append(load_profile(profile).name)
        except InputError:  # a finding of its own
            continue
    return [
        Finding(document.mark(place), f"{'.'.join(map(str, place))}: {what}")
        for place, what in faults(prices, power, names)
    ]
