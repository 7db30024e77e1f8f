"""Applied Compute agent sessions: one session a line, given by the lengths of its parts.

A session is a prompt, then by turns an answer, a tool call with its latency, and the tool's output,
and at last a final answer. It has neither times nor block ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.trace.bounds import MAX_SECONDS
from sim.trace.rows import BadRowError, tokens
from sim.trace.turns import Turn

from . import objects
from .mooncake_keys import records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

TURNS, PROMPT, FINAL = "num_turns", "input_prompt_length", "final_assistant_response_length"
ANSWERS, TOOLS, LATENCIES = (
    "assistant_response_length",
    "tool_call_output_length",
    "tool_call_latency",
)
KEYS = (TURNS, PROMPT, ANSWERS, TOOLS, LATENCIES, FINAL)
# Model: the block size of engines' prefix caches is 16 to 64 tokens (vLLM 16, kv-cache-tester 64);
# sessions grow by hundreds of tokens a turn, so 64 loses little.
BLOCK_TOKENS = 64


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The requests of each session; bad lines go to *findings*."""
    block_tokens = tally.block_tokens = replay.block_tokens or BLOCK_TOKENS
    tally.last_block = "full"
    tally.note(
        "the file has no block ids: made so that each prompt extends the one before, in blocks of "
        f"{block_tokens} tokens"
    )
    unread = objects.Unread(KEYS, tally)
    used = 0  # block ids
    for line, record in records(path, findings):
        unread.see(record)
        try:
            steps = _steps(record)
        except BadRowError as bad:
            findings.add(line, bad)
            continue
        for number, (prompt, output, delay_s) in enumerate(steps):
            ids = np.arange(used, used + prompt // block_tokens, dtype=np.int64)
            after = ((line, number - 1),) if number else ()
            yield Turn(
                (line, number), line, prompt, output, f"session-{line}", after=after,
                delay_s=delay_s, ids=ids, free_start=True,
            )  # fmt: skip
        used += steps[-1][0] // block_tokens


def _steps(record: dict[str, Any]) -> list[tuple[int, int, float]]:
    """Prompt, output and the delay before it in seconds, of each request of a session.

    # Model: a prompt is the one before, its answer, and the tool's output, word for word (the
    # format's own rule: AISimulate, docs of replay workloads, "Applied Compute Agentic").
    """
    objects.need(record, KEYS)
    number = record[TURNS]
    if type(number) is not int or number < 0:
        raise BadRowError(f"bad {TURNS}", f"{TURNS}: {objects.said(number)} is no number of turns")
    for key in (ANSWERS, TOOLS, LATENCIES):
        value = record[key]
        if not isinstance(value, list) or len(value) != number:
            there = f"{len(value)} values" if isinstance(value, list) else objects.said(value)
            raise BadRowError(
                f"bad {key}", f"{key}: {there}, but {TURNS} is {number}; one each is needed"
            )
    prompt = objects.count(PROMPT, record[PROMPT], output=False)
    steps = []
    delay_s = 0.0
    for answer, tool, latency in zip(
        record[ANSWERS], record[TOOLS], record[LATENCIES], strict=True
    ):
        output = objects.count(ANSWERS, answer, output=True)
        steps.append((prompt, output, delay_s))
        # a tool may say nothing
        added = 0 if type(tool) is int and tool == 0 else objects.count(TOOLS, tool, output=False)
        prompt = tokens("the whole prompt", prompt + output + added, None, output=False)
        delay_s = float(objects.time_of(LATENCIES, latency, 1.0, "seconds"))
        if delay_s > MAX_SECONDS:
            raise BadRowError(f"bad {LATENCIES}", f"{LATENCIES}: {delay_s:,.4g} s is too long")
    steps.append((prompt, objects.count(FINAL, record[FINAL], output=True), delay_s))
    return steps
