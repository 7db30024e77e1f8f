"""Where a step's time goes besides its stages: barriers, nodes, launches, copies, the mailbox.

Every figure is a list of samples in seconds; nobody averages here.
"""

from __future__ import annotations

import ctypes
import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Struct, layout
from . import host_c
from .launch import Loop
from .mailbox import Mailbox, pinned
from .record import Launch
from .state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Gpu

Records = list[dict[str, Any]]
BARRIERS = ("returning", "counted")
NODES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
STRUCT_WORDS = 24
"""Of 8 bytes: about a stage's parameters."""
LIMIT_NS = np.uint64(2_000_000_000)


def barriers(gpu: Gpu, rounds: int = 2000, samples: int = 7) -> Records:
    """One grid barrier: the common one and `meet`, over blocks and threads."""
    kernel = gpu.function("loop_control", "probe_barrier")
    words = gpu.xp.zeros(128, np.uint32)
    records = []
    for blocks in (gpu.sms, 2 * gpu.sms):
        for threads in (128, 256, 512, 1024):
            for kind, name in enumerate(BARRIERS):

                def call(
                    count: int, sizes: tuple[int, int] = (blocks, threads), kind: int = kind
                ) -> float:
                    words.fill(0)
                    args = (words, np.int32(kind), np.int32(count), LIMIT_NS)
                    return event_seconds(gpu, lambda: kernel(*sizes, args))

                call(10)
                spent = [(call(rounds) - call(0)) / rounds for _ in range(samples)]
                if int(words[120]):
                    raise RuntimeError(f"{name} barrier of {blocks} blocks ran out of time")
                records.append(
                    {"kind": name, "blocks": blocks, "threads": threads, "samples_s": spent}
                )
    return records


def nodes(gpu: Gpu, samples: int = 30) -> Records:
    """Graphs of empty kernels: by events on the stream, and launch to sync on the host's clock."""
    empty = _empty(gpu)
    records = []
    stream = gpu.xp.cuda.Stream(non_blocking=True)
    for count in NODES:
        replay = functools.partial(capture(stream, [empty] * count).launch, stream)
        with stream:
            stream_s = [event_seconds(gpu, replay) for _ in range(samples)]
            synced = _wall(functools.partial(_and_sync, replay, stream), samples)
        records.append({"nodes": count, "samples_s": stream_s[3:], "synced_s": synced[3:]})
    return records


def launches(gpu: Gpu, samples: int = 200) -> dict[str, Any]:
    """Submitting, waiting for and copying back an empty kernel, from Python and from C."""
    empty, stream = _empty(gpu), gpu.xp.cuda.Stream(non_blocking=True)
    device = gpu.xp.zeros(4096, np.int32)
    host = pinned(gpu, 4096, np.int32)
    found: dict[str, Any] = {}
    with stream:

        def copied() -> None:
            empty()
            device.get(stream=stream, out=host, blocking=False)
            stream.synchronize()

        def hundred() -> None:
            for _ in range(100):
                empty()

        many = _wall(hundred, 20, stream.synchronize)
        found["python_submit"] = [seconds / 100 for seconds in many]
        found |= _like_stages(gpu, empty, stream, device, host, samples)
        found["python_sync"] = _wall(lambda: _and_sync(empty, stream), samples)
        found["python_copy_sync"] = _wall(copied, samples)
    for count in (1, 3, 5):
        one_set = [[empty] * count]
        for name, slab, sync in (
            ("submit", None, False),
            ("sync", None, True),
            ("copy_sync", device, True),
        ):
            run = host_c.LaunchList(one_set, stream, slab, host, sync)
            run.launch(0, 100)
            seconds = run.launch(0, samples)[0]
            found[f"c_{name}_{count}"] = list(seconds)
        graph = capture(stream, [empty] * count)
        for name, slab in (("sync", None), ("copy_sync", device)):
            run = host_c.LaunchList(one_set, stream, slab, host)
            run.replay([graph], 0, 100)
            found[f"graph_{name}_{count}"] = list(run.replay([graph], 0, samples)[0])
    return found


def _like_stages(
    gpu: Gpu, empty: Launch, stream: Any, device: Any, host: Any, samples: int
) -> dict[str, Any]:
    """Python's part of a step whose stages are empty: launches that carry a stage's struct."""
    fields = [(f"word{i}", "u8") for i in range(STRUCT_WORDS)]
    struct = Struct(gpu, layout(*fields), **dict.fromkeys((name for name, _ in fields), 0))
    stage = Launch(empty.function, empty.grid, empty.block, empty.shared, (struct,), empty.raw)

    def step(count: int, back: bool) -> None:
        for _ in range(count):
            stage()
        if back:
            device.get(stream=stream, out=host, blocking=False)
            stream.synchronize()

    many = _wall(functools.partial(step, 100, False), 20, stream.synchronize)
    found: dict[str, Any] = {"python_stage_submit": [seconds / 100 for seconds in many]}
    for count in (1, 3, 5):
        run = functools.partial(step, count, True)
        found[f"python_stage_copy_sync_{count}"] = _wall(run, samples)
    return found


