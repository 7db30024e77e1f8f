"""A toy GPU whose costs are whole fractions of a tick, so that tests can state exact times.

One tick is 2**-10 s. The toy model has two layers; with the fused stage list a layer is four
matrix products (1 tick each) and decode attention (2 ticks) or prefill attention (4 ticks), and
the tail is one product and one elementwise stage (1 tick each). Bandwidths are endless, so in
ticks an iteration takes:

| iteration                    | GPU | graph   | host | resident | partition (share 1/2) |
|------------------------------|-----|---------|------|----------|-----------------------|
| decode                       |  14 |      16 |   16 |       15 |  29 beside a prefill  |
| prefill that ends a prompt   |  18 | as host |   20 |  as host |                    37 |
| prefill that ends none       |  16 | as host |   18 |  as host |            32 + 7/8   |
| mixed                        |  22 | as host |   24 |          |                       |

Leaving the resident loop costs 2 ticks and launching it again 3.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from sim.models import ModelShape
from sim.scenario import Scenario
from sim.simulate import run
from sim.trace.chunk import Chunk, Links
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sim.profile import Profile
    from sim.trace.chunk import Tally

TICK = 2.0**-10
ENDLESS = 1e300
KV_BYTES = 32  # of one token in bf16
MODEL = {
    "name": "toy", "layers": 2, "hidden": 8, "heads": 2, "kv_heads": 1, "head_dim": 4, "ffn": 8,
    "vocab": 16, "max_context": 100_000,
}  # fmt: skip
WEIGHTS = int(ModelShape(**MODEL).weight_bytes(16))

_TICKS = {
    "host_python_submit_s": 0.5, "host_c_submit_s": 0.25, "host_sync_s": 0.5,
    "host_copyback_s": 1, "launch_latency_s": 0.25, "graph_launch_s": 1, "graph_node_s": 0,
    "grid_barrier_s": 2**-4, "mailbox_round_trip_s": 0.25, "device_schedule_s": 0.25,
    "resident_exit_s": 2, "resident_relaunch_s": 3, "host_python_schedule_s": 0,
    "host_python_schedule_per_request_s": 0, "host_c_schedule_s": 0,
    "host_c_schedule_per_request_s": 0, "device_schedule_per_request_s": 0,
    "h2d_latency_s": 0, "d2h_latency_s": 0,
}  # fmt: skip
_CONSTANTS = {name: ticks * TICK for name, ticks in _TICKS.items()} | {
    "hbm_read_bytes_per_s": ENDLESS, "hbm_copy_bytes_per_s": ENDLESS, "h2d_bytes_per_s": ENDLESS,
    "d2h_bytes_per_s": ENDLESS, "prefetch_ring_bytes": 1.0,
}  # fmt: skip
_GEMM = {"t0_s": TICK, "bytes_per_s": ENDLESS, "flops_per_s": ENDLESS, "q": 1.0}
_ATTENTION = {"t0_s": 2 * TICK, "bytes_per_s": ENDLESS, "ramp_s": 0.0, "cta_s": 0.0}
_KERNELS: dict[str, tuple[str, dict[str, float]]] = {
    "gemm.bf16": ("roofline", _GEMM),
    "gemm.fp8": ("roofline", _GEMM),
    "gemm.int8": ("roofline", _GEMM),
    "gemm.int4": ("roofline", _GEMM),
    "decode_attention.bf16": ("split_kv", _ATTENTION | {"kv_bytes": 2.0}),
    "decode_attention.fp8": ("split_kv", _ATTENTION | {"kv_bytes": 1.0}),
    "prefill_attention.bf16": (
        "ramped_flops", {"t0_s": 4 * TICK, "flops_per_s": ENDLESS, "half_tokens": 0.0},
    ),
    "elementwise": ("linear_bytes", {"t0_s": TICK, "bytes_per_s": ENDLESS}),
}  # fmt: skip


def alone(profile: Profile) -> Profile:
    """*profile* without what whole decode steps have taught it: kernels timed one by one."""
    return replace(profile, loops={}, in_step={})


def write_profile(
    path: Path,
    constants: Mapping[str, float] | None = None,
    kernels: Mapping[str, Mapping[str, float]] | None = None,
    hbm_bytes: float = 1e9,
) -> Path:
    """The toy profile at *path*, with other *constants* (in seconds) or kernel parameters."""
    said = {"kind": "measured", "source": "toy", "note": ""}
    values = _CONSTANTS | dict(constants or {})
    document = {
        "schema": 1, "name": "toy", "status": "final", "date": "2000-01-01", "commit": None,
        "device": {"name": "toy", "sms": 4, "hbm_bytes": hbm_bytes, "l2_bytes": 1.0},
        "sources": {"toy": "made up"},
        "constants": {name: {"value": v, "unit": "SI"} | said for name, v in values.items()},
        "kernels": {
            name: {
                "form": form, "parameters": parameters | dict((kernels or {}).get(name, {})),
                "domain": {}, "residuals": {}, "includes_node_gap": True,
            } | said
            for name, (form, parameters) in _KERNELS.items()
        },
        "checks": [],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def write_trace(path: Path, requests: Iterable[tuple[float, int, int]]) -> Path:
    """A Mooncake file of (arrival in ticks, prompt tokens, output tokens)."""
    rows = (
        {"timestamp": ticks * TICK * 1e3, "input_length": prompt, "output_length": output}
        for ticks, prompt, output in requests
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def hbm(blocks: int, block_tokens: int = 16, bits: int = 16) -> dict[str, Any]:
    """Just the memory for the weights and so many KV blocks."""
    size = WEIGHTS + blocks * block_tokens * KV_BYTES * bits // 16
    return {"capacity": f"{size} B", "utilization": 1.0}


def toy_scenario(
    folder: Path, requests: Iterable[tuple[float, int, int]] | None = None, **sections: Any
) -> Scenario:
    """The toy model on the toy GPU; graph loop with one captured size for each batch up to 4.

    *sections* replace or, where they are maps, complete the defaults.
    """
    profile = folder / "toy.json"
    if not profile.exists():
        write_profile(profile)
    data: dict[str, Any] = {
        "model": MODEL,
        "hardware": {"profile": str(profile)},
        "loop": {"mode": "graph", "max_batch": 4, "token_budget": 64},
    }
    if requests is not None:
        file = write_trace(folder / "trace.jsonl", requests)
        data["trace"] = {"file": str(file), "format": "mooncake"}
    for key, value in sections.items():
        mapped = isinstance(value, dict) and isinstance(data.get(key), dict)
        data[key] = data[key] | value if mapped else value
    return Scenario.model_validate(data)


@dataclass
class Ran:
    """What one run recorded, in the columns of its files."""

    requests: pd.DataFrame
    iterations: pd.DataFrame
    summary: dict[str, Any]
    trace: dict[str, Any]
    transfers: pd.DataFrame = field(default_factory=pd.DataFrame)

    def ticks(self, column: str) -> list[float]:
        """A column of request times in ticks."""
        return [float(value) / TICK for value in self.requests[column]]

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Iterations as (start, duration, ...) with both times in ticks."""
        frame = self.iterations
        if not len(frame):
            return []
        times = zip(frame["start_s"] / TICK, frame["duration_s"] / TICK, strict=True)
        others = zip(*(frame[c] for c in columns), strict=True) if columns else [()] * len(frame)
        return [(*t, *o) for t, o in zip(times, others, strict=True)]


