"""What a scenario may change about its trace before it is played: part of `trace`.

The one rule: a change that is not asked for leaves no mark, neither on the trace nor on the
scenario's hash. The changes are made by `trace.transforms`, in the order that stands there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, model_validator

from .errors import shown
from .node import Node, Place, refuse
from .trace.bounds import MAX_REPLICAS, MAX_SOURCES, MAX_TOKENS
from .units import SECONDS, Seconds

if TYPE_CHECKING:
    from .trace.transforms import Steps
    from .traffic import Trace

KEYS = ("dither", "merge", "window", "time_scale", "thin", "replica", "clip_prompt")
"""Keys of `trace` that change it, without `rate_scale`, which every scenario has."""


def _dither(value: Any, info: ValidationInfo) -> Any:
    if value in ("auto", "off") or value is False:
        return value or "off"
    try:
        step = SECONDS.validate(value, info)
    except ValueError as error:
        raise ValueError(f"expected auto, 'off' or a step such as '3 s': {error}") from None
    if not step:
        raise ValueError("a step of 0 s spreads nothing; write auto, 'off' or a step such as '3 s'")
    return step


def _context(value: Any) -> Any:
    if value == "model" or (type(value) is int and 2 <= value <= MAX_TOKENS):
        return value
    raise ValueError(f"expected model or 2 to {MAX_TOKENS} tokens, got {shown(value)}")


Grid = Annotated[float | Literal["auto", "off"], PlainValidator(_dither)]
Context = Annotated[int | Literal["model"], PlainValidator(_context)]
Window = Annotated[tuple[Seconds, Seconds], Field()]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Of = Annotated[int, Field(strict=True, ge=1, le=MAX_REPLICAS)]


class ReplicaPart(Node):
    """The part of the requests that one of several servers gets, whole sessions together."""

    index: Annotated[int, Field(strict=True, ge=0)]
    """Which server, from 0."""
    of: Of
    """How many servers."""
    by: Literal["round_robin", "random", "session"] = "round_robin"
    """How requests are dealt out: in turns, at random, or by a hash of the session's name."""

    @model_validator(mode="after")
    def _there(self) -> ReplicaPart:
        if self.index >= self.of:
            what = f"{self.index} of {self.of}: servers count from 0 to {self.of - 1}"
            refuse([(("index",), what)])
        return self


class ClipPrompt(Node):
    """Requests made to fit into a context, prompt and output together."""

    to: Context
    """Tokens, or `model` for the context of the scenario's model."""
    keep: Literal["first", "last"] = "last"
    """Which end of a prompt that is too long stays."""


def faults(trace: Trace) -> list[tuple[Place, str]]:
    """What is wrong with the changes of *trace* beyond each by itself."""
    found: list[tuple[Place, str]] = []
    if trace.window is not None and trace.window[0] >= trace.window[1]:
        low, high = trace.window
        found.append((("window",), f"it ends at {high:g} s, not after its begin at {low:g} s"))
    if trace.merge is None:
        return found
    if not 2 <= len(trace.merge) <= MAX_SOURCES:
        what = f"{len(trace.merge)} of them; list 2 to {MAX_SOURCES} sources"
        found.append((("merge",), what))
    if trace.dither != "off":
        what = "not together with trace.merge; write it into the sources there that lie on a grid"
        found.append((("dither",), what))
    for i, part in enumerate(trace.merge):
        if part.merge is not None:
            what = "not inside trace.merge; list all sources in one"
            found.append((("merge", i, "merge"), what))
    return found


def steps_of(trace: Trace, max_context: int) -> Steps:
    """The changes that *trace* asks for; *max_context* is that of the model, in tokens."""
    from .trace.transforms import Clip, Dither, Replica, Steps

    dither = clip = replica = None
    if trace.dither != "off":
        dither = Dither(None if trace.dither == "auto" else trace.dither)
    if (asked := trace.clip_prompt) is not None:
        clip = Clip(max_context if asked.to == "model" else asked.to, asked.keep)
    if (part := trace.replica) is not None:
        replica = Replica(part.index, part.of, part.by)
    limit = None if trace.merge is None else trace.requests
    return Steps(
        dither, trace.window, trace.time_scale, trace.rate_scale, trace.thin, replica, clip, limit
    )
