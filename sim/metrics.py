"""Columns to numbers: vLLM's serving metrics, and ours with a prefix.

TTFT counts from arrival, TPOT is per token, ITL is the gap between two commits of a request, E2EL
is the whole latency, each as vLLM's `bench serve` defines it. Quantiles are exact.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from .iteration_costs import PATHS
from .iteration_log import KINDS
from .iteration_log import Columns as IterationColumns
from .quantiles import Summary, joined, statistics, weighted_statistics
from .request_log import REASONS, STATUSES
from .request_log import Columns as RequestColumns

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from .scenario import Slo

WIDE = (
    "decode_rows", "commits", "draft_tokens", "accepted_tokens", "drafts", "attended_tokens",
    "pages_scored", "kv_blocks_fetched", "kv_blocks_selected", "kv_blocks_total", "recall",
    "barriers",
)  # fmt: skip
"""Columns, where there are any, that are summed for what `wide_metrics` says."""
FINISHED = STATUSES.index("finished")


def latencies(columns: RequestColumns) -> dict[str, np.ndarray]:
    """TTFT, TPOT, E2EL and time in the queue in seconds, `nan` where a request has none.

    TPOT = (E2EL - TTFT) / (output tokens - 1); a request of one token has none.
    """
    ttft = columns["first_token"] - columns["arrival"]
    e2el = columns["finished"] - columns["arrival"]
    more = columns["output_tokens"] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(more > 0, (e2el - ttft) / more, np.nan)
    return {
        "ttft": ttft,
        "tpot": tpot,
        "e2el": e2el,
        "queue": columns["admitted"] - columns["arrival"],
    }


class RequestStats:
    """Accumulates slices of requests; a sink of `RequestLog`."""

    def __init__(self, slo: Slo) -> None:
        self.slo = slo
        self.counts = np.zeros(len(STATUSES), np.int64)
        self.reasons = np.zeros(len(REASONS), np.int64)
        self.input_tokens = 0
        self.output_tokens = 0
        self.generated_tokens = 0
        self.preempted = 0
        self.good = 0
        self.values: dict[str, list[np.ndarray]] = {}
        self.spans: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, columns: RequestColumns) -> None:
        """Takes a slice of ended requests."""
        status = columns["status"]
        self.counts += np.bincount(status, minlength=len(STATUSES))
        self.reasons += np.bincount(columns["reason"] + 1, minlength=len(REASONS) + 1)[1:]
        done = status == FINISHED
        self.input_tokens += int(columns["prompt_tokens"][done].sum())
        self.output_tokens += int(columns["output_tokens"][done].sum())
        self.generated_tokens += int(columns["generated"].sum())
        self.preempted += int((columns["preemptions"] > 0).sum())
        values = {name: column[done] for name, column in latencies(columns).items()}
        for name, column in values.items():
            self.values.setdefault(name, []).append(column)
        self.good += self._good(values)
        self.spans.append((columns["arrival"][done], columns["finished"][done]))

    def _good(self, values: dict[str, np.ndarray]) -> int:
        """Requests that keep every limit; one-token outputs count as 0 TPOT, as in vLLM."""
        good = np.ones(len(values["ttft"]), bool)
        for name in ("ttft", "tpot", "e2el"):
            limit = getattr(self.slo, name)
            if limit is not None:
                good &= np.nan_to_num(values[name], nan=0.0) <= limit
        return int(good.sum())

    def summary(self, duration: float) -> Summary:
        """vLLM's keys over the finished requests of a run of *duration* seconds."""
        finished = int(self.counts[FINISHED])
        total = int(self.counts.sum())
        limits = any(v is not None for v in (self.slo.ttft, self.slo.tpot, self.slo.e2el))
        seconds = duration or inf
        summary: Summary = {
            "duration": duration,
            "completed": finished,
            "failed": total - finished,
            "total_input_tokens": self.input_tokens,
            "total_output_tokens": self.output_tokens,
            "request_throughput": finished / seconds,
            "request_goodput": self.good / seconds if limits else None,
            "goodput_share": self.good / total if limits and total else None,
            "output_throughput": self.output_tokens / seconds,
            "total_token_throughput": (self.input_tokens + self.output_tokens) / seconds,
            "max_concurrent_requests": self._concurrent(),
        }
        for name in ("ttft", "tpot", "e2el"):
            summary |= statistics(name, joined(self.values.get(name, [])))
        summary |= statistics("queue", joined(self.values.get("queue", [])))
        summary["requests_in"] = total
        for number, name in enumerate(STATUSES):
            summary[f"requests_{name}"] = int(self.counts[number])
        summary["requests_rejected_by_reason"] = {
            reason: int(count) for reason, count in zip(REASONS, self.reasons, strict=True) if count
        }
        summary["requests_preempted"] = self.preempted
        summary["tokens_committed"] = self.generated_tokens
        return summary

    def _concurrent(self) -> int:
        """Most finished requests in the system at one time."""
        arrivals = np.sort(joined([begin for begin, _ in self.spans]))
        ends = np.sort(joined([end for _, end in self.spans]))
        if not len(arrivals):
            return 0
        left = np.searchsorted(ends, arrivals, side="right")
        return int((np.arange(1, len(arrivals) + 1) - left).max())


