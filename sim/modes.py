"""The loop modes: a pass becomes a `Timing`, GPU work and orchestration kept apart.

All run the same stages. `host` submits each as a launch, `graph` replays them as nodes of a
captured graph, `control` is such a graph that the device launches again by itself, `resident` walks
them inside one kernel with a barrier between stages. Constants are those of empty kernels or, where
a profile has them, those that a whole decoder showed in that mode.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from .stream import Stream
from .timing import LaunchQueue, Segment, Timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .engine import Engine
    from .profile import Profile
    from .stages import Body, Pass, Stage
    from .timing import Line


class Modes:
    """Turns passes into timings with the constants of *profile*; *host* is `python` or `c`."""

    def __init__(self, profile: Profile, host: str, asynchronous: bool = False) -> None:
        self.language = host
        self.asynchronous = asynchronous
        """Whether the host plans a step, and reads the last one's tokens, while the GPU works."""
        self.submit = profile.constant(f"host_{host}_submit_s")
        self.schedule_base = profile.constant(f"host_{host}_schedule_s")
        self.schedule_each = profile.constant(f"host_{host}_schedule_per_request_s")
        self.latency = profile.constant("launch_latency_s")
        # The measured launch + synchronise includes the way of the launch to the GPU.
        self.names = {
            what: self._name(profile, what) for what in ("sync", "copyback", "graph_launch")
        }
        self.sync = profile.constant(self.names["sync"]) - self.latency
        self.copy_back = profile.constant(self.names["copyback"])
        self.graph_launch = profile.constant(self.names["graph_launch"])
        self.node = profile.constant("graph_node_s")
        self.barrier = profile.constant("grid_barrier_s")
        self.ring_bytes = profile.constant("prefetch_ring_bytes")
        self.stream_bytes_per_s = profile.constant("hbm_read_bytes_per_s")
        self.device_base = profile.constant("device_schedule_s")
        self.device_each = profile.constant("device_schedule_per_request_s")
        self.mailbox = profile.constant("mailbox_round_trip_s")
        self.exit = profile.constant("resident_exit_s")
        self.relaunch = profile.constant("resident_relaunch_s")
        self.step_base = self.step_each = 0.0
        self.prefill_submit: float | None = None
        self.own_submit: float | None = None
        self.known = profile.engine is not None
        """Whether an engine's log says what it does between steps."""
        if profile.engine is not None:
            self._around(profile.engine)
        # Model: a graph that the device launches again starts as late as a kernel of the host.
        self.control_around = self.latency + self.device_base
        self.stream: Stream | None = None
        self.segments: dict[Body, tuple[Segment, Segment, Segment]] = {}

    def _around(self, engine: Engine) -> None:
        """Takes what *engine* does between steps, in the place of placeholders for it."""
        # Model: between two steps an engine does as much as it was seen to do, whatever the kernels
        # below it; fitted on its log (sim/engine_fit.py).
        self.schedule_base = self.schedule_each = self.device_base = self.device_each = 0.0
        self.step_base = engine.term("step_s")
        self.step_each = engine.term("decode_request_s")
        self.own_submit = engine.terms.get("submit_s")
        self.submit = self.own_submit or self.submit
        self.prefill_submit = engine.terms.get("prefill_submit_s")

    def measured(self, parameters: Mapping[str, float]) -> Modes:
        """These modes with the *parameters* of a loop that was measured on a whole decoder.

        Stages' times must then hold the gap *node_s* of that loop.
        """
        other = copy(self)
        other.segments = {}
        if "ring_bytes" in parameters:
            other.stream, other.node = Stream(**parameters), 0.0
            return other
        around = parameters["around_s"]
        other.node = parameters["node_s"]
        other.sync, other.copy_back = around, 0.0
        other.graph_launch = other.control_around = around
        other.submit = self.own_submit or parameters.get("submit_s", self.submit)
        other.latency = parameters.get("latency_s", self.latency)
        other.device_base = other.device_each = 0.0
        return other

    def between(self) -> Modes:
        """These modes inside another pass's iteration: nothing is scheduled, the host waits once.

        # Model: a token that is drafted stays on the GPU, where the next pass finds it. The host
        submits one pass after the other (kernel by kernel or a graph each) and waits for the last;
        a graph that the GPU launches again by itself has them all.
        """
        other = copy(self)
        other.segments = {}
        other.sync = other.copy_back = other.schedule_base = other.schedule_each = 0.0
        other.graph_launch = min(self.graph_launch, self.submit + self.latency)
        other.device_base = other.device_each = other.control_around = 0.0
        other.step_base = other.step_each = 0.0
        other.asynchronous = False
        return other

    def _name(self, profile: Profile, what: str) -> str:
        """The constant *what* of this host, or the one that older profiles have for every host."""
        own = f"host_{self.language}_{what}_s"
        if own in profile.constants:
            return own
        return "graph_launch_s" if what == "graph_launch" else f"host_{what}_s"

    def uses(self, mode: str, prefill: str) -> list[str]:
        """Names of the profile's constants that *mode* depends on."""
        found = self._uses(mode, prefill)
        return [name for name in found if "schedule" not in name] if self.known else found

    def _uses(self, mode: str, prefill: str) -> list[str]:
        host = [f"host_{self.language}_{what}_s" for what in ("submit", "schedule")]
        host += [f"host_{self.language}_schedule_per_request_s", "launch_latency_s"]
        host += [self.names["sync"], self.names["copyback"], "graph_node_s"]
        device = ["grid_barrier_s", "prefetch_ring_bytes", "hbm_read_bytes_per_s", "graph_node_s"]
        device += ["device_schedule_s", "device_schedule_per_request_s"]
        if mode == "host":
            return host
        if mode == "graph":
            return [*host, self.names["graph_launch"]]
        if mode == "control":
            out = ["resident_exit_s", "resident_relaunch_s"]
            return [*host, *out, "device_schedule_s", "device_schedule_per_request_s"]
        if prefill == "partition":
            return [*device, "mailbox_round_trip_s"]
        return [*device, *host, "resident_exit_s", "resident_relaunch_s"]

    def queue(self, work: Pass, attends: bool, prefill: float | None) -> LaunchQueue:
        """The launches of *work*, one a stage; *prefill* is a layer's prefill attention."""
        # Model: in a busy stream, kernels follow each other as closely as the nodes of a graph.
        body = work.body
        segments = self.segments.get(body)
        if segments is None:
            first, layer = body.head, body.before
            # Model: where some layers select and others do not, all selections are submitted
            # ahead of the layers: the sum of launches and kernels is right, their order is not.
            if body.selections == body.layers:
                layer += body.chosen
            else:
                first += body.chosen * body.selections
            head, before, after = map(self._segment, (first, layer, body.after))
            segments = self.segments[body] = (head, before, after)
        head, before, after = segments
        tail = self._segment(work.tail)
        submit = self.submit
        if prefill is not None and self.prefill_submit is not None:
            submit = self.prefill_submit
        return LaunchQueue(
            submit, self.latency, head, before, attends, prefill, after, tail, body.layers
        )

    def _segment(self, stages: tuple[Stage, ...]) -> Segment:
        return Segment([stage.seconds for stage in stages])

    def host_overhead(self, requests: int) -> float:
        """Seconds of a launched iteration before its first and after its last launch."""
        return self.sync + self.copy_back + self._schedule(requests)

    def launched(self, lines: tuple[Line, ...], requests: int) -> tuple[Line, ...]:
        """*lines* of launches with what the host of *requests* requests does around them."""
        if not self.asynchronous:
            around = self.host_overhead(requests)
            return tuple((const + around, slope) for const, slope in lines)
        around = self.copy_back + self._schedule(requests)
        # Model: planned ahead, an iteration follows the one before without a gap as long as the GPU
        # is the limit (the first line); a host that is slower still does all its work in turn, but
        # waits for nobody.
        return (lines[0], *((const + around, slope) for const, slope in lines[1:]))

    def run(self, mode: str, work: Pass, requests: int) -> Timing:
        """A decode iteration of *requests* requests with the stages of *work* in *mode*."""
        match mode:
            case "graph":
                found = self.graph(work, requests)
            case "control":
                found = self.control(work, requests)
            case "resident":
                found = self.resident(work, requests)
            case _:
                found = self.host(work, requests)
        around = self.around(requests)
        if not around:
            return found
        lines = tuple((const + around, slope) for const, slope in found.lines)
        return replace(found, lines=lines)

    def around(self, requests: int) -> float:
        """Seconds of an engine beside its kernels and launches in a step that decodes so many."""
        return self.step_base + self.step_each * requests

    def host(self, work: Pass, requests: int) -> Timing:
        """Decode with one launch a stage, sync and copy-back at the end, CPU scheduling before."""
        queue = self.queue(work, True, None)
        lines = self.launched(queue.lines(), requests)
        busy = queue.kernel_seconds() - queue.launches * self.node
        return Timing("host", lines, (busy, float(work.body.layers)), queue.launches, 1, queue)

    def graph(self, work: Pass, requests: int) -> Timing:
        """One launch for all stages, a gap at each node, sync, copy-back, CPU scheduling."""
        queue = self.queue(work, True, None)
        seconds, slope = queue.kernel_seconds(), float(work.body.layers)
        overhead = self.graph_launch + self.copy_back + self._schedule(requests)
        lines: tuple[Line, ...] = ((seconds + overhead, slope),)
        if self.asynchronous:
            # Model: planned ahead, a graph follows the one before like a kernel in a stream, unless
            # the host takes longer for its part of a step.
            lines = ((seconds + self.node, slope), (overhead, 0.0))
        busy_line = (seconds - queue.launches * self.node, slope)
        # Model: the launch call of a graph takes as long as that of a kernel.
        queued = self.submit + self.latency
        return Timing("graph", lines, busy_line, 1, 1, None, queued)

    def control(self, work: Pass, requests: int) -> Timing:
        """No launch by the host: the device schedules and launches the graph again."""
        queue = self.queue(work, True, None)
        seconds, slope = queue.kernel_seconds(), float(work.body.layers)
        line = (seconds + self.control_around + self.device_each * requests, slope)
        busy_line = (seconds - queue.launches * self.node, slope)
        return Timing("control", (line,), busy_line, 0, 0, None)

    def resident(self, work: Pass, requests: int) -> Timing:
        """No launch: a barrier a stage, less what weight prefetch hides, and device scheduling."""
        if self.stream is not None:
            return _streamed(self.stream, work)
        stages = work.stages()
        ramp, ahead = self.prefetched(stages)
        busy = sum(stage.seconds - self.node for stage in stages) - ramp
        layers = work.body.layers
        barriers = len(stages) + layers
        orchestration = barriers * self.barrier - ahead
        orchestration += self.device_base + self.device_each * requests
        slope = float(layers)
        attention = layers * self.node
        busy_line = (busy - attention, slope)
        line = (busy - attention + orchestration, slope)
        return Timing("resident", (line,), busy_line, 0, 0, None, barriers=barriers)

    def prefetched(self, stages: Sequence[Stage]) -> tuple[float, float]:
        """Seconds of the *stages*' ramps and of their barriers that prefetch of weights hides."""
        hidden = [self._hidden(stage) for stage in stages]
        # A prefetch hides a stage's ramp first, then the barrier before it.
        ramp = sum(
            min(credit, stage.fixed - self.node)
            for credit, stage in zip(hidden, stages, strict=True)
        )
        return ramp, sum(hidden) - ramp

    def partition_seconds(self, queue: LaunchQueue, share: float) -> float:
        """A prefill chunk of the stages in *queue* on *share* of a resident loop's SMs."""
        # Model: prefill is bound by compute, so its kernels take 1/share of their time. Its busy
        # time is weighted by the share, so that busy time over all rows stays below the clock.
        busy = queue.kernel_seconds() - queue.launches * self.node
        return busy / share + queue.launches * self.barrier + self.mailbox

    def beside_prefill(self, timing: Timing, share: float) -> Timing:
        """A resident decode iteration while prefill holds *share* of the SMs."""
        # Model: decode slows by the SMs it lost, as a decode kernel beside a copy kernel that
        # holds n of 132 SMs takes 132 / (132 - n) of its time.
        left = 1.0 - share
        busy, busy_slope = timing.busy_line
        lines = tuple(
            (busy / left + (const - busy), busy_slope / left + (slope - busy_slope))
            for const, slope in timing.lines
        )
        return replace(timing, lines=lines)

    def _schedule(self, requests: int) -> float:
        return self.schedule_base + self.schedule_each * requests

    def _hidden(self, stage: Stage) -> float:
        """Seconds of ramp and barrier that streaming the stage's weights ahead hides."""
        # Model: a ring in shared memory fills with the next stage's weights while the barrier is
        # waited for, so that HBM never drains (as in Hazy Research's Megakernels).
        if not stage.weight_bytes:
            return 0.0
        ahead = min(stage.weight_bytes, self.ring_bytes) / self.stream_bytes_per_s
        return min(ahead, stage.fixed - self.node + self.barrier)


def _streamed(stream: Stream, work: Pass) -> Timing:
    """A resident step that reads its weights ahead, whatever its kernels cost one by one."""
    body = work.body
    before, after, tail, chosen = (
        [(stage.weight_bytes, stage.seconds) for stage in stages if stage.name != "commit"]
        for stages in (body.before, body.after, work.tail, body.chosen)
    )
    lines = stream.lines(body.tokens, before, after, tail, body.layers, chosen, body.selections)
    # Of the steepest line, which attention alone decides, the GPU waits at its meetings only.
    const, slope = lines[-1]
    meetings = body.layers * (len(before) + 1 + len(after)) + len(tail)
    meetings += body.selections * len(chosen)
    waits = meetings * stream.meeting(body.tokens) + stream.around_s
    return Timing("resident", lines, (max(0.0, const - waits), slope), 0, 0, None, 0.0, meetings)
