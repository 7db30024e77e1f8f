"""Whether the section `speculation` fits the rest of a scenario, and which of its keys are idle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .models import PRESETS
from .speculation.column import read_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .models import ModelShape
    from .node import Node, Place
    from .scenario import Scenario
    from .speculative import Speculation


def faults(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """What the section needs from the model and the world, and does not have."""
    given = scenario.speculation
    if given is None:
        return
    draft, model = given.draft, scenario.model.shape
    if draft.kind == "model" and draft.preset is not None:
        yield from _of_model(PRESETS[draft.preset], model)
    if draft.kind == "eagle" and draft.vocab is not None and draft.vocab > model.vocab:
        what = f"{draft.vocab} is more than the model's vocabulary, {model.vocab}; lower it"
        yield ("speculation", "draft", "vocab"), what
    if given.acceptance.file is not None:
        place = ("speculation", "acceptance", "file")
        try:
            rows = len(read_column(Path(given.acceptance.file), given.acceptance.column))
        except InputError as error:
            for line in error.lines:
                yield place, line
            return
        asked = scenario.trace.requests
        if asked is not None and asked > rows:
            what = f"{rows} rows for {asked} requests; give one row a request"
            yield place, f"{given.acceptance.file}: {what}"


def _of_model(drafter: ModelShape, model: ModelShape) -> Iterator[tuple[Place, str]]:
    place = ("speculation", "draft", "preset")
    if drafter.vocab != model.vocab:
        what = f"{drafter.name} has {drafter.vocab} tokens and {model.name} {model.vocab}"
        yield place, f"{what}; a drafter needs the model's vocabulary, choose one of its family"
    elif drafter.active_params >= model.active_params:
        what = f"{drafter.name} is not smaller than {model.name}"
        yield place, f"{what}; drafting with it cannot pay, choose a smaller one"


def warnings(given: Speculation | None) -> Iterator[str]:
    """One line for every key that was given and has no effect beside the others."""
    if given is None:
        return
    draft, width, acceptance = given.draft, given.width, given.acceptance
    heads, asbs = ("mtp", "eagle"), ("asbs",)
    by_key: list[tuple[str, Node, str, bool, str]] = [
        ("draft", draft, "preset", draft.kind == "model", "only with draft.kind: model"),
        ("draft", draft, "layers", draft.kind in heads, "only with draft.kind: mtp or eagle"),
        ("draft", draft, "vocab", draft.kind == "eagle", "only with draft.kind: eagle"),
        ("draft", draft, "heads", draft.kind == "medusa", "only with draft.kind: medusa"),
        ("draft", draft, "lookup", draft.kind == "ngram", "only with draft.kind: ngram"),
        ("draft", draft, "weights", draft.kind in ("model", *heads),
         "only with draft.kind: model, mtp or eagle"),
        ("acceptance", acceptance, "column", acceptance.file is not None,
         "only with acceptance.file"),
    ]  # fmt: skip
    for keys, controllers in (
        (("min", "initial"), ("asbs", "windowed")),
        (("alpha", "high", "low", "pressure_cap", "pressure"), asbs),
        (("step", "target", "margin"), ("windowed",)),
        (("thresholds", "slack"), ("load_aware",)),
    ):
        why = f"only with width.controller: {' or '.join(controllers)}"
        by_key += [("width", width, key, width.controller in controllers, why) for key in keys]
    if width.controller == "load_aware" and width.thresholds is not None:
        by_key.append(("width", width, "slack", False, "not with width.thresholds"))
    for section, node, key, useful, why in by_key:
        if key in node.model_fields_set and getattr(node, key) is not None and not useful:
            yield f"speculation.{section}.{key}: has no effect here; {why}"
    yield from _beyond(given)


def _beyond(given: Speculation) -> Iterator[str]:
    """What was given about levels that no draft reaches, and an overlap of nothing."""
    most = given.most
    for key in ("per_position", "survival"):
        rates = getattr(given.acceptance, key)
        if rates is not None and len(rates) > most:
            what = f"entries after the first {most} have no effect here"
            yield f"speculation.acceptance.{key}: {what}; no draft is wider"
    if given.tree is not None and len(given.tree) > most:
        yield f"speculation.tree: levels after the first {most} have no effect; width.max is {most}"
    if given.overlap and given.draft.kind == "ngram" and not given.draft.lookup:
        yield "speculation.overlap: has no effect here; only with a draft.lookup that takes time"
    if given.overlap and given.draft.kind == "medusa":
        yield "speculation.overlap: has no effect here; Medusa's heads run in the verifying pass"