@dataclass(frozen=True)
class Turn:
    """A request of a trace with links; times in ticks.

    `at` is when it is sent if it waits for nobody, `after` the numbers of turns before it in the
    list, and `delay` what passes after the last of their answers.
    """

    at: float = 0.0
    prompt: int = 8
    output: int = 1
    session: str = ""
    after: tuple[int, ...] = ()
    delay: float = 0.0
    ids: tuple[int, ...] | None = None


def linked(turns: Sequence[Turn]) -> list[Chunk]:
    """*turns* as the chunks of a trace (two, so that there is a border), by earliest time."""
    earliest: list[float] = []
    for turn in turns:
        ready = [earliest[number] + turn.delay * TICK for number in turn.after]
        earliest.append(max([turn.at * TICK, *ready]))
    order = sorted(range(len(turns)), key=lambda number: (earliest[number], number))
    position = {number: place for place, number in enumerate(order)}
    rows = [turns[number] for number in order]
    links = Links(
        [turn.session for turn in rows],
        Ragged.of([position[number] for number in turn.after] for turn in rows),
        np.array([turn.delay * TICK for turn in rows]),
        np.full(len(rows), np.nan),
    )
    prompts, outputs = ([getattr(turn, name) for turn in rows] for name in ("prompt", "output"))
    chunk = Chunk(
        np.array([earliest[number] for number in order]), np.array(prompts), np.array(outputs),
        None if rows[0].ids is None else Ragged.of(turn.ids or () for turn in rows), links,
    )  # fmt: skip
    return list(chunk.split(-(-len(rows) // 2)))


def play(
    scenario: Scenario,
    engine: str = "leap",
    chunks: Sequence[Chunk] = (),
    block_tokens: int | None = None,
) -> Ran:
    """Runs *scenario* and reads its files back; *chunks* replace its trace, if there are any.

    Their ids, if they have any, are those of blocks of *block_tokens* tokens.
    """

    def given(trace: object, seed: int, tally: Tally) -> Iterator[Chunk]:
        tally.block_tokens = block_tokens
        return iter(chunks)

    with tempfile.TemporaryDirectory() as folder:
        if chunks:
            with patch("sim.workload.original", given):
                run(scenario, Path(folder), engine)
        else:
            run(scenario, Path(folder), engine)
        return read_run(Path(folder))


def read_run(folder: Path) -> Ran:
    """What a run's folder holds."""
    tables = [folder / f"{name}.parquet" for name in ("requests", "iterations", "transfers")]
    requests, iterations, transfers = (
        pd.read_parquet(table) if table.exists() else pd.DataFrame() for table in tables
    )
    summary, trace = (
        json.loads((folder / name).read_text()) for name in ("summary.json", "trace.json")
    )
    return Ran(requests, iterations, summary, trace, transfers)
