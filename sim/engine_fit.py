"""Fits what an engine does around its kernels to its step log; the kernels stay as they are.

Structure (whether prompts are a pass of their own, in which stages, how long the host takes for a
launch) is tried out; the terms that are added follow by least squares in relative error.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .cost import Cost
from .engine import Engine
from .engine_cost import EngineCost
from .errors import InputError
from .forced_seconds import entered, left, seconds_of, turns_of
from .nnls import nonnegative
from .step_domain import domain_of
from .step_fit import by_kind, first_of_kind
from .step_form import rows_of
from .step_pace import noise_floor, warm_up
from .step_plan import error, folds_of
from .step_ready import LEAST, load_of, prepared
from .step_residuals import residuals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .profile import Profile
    from .scenario import Scenario
    from .step_form import Load
    from .step_log import StepLog

_TRIED = 600
"""Steps with prefill that structures are tried on."""
_LAUNCHES = tuple(float(t) for t in np.geomspace(1e-6, 6e-5, 9))
"""Seconds of a launch by the host that are tried, then around the best of them."""
_GAIN = 0.98
_ALIKE = 1.05
"""Times the least error up to which structures hold about equally well."""
_CUT = 4.685
"""Tukey's constant, as in `nnls`."""
_SLOW = 1.5


@dataclass
class Fit:
    """The engine that a log has taught, and how well it holds."""

    engine: Engine
    predicted: np.ndarray
    measured: np.ndarray
    load: Load
    ratios: dict[str, np.ndarray]
    """measured / predicted of all steps and by kind, as `step_ratios.written_ratios` takes them"""
    before: dict[str, Any] = field(default_factory=dict)
    """Errors of the kernels alone, by region."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of how an engine computes prompts; None: to be found."""

    apart: bool | None = None
    """Whether they are a pass of their own behind the decode step."""
    kernels: str | None = None
    """`library` or `fused`."""


