"""Measures the jobs of one folder in a process of its own, so that a crash costs one point.

One rule: nothing is timed before its check has passed. The parent writes; this process only
answers through its end of a pipe.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import inspect
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

SAMPLES = 30
BASELINE_SAMPLES = 10
POOL_BYTES = 40e9
"""Freed memory that CuPy may keep for the next point; PyTorch's baselines need room too."""
DIGITS = 5
MEASURE_S = 170.0
"""How long one `measure_*` function may take, where it can be told."""
RECORD_SAMPLES = 60


@dataclass(frozen=True, slots=True)
class Job:
    """One point of a grid to check and time, or one `measure_*` function to call."""

    index: int
    point: Mapping[str, Any] | None
    measure: str = ""
    again: bool = False
    """Whether this is the second measurement of a point, for the repeatability floor."""


class Machine(Protocol):
    """What the worker needs of a GPU; a test brings its own."""

    gpu: Any

    def facts(self) -> dict[str, Any]:
        """What the header of a run says."""

    def seconds(self, calls: Sequence[Callable[[], None]], samples: int) -> list[float]:
        """Seconds a call, one figure a sample."""

    def clocks(self) -> list[int]:
        """SM clocks in MHz seen during the last `seconds`."""

    def cubins(self) -> dict[str, str]:
        """Digest of each compiled file loaded so far, by its name."""

    def tidy(self) -> None:
        """Gives back memory that the last point held; raises if the device is lost."""


class GpuMachine:
    """The current CUDA device."""

    def __init__(self) -> None:
        from .backend import Gpu
        from .machine import Clocks

        loaded = self.loaded = set[Path]()

        class Recording(Gpu):
            """A `Gpu` that remembers which compiled files it loaded."""

            def raw(self, folder: str, kernel: str, defines: Any = ()) -> Any:
                from .build import cubin

                loaded.add(cubin(folder, self.arch, defines))
                return super().raw(folder, kernel, defines)

        self.gpu: Any = Recording()
        self._clocks = Clocks(self.gpu)

    def facts(self) -> dict[str, Any]:
        """See `Machine`."""
        from .machine import facts

        return facts(self.gpu)

    def seconds(self, calls: Sequence[Callable[[], None]], samples: int) -> list[float]:
        """See `Machine`."""
        from .timing import graph_seconds

        self._clocks.settle()
        with self._clocks:
            return graph_seconds(self.gpu, calls, samples, least_calls=1)

    def clocks(self) -> list[int]:
        """See `Machine`."""
        return self._clocks.seen

    def cubins(self) -> dict[str, str]:
        """See `Machine`."""
        return {
            path.stem: hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
            for path in sorted(self.loaded)
        }

    def tidy(self) -> None:
        """See `Machine`."""
        gc.collect()
        self.gpu.synchronize()
        pool = self.gpu.xp.get_default_memory_pool()
        if pool.total_bytes() > POOL_BYTES:
            pool.free_all_blocks()
            torch = sys.modules.get("torch")
            if torch is not None:
                torch.cuda.empty_cache()


def serve(
    pipe: Connection,
    package: str,
    folder: str,
    jobs: Sequence[Job],
    deadline: float,
    open_machine: Callable[[], Machine],
) -> None:
    """Does *jobs* in order until *deadline* (of `time.time`) and answers with (what, index, body).

    `start` before each job, `done` or `failed` after it, `facts` first, `cubins` and `end` last;
    an `end` before all is done means that the time was up, `lost` that the device is.
    """
    try:
        machine = open_machine()
        pipe.send(("facts", -1, machine.facts()))
        module = importlib.import_module(f"{package}.{folder}.bench")
        gc.freeze()
    except Exception as error:
        pipe.send(("broken", -1, reason(error)))
        return
    for job in jobs:
        if time.time() > deadline:
            break
        pipe.send(("start", job.index, None))
        try:
            pipe.send(("done", job.index, do(machine, module, folder, job, deadline)))
        except Exception as error:
            pipe.send(("failed", job.index, reason(error)))
        try:
            machine.tidy()
        except Exception:
            pipe.send(("lost", job.index, None))
            return
    pipe.send(("cubins", -1, machine.cubins()))
    pipe.send(("end", -1, None))


