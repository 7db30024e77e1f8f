"""Sums over iterations to numbers about drafts, and about what a resident loop is worth.

The one rule: drafts are counted as vLLM's `spec_decode` metrics count them, the bonus token apart,
and every ratio says here of what it is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .iteration_costs import PATHS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .metrics import LoopStats
    from .quantiles import Summary
    from .replica import Replica

ON_DEVICE = tuple(PATHS.index(path) for path in ("control", "resident"))


def speculation_summary(stats: LoopStats) -> Summary:
    """Counts of drafts; rates are None where nothing was drafted.

    `spec_num_drafts` steps in which something was drafted, `spec_num_draft_tokens` proposed,
    `spec_num_accepted_tokens` of them accepted, and how many at each place of a draft (or level of
    a tree). Acceptance is accepted over proposed tokens; the mean acceptance length 1 + accepted
    tokens over drafts. Bonus tokens are those that the model itself gives, one a step.
    """
    sums = stats.sums
    drafts, proposed, accepted, commits = (
        int(sums.get(name, 0)) for name in ("drafts", "draft_tokens", "accepted_tokens", "commits")
    )
    steps = sums.get("decode_steps")
    at = [] if stats.accepted_at is None else [int(count) for count in stats.accepted_at]
    return {
        "spec_num_drafts": drafts,
        "spec_num_draft_tokens": proposed,
        "spec_num_accepted_tokens": accepted,
        "spec_num_accepted_tokens_per_pos": at,
        "spec_acceptance_rate": accepted / proposed if proposed else None,
        "spec_acceptance_rate_per_pos": [count / drafts for count in at] if drafts else [],
        "spec_mean_acceptance_length": 1 + accepted / drafts if drafts else None,
        "spec_num_bonus_tokens": commits - accepted,
        "spec_tokens_per_step": commits / steps if steps else None,
    }


def residency_summary(stats: LoopStats, parts: Sequence[tuple[LoopStats, Replica]]) -> Summary:
    """What an iteration yields, and how long a loop stays on the device; *parts* of each replica.

    Tokens are those that decode steps commit. `loop_tokens_per_resident_loop` is the seeds' name
    for tokens an iteration that decodes, over all requests; then tokens for every launch, for
    every time the host waits for the GPU, and for every barrier of a resident loop, in all
    iterations. An entry is a launch of a loop that stays on the device; its residency is how many
    iterations it runs before it leaves. `loop_exit_s` is what leaving and coming back took.
    `loop_bubble_s` is time in which the loop had work and the GPU did none of it: gaps between
    kernels (exits among them), and waits for KV.
    """
    sums = stats.sums
    tokens = sums.get("commits", sums.get("decode_steps", 0.0))  # plainly, a token a step
    resident = _on_device(stats)
    entries = sum(
        (replica.entered if replica.exits else 1) if _on_device(own) else 0
        for own, replica in parts
    )
    replicas = [replica for _, replica in parts]
    modes = replicas[0].cost.modes
    left = sum(replica.left for replica in replicas)
    entered = sum(replica.entered for replica in replicas)
    memories = [replica.batch.memory for replica in replicas]
    waits = sum(sum(memory.stall_s.values()) for memory in memories if memory is not None)

    def each(name: str) -> float | None:
        return tokens / sums[name] if sums.get(name) else None

    return {
        "loop_tokens_per_resident_loop": each("decoding"),
        "loop_tokens_per_launch": each("launches"),
        "loop_tokens_per_sync": each("syncs"),
        "loop_tokens_per_barrier": each("barriers"),
        "loop_barriers": int(sums.get("barriers", 0)),
        "loop_entries": entries,
        "loop_iterations_per_entry": resident / entries if entries else None,
        "loop_exits": left,
        "loop_exit_s": left * modes.exit + entered * modes.relaunch,
        "loop_bubble_s": sums.get("gap", 0.0) + waits,
    }


def _on_device(stats: LoopStats) -> int:
    """Iterations of a loop that stays on the device."""
    return sum(int(stats.paths[path]) for path in ON_DEVICE)
