"""Speculative decoding as a scenario says it: the section `speculation`.

The one rule: acceptance is an input, from a measurement of a drafter on a workload, and is reported
as such; nothing here guesses it from the drafter.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .errors import shown
from .identity import file_identity
from .models import PRESETS
from .node import Flag, Node, Place, refuse, suggestion
from .speculation.trees import MAX_LEVELS, MAX_NODES, Tree, chain
from .tiers import Format, without_defaults
from .units import Seconds  # noqa: TC001 (pydantic evaluates the annotation)

Chance = Annotated[float, Field(strict=True, ge=0, le=1)]
Chances = Annotated[tuple[Chance, ...], Field(min_length=1, max_length=MAX_LEVELS)]
Levels = Annotated[int, Field(strict=True, ge=1, le=MAX_LEVELS)]
Cap = Annotated[int, Field(strict=True, ge=0, le=MAX_LEVELS)]
LAWS = ("rate", "per_position", "survival", "beta", "mismatch_stride", "file")


class Draft(Node):
    """What drafts; a bare word says the kind, or names the preset of a separate model."""

    kind: Literal["model", "mtp", "eagle", "medusa", "ngram"]
    """A separate model, heads on the model itself (MTP, EAGLE, Medusa), or look-up in the text."""
    preset: Annotated[str, Field(strict=True, min_length=1, max_length=100)] | None = None
    """The separate model's dimensions, by name."""
    weights: Format | None = None
    """Format of the drafter's linear weights; not given: that of the model's."""
    layers: Annotated[int, Field(strict=True, ge=1, le=128)] = 1
    """Transformer layers of an MTP or EAGLE head."""
    vocab: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] | None = None
    """Tokens that an EAGLE head with an LM head of its own can draft; not given: the model's."""
    heads: Levels | None = None
    """Medusa's heads; not given: as many as the greatest width."""
    lookup: Seconds = 0.0
    """Time on the host that the n-gram drafter takes in each step."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": "model", "preset": value} if value in PRESETS else {"kind": value}
        return value

    @model_validator(mode="after")
    def _has_model(self) -> Draft:
        if self.kind == "model":
            if self.preset is None:
                refuse([((), "missing preset; add e.g. `preset: llama-3.2-1b`")])
            elif self.preset not in PRESETS:
                what = f"no preset {shown(self.preset)}"
                refuse([(("preset",), f"{what}; {suggestion(self.preset, PRESETS, 'presets')}")])
        return self


class Beta(Node):
    """A Beta distribution of acceptance rates over requests."""

    mean: Annotated[float, Field(strict=True, gt=0, lt=1)]
    """Mean rate."""
    concentration: Annotated[float, Field(strict=True, ge=0.01, le=1e6)]
    """Sum of the two parameters: the smaller, the more requests differ."""


class Acceptance(Node):
    """How drafts are verified, and how many pass; a bare number is one rate for all."""

    rule: Literal["greedy", "rejection", "typical", "top_k"] = "greedy"
    """When a draft token is accepted, which is what a rate is the probability of."""
    rate: Chance | None = None
    """Probability that a draft token is accepted if all before it were; always the same."""
    per_position: Chances | None = None
    """Such a probability for each position of a draft; the last one holds for further ones."""
    survival: Chances | None = None
    """Share of drafts of which each position was accepted, as vLLM logs it by position."""
    beta: Beta | None = None
    """One rate a request, drawn for it."""
    mismatch_stride: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    """No chance: what is drafted behind every so manieth output token is wrong."""
    file: Annotated[str, Field(strict=True, min_length=1, max_length=4096)] | None = None
    """Path of a CSV or Parquet with one rate a request, in the trace's order."""
    column: Annotated[str, Field(strict=True, min_length=1, max_length=200)] = "acceptance"
    """Its column of rates."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"rate": value} if type(value) in (int, float) else value

    @model_validator(mode="after")
    def _one_law(self) -> Acceptance:
        given = [law for law in LAWS if getattr(self, law) is not None]
        if not given:
            refuse([((), f"missing one of {', '.join(LAWS)}; add e.g. `rate: 0.7`")])
        if len(given) > 1:
            what = f"not together with {given[0]}; remove one of them"
            refuse([((law,), what) for law in given[1:]])
        shares = self.survival or ()
        refuse(
            [
                (("survival", i), f"{share:g} after {shares[i - 1]:g}; shares cannot grow")
                for i, share in enumerate(shares)
                if i and share > shares[i - 1]
            ]
        )
        return self


class Threshold(Node):
    """A width, and the greatest batch that has it."""

    batch: Annotated[int, Field(strict=True, ge=1, le=65_536)]
    """Decoding requests."""
    width: Cap
    """Levels; 0 decodes without speculation."""


class Width(Node):
    """How wide drafts are; a bare number is a fixed width."""

    controller: Literal["fixed", "asbs", "windowed", "load_aware", "goodput"] = "fixed"
    """What decides: nothing, a request's own acceptance (asbs, windowed), the batch (load_aware),
    or expected tokens per second (goodput)."""
    max: Levels | None = None
    """The fixed or the greatest width; not given: the tree's levels, else 4 if fixed and 8 if
    not."""
    min: Levels = 1
    """The least width of asbs and windowed."""
    initial: Levels | None = None
    """The width of a request's first step; not given: `max` with asbs, 4 with windowed."""
    alpha: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.2
    """asbs: weight of the newest step in the average acceptance."""
    high: Chance = 0.8
    """asbs: average acceptance from which drafts have `max`."""
    low: Chance = 0.5
    """asbs: average acceptance from which drafts are midway between `min` and `max`."""
    pressure_cap: Levels = 2
    """asbs: the greatest width while KV is under pressure."""
    pressure: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.85
    """asbs: share of KV memory in use above which it is under pressure."""
    step: Levels = 1
    """windowed: how much the width moves at once."""
    target: Chance = 0.7
    """windowed: acceptance at which the width stays."""
    margin: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.1
    """windowed: how far acceptance may be from the target without a change."""
    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1, max_length=64)] | None = None
    """load_aware: widths by batch, 0 beyond the last; not given: by the cost model."""
    slack: Annotated[float, Field(strict=True, ge=0, le=100)] = 0.25
    """load_aware without thresholds: by how much verification may take longer than one token."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"max": value} if type(value) is int else value

    @model_validator(mode="after")
    def _ordered(self) -> Width:
        faults: list[tuple[Place, str]] = []
        if self.controller == "asbs" and self.low > self.high:
            faults.append((("low",), f"{self.low:g} is more than high ({self.high:g}); swap them"))
        limits = self.thresholds or ()
        for i, limit in enumerate(limits):
            if i and limit.batch <= limits[i - 1].batch:
                what = f"{limit.batch} after {limits[i - 1].batch}; batches must increase"
                faults.append((("thresholds", i, "batch"), what))
        refuse(faults)
        return self

    @property
    def own(self) -> bool:
        """Whether each request's width follows its own acceptance."""
        return self.controller in ("asbs", "windowed")

    def first(self, most: int) -> int:
        """The width of a request's first step, where the greatest is *most*."""
        if self.initial is not None:
            return self.initial
        return most if self.controller != "windowed" else max(self.min, min(4, most))