def mailbox_round_trip(gpu: Gpu, rounds: int = 2000) -> dict[str, Any]:
    """Host writes, device sees and answers, host sees: the host in C and in Python."""
    kernel = gpu.function("loop_control", "probe_echo")
    mail, reply = pinned(gpu, 4, np.uint32), pinned(gpu, 1, np.uint64)
    stream = gpu.xp.cuda.Stream(non_blocking=True)
    found: dict[str, Any] = {}
    for name in ("c", "python"):
        mail[:] = 0
        reply[:] = 0
        with stream:
            words = (np.uint64(gpu.address(mail)), np.uint64(gpu.address(reply)))
            kernel(1, 32, (*words, np.uint32(rounds), LIMIT_NS))
        seconds = np.zeros(rounds)
        if name == "c":
            host_c.run(
                host_c.library().echo,
                ctypes.c_void_p(mail.ctypes.data),
                ctypes.c_void_p(reply.ctypes.data),
                rounds,
                ctypes.c_double(1.0),
                ctypes.c_void_p(seconds.ctypes.data),
            )
        else:
            _echo(mail, reply, seconds)
        stream.synchronize()
        found[name] = list(seconds[10:])
    return found


def control(gpu: Gpu, steps: int = 1000) -> Records:
    """The resident loop with empty stages: seconds a step as the host sees them, over the batch."""
    records = []
    for slots in (1, 4, 16, 64, 256):
        for dedicated in (False, True):
            for sparse in (True, False):
                for waiting in (False, True):
                    loop, stream = empty_loop(gpu, slots, dedicated, sparse, outputs=2 * steps)
                    if waiting:  # a request that never fits: the queue is looked at each step
                        loop.mailbox.admit(10**6, 1, 1)
                    seconds = host_seconds(loop, stream, steps)
                    records.append(
                        {
                            "slots": slots,
                            "dedicated": dedicated,
                            "sparse": sparse,
                            "waiting": waiting,
                            "samples_s": list(seconds[10:]),
                        }
                    )
    return records


def leaving(gpu: Gpu, rounds: int = 30) -> dict[str, Any]:
    """Asking the loop to leave until its status word is there; launching it until it sends.

    From C, and the launch from Python too.
    """
    loop, stream = empty_loop(gpu, 16, False, True, outputs=1 << 16)
    found: dict[str, list[float]] = {}
    one = np.zeros(1)
    launch = loop.recorded(60000)
    for turn in range(rounds):
        begin = time.perf_counter()
        if turn % 2:
            submitted, sent = host_c.launch_and_read(launch, stream, loop.mailbox)
            found.setdefault("c_launch_to_return", []).append(submitted)
            found.setdefault("c_launch_to_output", []).append(sent)
        else:
            with stream:
                loop.launch(60000)
            host_c.read_outputs(loop.mailbox, 1)
            seconds = time.perf_counter() - begin
            found.setdefault("launch_to_output", []).append(seconds)
        time.sleep(1e-3)
        begin = time.perf_counter()
        host_c.run(
            host_c.library().ask_to_leave,
            ctypes.c_void_p(loop.mailbox.mail.ctypes.data),
            ctypes.c_void_p(loop.mailbox.status.ctypes.data),
            ctypes.c_double(1.0),
            ctypes.c_void_p(one.ctypes.data),
        )
        found.setdefault("asked_to_status", []).append(float(one[0]))
        stream.synchronize()
        found.setdefault("asked_to_end", []).append(time.perf_counter() - begin)
        loop.restart()
    return found


def empty_loop(
    gpu: Gpu, slots: int, dedicated: bool, sparse: bool, outputs: int
) -> tuple[Loop, Any]:
    """A loop without stages over *slots* busy slots, and a stream to start it on."""
    state = State(gpu, slots=slots, new_tokens=4, max_pages=4, pages=4 * slots + 8)
    state.fill([20] * slots, [1 << 20] * slots, np.random.default_rng(1))
    mailbox = Mailbox(gpu, slots, 4, outputs=outputs)
    loop = Loop(gpu, state, mailbox, sparse=sparse, dedicated=dedicated)
    return loop, gpu.xp.cuda.Stream(non_blocking=True)


def host_seconds(loop: Loop, stream: Any, steps: int) -> Any:
    """Seconds between the outputs of *steps* steps, as a host in C sees them."""
    loop.backend.synchronize()
    with stream:
        loop.launch(steps)
    seconds = host_c.read_outputs(loop.mailbox, steps)[0]
    stream.synchronize()
    return seconds


def capture(stream: Any, calls: Sequence[Callable[[], None]]) -> Any:
    """The graph of *calls*, ready on *stream*."""
    with stream:
        stream.begin_capture()
        for call in calls:
            call()
        graph = stream.end_capture()
    graph.upload(stream)
    stream.synchronize()
    return graph


def _empty(gpu: Gpu) -> Launch:
    raw = gpu.raw("loop_control", "probe_empty")
    call = gpu.function("loop_control", "probe_empty")
    return Launch(call, (gpu.sms, 1, 1), 128, 0, (np.uint64(0),), raw)


def event_seconds(gpu: Gpu, call: Callable[[], None]) -> float:
    """Seconds that *call* takes on the current stream, by events."""
    start, end = gpu.xp.cuda.Event(), gpu.xp.cuda.Event()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(gpu.xp.cuda.get_elapsed_time(start, end)) * 1e-3


def _wall(
    call: Callable[[], object], samples: int, after: Callable[[], object] | None = None
) -> list[float]:
    seconds = []
    for _ in range(samples):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
        if after is not None:
            after()
    return seconds


def _and_sync(call: Callable[[], object], stream: Any) -> None:
    call()
    stream.synchronize()


def _echo(mail: Any, reply: Any, seconds: Any) -> None:
    deadline = time.perf_counter() + 1.0
    for i in range(1, len(seconds) + 1):
        begin = time.perf_counter()
        mail[0] = i
        while int(reply[0]) & 0xFFFFFFFF != i:
            if time.perf_counter() > deadline:
                raise host_c.HostError(f"no answer to message {i}")
        seconds[i - 1] = time.perf_counter() - begin
