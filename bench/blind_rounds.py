"""The rounds of blind predictions: which configurations of the engine are run, on which windows.

A cell is a configuration, a window of the trace and a rate. What is asked for is a load; the rate
follows from what the simulator says the configuration can serve of that window at most, so it is
known once profiles are fitted, and written down with the predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SERVE = ROOT / "calibration" / "serve"
REPORTS = ROOT / "reports" / "validation"
BLOCK, CONTEXT, BUDGET = 16, 8192, 2048
"""Tokens of a block of KV, of the longest request, and of a step's prompts: the engine's own."""
ACCEPTANCE = 0.7
"""Of each draft, if those before it are accepted."""
AGAIN = "-again"


@dataclass(frozen=True)
class Engine:
    """A configuration of the engine."""

    name: str
    model: str
    loop: str
    kernels: str
    batch: int
    """The most requests in a step."""
    capacity: float = 0.0
    """Requests a second that it is thought to serve, before anything is fitted."""
    requests: int = 1000
    """In each of its cells."""
    budget_tokens: int = 0
    """What a decode step selects of a request's context; 0: all of it."""
    tokens: int = 1
    """New tokens of a request in a step: one and its drafts."""

    late: bool = False
    """Whether a slot that decoding frees is given away a step late."""

    @property
    def rival(self) -> str:
        """Model, kernels and what else is the same in configurations that differ by their loop."""
        sparse = f", {self.budget_tokens} tokens selected" if self.budget_tokens else ""
        drafts = f", {self.tokens - 1} drafts" if self.tokens > 1 else ""
        return f"{self.model} {self.kernels}{sparse}{drafts}"

    @property
    def alone(self) -> bool:
        """Whether steps with prompts decode nothing."""
        return self.loop in ("control", "resident")

    @property
    def options(self) -> str:
        """The engine's, without trace and rate."""
        words = f"--model {self.model} --mode {self.loop} --kernels {self.kernels}"
        words += f" --max-batch {self.batch}"
        if self.budget_tokens:
            words += f" --budget-tokens {self.budget_tokens}"
        if self.tokens > 1:
            words += f" --tokens {self.tokens} --acceptance {ACCEPTANCE:g}"
        return words


@dataclass(frozen=True)
class Wanted:
    """A cell, or one more run of it: *load* of the least capacity among configurations *of*."""

    engine: str
    window: str
    load: float = 0.0
    of: tuple[str, ...] = ()
    """Not given: the engine itself."""
    rate: float = 0.0
    """How many times as fast as recorded requests come; above 0: this, whatever the load."""
    again: bool = False


@dataclass(frozen=True)
class Round:
    """What is predicted and measured together. *wanted* is in the order in which it matters."""

    number: int
    engines: dict[str, Engine]
    windows: dict[str, tuple[str, float]]
    """By name: the file that holds it, and its begin in seconds of the trace."""
    wanted: tuple[Wanted, ...]
    clip: int
    seeds: tuple[int, ...] = ()
    """A prediction is the mean of simulations with these; not given: one, with the usual seed."""

    @property
    def folder(self) -> Path:
        """Its logs, profiles, predictions and packed runs."""
        return SERVE / f"round-{self.number}"

    @property
    def report(self) -> Path:
        """Its page; the newest round's is the first that is seen."""
        return REPORTS if self.number == NEWEST else REPORTS / f"round-{self.number}"

    @cached_property
    def longest(self) -> int:
        """Requests that a window must hold."""
        return max(one.requests for one in self.engines.values())

    def profile(self, engine: str, folder: Path | None = None) -> Path:
        """The step profile of an *engine*."""
        name = engine if self.number > 1 else f"1b-{engine}"
        return (folder or self.folder) / f"h200-{name}.json"

    def engine_of(self, cell: dict[str, Any]) -> Engine:
        """The configuration of a predicted *cell*."""
        return self.engines[cell.get("engine") or f"{cell['mode']}-{cell['kernels']}"]

    def window_of(self, cell: dict[str, Any], folder: Path) -> Path:
        """The file of a predicted *cell*'s requests."""
        return folder / self.windows[cell.get("window", "")][0]


def _engines(*engines: Engine) -> dict[str, Engine]:
    return {engine.name: engine for engine in engines}


def _first() -> Round:
    engines = _engines(
        *(Engine(f"{loop}-library", "1b", loop, "library", 64, requests=600)
          for loop in ("host-python", "host-c", "graph", "control")),
        *(Engine(f"{loop}-fused", "1b", loop, "fused", 16, requests=600)
          for loop in ("graph", "resident")),
    )  # fmt: skip
    cells = (
        ("graph-library", 6.6), ("graph-fused", 4.5), ("resident-fused", 4.5),
        ("host-c-library", 6.6), ("host-python-library", 6.6), ("graph-library", 8.8),
        ("host-c-library", 8.8), ("host-python-library", 8.8), ("graph-fused", 6.0),
        ("resident-fused", 6.0), ("control-library", 6.6), ("graph-library", 12.1),
        ("graph-library", 15.3), ("graph-library", 3.3),
    )  # fmt: skip
    again = (("graph-library", 6.6), ("resident-fused", 4.5))
    wanted = [Wanted(name, "", rate=rate) for name, rate in cells]
    wanted += [Wanted(name, "", rate=rate, again=True) for name, rate in again]
    return Round(1, engines, {"": ("window.csv", 600.0)}, tuple(wanted), 7000)


