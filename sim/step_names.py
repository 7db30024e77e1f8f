"""Columns of a step log: what they mean, how other engines call them, and in which unit.

The one rule: a column of theirs is taken by our own name first, then by what the user says, then
by a documented alias; nothing is guessed from values.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIMES = ("start_s", "end_s", "duration_s", "gpu_s", "host_s")
COUNTS = (
    "decode_requests", "decode_tokens", "prefill_requests", "prefill_tokens", "context_tokens",
    "prefill_context_tokens", "padded_requests", "running", "waiting", "kv_blocks",
)  # fmt: skip
DERIVED = ("requests", "tokens", "phase")
"""Of all requests of a step together; used where the two kinds are not told apart by column."""
OURS = (*TIMES, *COUNTS, *DERIVED)

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SUFFIX = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "msec": "ms",
    "millis": "ms", "milliseconds": "ms", "us": "us", "usec": "us", "micros": "us",
    "microseconds": "us", "ns": "ns", "nsec": "ns", "nanos": "ns", "nanoseconds": "ns",
}  # fmt: skip

_ALIASES = {
    "start_s": "start starttime startts tstart stepstart iterstart begin begintime timestamp ts "
    "time t t0",
    "end_s": "end endtime endts tend stepend finish finishtime t1",
    "duration_s": "duration dur elapsed elapsedtime steptime stepduration steplatency iterlatency "
    "iterationelapsedtime iterationtime itertime latency walltime dt",
    "gpu_s": "gpu gputime gpubusy gpuduration forwardtime modelforwardtime cudatime devicetime "
    "deviceduration",
    "host_s": "host hosttime cputime schedulertime hostoverhead",
    "decode_requests": "decoderequests numdecoderequests numdecodes numdecode ndecode decodereqs "
    "decodeseqs numdecodeseqs decodes generationrequests numgenerationrequests numgenrequests "
    "genrequests decodebatchsize decodebatch ndec",
    "decode_tokens": "decodetokens numdecodetokens ndecodetokens generationtokens "
    "numgenerationtokens numgentokens gentokens decodetoks decodenumtokens",
    "prefill_requests": "prefillrequests numprefillrequests numprefills numprefill nprefill "
    "prefillreqs prefillseqs prefills contextrequests numcontextrequests numctxrequests "
    "ctxrequests numnewseqs newseq newseqs extendrequests npre",
    "prefill_tokens": "prefilltokens numprefilltokens nprefilltokens prompttokens numprompttokens "
    "numctxtokens ctxtokens newtoken newtokens extendtokens extendnumtokens prefilltoks "
    "prefillnumtokens chunktokens prefillchunktokens",
    "context_tokens": "contexttokens contextlens contextlen kvtokens kvtokensread kvread kvlens "
    "kvlen cachelens sumcontextlens totalcontexttokens decodecontexttokens decodekvtokens "
    "numgenkvtokens contexttokensread kvtokenstotal numkvtokens contexttoks ctxlen ctxlens "
    "contextlength contextlengths totalcontext sumcontext attendedtokens",
    "prefill_context_tokens": "prefillcontexttokens prefillkvtokens numctxkvtokens "
    "prefillcontext prefixtokens extendprefixlens",
    "padded_requests": "paddedrequests paddedbatch paddedbatchsize graphbatchsize "
    "cudagraphbatchsize capturedbatch graphbatch",
    "running": "running numrunning numrunningreqs runningrequests runningreq numactiverequests",
    "waiting": "waiting numwaiting numwaitingreqs waitingrequests numqueuedrequests queuereq "
    "queued",
    "kv_blocks": "kvblocks usednumblocks usedblocks numusedblocks",
    "requests": "requests numrequests batchsize numseqs bs numscheduledrequests batch",
    "tokens": "tokens numtokens numbatchedtokens totalnumscheduledtokens numscheduledtokens "
    "totaltokens",
    "phase": "phase forwardmode stage kind steptype",
}
ALIASES = {alias: ours for ours, names in _ALIASES.items() for alias in names.split()}


class Source(NamedTuple):
    """Where one of our columns comes from: signed columns of theirs and a constant, scaled."""

    terms: tuple[tuple[str, float], ...]
    constant: float
    scale: float
    """Seconds of a unit, 1 for counts."""

    def text(self) -> str:
        """As a user would write it."""
        parts = [("-" if sign < 0 else "+") + name for name, sign in self.terms]
        if self.constant or not parts:
            parts.append(f"{self.constant:+g}")
        unit = next((name for name, scale in UNITS.items() if scale == self.scale), "s")
        return "".join(parts).removeprefix("+") + ("" if unit == "s" else f" [{unit}]")


def plain(name: str) -> str:
    """*name* in lower case without its unit and without what is neither letter nor digit."""
    name = re.sub(r"[\[(].*?[\])]", "", name)
    words = _words(name)
    if len(words) > 1 and words[-1] in _SUFFIX:
        words = words[:-1]
    return "".join(words)


def unit_of(name: str) -> str | None:
    """The unit that *name* ends in (`latency_ms`, `iterLatencyMS`, `time (us)`), if any."""
    bracket = re.search(r"[\[(]\s*([A-Za-z]+)\s*[\])]\s*$", name)
    last = [bracket.group(1).lower()] if bracket else _words(name)[-1:]
    if not bracket and len(_words(name)) < 2:
        return None
    return _SUFFIX.get(last[0]) if last else None


def _words(name: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.findall(r"[A-Za-z0-9]+", spaced)]


def sources(
    theirs: Sequence[str], maps: Iterable[str] = (), unit: str | None = None, place: str = "log"
) -> dict[str, Source]:
    """Which of *theirs* our columns come from; `InputError` for what a map says wrongly.

    *maps* are `our=theirs` with sums, differences and numbers allowed on the right
    (`decode_tokens=scheduled-prefill`); *unit* is that of times whose name has no unit.
    """
    if unit is not None and unit not in UNITS:
        raise InputError(f"--unit {shown(unit)}: no such unit; choose {', '.join(UNITS)}")
    found = dict(_mapped(theirs, maps, unit, place))
    for name in theirs:  # our own names first
        if name in OURS and name not in found:
            found[name] = Source(((name, 1.0),), 0.0, 1.0)
    if "gpu_busy_s" in theirs:
        found.setdefault("gpu_s", Source((("gpu_busy_s", 1.0),), 0.0, 1.0))
    used = {name for source in found.values() for name, _ in source.terms}
    aliases = dict(ALIASES)
    shorts = {plain(name.rpartition(".")[2]) for name in theirs}
    if shorts & {"contextrequests", "numcontextrequests"} and shorts & {
        "generationrequests", "numgenerationrequests",
    }:  # fmt: skip
        # vLLM calls prefill "context": its context tokens are tokens computed, not KV read.
        aliases |= {"contexttokens": "prefill_tokens", "numcontexttokens": "prefill_tokens"}
        own = found.get("context_tokens")
        if own is not None and own.terms == (("context_tokens", 1.0),):
            found["prefill_tokens"] = found.pop("context_tokens")
    if any(aliases.get(short) == "prefill_tokens" for short in shorts - {"ctxtokens"}):
        aliases["ctxtokens"] = "context_tokens"  # beside a column of prompts' tokens
    ranks = {alias: rank for rank, alias in enumerate(aliases)}
    candidates = []
    for name in theirs:
        short = plain(name.rpartition(".")[2])
        if short in ("step", "iter", "iteration") and unit_of(name):
            short = "steptime"  # a number of the step has no unit
        if name not in used and short in aliases:
            candidates.append((ranks[short], name, aliases[short]))
    for _, name, ours in sorted(candidates):
        if ours not in found:
            found[ours] = Source(((name, 1.0),), 0.0, _scale(ours, name, unit))
    return found


def _scale(ours: str, theirs: str, unit: str | None) -> float:
    if ours not in TIMES:
        return 1.0
    return UNITS[unit_of(theirs) or unit or "s"]


def _mapped(
    theirs: Sequence[str], maps: Iterable[str], unit: str | None, place: str
) -> Iterable[tuple[str, Source]]:
    for text in maps:
        ours, equals, right = text.partition("=")
        ours, right = ours.strip(), right.strip()
        if not equals or not right:
            raise InputError(f"--map {shown(text)}: write our=theirs, e.g. duration_s=step_ms")
        if ours not in OURS:
            raise InputError(f"--map {shown(text)}: no column {shown(ours)}; {', '.join(OURS)}")
        yield ours, _expression(ours, right, theirs, unit, place)


def _expression(
    ours: str, right: str, theirs: Sequence[str], unit: str | None, place: str
) -> Source:
    """The right side of a map: a name, or names and numbers with + and - between."""
    own_unit = None
    if right.endswith("]") and "[" in right and right not in theirs:  # duration_s=step[ms]
        right, _, own_unit = right[:-1].rpartition("[")
        right = right.strip()
        if own_unit not in UNITS:
            raise InputError(f"--map {ours}: unit {shown(own_unit)}; choose {', '.join(UNITS)}")
    if right in theirs:
        parts = [("+", right)]
    else:
        pieces = re.findall(r"([+-]?)\s*([^+\-\s][^+\-]*)", right)
        parts = [(sign, name.strip()) for sign, name in pieces]
    terms: list[tuple[str, float]] = []
    constant = 0.0
    for sign, name in parts:
        factor = -1.0 if sign == "-" else 1.0
        if name in theirs:
            terms.append((name, factor))
        elif re.fullmatch(r"\d+(\.\d+)?", name):
            constant += factor * float(name)
        else:
            have = ", ".join(shown(column, 40) for column in list(theirs)[:30])
            raise InputError(f"{place}: --map {ours}: no column {shown(name)}; there are {have}")
    named = {unit_of(name) or _SUFFIX.get(name.lower()) for name, _ in terms} - {None}
    scale = 1.0
    if ours in TIMES:
        scale = UNITS[own_unit or (named.pop() if len(named) == 1 else None) or unit or "s"]
    return Source(tuple(terms), constant, scale)