class Speculation(Node):
    """Speculative decoding: what drafts, how wide, and how much of it is accepted."""

    draft: Draft
    width: Width = Width()
    acceptance: Acceptance
    tree: Annotated[tuple[Levels, ...], Field(min_length=1, max_length=MAX_LEVELS)] | None = None
    """Candidates under each node, by level; not given: a chain of one token a level."""
    overlap: Flag = False
    """Whether the next draft is made on a stream of its own, beside verification."""

    @property
    def most(self) -> int:
        """The greatest width, in levels."""
        if self.width.max is not None:
            return self.width.max
        if self.tree is not None:
            return len(self.tree)
        return 4 if self.width.controller == "fixed" else 8

    @property
    def shape(self) -> Tree:
        """What is drafted at most."""
        return chain(self.most) if self.tree is None else Tree(self.tree[: self.most])

    @model_validator(mode="after")
    def _fits(self) -> Speculation:
        width, most, faults = self.width, self.most, []
        if self.tree is not None:
            faults += self._of_tree(self.tree)
        if width.own and width.min > most:
            what = f"{width.min} is more than the greatest width, {most}"
            faults.append((("width", "min"), what))
        elif width.own and width.initial is not None and not width.min <= width.initial <= most:
            what = f"{width.initial} is not from {width.min} to {most}, as all widths here"
            faults.append((("width", "initial"), what))
        for i, limit in enumerate(width.thresholds or ()):
            if width.controller == "load_aware" and limit.width > most:
                what = f"{limit.width} is more than the greatest width, {most}; raise width.max"
                faults.append((("width", "thresholds", i, "width"), what))
        heads = self.draft.heads
        if self.draft.kind == "medusa" and heads is not None and heads < most:
            what = f"{heads} heads draft {heads} levels, and the greatest width is {most}"
            faults.append((("draft", "heads"), f"{what}; raise it, or lower width.max"))
        refuse(faults)
        return self

    def _of_tree(self, tree: tuple[int, ...]) -> list[tuple[Place, str]]:
        most = self.width.max
        if most is not None and most > len(tree):
            what = f"{most} levels, and the tree has {len(tree)}; lower it, or add levels"
            return [(("width", "max"), what)]
        faults: list[tuple[Place, str]] = []
        nodes = self.shape.nodes[-1]
        if nodes > MAX_NODES:
            what = f"a tree of {nodes:,} draft tokens, {MAX_NODES:,} is the most"
            faults.append((("tree",), f"{what}; narrow a level, or remove one"))
        if not self.shape.is_chain:
            if self.draft.kind == "ngram":
                faults.append((("tree",), "not with draft.kind: ngram, which finds one text"))
            if self.acceptance.mismatch_stride is not None:
                what = "not with acceptance.mismatch_stride, which is about one text"
                faults.append((("tree",), what))
        return faults

    def resolved(self, data: dict[str, Any]) -> dict[str, Any]:
        """*data*, which is this section as plain data, without defaults; a file by its digest."""
        kept = {
            "draft": without_defaults(self.draft, data["draft"], ("kind",)),
            "width": without_defaults(self.width, data["width"], ("controller",))
            | {"max": self.most},
            "acceptance": without_defaults(self.acceptance, data["acceptance"], ("rule",)),
        }
        if self.acceptance.file is not None:
            kept["acceptance"]["file"] = file_identity(self.acceptance.file)
        if self.tree is not None:
            kept["tree"] = data["tree"]
        return kept | ({"overlap": True} if self.overlap else {})
