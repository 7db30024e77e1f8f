"""Block-parallel decode as a scenario says it: the section `block_decode`.

A model of the diffusion kind puts a whole block of tokens through each step, makes some of them
final, and does so until all are: then the block is output and the next begins.

The one rule: how many tokens a step makes final is an input, from a measurement of a model on a
workload, and is reported as such; so is the interval at which its answers stay good without a
refresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from .node import Flag, Node, Place, refuse
from .tiers import without_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenario import Loop, Scenario

MAX_BLOCK = 1024
LAWS = ("count", "tokens", "rate")

Count = Annotated[int, Field(strict=True, ge=1, le=MAX_BLOCK)]


class Steps(Node):
    """The law of a block's steps; a bare number is their `count`. One of three."""

    count: Count | None = None
    """So many steps for every block, each of which makes as many tokens final as the others."""
    tokens: Annotated[float, Field(strict=True, ge=1, le=MAX_BLOCK)] | None = None
    """So many tokens become final in each step, as a mean: 2.5 are 2 and 3 by turns."""
    rate: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    """Chance that a token becomes final in a step, drawn for each; one does in every step."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"count": value} if type(value) is int else value

    @model_validator(mode="after")
    def _one(self) -> Steps:
        given = [law for law in LAWS if getattr(self, law) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "none is given"
            refuse([((), f"expected one of {', '.join(LAWS)}, and {said}; e.g. `steps: 8`")])
        return self


class Refresh(Node):
    """When cached KV is computed again; a bare number is `every`."""

    every: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
    """Steps of a request from one refresh to the next; its prefill counts as the first."""
    scope: Literal["all", "prompt"] = "all"
    """What is computed again: all KV of the request, or that of its prompt."""
    most: Annotated[int, Field(strict=True, ge=1, le=65_536)] | None = None
    """Requests that refresh in an iteration at most; others whose turn it is go on and wait."""
    budget: Flag = False
    """Whether refreshes wait, too, if their tokens exceed what decoding leaves of
    `loop.token_budget`; one goes even so."""
    stagger: Flag = False
    """Whether the first refresh comes earlier by 0, 1, 2... steps from request to request."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"every": value} if type(value) is int else value


class BlockDecode(Node):
    """Block-parallel decode: size of a block, steps that it takes, and what is kept meanwhile."""

    block: Count
    """Tokens that are refined together."""
    steps: Steps
    commit: Literal["block", "prefix"] = "block"
    """When tokens become output: all when the last of the block is final, or each as soon as it and
    all before it are. Those leave the block, and later steps are narrower."""
    order: Literal["left", "drawn"] = "left"
    """Which tokens the steps of a `count` or of `tokens` make final: from left to right, or in an
    order that is drawn."""
    refresh: Refresh | None = None
    """Not given: cached KV stays as it is, as in models whose blocks see only what is before them.
    Given: attention goes both ways, in prompts too, so that cached KV grows stale."""

    @model_validator(mode="after")
    def _fits(self) -> BlockDecode:
        faults: list[tuple[Place, str]] = []
        for law in ("count", "tokens"):
            value = getattr(self.steps, law)
            if value is not None and value > self.block:
                what = f"{value:g} is more than the {self.block} tokens of a block"
                faults.append((("steps", law), f"{what}; a step makes at least one final"))
        refuse(faults)
        return self

    def resolved(self, data: dict[str, Any]) -> dict[str, Any]:
        """*data*, which is this section as plain data, without defaults."""
        kept = without_defaults(self, data, ("block", "steps", "refresh"))
        kept["steps"] = {law: said for law, said in data["steps"].items() if said is not None}
        if self.refresh is None:
            del kept["refresh"]
        else:
            kept["refresh"] = without_defaults(self.refresh, data["refresh"], ("every", "scope"))
        return kept


def faults(scenario: Scenario) -> list[tuple[Place, str]]:
    """Where the section does not go together with others."""
    given, found = scenario.block_decode, list[tuple[Place, str]]()
    if given is None:
        return found
    if scenario.speculation is not None:
        what = "not together with speculation, another way to get several tokens from a step"
        found.append((("block_decode",), f"{what}; remove one of them"))
    if given.refresh is None:
        return found
    place: Place = ("block_decode", "refresh")
    loop, sparse = scenario.loop, scenario.sparse
    if loop.mode == "resident" and loop.prefill == "partition":
        what = "not with loop.prefill: partition, whose loop never leaves the GPU for a refresh"
        found.append((place, f"{what}; choose loop.prefill: exit"))
    if sparse is not None and (sparse.offload is not None or sparse.drop):
        what = "needs all KV of a request, and sparse.offload or sparse.drop keep but a part"
        found.append((place, f"{what}; remove one of them"))
    return found


def warnings(given: BlockDecode | None, loop: Loop) -> Iterator[str]:
    """One line for every key that has no effect beside the others, or not the one one expects."""
    if given is None:
        return
    if "order" in given.model_fields_set:
        if given.steps.rate is not None:
            yield "block_decode.order: has no effect here; only with steps.count or steps.tokens"
        elif given.commit == "block":
            yield "block_decode.order: has no effect here; only with commit: prefix"
    refresh = given.refresh
    if refresh is not None and refresh.most is not None and refresh.most >= loop.max_batch:
        what = f"no more than loop.max_batch ({loop.max_batch}) requests decode"
        yield f"block_decode.refresh.most: has no effect here; {what}"
    if refresh is not None and refresh.stagger and refresh.every == 1:
        yield "block_decode.refresh.stagger: has no effect here; every step is a refresh"
    rows = loop.max_batch * given.block
    if rows >= loop.token_budget:
        what = f"{loop.token_budget // given.block} requests with a block each take it up"
        yield (
            f"loop.token_budget: {what}, and no prompt gets in then; "
            f"max_batch blocks are {rows:,} tokens"
        )
