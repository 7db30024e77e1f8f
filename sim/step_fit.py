"""Fits seconds of steps over what they compute, and says how well that holds on unseen steps.

Forms are chosen from nested ones by leaving out blocks of time, and the heaviest steps, in turn:
rows side by side are alike, so single rows left out would prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import step_cold, step_domain
from .step_beyond import beside, beyond
from .step_form import Form, Load, pad, rows_of
from .step_pace import noise_floor, warm_up
from .step_plan import FAMILIES, Openings, Plan, fit, scaled
from .step_ratios import true
from .step_ready import LEAST, load_of, prepared
from .step_residuals import drift, held_out, remarks, residuals
from .step_search import search
from .step_turns import calm, said, with_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .step_domain import Domain
    from .step_log import StepLog
    from .step_pace import Pace

_APART = 60
"""Steps of a kind from which on it gets a form of its own."""
_FEW = 8
_HELD = 0.02
"""Share of decode steps padded further than need be from which on that is a rule."""
_GRAINS = (8, 32, 64, 128, 256)
"""Multiples to which engines pad the tokens of a step with prefill, tried."""


@dataclass
class Fit:
    """What a log has taught: the form, how well it holds, and where."""

    form: Form
    gpu: Form | None
    domain: Domain
    rows: int
    """Steps used."""
    warm_up: int
    pace: Pace
    residuals: dict[str, Any]
    """By region: n, median, p90, max, bias of predicted / measured - 1 on steps held out."""
    noise: float | None
    outliers: float
    """Share of steps that took more than half longer than such steps do."""
    lost: float
    """Time that those took beyond that, as a share of all."""
    ratios: dict[str, np.ndarray]
    """measured / predicted of steps, but for first ones of their kind that were slow, by kind of
    step: all, decode, turned (the first that only decode after prefill) and prefill."""
    notes: list[str] = field(default_factory=list)
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0))
    measured: np.ndarray = field(default_factory=lambda: np.empty(0))
    log: StepLog | None = None


def fit_steps(
    log: StepLog, captured: Sequence[int] | None = None, basis: str = "auto"
) -> Fit:  # fmt: skip
    """The form of *log*; *captured* are the sizes decode batches are padded to, found if None.

    *basis* as in `step_pace.pace`. Raises `InputError` for a log too small to say anything.
    """
    chosen, seconds, found, meaning = prepared(log, basis)
    notes: list[str] = []
    if meaning != "decode":
        notes.append("the context column counts prefilling requests, too; so does the fit")
    sizes = _captured(chosen, captured)
    cold, new = step_cold.learned(load_of(chosen), seconds)
    form = _form(chosen, seconds - new, sizes, meaning, notes)
    head = warm_up((seconds - new) / form.seconds(load_of(chosen)))
    if head:
        chosen, seconds = chosen.take(np.arange(head, len(seconds))), seconds[head:]
        new = new[head:]
        form = _form(chosen, seconds - new, sizes, meaning, notes[:0])
    load = load_of(chosen)
    form = _unbiased(form, load, seconds - new)
    usual, held = form.seconds(load) + new, held_out(form, load, seconds - new)
    form = replace(form, cold=cold)
    predicted = form.seconds(load)
    if cold is not None:
        held += cold.taken(load)
    ratio = seconds / usual
    slow = ratio > 1.5
    # What a cold engine loses is no noise, unless a run begins cold, too.
    first = first_of_kind(load, slow) if cold is None else np.zeros(len(slow), bool)
    own = slow & ~first
    gpu = _gpu(chosen, form, meaning)
    floor, pairs = noise_floor(chosen, seconds)
    if floor is None:
        notes.append(f"no noise floor: only {pairs} pairs of alike steps")
    notes += [*remarks(chosen, found, form, gpu), *said(form), *step_cold.said(cold, load, new)]
    notes += [text for text in (drift(load, ratio),) if text]
    return Fit(
        form, gpu, step_domain.domain_of(load), len(seconds), head, found,
        residuals(load, held, seconds), floor, float(own.mean()),
        float((seconds - usual)[own].sum() / usual.sum()),
        by_kind(ratio, load, ~(slow & first), usual),
        notes, predicted, seconds, chosen,
    )  # fmt: skip


def by_kind(
    ratio: np.ndarray, load: Load, kept: np.ndarray, usual: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """*ratio* of the *kept* steps, by kind; over *usual* seconds they keep the kind's time."""
    plain = load.prefill_tokens == 0
    turned = plain & (load.turned > 0) if load.turned is not None else np.zeros(len(plain), bool)
    rows = {"all": kept, "decode": plain & ~turned, "turned": turned, "prefill": ~plain}
    found = {kind: ratio[own & kept] for kind, own in rows.items()}
    if usual is None:
        return found
    return {kind: true(found[kind], usual[own & kept]) for kind, own in rows.items()}