def do(machine: Machine, module: Any, folder: str, job: Job, deadline: float) -> dict[str, Any]:
    """What the samples file keeps of one job."""
    start = time.perf_counter()
    if job.point is None:
        answer = recorded(machine, module, job.measure, deadline)
    else:
        answer = timed(machine, module, folder, job.point)
    answer["took"] = round(time.perf_counter() - start, 3)
    found: dict[str, Any] = plain(answer)
    return found


def recorded(machine: Machine, module: Any, name: str, deadline: float) -> dict[str, Any]:
    """The records that the function *name* yields; `incomplete` says why there are no more."""
    measure: Callable[..., Any] = getattr(module, name)
    limit = min(deadline, time.time() + MEASURE_S)
    takes = inspect.signature(measure).parameters
    options: dict[str, Any] = {"deadline": limit} if "deadline" in takes else {}
    if "points" in takes:  # a table of cells, on the clock of its own loop
        options = {"points": module.points(), "deadline": limit - time.time() + time.monotonic()}
    found: list[dict[str, Any]] = []
    try:
        answer = measure(machine.gpu, **options)
        if isinstance(answer, Mapping):
            answer = [{"name": name, "data": data} for name, data in answer.items()]
        found.extend(_thinned(dict(record)) for record in answer)  # what precedes a fault stays
    except Exception as error:
        if not found:
            raise
        return {"records": found, "incomplete": reason(error)}
    late = time.time() > limit
    return {"records": found, "incomplete": "stopped by its time limit" if late else ""}


def _thinned(value: Any) -> Any:
    """*value* with long lists of samples cut to `RECORD_SAMPLES`, evenly over time, and rounded."""
    if isinstance(value, Mapping):
        return {key: _thinned(entry) for key, entry in value.items()}
    if not isinstance(value, list | tuple | np.ndarray):
        return value
    if any(isinstance(entry, Mapping | list | tuple | str) for entry in value):
        return [_thinned(entry) for entry in value]
    values = np.asarray(value)
    if values.dtype.kind != "f" or values.ndim != 1:
        return values.tolist()
    if len(values) > RECORD_SAMPLES:
        values = values[np.linspace(0, len(values) - 1, RECORD_SAMPLES).astype(int)]
    return [short(number) for number in values.tolist()]


def timed(machine: Machine, module: Any, folder: str, point: Mapping[str, Any]) -> dict[str, Any]:
    """Checks *point* and then times it and its baselines."""
    rng = np.random.default_rng(int(digest(folder, point), 16) % 2**63)
    work = module.prepare(machine.gpu, dict(point), rng)
    error = float(work.check())
    if not math.isfinite(error):
        raise ValueError(f"check gave {error}, no relative error")
    seconds = machine.seconds(work.calls, SAMPLES)
    clocks = machine.clocks()
    baselines = {
        name: machine.seconds(calls, BASELINE_SAMPLES) for name, calls in work.baselines.items()
    }
    spread = [min(clocks), int(np.median(clocks)), max(clocks)] if clocks else []
    return {
        "bytes": work.bytes,
        "flops": work.flops,
        "error": float(f"{error:.2e}"),
        "calls": len(work.calls),
        "clock_mhz": spread,
        "seconds": [short(s) for s in seconds],
        "baselines": {name: [short(s) for s in times] for name, times in baselines.items()},
    }


def digest(folder: str, point: Mapping[str, Any]) -> str:
    """Identity of a point as 32 hex digits; order of shuffling, split and seed hang on it."""
    text = f"{folder}|{json.dumps(plain(dict(point)), sort_keys=True)}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def short(value: float) -> float:
    """*value* to five significant digits."""
    return float(f"{value:.{DIGITS}g}")


def plain(value: Any) -> Any:
    """*value* with NumPy's scalars as Python's, so that JSON takes it; refuses what is no JSON."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no time and no size")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot stand in a samples file")


def reason(error: BaseException) -> str:
    """One line about *error*: what it is and where it came from."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "kernels" in code.co_filename:
            place = f" ({Path(code.co_filename).parent.name}/{Path(code.co_filename).name}:"
            place += f"{trace.tb_lineno})"
        trace = trace.tb_next
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]}{place}"