class LoopStats:
    """Accumulates slices of iterations; a sink of `IterationLog`."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.kinds = np.zeros(len(KINDS), np.int64)
        self.paths = np.zeros(len(PATHS), np.int64)
        self.gaps: list[np.ndarray] = []
        self.gap_counts: list[np.ndarray] = []
        self.tokens_by_second: dict[int, float] = {}
        self.most = {"decode_requests": 0, "waiting": 0}
        self.accepted_at: np.ndarray | None = None

    def add(self, columns: IterationColumns) -> None:
        """Takes a slice of iterations."""
        seconds = columns["duration_s"]
        beside = columns["path"] == PATHS.index("partition")
        self._sum("busy", columns["gpu_busy_s"])
        self._sum("busy_prefill", columns["gpu_busy_s"][columns["prefill_tokens"] > 0])
        self._sum("gap", columns["gap_s"][~beside])
        self._sum("time", seconds[~beside])
        for name in ("launches", "syncs", "tklqt_s", "output_tokens", "prefill_tokens"):
            self._sum(name, columns[name])
        self._sum("decode_context", columns["context_tokens"])
        self._sum("decode_steps", columns["decode_requests"])
        self._sum("decoding", columns["decode_requests"] > 0)
        for name in ("decode_requests", "padded_requests", "waiting", "running", "kv_blocks"):
            self._sum(name + "_s", (columns[name] * seconds)[~beside])
        for name in WIDE:
            if name in columns:
                self._sum(name, columns[name])
        if "accepted_at" in columns:
            at = columns["accepted_at"].sum(axis=0)
            self.accepted_at = at if self.accepted_at is None else self.accepted_at + at
        if "kv_blocks_lower" in columns:
            self.most.setdefault("kv_blocks_lower", 0)
        for name in self.most:
            self.most[name] = max(self.most[name], int(columns[name].max()))
        self.kinds += np.bincount(columns["kind"], minlength=len(KINDS))
        self.paths += np.bincount(columns["path"], minlength=len(PATHS))
        self.gaps.append(columns["itl_s"])
        self.gap_counts.append(columns["itl_requests"])
        self._bucket(columns)

    def _longest_gap(self, singles: np.ndarray) -> float:
        """Longest time in seconds between two tokens of a request."""
        gaps = (
            float(gap[count > 0].max(initial=0.0))
            for gap, count in zip(self.gaps, self.gap_counts, strict=True)
        )
        return max(*gaps, float(singles.max(initial=0.0)), 0.0)

    def _sum(self, name: str, values: np.ndarray) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(values.sum())

    def _bucket(self, columns: IterationColumns) -> None:
        end = (columns["start_s"] + columns["duration_s"]).astype(np.int64)
        seconds, where = np.unique(end, return_inverse=True)
        tokens = np.bincount(where, weights=columns["output_tokens"])
        for second, count in zip(seconds.tolist(), tokens.tolist(), strict=True):
            self.tokens_by_second[second] = self.tokens_by_second.get(second, 0.0) + count

    @classmethod
    def of(cls, parts: Sequence[LoopStats]) -> LoopStats:
        """Those of several replicas together."""
        whole = cls()
        for part in parts:
            for name, value in part.sums.items():
                whole.sums[name] = whole.sums.get(name, 0.0) + value
            for second, count in part.tokens_by_second.items():
                whole.tokens_by_second[second] = whole.tokens_by_second.get(second, 0.0) + count
            for name, most in part.most.items():
                whole.most[name] = max(most, whole.most.get(name, 0))
            if part.accepted_at is not None:
                at = whole.accepted_at
                whole.accepted_at = part.accepted_at if at is None else at + part.accepted_at
            whole.kinds += part.kinds
            whole.paths += part.paths
            whole.gaps += part.gaps
            whole.gap_counts += part.gap_counts
        return whole

    def summary(
        self, duration: float, capacity: int, singles: Sequence[array[float]], idle: float
    ) -> Summary:
        """Our keys for a run of *duration* seconds with a pool of *capacity* blocks a replica.

        *singles* are gaps of single requests, beside those in the slices, of each replica; *idle*
        is how long neither a loop nor its prefill partition had anything to do, in seconds.
        """
        replicas = len(singles)
        total = dict.fromkeys(
            ("busy", "busy_prefill", "gap", "time", "launches", "syncs", "tklqt_s",
             "decode_requests_s", "padded_requests_s", "waiting_s", "kv_blocks_s",
             "prefill_tokens"), 0.0,
        ) | self.sums  # fmt: skip
        time = total["time"] or 1.0
        iterations = int(self.kinds.sum())
        summary: Summary = {
            "max_output_tokens_per_s": max(self.tokens_by_second.values(), default=0.0)
        }
        # Sorted, because the engines find these gaps in different orders.
        singles_array = np.sort(
            np.concatenate([np.frombuffer(gaps) for gaps in singles if gaps] or [np.empty(0)])
        )
        summary |= weighted_statistics("itl", self.gaps, self.gap_counts, singles_array)
        summary |= {
            "loop_iterations": iterations,
            **{f"loop_iterations_{k}": int(n) for k, n in zip(KINDS, self.kinds, strict=True)},
            **{f"loop_path_{p}": int(n) for p, n in zip(PATHS, self.paths, strict=True)},
            "loop_time_s": total["time"],
            "loop_gpu_busy_s": total["busy"],
            "loop_gpu_busy_prefill_s": total["busy_prefill"],
            "loop_gap_s": total["gap"],
            "loop_idle_s": idle,
            "loop_gpu_busy_fraction": total["busy"] / duration / replicas if duration else 0.0,
            "loop_gap_fraction": total["gap"] / time if total["time"] else 0.0,
            "loop_longest_stall_ms": self._longest_gap(singles_array) * 1e3,
            "loop_launches": int(total["launches"]),
            "loop_syncs": int(total["syncs"]),
            "loop_tklqt_s": total["tklqt_s"],
            "loop_mean_decode_requests": total["decode_requests_s"] / time,
            "loop_max_decode_requests": self.most["decode_requests"],
            "loop_mean_padded_requests": total["padded_requests_s"] / time,
            "loop_mean_waiting_requests": total["waiting_s"] / time,
            "loop_max_waiting_requests": self.most["waiting"],
            "loop_prefill_tokens": int(total["prefill_tokens"]),
            "kv_blocks_capacity": capacity * replicas,
            "kv_mean_utilization": total["kv_blocks_s"] / time / capacity,
        }
        return summary
