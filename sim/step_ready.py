"""Steps of a log made ready for a fit: which are usable, how long they lasted, whose context."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .step_cold import fresh
from .step_form import Load
from .step_pace import Pace, pace
from .step_rows import ONLY_DECODE, WITH_PREFILL

if TYPE_CHECKING:
    from .step_log import StepLog

LEAST = 30
_MOST = 100_000
_FRESH = ("fresh_tokens", "fresh_chunks")
"""Columns of what was new before rows were left out."""


def load_of(log: StepLog) -> Load:
    """What the steps of *log* compute."""
    requests = _prompts(log)
    return Load(
        log.get("decode_requests"), log.get("decode_tokens"), log.get("context_tokens"), requests,
        log.get("prefill_tokens"), log.get("prefill_context_tokens"), None, _turned(log),
        log.columns.get("padded_requests"), _fresh(log),
    )  # fmt: skip


def _prompts(log: StepLog) -> np.ndarray:
    if "prefill_requests" not in log.columns:
        return (log.get("prefill_tokens") > 0).astype(np.float64)
    return log.get("prefill_requests")


def _fresh(log: StepLog) -> np.ndarray:
    """New shapes among the prompts of each step (`step_cold.fresh`)."""
    if _FRESH[0] in log.columns:
        return np.stack([log.columns[name] for name in _FRESH], axis=1)
    before = log.columns.get("prefill_context_tokens")
    chunks = log.columns.get("chunks")
    return fresh(log.get("prefill_tokens"), _prompts(log), before, log.get("segment"), chunks)


def _turned(log: StepLog) -> np.ndarray | None:
    """Whether each step is the first of its kind straight after one of the other, idle time
    between them none; None where the log does not know what was before."""
    before = log.columns.get("prev_kind")
    if before is None:
        return None
    own = np.where(log.get("prefill_tokens") > 0, WITH_PREFILL, ONLY_DECODE)
    turned = (before != own) & (before > 0)
    if "prev_end_s" in log.columns:
        gap = log.columns["start_s"] - log.columns["prev_end_s"]
        turned &= ~(gap > np.median(log.columns["duration_s"])) | (own == ONLY_DECODE)
    found: np.ndarray = turned.astype(np.float64)
    return found


def context_meaning(log: StepLog) -> str:
    """Whether the context column counts prefilling requests, too, by steps that only prefill."""
    alone = (log.get("prefill_tokens") > 0) & (log.get("decode_requests") == 0)
    context = log.get("context_tokens")[alone]
    if not len(context) or np.mean(context > 0) < 0.05:
        return "decode"
    return "all" if np.mean(context >= log.get("prefill_tokens")[alone]) > 0.9 else "prefix"


def prepared(log: StepLog, basis: str, least: int = LEAST) -> tuple[StepLog, np.ndarray, Pace, str]:
    """The usable steps of *log*, how long each lasted, how that is known, and whose context the
    log counts; decode's own stands in the log that is returned."""
    found = pace(log, basis)
    fresh_ = dict(zip(_FRESH, _fresh(log).T, strict=True))
    log = replace(log, columns=log.columns | fresh_)
    usable = np.isfinite(found.seconds) & (found.seconds > 0)
    busy = (log.get("decode_tokens") + log.get("prefill_tokens")) > 0
    rows = np.flatnonzero(usable & busy)
    if len(rows) < least:
        what = f"{len(rows)} usable steps of {len(log)}; a fit needs {LEAST}, better some hundred"
        raise InputError(f"steps: {what}")
    if len(rows) > _MOST:
        rows = rows[:: -(-len(rows) // _MOST)]
    chosen, seconds = log.take(rows), found.seconds[rows]
    meaning = context_meaning(chosen)
    if meaning != "decode":
        chosen = _own_context(chosen, meaning)
    return chosen, seconds, found, meaning


def _own_context(log: StepLog, meaning: str) -> StepLog:
    """*log* with decode's own context where the column counts that of prefill, too."""
    prefix = log.get("prefill_context_tokens")
    context = log.get("context_tokens").copy()
    computed = log.get("prefill_tokens") if meaning == "all" else 0.0
    alone = log.get("decode_requests") == 0
    if "prefill_context_tokens" not in log.columns:
        prefix = np.where(alone, np.maximum(context - computed, 0.0), 0.0)
    columns = log.columns | {
        "prefill_context_tokens": prefix,
        "context_tokens": np.maximum(context - prefix - computed, 0.0),
    }
    return replace(log, columns=columns)
