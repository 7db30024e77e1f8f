"""From Python and notebooks: `run` a scenario, `sweep` a study, and have the results as frames.

The one rule: this is the path of the command line, with the same checks, the same files and the
same bytes; what a command would print as an error is raised as `sim.errors.InputError`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import InputError, shown
from .scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .runs import Results, Run
    from .stats import Estimate, Statistics

__all__ = ["RunResult", "run", "sweep"]


class RunResult:
    """What one run has left, read from its folder.

    A folder that nobody named is a temporary one, and is there as long as this object is.
    """

    def __init__(self, record: Run, temporary: Path | None = None) -> None:
        self.record = record
        """The run as reports and statistics take it."""
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.record.folder

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return self.record.summary

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario, with its hash and the profile's; values in SI."""
        return self.record.scenario

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row a request, in order of the trace: `arrival_s`, `ttft_ms`, `status` and so on."""
        return self._frame("requests")

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """A row an iteration: `start_s`, `duration_s`, `gpu_busy_s` and so on.

        Raises `InputError` for a run with `record.iterations: false`.
        """
        return self._frame("iterations")

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """A row a transfer between tiers; `InputError` for a run without tiers below HBM."""
        return self._frame("transfers")

    def estimate(
        self, metric: str, warm_up: str | float | None = None, confidence: float = 0.95
    ) -> Estimate:
        """A metric with the interval that this one run gives, by batches of its requests."""
        from .runs import Cell
        from .stats import estimate

        settings = _statistics(warm_up=warm_up, confidence=confidence)
        return estimate(Cell({}, (self.record,)), metric, settings)

    def _frame(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            needs = {"iterations": "record.iterations: true", "transfers": "tiers below HBM"}
            raise InputError(
                f"{path}: no such file; a run has it with {needs.get(name, 'results')}"
            )
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError):
            raise InputError(f"{path}: is damaged; run the scenario again") from None

    def __repr__(self) -> str:
        done, total = self.summary["completed"], self.summary["requests_in"]
        return f"<run {self.summary['scenario']}: {done} of {total} requests finished>"

    def _repr_html_(self) -> str:
        from .stats.frames import summary_html

        return summary_html(self.summary)


def run(
    scenario: Scenario | Path | str | Mapping[str, Any],
    sets: Mapping[str, Any] | Sequence[str] = (),
    *,
    engine: Literal["leap", "step"] = "leap",
    out: Path | str | None = None,
    force: bool = False,
) -> RunResult:
    """Runs one scenario: a file, a map as a file holds it, or a `Scenario`.

    *sets* overrides keys, as `--set` does: a map of dotted paths to values, or 'path=value' texts.
    Results go to the folder *out*, an existing run there only with *force*; by default to a
    temporary folder that lasts as long as what is returned. Raises `InputError` with all findings;
    a key without effect is a Python warning.

    >>> result = run({
    ...     "trace": {"source": "synthetic", "requests": 200, "rate": "20 /s",
    ...               "arrivals": "constant", "prompt_tokens": 256, "output_tokens": 32},
    ...     "model": "llama-3.2-1b",
    ... }, {"loop.mode": "resident"})
    >>> result
    <run scenario: 200 of 200 requests finished>
    >>> result.summary["loop_mode"]
    'resident'
    >>> result.requests[["arrival_s", "ttft_ms"]].shape
    (200, 2)
    >>> mean = result.requests["ttft_ms"].mean()
    >>> bool(abs(mean - result.summary["mean_ttft_ms"]) < 1e-9)
    True
    >>> result.estimate("mean_ttft_ms", warm_up="1 s").method
    'batches'
    """
    from .result import new_folder
    from .runs import read_run
    from .simulate import run as simulate

    if engine not in ("leap", "step"):
        raise InputError(f"engine {shown(engine)}: no such engine; choose leap or step")
    chosen, sections = _chosen(scenario, _texts(sets))
    for line in chosen.warnings():
        warnings.warn(line, stacklevel=2)
    temporary = Path(tempfile.mkdtemp(prefix="residentsim-")) if out is None else None
    try:
        path = Path(out) if out is not None else Path(str(temporary), chosen.name)
        with new_folder(path, force) as folder:
            simulate(chosen, folder, engine)
        return RunResult(read_run(path, sections.get("prices"), sections.get("power")), temporary)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def sweep(
    study: Path | str,
    sets: Mapping[str, Any] | Sequence[str] = (),
    *,
    out: Path | str | None = None,
    jobs: int = 1,
) -> Results:
    """Runs every point of a study file that is not there yet, *jobs* at a time, or its search.

    The study's folder is *out*, by default `runs/NAME`, as for `residentsim sweep`. Points that
    fail are in the results' `failures`. Raises `InputError` with all findings about the study.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "study.yaml").write_text('''
    ... trace: {source: azure-conv-like, requests: 50, rate_scale: 8.0}
    ... model: llama-3.2-1b
    ... sweep: {loop.mode: [graph, resident], seeds: 3}
    ... ''')
    >>> results = sweep(folder / "study.yaml", out=folder / "out")
    >>> print(results.frame()[["loop.mode", "replication", "completed"]].to_string(index=False))
    loop.mode  replication  completed
        graph            0         50
        graph            1         50
        graph            2         50
     resident            0         50
     resident            1         50
     resident            2         50
    >>> results.estimates("mean_tpot_ms")[["loop.mode", "n", "method"]].values.tolist()
    [['graph', 3, 'replications'], ['resident', 3, 'replications']]
    >>> print(*results.differences("mean_tpot_ms")["verdict"])  # doctest: +ELLIPSIS
    resident is ... better at mean TPOT
    """
    from .feasible import faults
    from .runs import read_study
    from .study import load_study
    from .sweeping import Here, Local, run_study

    if not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"jobs {shown(jobs)}: expected a number of processes, at least 1")
    if not isinstance(study, str | Path):
        raise InputError(f"{shown(study)}: expected the file of a study")
    chosen = load_study(Path(study), _texts(sets), faults)
    folder = Path(out) if out is not None else Path("runs") / chosen.name
    backend = Local(jobs) if jobs > 1 else Here()
    if chosen.search is None:
        run_study(chosen, folder, backend=backend, quiet=True)
    else:
        from .search.command import sweep_search

        sweep_search(Path(study), _texts(sets), folder, backend, plots=False, quiet=True)
    return read_study(folder)


# ---------------------------------------------------------------------------- what is given
def _chosen(
    given: Scenario | Path | str | Mapping[str, Any], sets: Sequence[str]
) -> tuple[Scenario, dict[str, Any]]:
    """The scenario and the other sections of what `run` was *given*, checked as from a file."""
    from .feasible import faults
    from .load import load_run

    if isinstance(given, str | Path):
        return load_run(given, sets, faults)
    if isinstance(given, Mapping):
        return _of_map(given, sets)
    if not isinstance(given, Scenario):
        raise InputError(f"{shown(given)}: expected a file, a map of keys, or a Scenario")
    if sets:
        raise InputError("sets: not with a Scenario, which is complete; give a file or a map")
    found = [f"{'.'.join(map(str, place))}: {what}" for place, what in faults(given)]
    if found:
        raise InputError(found)
    return given, {}


def _of_map(data: Mapping[str, Any], sets: Sequence[str]) -> tuple[Scenario, dict[str, Any]]:
    """The scenario in *data*, by way of the text that a file would hold."""
    import yaml

    from .feasible import faults
    from .load import load_document, overridden
    from .yamlfile import parse_document

    if "extends" in data:
        raise InputError("extends: only in a file; give the file's name, and the rest as sets")
    try:
        text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise InputError(f"scenario: not plain data ({shown(str(error))})") from None
    document = parse_document(text, "scenario")
    document.data.setdefault("name", "scenario")
    for one in sets:
        document = overridden(document, one)
    return load_document(document, "scenario", faults)


def _texts(sets: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """*sets* as the texts of `--set`."""
    if isinstance(sets, str):
        raise InputError(f"sets {shown(sets)}: expected a list of texts or a map of paths")
    if not isinstance(sets, Mapping):
        return [str(text) for text in sets]
    try:
        return [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in sets.items()]
    except (TypeError, ValueError):
        raise InputError("sets: values must be plain: texts, numbers, lists, maps") from None


def _statistics(**given: Any) -> Statistics:
    from pydantic import ValidationError

    from .stats import Statistics

    try:
        return Statistics(**given)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        ]
        raise InputError(lines) from None
