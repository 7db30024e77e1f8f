"""The traffic of a scenario: which requests arrive, when, and how long they are.

The one rule: either a file or a built-in source, and a key that means nothing beside it is an
error, since it would be read as if it had an effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from . import changes, source
from .errors import shown
from .identity import file_identity
from .length import Length
from .node import Flag, Node, Place, refuse, suggestion
from .source import Arrivals, Process, Shape, Source
from .trace.bounds import MAX_BLOCK_TOKENS, MAX_SECONDS, RATE_SCALE
from .trace.names import FORMATS

__all__ = ["FILE_ONLY", "ORIGINS", "Length", "Part", "SessionArrivals", "Trace"]

ORIGINS = ("file", "source", "merge")
"""Keys that say where the requests come from; a trace has exactly one of them."""
OF_SESSIONS = ("agent-like",)
"""Sources that take `sessions`, as files do."""
FILE_ONLY = (
    "format", "sort", "bad_rows", "block_tokens", "sessions", "session_arrivals", "shared_prefix",
)  # fmt: skip


def _known(format: str) -> str:
    formats = ("auto", *FORMATS)
    if format not in formats:
        near = suggestion(format, formats, "known")
        hint = f"; {near}" if near.startswith("did") else ""
        raise ValueError(f"expected one of {', '.join(formats)}, got {shown(format)}{hint}")
    return format


def _or_source(key: str) -> str:
    """What else than a file takes *key*, in the words of a finding."""
    return f" or source: {', '.join(OF_SESSIONS)}" if key == "sessions" else ""


Scale = Annotated[float, Field(strict=True, ge=RATE_SCALE[0], le=RATE_SCALE[1])]


class SessionArrivals(Node):
    """When sessions begin, of a file that gives no start for them."""

    rate: Arrivals
    """Sessions a second."""
    arrivals: Process = "poisson"
    """The process of their starts."""
    burstiness: Shape = 1.0
    """Shape of gamma gaps: 1 is Poisson, less is burstier."""


class Trace(Source):
    """Which requests arrive, and when: a file, or a generated workload."""

    file: Annotated[str, Field(strict=True, min_length=1, max_length=4096)] | None = None
    """Path of a trace, relative to the YAML file that names it."""
    format: Annotated[str, Field(strict=True), AfterValidator(_known)] = "auto"
    """Format of `file`, one of `names.FORMATS`; auto looks at its columns."""
    sort: Flag = False
    """Whether to sort a file whose arrivals are out of order, which is an error otherwise."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows of a file that cannot be used."""
    block_tokens: Annotated[int, Field(strict=True, ge=1, le=MAX_BLOCK_TOKENS)] | None = None
    """Prompt tokens of one of the file's prefix block ids; not given: found out by the ids."""
    sessions: Literal["auto", "open", "closed"] = "auto"
    """Turns of a session as recorded (open), after the answers they wait for (closed), or closed
    where the file or source has delays (auto)."""
    session_arrivals: SessionArrivals | None = None
    """When sessions begin that the file gives no start for."""
    shared_prefix: Flag = False
    """Whether tools and system prompt, of which such files know the length only, have the same
    block ids in all sessions."""
    rate_scale: Scale = 1.0
    """Arrival times are divided by it: 2 is twice the load. Think times stay."""
    merge: tuple[Part, ...] | None = None
    """Several traces in place of one, each with its share of the requests."""
    dither: changes.Grid = "off"
    """Spreads time stamps that lie on a grid over its step: a step, or auto to find it out."""
    window: changes.Window | None = None
    """Only the requests from the first to before the second time; times then count from 0."""
    time_scale: Scale = 1.0
    """All times and delays are multiplied by it: 2 is half as fast."""
    thin: changes.Share | None = None
    """Share of the requests that is kept, by chance; sessions as a whole."""
    replica: changes.ReplicaPart | None = None
    """Only the part of one of several servers."""
    clip_prompt: changes.ClipPrompt | None = None
    """Cuts what does not fit into a context."""

    @model_validator(mode="after")
    def _one_origin(self) -> Trace:
        origins = [key for key in ORIGINS if getattr(self, key) is not None]
        if not origins:
            refuse([((), "missing file or source; add e.g. `source: azure-conv-like`")])
        if len(origins) > 1:
            what = f"not together with trace.{origins[0]}; remove one of them"
            refuse([((key,), what) for key in origins[1:]])
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        faults: list[tuple[Place, str]] = [
            ((key,), f"only with trace.file{_or_source(key)}; remove it")
            for key in FILE_ONLY
            if key in given and not self.takes(key)
        ]
        faults += source.faults(self)
        if self.rate and self.requests and "rate_per_s" in source.needs(self):
            span = self.requests / self.rate / self.rate_scale * self.time_scale
            if span > MAX_SECONDS:
                what = f"{self.requests} requests arrive within {span:.4g} s, {MAX_SECONDS:g} s"
                faults.append((("rate",), f"{what} (31 years) is the most; raise it"))
        refuse(faults + changes.faults(self))
        return self

    def takes(self, key: str) -> bool:
        """Whether *key* means something beside this file or source, and changes anything."""
        if key in changes.KEYS:
            return bool(getattr(self, key) != type(self).model_fields[key].default)
        if key == "shared_prefix" and self.source is not None:
            return source.takes(self, key)
        if key == "sessions" and self.source is not None:
            return self.source in OF_SESSIONS
        if key in FILE_ONLY or key == "file":
            return self.file is not None
        if key in source.KEYS:
            return source.takes(self, key)
        return key != "source" or self.source is not None

    def resolved(self, data: dict[str, Any]) -> dict[str, Any]:
        """*data*, which is this trace as plain data, with only the keys that mean something.

        Files stand there as name and digest.
        """
        named = data | source.resolved_source(self, data)
        kept = {key: named[key] for key in type(self).model_fields if self.takes(key)}
        if self.file is not None:
            kept["file"] = file_identity(self.file)
        if self.merge is not None:
            kept["merge"] = [p.resolved(d) for p, d in zip(self.merge, data["merge"], strict=True)]
        return kept


class Part(Trace):
    """One of several traces that are merged."""

    weight: Annotated[float, Field(strict=True, gt=0, le=1e6)]
    """Its requests' share of all, in proportion to the other weights."""


Trace.model_rebuild()
