"""`residentsim modes`: loop modes side by side, from the cost model alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError

if TYPE_CHECKING:
    from .scenario import Scenario

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (512, 2048, 8192, 32_768, 131_072)

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="A scenario file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Overrides a key, e.g. loop.kernels=library."),
]


def modes(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures and tables; default runs/NAME-modes.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=65_536, help="Requests of the iteration taken apart.")
    ] = 8,
    context: Annotated[
        int, typer.Option(min=2, max=10_000_000, help="KV entries of each of its requests.")
    ] = 4096,
    batches: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Rows of the map; default 1,2,4,...,256.")
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Its columns; default 512,2048,...,131072."),
    ] = None,
    sets: Sets = None,
) -> None:
    """Compare the loop modes of a scenario: one iteration by stage, and a map of who wins where.

    All modes run the scenario's model, kernels, drafts and pages; nothing is replayed. Writes
    iteration and map as SVG, PNG and CSV.
    """
    from .feasible import faults
    from .load import load
    from .mode_figures import by_stage, save, winners
    from .mode_study import cells, cells_csv, iterations, iterations_csv
    from .profile import load_profile
    from .trace.write import replacing

    chosen = load(scenario, sets or (), faults)
    profile = load_profile(chosen.hardware.profile)
    if profile.steps is not None or profile.engine is not None:
        of = "whole steps" if profile.steps is not None else "an engine in one mode"
        what = f"{profile.name} is of {of}; modes are compared on a profile of kernels"
        raise InputError(f"hardware.profile: {what}")
    rows = _numbers("--batches", batches) or [b for b in BATCHES if b <= chosen.loop.max_batch]
    most = chosen.model.shape.max_context
    columns = _numbers("--contexts", contexts) or [c for c in CONTEXTS if c <= most]
    if batch > chosen.loop.max_batch or max(rows) > chosen.loop.max_batch:
        what = f"more requests than loop.max_batch ({chosen.loop.max_batch})"
        raise InputError(f"--batch, --batches: {what}; raise it with --set loop.max_batch=N")
    if context > most or max(columns) > most:
        raise InputError(f"--context, --contexts: {chosen.model.shape.name} takes {most} tokens")
    folder = out or Path("runs") / f"{chosen.name}-modes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    splits = iterations(chosen, profile, batch, context)
    grid = cells(chosen, profile, rows, columns)
    title = _title(chosen, profile.name)
    first = f"{title}\nbatch {batch}, context {context:,}"
    files = save(lambda figure: by_stage(figure, splits, first), folder / "iteration", (9.6, 4.2))
    files += save(lambda figure: winners(figure, grid, title), folder / "map", (10.4, 4.8))
    for name, data in (
        ("iteration.csv", iterations_csv(splits, batch, context)), ("map.csv", cells_csv(grid)),
    ):  # fmt: skip
        with replacing(folder / name) as file:
            file.write(data)
        files.append(folder / name)
    for path in files:
        typer.echo(f"{path}")


def _numbers(option: str, text: str | None) -> list[int]:
    """The ascending whole numbers of an *option*; none if it was not given."""
    if text is None:
        return []
    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= 10_000_000 for word in words):
        raise InputError(f"{option} {text[:100]!r}: write whole numbers with commas, e.g. 1,8,64")
    return sorted({int(word) for word in words})


def _title(scenario: Scenario, profile: str) -> str:
    said = [scenario.model.shape.name, f"{scenario.model.weights} weights"]
    said += [f"{scenario.kv.dtype} KV", f"{scenario.loop.kernels} kernels"]
    if scenario.sparse is not None and scenario.sparse.select != "dense":
        said.append(f"{scenario.sparse.select} of {scenario.sparse.top_k_tokens:,} tokens")
    if scenario.speculation is not None:
        said.append(f"{scenario.speculation.draft.kind} drafts of {scenario.speculation.most}")
    return f"Simulated from the cost model ({profile}): {', '.join(said)}"
