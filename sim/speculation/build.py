"""From a scenario's keys to what simulates them: the speculator, and the drafter's description."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sim.dtypes import BITS
from sim.models import PRESETS

from . import acceptance as laws
from . import drafters
from .caps import ByGoodput, ByKnee, ByThresholds, Seconds
from .column import read_column
from .controllers import Asbs, AsbsRule, Controller, Fixed, Windowed, WindowedRule
from .speculator import Speculator

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.models import ModelShape
    from sim.speculative import Draft, Speculation, Width

    from .trees import Tree


def speculator(given: Speculation, seed: int, seconds: Seconds | None = None) -> Speculator:
    """What *given* says, ready to run; raises `InputError` for a column that cannot be read.

    The cost of an iteration, *seconds*, is asked for by the goodput controller and by the
    load-aware one without thresholds, when they decide.
    """
    tree = given.shape
    law = _law(given, seed)
    controller = _controller(given.width, given.most)
    return Speculator(law, tree, controller, _cap(given, law, seconds), seed)


def _law(given: Speculation, seed: int) -> laws.Law:
    levels, said = given.shape.levels, given.acceptance
    if said.per_position is not None:
        return laws.per_position(said.per_position, levels)
    if said.survival is not None:
        return laws.per_position(laws.conditional(said.survival), levels)
    if said.beta is not None:
        return laws.BetaRate(said.beta.mean, said.beta.concentration, levels, seed)
    if said.mismatch_stride is not None:
        return laws.MismatchStride(said.mismatch_stride, levels)
    if said.file is not None:
        rates = read_column(Path(said.file), said.column)
        return laws.Recorded(rates, levels, said.file)
    assert said.rate is not None
    return laws.per_position((said.rate,), levels)


def _controller(width: Width, most: int) -> Callable[[], Controller]:
    initial = width.first(most)
    if width.controller == "asbs":
        asbs = AsbsRule(width.min, most, initial, width.alpha, width.high, width.low)
        return lambda: Asbs(asbs)
    if width.controller == "windowed":
        rule = WindowedRule(width.min, most, initial, width.step, width.target, width.margin)
        return lambda: Windowed(rule)
    fixed = Fixed(most)
    return lambda: fixed


def _cap(
    given: Speculation, law: laws.Law, seconds: Seconds | None
) -> Callable[[int, float, float], int]:
    """The cap on widths by batch, mean context and used share of KV memory."""
    width, most = given.width, given.most
    if width.controller == "asbs":
        pressed = min(most, width.pressure_cap)
        return lambda batch, mean_context, used: pressed if used > width.pressure else most
    chosen = _of_batch(given, law, given.shape, seconds)
    if chosen is None:
        return lambda batch, mean_context, used: most
    return lambda batch, mean_context, used: min(most, chosen(batch, mean_context))


def _of_batch(
    given: Speculation, law: laws.Law, tree: Tree, seconds: Seconds | None
) -> Callable[[int, float], int] | None:
    width = given.width
    if width.controller == "goodput":
        assert seconds is not None, "the goodput controller needs the cost of an iteration"
        committed = [1.0]
        for chance in law.reached(tree):
            committed.append(committed[-1] + chance)
        return ByGoodput(seconds, tree, committed)
    if width.controller != "load_aware":
        return None
    if width.thresholds is not None:
        return ByThresholds([(entry.batch, entry.width) for entry in width.thresholds])
    assert seconds is not None, "the load-aware controller needs the cost of verification"
    return ByKnee(seconds, tree, width.slack)


def drafter(
    draft: Draft, tree: Tree, model: ModelShape, weight_bits: int, kv_bits: int
) -> drafters.Drafter:
    """The drafter that *draft* describes beside *model*, whose formats it takes if it says none."""
    bits = weight_bits if draft.weights is None else BITS[draft.weights]
    match draft.kind:
        case "model":
            assert draft.preset is not None
            return drafters.separate_model(PRESETS[draft.preset], bits, kv_bits)
        case "mtp":
            return drafters.mtp(model, draft.layers, bits, kv_bits)
        case "eagle":
            return drafters.eagle(model, draft.layers, draft.vocab, bits, kv_bits)
        case "medusa":
            return drafters.medusa(model, tree.levels if draft.heads is None else draft.heads)
        case "ngram":
            return drafters.ngram(draft.lookup)
