"""What every part of a scenario is built from: a frozen pydantic model and its field types.

The one rule: a number is a number. An integer takes neither 3.0 nor '3' nor true, and a float takes
an integer but no text, so that what YAML misread never passes for what was meant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Place = tuple[str | int, ...]
"""Where a value stands in a scenario: ('trace', 'uniform', 0)."""

Faults = Sequence[tuple[Place, str]]
"""Findings of a rule over several fields: the place inside the node that is to mend, and what."""


class Node(BaseModel):
    """A part of a scenario: frozen, with no field but its own, and without infinities."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Flag = Annotated[bool, Field(strict=True)]


def refuse(faults: Faults) -> None:
    """Raises one pydantic error that carries all *faults*; does nothing when there are none."""
    if faults:
        text = "; ".join(f"{'.'.join(map(str, place))}: {what}" for place, what in faults)
        raise PydanticCustomError("faults", "{text}", {"text": text, "faults": tuple(faults)})


def suggestion(word: str, known: Collection[str], noun: str) -> str:
    """How to mend *word*, which is none of the *known*: the nearest of them, else all of them."""
    close = get_close_matches(word[:100], known, 1)
    return f"did you mean '{close[0]}'?" if close else f"{noun}: {', '.join(known)}"
