"""The options of `residentsim trace convert` that change a trace, and what is said about it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .cli_trace_options import say_format
from .errors import InputError, shown
from .trace.bounds import MAX_REPLICAS, MAX_SOURCES, MAX_TOKENS, RATE_SCALE
from .trace.naming import said
from .units import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .trace.chunk import Chunk, Tally
    from .trace.transforms import Source, Steps

    Read = Callable[[Path, Tally], Iterator[Chunk]]

From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Only from here on, e.g. 10min; then counts as 0."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only to before here.")]
TimeScale = Annotated[
    float, typer.Option("--time-scale", metavar="X", help="All times and delays, times X.")
]
RateScale = Annotated[
    float,
    typer.Option("--rate-scale", metavar="X", help="X times as many arrivals a second."),
]
Thin = Annotated[
    float, typer.Option("--thin", metavar="SHARE", help="A random share of it, sessions whole.")
]
ReplicaPart = Annotated[
    str | None,
    typer.Option(
        "--replica",
        metavar="I/N[:HOW]",
        help="Server I's part of N, dealt out by round_robin (or nothing said), random or session.",
    ),
]
Merge = Annotated[
    list[str] | None,
    typer.Option(
        "--merge",
        metavar="FILE:SHARE",
        help="Another trace, for SHARE of all requests; may be given again.",
    ),
]
Spread = Annotated[
    str | None,
    typer.Option(
        "--dither", metavar="auto|STEP", help="Spread time stamps on a grid over its step."
    ),
]
ClipTo = Annotated[
    str | None,
    typer.Option(
        "--clip-prompt",
        metavar="N[:END]",
        help="Cut prompts until prompt and output fit into N tokens; END last (or nothing said) "
        "or first is kept.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Seed of what is random.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options ask for, as written."""

    from_: str | None
    until: str | None
    time_scale: float
    rate_scale: float
    thin: float
    replica: str | None
    merge: list[str] | None
    dither: str | None
    clip_prompt: str | None
    seed: int

    def apply(self, file: Path, limit: int | None, read: Read, tally: Tally) -> Iterator[Chunk]:
        """The requests of *file* and what is merged with it, changed; raises `InputError`."""
        from .trace.transforms import Steps, merge

        dither = Steps(dither=self._dither())
        shares = [_share(text) for text in self.merge or []]
        steps = self._steps(limit if shares else None)
        if not shares:
            chunks = read(file, tally)
            say_format(file, tally)
            return steps.apply(dither.apply(chunks, self.seed, tally), self.seed, tally)
        left = 1.0 - sum(share for _, share in shares)
        if left <= 0 or len(shares) >= MAX_SOURCES:
            raise InputError(
                f"--merge: the shares of {len(shares)} files make {1 - left:g} and leave nothing "
                f"for {said(file)}; give less than 1 to at most {MAX_SOURCES - 1} files"
            )
        files = [(file, left), *shares]
        sources = [_source(*each, dither, self.seed + i, read) for i, each in enumerate(files)]
        return steps.apply(merge(sources, self.seed, tally), self.seed, tally)

    def _steps(self, limit: int | None) -> Steps:
        from .trace.transforms import Steps

        return Steps(
            window=self._window(),
            time_scale=_in_range("--time-scale", self.time_scale, *RATE_SCALE),
            rate_scale=_in_range("--rate-scale", self.rate_scale, *RATE_SCALE),
            thin=_in_range("--thin", self.thin, 1e-9, 1),
            replica=None if self.replica is None else _replica(self.replica),
            clip=None if self.clip_prompt is None else _clip(self.clip_prompt),
            limit=limit,
        )

    def _window(self) -> tuple[float, float | None] | None:
        if self.from_ is None and self.until is None:
            return None
        begin = 0.0 if self.from_ is None else _seconds("--from", self.from_)
        if self.until is None:
            return begin, None
        end = _seconds("--until", self.until)
        if end <= begin:
            raise InputError(f"--until: {end:g} s is not after --from, {begin:g} s; raise it")
        return begin, end

    def _dither(self) -> Any:
        from .trace.transforms import Dither

        if self.dither is None or self.dither == "auto":
            return None if self.dither is None else Dither()
        step = _seconds("--dither", self.dither)
        if not step:
            raise InputError("--dither: a step of 0 s spreads nothing; write auto or e.g. 3s")
        return Dither(step)


def say_changes(tally: Tally) -> None:
    """Print, on stderr, one line for every change that was made."""
    from .trace.transforms.record import said as line

    for change in tally.changes:
        typer.echo(f"changed: {line(change)}", err=True)


def _source(file: Path, share: float, dither: Steps, seed: int, read: Read) -> Source:
    from .trace.transforms import Source

    told = False

    def chunks(tally: Tally) -> Iterator[Chunk]:
        nonlocal told
        found = read(file, tally)
        if not told:
            say_format(file, tally)
        told = True
        return dither.apply(found, seed, tally)

    return Source(said(file), share, chunks)


def _seconds(option: str, text: str) -> float:
    try:
        return SECONDS.parse(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _in_range(option: str, value: float, low: float, high: float) -> float:
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{option}: must be {low:g} to {high:g}, got {value:g}")
    return value


def _share(text: str) -> tuple[Path, float]:
    name, _, share = text.rpartition(":")
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < 1:
        raise InputError(
            f"--merge: {shown(text)} is not FILE:SHARE; write the share of all requests that is to "
            "come from the file, e.g. other.jsonl:0.3"
        )
    return Path(name), value


def _replica(text: str) -> Any:
    from .trace.transforms import Replica

    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})(?::(round_robin|random|session))?", text)
    if found is None or not int(found[1]) < int(found[2]) <= MAX_REPLICAS:
        raise InputError(
            f"--replica: {shown(text)} is no server's part; write e.g. 0/4 or 3/4:session "
            "(servers count from 0; dealt out by round_robin, random or session)"
        )
    return Replica(int(found[1]), int(found[2]), cast("Any", found[3] or "round_robin"))


def _clip(text: str) -> Any:
    from .trace.transforms import Clip

    found = re.fullmatch(r"(\d{1,9})(?::(first|last))?", text)
    if found is None or not 2 <= int(found[1]) <= MAX_TOKENS:
        raise InputError(
            f"--clip-prompt: {shown(text)} is no context; write 2 to {MAX_TOKENS} tokens, as in "
            "8192 or 8192:first"
        )
    return Clip(int(found[1]), cast("Any", found[2] or "last"))
