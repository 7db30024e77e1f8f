"""The three loop modes: a pass becomes a `Timing`, GPU work and orchestration kept apart.

All three run the same stages. `host` submits each as a launch, `graph` replays them as nodes of a
captured graph, `resident` walks them inside one kernel with a barrier between stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .timing import LaunchQueue, Timing

if TYPE_CHECKING:
    from .profile import Profile
    from .stages import Pass, Stage


class Modes:
    """Turns passes into timings with the constants of *profile*; *host* is `python` or `c`."""

    def __init__(self, profile: Profile, host: str) -> None:
        self.language = host
        self.submit = profile.constant(f"host_{host}_submit_s")
        self.schedule_base = profile.constant(f"host_{host}_schedule_s")
        self.schedule_each = profile.constant(f"host_{host}_schedule_per_request_s")
        self.latency = profile.constant("launch_latency_s")
        # The measured launch + synchronise includes the way of the launch to the GPU.
        self.sync = profile.constant("host_sync_s") - self.latency
        self.copy_back = profile.constant("host_copyback_s")
        self.graph_launch = profile.constant("graph_launch_s")
        self.node = profile.constant("graph_node_s")
        self.barrier = profile.constant("grid_barrier_s")
        self.ring_bytes = profile.constant("prefetch_ring_bytes")
        self.stream_bytes_per_s = profile.constant("hbm_read_bytes_per_s")
        self.device_base = profile.constant("device_schedule_s")
        self.device_each = profile.constant("device_schedule_per_request_s")
        self.mailbox = profile.constant("mailbox_round_trip_s")
        self.exit = profile.constant("resident_exit_s")
        self.relaunch = profile.constant("resident_relaunch_s")

    def uses(self, mode: str, prefill: str) -> list[str]:
        """Names of the profile's constants that *mode* depends on."""
        host = [f"host_{self.language}_{what}_s" for what in ("submit", "schedule")]
        host += [f"host_{self.language}_schedule_per_request_s", "launch_latency_s"]
        host += ["host_sync_s", "host_copyback_s", "graph_node_s"]
        device = ["grid_barrier_s", "prefetch_ring_bytes", "hbm_read_bytes_per_s", "graph_node_s"]
        device += ["device_schedule_s", "device_schedule_per_request_s", "mailbox_round_trip_s"]
        if mode == "host":
            return host
        if mode == "graph":
            return [*host, "graph_launch_s"]
        if prefill == "partition":
            return device
        return [*device, *host, "resident_exit_s", "resident_relaunch_s"]

    def host(self, work: Pass, attends: bool, prefill: float | None, requests: int) -> Timing:
        """One launch a stage, sync and copy-back at the end, CPU scheduling before.

        *prefill* is the time of a layer's prefill attention, *attends* whether requests decode.
        """
        before, after = _around_attention(work, prefill)
        # Model: in a busy stream, kernels follow each other as closely as the nodes of a graph.
        queue = LaunchQueue(
            self.submit, self.latency, _seconds(work.head), before, attends, after,
            _seconds(work.tail), work.layers,
        )  # fmt: skip
        overhead = self.sync + self.copy_back + self._schedule(requests)
        lines = tuple((const + overhead, slope) for const, slope in queue.lines())
        launches = _count(work, attends, prefill)
        busy = self._busy(work, attends, prefill)
        return Timing("host", lines, busy, launches, 1, queue)

    def graph(self, work: Pass, requests: int) -> Timing:
        """One launch for all stages, a gap at each node, sync, copy-back, CPU scheduling."""
        before, after = _around_attention(work, None)
        seconds = sum(_seconds(work.head)) + sum(_seconds(work.tail))
        seconds += work.layers * (sum(before) + sum(after))
        overhead = self.graph_launch + self.copy_back + self._schedule(requests)
        line = (seconds + overhead, float(work.layers))
        # Model: the launch call of a graph takes as long as that of a kernel.
        queued = self.submit + self.latency
        return Timing("graph", (line,), self._busy(work, True, None), 1, 1, None, queued)

    def resident(self, work: Pass, requests: int) -> Timing:
        """No launch: a barrier a stage, less what weight prefetch hides, and device scheduling."""
        stages = [*work.head, *work.layer * work.layers, *work.tail]
        hidden = [self._hidden(stage) for stage in stages]
        # A prefetch hides a stage's ramp first, then the barrier before it.
        ramp = sum(
            min(credit, s.fixed - self.node) for credit, s in zip(hidden, stages, strict=True)
        )
        busy = sum(s.seconds - self.node for s in stages) - ramp
        barriers = (len(stages) + work.layers) * self.barrier
        orchestration = barriers - (sum(hidden) - ramp)
        orchestration += self.device_base + self.device_each * requests
        slope = float(work.layers)
        attention = work.layers * self.node
        busy_line = (busy - attention, slope)
        line = (busy - attention + orchestration, slope)
        return Timing("resident", (line,), busy_line, 0, 0, None)

    def partition(self, work: Pass, prefill: float, share: float) -> Timing:
        """A prefill chunk on *share* of the SMs of a resident loop, admitted by mailbox."""
        # Model: prefill is bound by compute, so its kernels take 1/share of their time. Its busy
        # time is weighted by the share, so that busy time over all rows stays below the clock.
        stages = [*work.head, *work.layer * work.layers, *work.tail]
        busy = sum(s.seconds - self.node for s in stages) + work.layers * (prefill - self.node)
        barriers = (len(stages) + work.layers) * self.barrier
        seconds = busy / share + barriers + self.mailbox
        return Timing("partition", ((seconds, 0.0),), (busy, 0.0), 0, 0, None)

    def beside_prefill(self, timing: Timing, share: float) -> Timing:
        """A resident decode iteration while prefill holds *share* of the SMs."""
        # Model: decode slows by the SMs it lost (KERNELS: T0 * 132 / (132 - n) for SM movers).
        left = 1.0 - share
        (const, slope), (busy, busy_slope) = timing.lines[0], timing.busy_line
        line = (busy / left + (const - busy), slope / left)
        return Timing("resident", (line,), (busy, busy_slope), 0, 0, None)

    def _schedule(self, requests: int) -> float:
        return self.schedule_base + self.schedule_each * requests

    def _hidden(self, stage: Stage) -> float:
        """Seconds of ramp and barrier that streaming the stage's weights ahead hides."""
        # Model: a ring in shared memory fills while the barrier is waited for (KERNELS 1.6).
        if not stage.weight_bytes:
            return 0.0
        ahead = min(stage.weight_bytes, self.ring_bytes) / self.stream_bytes_per_s
        return min(ahead, stage.fixed - self.node + self.barrier)

    def _busy(self, work: Pass, attends: bool, prefill: float | None) -> tuple[float, float]:
        before, after = _around_attention(work, prefill)
        seconds = sum(_seconds(work.head)) + sum(_seconds(work.tail))
        seconds += work.layers * (sum(before) + sum(after))
        seconds -= _count(work, attends, prefill) * self.node
        return (seconds, float(work.layers * attends))


def _seconds(stages: tuple[Stage, ...]) -> tuple[float, ...]:
    return tuple(stage.seconds for stage in stages)


def _around_attention(
    work: Pass, prefill: float | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Kernel times of a layer before and after decode attention; prefill attention comes after."""
    seconds = _seconds(work.layer)
    before, after = seconds[: work.attention_at], seconds[work.attention_at :]
    return before, after if prefill is None else (prefill, *after)


def _count(work: Pass, attends: bool, prefill: float | None) -> int:
    """Launches, or nodes, of the pass."""
    layer = len(work.layer) + attends + (prefill is not None)
    return len(work.head) + work.layers * layer + len(work.tail)
