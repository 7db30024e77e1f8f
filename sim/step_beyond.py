"""What a log does not show: decode steps beyond its largest, prefill of which it has little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .step_form import Load, Regime, Term, line
from .step_plan import Openings, Plan, fit
from .step_search import search


def beyond(decode: Regime, mixed: Regime, load: Load) -> Regime:
    """*decode*, which beyond the most tokens seen takes at least what computing them takes.

    # Model: decode steps of a log may all be limited by memory; what computing a token takes, once
    that is the limit, is known from steps with prefill. Nowhere within the log is it the limit;
    where it would be, it begins where the log ends.
    """
    main = decode.branches[-1]
    kept = {t.name: t.seconds for t in mixed.branches[-1] if t.name in ("step", "decode_request")}
    tokens = tuple(t for t in mixed.branches[-1] if t.name == "tokens")
    read = tuple(t for t in main if t.name in ("context", "all_pair"))
    each = tuple(Term(name, value) for name, value in kept.items() if name == "decode_request")
    computing = line((*tokens, *each), load)[0]
    room = float(np.min(line(main, load)[0] - computing))
    if room >= 0.0:
        step = Term("step", min(kept.get("step", 0.0), room))
        branch = (step, *each, *tokens, *read)
        return replace(decode, branches=(*decode.branches[:-1], branch, main))
    last = sum(t.seconds for t in tokens if t.high is None)
    last -= sum(t.seconds for t in main if t.name == "tokens" and t.high is None)
    if last > 0.0:
        main = (*main, Term("tokens", last, float(load.decode_tokens.max()), None))
    return replace(decode, branches=(*decode.branches[:-1], main))


def beside(decode: Regime, load: Load, seconds: np.ndarray) -> Regime:
    """The form of few steps with prefill, which read KV as *decode* does."""
    read = tuple(term for term in decode.branches[-1] if term.name == "context")
    rest = seconds - sum(term.seconds for term in read) * load.context
    rest = np.maximum(rest, 0.2 * seconds)
    plan = search(Plan(("step", "decode_request")), load, rest, Openings())
    found = fit(plan, load, rest)
    return Regime(tuple((*branch, *read) for branch in found.branches))