# ---------------------------------------------------------------- the second round
GRAPH, HOST, PYTHON, CONTROL = (
    f"1b-{loop}-library" for loop in ("graph", "host-c", "host-python", "control")
)
LIBRARY = (GRAPH, CONTROL, HOST)
RESIDENT, FUSED_GRAPH, FUSED_CONTROL = (
    f"1b-{loop}-fused" for loop in ("resident", "graph", "control")
)
FUSED = (RESIDENT, FUSED_GRAPH, FUSED_CONTROL)
LARGE = ("8b-graph-library", "8b-host-c-library")
SPARSE, DRAFTS, RESIDENT_DRAFTS = (
    "1b-graph-library-sparse", "1b-graph-library-drafts", "1b-resident-fused-drafts"
)  # fmt: skip
LOW, HIGH = 0.68, 0.8
"""Loads of the host in C over the library kernels: the others are a little less loaded then."""
PYTHON_A, PYTHON_B = 7.8, 9.65
"""Rates of the host in Python: those of the other loops at `LOW`, where it is at some 0.7."""


def _second() -> Round:
    engines = _engines(
        Engine(GRAPH, "1b", "graph", "library", 64, 73.0),
        Engine(HOST, "1b", "host-c", "library", 64, 68.0),
        Engine(PYTHON, "1b", "host-python", "library", 64, 63.0),
        Engine(CONTROL, "1b", "control", "library", 64, 73.0, late=True),
        Engine(FUSED_GRAPH, "1b", "graph", "fused", 16, 39.0),
        Engine(FUSED_CONTROL, "1b", "control", "fused", 16, 39.0, late=True),
        Engine(RESIDENT, "1b", "resident", "fused", 16, 40.0, late=True),
        Engine(LARGE[0], "8b", "graph", "library", 64, 15.5, requests=600),
        Engine(LARGE[1], "8b", "host-c", "library", 64, 14.0, requests=600),
        Engine(SPARSE, "1b", "graph", "library", 64, 70.0, 600, budget_tokens=512),
        Engine(DRAFTS, "1b", "graph", "library", 16, 50.0, 600, tokens=4),
        Engine(RESIDENT_DRAFTS, "1b", "resident", "fused", 4, 25.0, 600, tokens=4, late=True),
    )
    windows = {"A": ("window-A.csv", 1200.0), "B": ("window-B.csv", 2400.0)}
    return Round(2, engines, windows, tuple(_second_cells()), CONTEXT, (1, 2, 3))


def _second_cells() -> list[Wanted]:
    def each(
        names: tuple[str, ...], load: float, of: tuple[str, ...] = (), window: str = "A",
        again: bool = False,
    ) -> list[Wanted]:  # fmt: skip
        return [Wanted(name, window, load, of, again=again) for name in names]

    return [
        *each(LIBRARY, LOW, LIBRARY),
        Wanted(PYTHON, "A", rate=PYTHON_A),
        *each((RESIDENT, FUSED_GRAPH), 0.6, FUSED),
        *each(LIBRARY, HIGH, LIBRARY),
        *each((RESIDENT, FUSED_GRAPH), 0.8, FUSED),
        *each(LARGE, 0.8, LARGE),
        *each((GRAPH,), 0.8),
        *each((SPARSE,), 0.6),
        *each((DRAFTS,), 0.6),
        *each((FUSED_CONTROL,), 0.6, FUSED),
        *each((GRAPH, HOST, CONTROL), LOW, LIBRARY, "B"),
        *each((RESIDENT,), 0.6, FUSED, "B"),
        *each((GRAPH, HOST), LOW, LIBRARY, again=True),
        Wanted(PYTHON, "A", rate=PYTHON_A, again=True),
        Wanted(PYTHON, "B", rate=PYTHON_B),
        *each((RESIDENT, FUSED_GRAPH), 0.6, FUSED, again=True),
        *each(LARGE, 0.6, LARGE),
        *each((SPARSE,), 0.8),
        *each((DRAFTS,), 0.8),
        *each((GRAPH,), 0.3),
        *each((GRAPH,), 0.95),
        *each((GRAPH,), 1.2),
        *each((HOST, CONTROL), HIGH, LIBRARY, again=True),
        *each((RESIDENT,), 0.8, FUSED, again=True),
        *each((RESIDENT,), 0.95),
        *each((RESIDENT,), 1.2),
        *each((GRAPH, HOST, CONTROL), HIGH, LIBRARY, "B"),
        *each((RESIDENT,), 0.8, FUSED, "B"),
        *each((FUSED_GRAPH,), 0.6, FUSED, "B"),
        *each((FUSED_GRAPH,), 0.95, (RESIDENT,)),
        *each((FUSED_GRAPH,), 1.2, (RESIDENT,)),
        *each((GRAPH,), 0.8, again=True),
        *each(LARGE, 0.8, LARGE, again=True),
        *each((RESIDENT_DRAFTS,), 0.6),
        *each((CONTROL,), LOW, LIBRARY, again=True),
        *each((SPARSE,), 0.6, again=True),
        *each((DRAFTS,), 0.6, again=True),
        *each((RESIDENT,), 0.3),
        *each((RESIDENT_DRAFTS,), 0.8),
        *each((FUSED_GRAPH,), 0.3, (RESIDENT,)),
    ]


ROUNDS = {1: _first(), 2: _second()}
NEWEST = max(ROUNDS)