def _captured(log: StepLog, captured: Sequence[int] | None) -> tuple[tuple[int, ...], ...]:
    """The only sizes that may be, or several to choose from; () among them: no padding."""
    if captured is not None:
        return (tuple(sorted(set(captured))),)
    padded, batch = log.columns.get("padded_requests"), log.get("decode_requests")
    alone = (log.get("prefill_tokens") == 0) & (batch > 0)
    if padded is not None and alone.any():
        own = alone & (padded >= batch)
        sizes = np.unique(padded[own]).astype(int)
        if (padded[own] > batch[own]).any() and len(sizes) <= 512:
            return (tuple(sizes.tolist()),)
        return ((),)
    most = batch.max(initial=0.0)
    found = dict.fromkeys(_up_to(sizes, most) for sizes in FAMILIES.values())
    return ((), *(sizes for sizes in found if len(sizes) > 1))


def _up_to(sizes: Sequence[int], most: float) -> tuple[int, ...]:
    """*sizes* up to the first that holds *most*."""
    return tuple(size for at, size in enumerate(sizes) if not at or sizes[at - 1] < most)


# ---------------------------------------------------------------- choosing a form
def _form(
    log: StepLog, seconds: np.ndarray, sizes: tuple[tuple[int, ...], ...], meaning: str,
    notes: list[str],
) -> Form:  # fmt: skip
    load = load_of(log).counted(meaning)
    held = _held(load, sizes[0])
    load = load if held else load._replace(held=None)
    plain = load.prefill_tokens == 0
    many = int(plain.sum()), int((~plain).sum())
    decode_terms = ["step", "decode_request", *(["context"] if _varies(log) else [])]
    mixed_terms = [*decode_terms, *(["prefill_request"] if _has(log, "prefill_requests") else [])]
    pairs = ("all_pair",) if "context" in decode_terms else ()
    squares = ("prefill_pair", *pairs)
    if meaning != "decode" or _has(log, "prefill_context_tokens"):
        squares = ("prefill_context", *squares)
    captured = sizes[0]
    decode = mixed = None
    host = ("step", "decode_request")
    if many[0] >= min(_APART, LEAST):
        own, wanted = rows_of(load, plain), seconds[plain]
        rows = calm(own)
        plan = Plan(tuple(decode_terms), captured=captured)
        plan = search(plan, rows_of(own, rows), wanted[rows], Openings(pairs, host, sizes[1:]))
        decode, captured = fit(plan, rows_of(own, rows), wanted[rows]), plan.captured
        decode = with_turns(decode, plan, own, wanted)
    if many[1] >= _APART:
        own, wanted = rows_of(load, ~plain), seconds[~plain]
        opening = Openings(squares, (*host, "prefill_request"), grains=_GRAINS)
        plan = search(Plan(tuple(mixed_terms)), own, wanted, opening)
        mixed = with_turns(fit(plan, own, wanted), plan, own, wanted)
    elif many[1] >= _FEW and decode is not None:
        mixed = beside(decode, rows_of(load, ~plain), seconds[~plain])
        notes.append(f"only {many[1]} steps with prefill: reading of KV as in the others")
    if decode is None or mixed is None:
        extra = ("prefill_step",) if many[0] and many[1] else ()
        plan = Plan((*mixed_terms, *extra), captured=captured, joint=bool(extra))
        joint = fit(search(plan, load, seconds, Openings()), load, seconds)
        if mixed is None:
            notes.append(f"{many[1] or 'no'} steps with prefill in the log: theirs is a guess")
        if decode is None:
            notes.append(f"{many[0] or 'no'} steps that only decode in the log: a guess")
        decode, mixed = decode or joint, mixed or joint
    elif many[0]:
        decode = beyond(decode, mixed, pad(rows_of(load, plain), captured))
    return Form(decode, mixed, captured, meaning, held)