class _Fitter:
    """Steps of one log under engines over the kernels of *profile*."""

    def __init__(
        self, scenario: Scenario, profile: Profile, log: StepLog, basis: str, asked: Asked
    ) -> None:
        chosen, seconds, self.pace, meaning = prepared(log, basis)
        self.scenario, self.profile, self.asked = scenario, profile, asked
        head = warm_up(seconds / seconds_of(Cost(scenario, profile), load_of(chosen)))
        self.log, self.seconds = chosen.take(np.arange(head, len(seconds))), seconds[head:]
        self.load = load_of(self.log)
        self.plain = self.load.prefill_tokens == 0
        loop = scenario.loop
        self.base = Engine(
            loop.mode, loop.host, loop.kernels, profile.name, profile.hash,
            captured=loop.captured_batches or _padded(self.log),
            prefill_kernels=loop.kernels, terms={"enter_s": 0.0, "leave_s": 0.0},
        )  # fmt: skip
        self.notes: list[str] = []
        if meaning != "decode":
            self.notes.append("the context column counts prefilling requests, too; taken apart")

    def cost(self, engine: Engine) -> EngineCost:
        """The cost of the scenario in *engine*."""
        return EngineCost(self.scenario, replace(self.profile, engine=engine))

    def predicted(self, engine: Engine, rows: np.ndarray) -> np.ndarray:
        """Seconds of *rows* (numbers) under *engine*."""
        cost = self.cost(engine)
        turns = turns_of(cost, self.log.take(rows))
        found: np.ndarray = seconds_of(cost, rows_of(self.load, rows)) + turns
        return found

    # ---------------------------------------------------------------- decode
    def decode(self, engine: Engine) -> Engine:
        """*engine* with the terms of steps without prefill."""
        first = entered(self.log)
        rows = np.flatnonzero(self.plain & ~first)
        if len(rows) < LEAST:
            what = f"{len(rows)} steps that only decode; the engine's terms need {LEAST}"
            raise InputError(f"steps: {what}")
        rows = rows[:: -(-len(rows) // 20_000)]

        def tried(submit: float | None) -> tuple[float, Engine]:
            more = {} if submit is None else {"submit_s": submit}
            one = replace(engine, terms={**engine.terms, **more})
            base, real = self.predicted(one, rows), self.seconds[rows]
            batch = self.load.decode_requests[rows]
            design = np.stack([np.ones(len(rows)), -np.ones(len(rows)), batch], axis=1)
            more_s = _linear(design, base, real)
            terms = {"step_s": more_s[0] - more_s[1], "decode_request_s": more_s[2]}
            return error(base + design @ more_s, real), _with(one, terms)

        score, best = tried(None)
        if self.scenario.loop.mode == "host":
            found = _search(tried)
            best = found[1] if found[0] < _GAIN * score else best
        return self._entering(best, np.flatnonzero(self.plain & first))

    def _entering(self, engine: Engine, rows: np.ndarray) -> Engine:
        if len(rows) < LEAST:
            self.notes.append(f"{len(rows)} first steps behind prompts: nothing known of them")
            terms = {k: v for k, v in engine.terms.items() if k != "enter_s"}
            return replace(engine, terms=terms)
        more = self.seconds[rows] - self.predicted(engine, rows)
        return _with(engine, {"enter_s": max(0.0, float(np.median(more)))})

    # ---------------------------------------------------------------- prefill
    def prefill(self, engine: Engine) -> Engine:
        """*engine* with the terms of steps with prefill, and the pass that these are."""
        rows = np.flatnonzero(~self.plain)
        if len(rows) < LEAST:
            self.notes.append(f"{len(rows)} steps with prefill: no terms for them")
            return engine
        some = rows[:: -(-len(rows) // _TRIED)]
        found = []
        for structure in self._structures(engine):

            def tried(submit: float | None, one: Engine = structure) -> tuple[float, Engine]:
                more = {} if submit is None else {"prefill_submit_s": submit}
                return self._prompts(replace(one, terms={**one.terms, **more}), some)

            found.append(_search(tried))
        # Model: a log hardly tells these apart, as a constant makes up for the difference. Of those
        # that hold about equally well, the one in which kernels explain most is the engine's.
        least = min(score for score, _ in found) * _ALIKE
        alike = [one for score, one in found if score <= least]
        best = min(alike, key=lambda one: one.term("prefill_step_s"))
        return self._prompts(best, rows)[1]

    def _structures(self, engine: Engine) -> Iterator[Engine]:
        """The ways in which prompts may be computed beside decode, as far as nobody has said."""
        asked = self.asked
        kernels = (asked.kernels,) if asked.kernels else dict.fromkeys((engine.kernels, "library"))
        for apart in (False, True) if asked.apart is None else (asked.apart,):
            for own in kernels:
                yield replace(engine, apart=apart, prefill_kernels=own)

    def _prompts(self, engine: Engine, rows: np.ndarray) -> tuple[float, Engine]:
        """Error on *rows* and *engine*, its terms of prefill fitted to them."""
        load = self.load
        names = ["prefill_step_s", "prefill_token_s"]
        columns = [np.ones(len(rows)), load.prefill_tokens[rows]]
        if np.ptp(load.prefill_requests[rows]):
            names.append("prefill_request_s")
            columns.append(load.prefill_requests[rows])
        if self.scenario.loop.leaves:
            names.append("leave_s")
            columns.append(left(self.log)[rows].astype(float))
        bare = _with(engine, dict.fromkeys(names, 0.0))
        base, real = self.predicted(bare, rows), self.seconds[rows]
        design = np.stack(columns, axis=1)
        found = _linear(design, base, real)
        terms = dict(zip(names, found.tolist(), strict=True))
        return error(base + design @ found, real), _with(bare, terms)

    # ---------------------------------------------------------------- judging
    def held_out(self, engine: Engine) -> np.ndarray:
        """Each step predicted with added terms fitted to the other blocks of time."""
        found = np.empty(len(self.seconds))
        for out in folds_of(self.load, heavy=False):
            rest = _Part(self, np.flatnonzero(~out))
            own = rest.again(engine)
            rows = np.flatnonzero(out)
            found[rows] = self.predicted(own, rows)
        return found


class _Part(_Fitter):
    """Some rows of a fitter's log."""

    def __init__(self, whole: _Fitter, rows: np.ndarray) -> None:
        self.scenario, self.profile, self.notes = whole.scenario, whole.profile, []
        self.log, self.seconds = whole.log.take(rows), whole.seconds[rows]
        self.load, self.plain = rows_of(whole.load, rows), whole.plain[rows]

    def again(self, engine: Engine) -> Engine:
        """*engine* with its added terms fitted to these rows; what the host takes stays."""
        kept = {k: v for k, v in engine.terms.items() if k.endswith("submit_s")}
        bare = replace(engine, terms=kept | {"enter_s": 0.0, "leave_s": 0.0})
        first = entered(self.log)
        rows = np.flatnonzero(self.plain & ~first)
        batch = self.load.decode_requests[rows]
        design = np.stack([np.ones(len(rows)), -np.ones(len(rows)), batch], axis=1)
        one = _linear(design, self.predicted(bare, rows), self.seconds[rows])
        bare = _with(bare, {"step_s": one[0] - one[1], "decode_request_s": one[2]})
        bare = self._entering(bare, np.flatnonzero(self.plain & first))
        prompts = np.flatnonzero(~self.plain)
        return self._prompts(bare, prompts)[1] if len(prompts) >= LEAST else bare


def fit_engine(
    scenario: Scenario, profile: Profile, log: StepLog, basis: str = "auto",
    asked: Asked = Asked(),
) -> Fit:  # fmt: skip
    """The engine of *log* over the kernels of *profile*, in the loop of *scenario*.

    *basis* as in `step_pace.pace`. Raises `InputError` for a log too small to say anything.
    """
    fitter = _Fitter(scenario, profile, log, basis, asked)
    engine = fitter.prefill(fitter.decode(fitter.base))
    every = np.arange(len(fitter.seconds))
    predicted, real = fitter.predicted(engine, every), fitter.seconds
    ratio = real / predicted
    slow = ratio > _SLOW
    floor, pairs = noise_floor(fitter.log, real)
    if floor is None:
        fitter.notes.append(f"no noise floor: only {pairs} pairs of alike steps")
    if not engine.captured:
        fitter.notes.append("no padded_requests in the log: decode batches run as they are")
    elif scenario.loop.captured_batches is None:
        what = f"batches are padded to sizes that the log shows, up to {engine.captured[-1]}"
        fitter.notes.append(f"{what}; loop.captured_batches gives all that the engine has")
    engine = replace(
        engine, domain=domain_of(fitter.load), noise_floor=floor,
        residuals=residuals(fitter.load, fitter.held_out(engine), real),
        outliers={
            "share": float(slow.mean()),
            "time_lost": float((real - predicted)[slow].sum() / predicted.sum()),
        },
        log={"steps": len(real), "pace": fitter.pace.basis}, notes=tuple(fitter.notes),
    )  # fmt: skip
    alone = Cost(scenario, profile)
    kernels = seconds_of(alone, fitter.load) + turns_of(alone, fitter.log)
    before = residuals(fitter.load, kernels, real)
    # Model: prompts that take much longer than usual are mostly a log's warm-up (of ours,
    # two of three lie in its first fifth: libraries choose kernels for new lengths). So steps with
    # prompts vary as all steps do, not as those of the log.
    kinds = by_kind(ratio, fitter.load, ~(slow & first_of_kind(fitter.load, slow)))
    kinds["prefill"] = kinds["prefill"][:0]
    return Fit(engine, predicted, real, fitter.load, kinds, before)


def _with(engine: Engine, terms: dict[str, float]) -> Engine:
    return replace(engine, terms={**engine.terms, **{k: float(v) for k, v in terms.items()}})


def _padded(log: StepLog) -> tuple[int, ...]:
    """The sizes that decode batches of *log* were padded to, where it says so."""
    if "padded_requests" not in log.columns:
        return ()
    decodes = log.get("decode_requests") > 0
    sizes = np.unique(log.get("padded_requests")[decodes]).astype(int)
    return tuple(sizes[sizes > 0].tolist())


def _search(tried: Any) -> tuple[float, Engine]:
    """The best of *tried* at several times of a launch, and of the kernels' own (None)."""
    best = min((tried(submit) for submit in _LAUNCHES), key=lambda one: one[0])
    ratio = _LAUNCHES[1] / _LAUNCHES[0]
    for _ in range(3):
        ratio = ratio**0.5
        name = "prefill_submit_s" if "prefill_submit_s" in best[1].terms else "submit_s"
        middle = best[1].terms[name]
        around = [tried(middle / ratio), tried(middle * ratio)]
        best = min([best, *around], key=lambda one: one[0])
    found: tuple[float, Engine] = best
    return found


def _linear(design: np.ndarray, base: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Coefficients >= 0 of *design* (rows x terms) over *base*, in robust relative error."""
    columns, goal = design / seconds[:, None], 1.0 - base / seconds
    weight = np.ones(len(seconds))
    found = np.zeros(design.shape[1])
    for number in range(12):
        weighted = columns * weight[:, None]
        found = nonnegative(weighted.T @ columns, weighted.T @ goal)
        size = np.abs(columns @ found - goal)
        scale = max(1e-4, 1.4826 * float(np.median(size)))
        if number < 3:
            weight = np.minimum(1.0, scale / np.maximum(size, 1e-12))
        else:
            inside = np.clip(1.0 - (size / (_CUT * scale)) ** 2, 0.0, None)
            weight = inside * inside
    return found
