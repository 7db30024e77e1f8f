"""A study's search from start to end: probes, documents, table and figures.

The one rule: `study.json` lists the probes as points as soon as they are stored, so the folder of
a search is a study's like any other, also while it runs.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.trace.write import replacing

from .capacity import capacities
from .halving import halving
from .outcome import of_capacity, of_halving
from .probes import Prober, check
from .provision import provision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sim.study import Point, Study
    from sim.sweeping import Backend, Failure, Outcome

    from .outcome import Document
    from .probes import At, Runner


def sweep_search(
    path: Path,
    overrides: Sequence[str],
    folder: Path,
    backend: Backend,
    *,
    plots: bool,
    quiet: bool,
) -> list[Failure]:
    """The search of the study file *path* with *overrides*; returns what failed on the way."""
    from sim.feasible import faults
    from sim.study import load_study
    from sim.sweeping import run_points

    failed: list[Failure] = []

    def run(points: Sequence[Point]) -> Outcome:
        outcome = run_points(points, folder, backend=backend, quiet=True)
        failed.extend(outcome.failed)
        return outcome

    def at(more: Sequence[str]) -> Sequence[Point]:
        return load_study(path, [*overrides, *more], faults).points

    study = load_study(path, overrides, faults)
    search_study(study, at, folder, run=run, plots=plots, quiet=quiet)
    return failed


def search_study(
    study: Study, at: At, folder: Path, *, run: Runner, plots: bool = True, quiet: bool = False
) -> Document:
    """Searches as the study's section says, into its *folder*; returns what `probes.json` holds.

    *at* gives the study's points with more overrides, *run* runs points into the folder. Raises
    `InputError` if the study has no section `search`, or one that does not fit its points.
    """
    search = study.search
    if search is None:
        raise InputError("search: missing; add e.g. `search: {over: ..., subject_to: ...}`")
    check(search, study.points, study.prices, study.power)
    prober = Prober(
        search, at, _recorded(run, study, folder), folder,
        statistics=study.statistics, prices=study.prices, power=study.power,
    )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    with _progress(quiet) as progress:
        if search.halving is not None:
            document = of_halving(halving(prober, study.points, progress), prober)
        else:
            found = capacities(prober, study.points, progress)
            needs = None
            if search.target is not None:
                needs = provision(found, study.points, prober)
            document = of_capacity(found, needs, prober)
    _write(folder / "probes.json", document)
    if plots:
        from .panels import draw_search

        draw_search(folder, folder / "figures")
    if not quiet:
        _print(document)
    return document


def _recorded(run: Runner, study: Study, folder: Path) -> Runner:
    """*run*, with the points of every batch in the study's manifest before they run."""
    from sim.sweeping import point_id

    listed: dict[str, dict[str, Any]] = {}

    def recorded(points: Sequence[Any]) -> Any:
        for point in points:
            name = point_id(point.scenario)
            entry = {"id": name, "axes": _axes(point, study), "replication": point.replication}
            listed.setdefault(name, entry)
        _write(folder / "study.json", _manifest(study, list(listed.values())))
        return run(points)

    return recorded


def _axes(point: Any, study: Study) -> dict[str, Any]:
    """A probe's axes: the study's, and the searched path with the value it has in the scenario."""
    assert study.search is not None
    path = "trace.requests" if study.search.halving is not None else study.search.path
    node: Any = point.scenario
    for name in path.split("."):
        node = getattr(node, name, None)
    extra = {}
    if study.search.target is not None and "replicas.count" not in point.axes:
        extra["replicas.count"] = point.scenario.replicas.count
    return {**point.axes, path: node, **extra}


def _manifest(study: Study, points: list[dict[str, Any]]) -> dict[str, Any]:
    """The study's manifest with the probes as points, and their values on the searched axis."""
    axes = {path: list(values) for path, values in study.axes.items()}
    for path in points[0]["axes"]:
        if path not in axes:
            values = {point["axes"][path] for point in points}
            axes[path] = sorted(values, key=lambda value: (value is None, value))
    return study.manifest() | {"axes": axes, "points": points}


def _write(path: Path, document: dict[str, Any]) -> None:
    """*document* as JSON; a reader sees the file as it was before or the whole new one."""
    with replacing(path) as file:
        file.write(json.dumps(document, indent=2, allow_nan=False).encode() + b"\n")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, int], None]]:
    """Says rounds on a terminal, in one line that is rewritten; silent elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda rounds, configurations, probes: None
        return
    from rich.console import Console

    with Console(stderr=True).status("search") as status:
        yield lambda rounds, configurations, probes: status.update(
            f"search: round {rounds}, {configurations} configurations open, {probes} probes done"
        )


def _print(document: Document) -> None:
    from rich.console import Console

    from .tables import print_search

    print_search(document, Console(width=None if sys.stdout.isatty() else 132))