def _held(load: Load, captured: tuple[int, ...]) -> bool:
    """Whether the log shows decode batches padded beyond the size that would do, as loops on a
    device do that go on with the size at which they were entered."""
    plain = load.prefill_tokens == 0
    if load.held is None or not captured or not plain.any():
        return False
    least = pad(load._replace(held=None), captured).decode_requests
    return bool(np.mean(load.held[plain] > least[plain]) > _HELD)


def _has(log: StepLog, name: str) -> bool:
    return name in log.columns


def _varies(log: StepLog) -> bool:
    context = log.get("context_tokens")
    return bool(context.max(initial=0.0) > 1.05 * max(1.0, float(context.min(initial=0.0))))


def _unbiased(form: Form, load: Load, seconds: np.ndarray) -> Form:
    """*form* with the same total time as the log has, outliers left out, for each kind of step."""
    predicted, plain = form.seconds(load), load.prefill_tokens == 0
    ratio = seconds / predicted
    scale = max(0.03, 6.0 * float(np.median(np.abs(ratio - 1.0))))
    usual = np.abs(ratio - 1.0) < scale
    regimes = []
    for rows, regime in ((plain & usual, form.decode), (~plain & usual, form.mixed)):
        factor = seconds[rows].sum() / predicted[rows].sum() if rows.sum() >= LEAST else 1.0
        regimes.append(scaled(regime, float(factor)))
    return replace(form, decode=regimes[0], mixed=regimes[1])


def first_of_kind(load: Load, slow: np.ndarray) -> np.ndarray:
    """Steps that are the first with so many decoding requests, or with so many tokens.

    Nearly every prompt is the first of its length: those with prefill are taken from a log's first
    tenth, and from all of it if the *slow* ones grow rarer, as shapes do that an engine gets to
    know, and unlike hiccups.
    """
    found = np.zeros(len(load.context), bool)
    keys = np.stack([load.decode_requests, load.prefill_tokens], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    found[first] = True
    alone = load.prefill_tokens == 0
    early, late = np.array_split(slow[found & ~alone], 2)
    warming = early.sum() >= _FEW and early.mean() > 2.0 * late.mean()
    head = np.arange(len(found)) < len(found) // 10
    kept: np.ndarray = found & (alone | head | warming)
    return kept


def _gpu(log: StepLog, form: Form, meaning: str) -> Form | None:
    """The form of GPU seconds, one branch a kind of step; None where the log has none."""
    gpu = log.columns.get("gpu_s")
    if gpu is None:
        return None
    rows = np.flatnonzero(gpu > 0)
    if len(rows) < LEAST:
        return None
    chosen, seconds = log.take(rows), gpu[rows]
    load = load_of(chosen).counted(meaning)
    load = load if form.held else load._replace(held=None)
    regimes = []
    for own, base in (
        (load.prefill_tokens == 0, form.decode), (load.prefill_tokens > 0, form.mixed)
    ):  # fmt: skip
        rows = own if own.sum() >= LEAST else np.ones(len(seconds), bool)
        terms = {t.name for b in base.branches for t in b} | {"step", "context"}
        knots = tuple(
            sorted({t.low for b in base.branches for t in b if t.name == "tokens" and t.low > 0})
        )
        terms -= {"tokens"} | (set() if _varies(chosen) else {"context"})
        plan = Plan(tuple(sorted(terms)), knots, captured=form.captured)
        regimes.append(fit(plan, rows_of(load, rows), seconds[rows]))
    return replace(form, decode=regimes[0], mixed=regimes[1], cold=None)
