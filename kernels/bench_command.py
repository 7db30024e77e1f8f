"""Options of `python -m kernels bench` and what they set going."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .fit.samples import Samples, SamplesError, read

if TYPE_CHECKING:
    import argparse

BUDGET_S = 520.0
"""So that a command, its last point and the fit included, ends within ten minutes."""


def add_bench(commands: Any) -> None:
    """Adds the command `bench` to the parser's *commands*."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="check and time every kernel's grid, fit the cost model, write a profile",
        description="Measures what is not on file yet, then fits what is and writes a profile. "
        "Ended by the budget or by a signal, it goes on where it stopped when called again.",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the profile to write (JSON)")
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="FILE",
        help="JSON lines of all samples; default: beside OUT",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these folders alone")
    parser.add_argument(
        "--most", type=int, metavar="N", help="at most so many points a folder: a taste of each"
    )
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS")
    parser.add_argument("--commit", help="what the profile names as its source; default: git's")
    parser.add_argument("--plan", action="store_true", help="say what is left to measure and stop")
    parser.add_argument("--measure-only", action="store_true", help="do not fit")
    parser.add_argument("--fit-only", action="store_true", help="fit what is on file; needs no GPU")
    parser.add_argument(
        "--second", type=Path, metavar="FILE", help="samples of another run to judge the fit by"
    )
    parser.add_argument(
        "--steps", type=Path, metavar="FILE", help="measured decode steps to set the model beside"
    )


def run_bench(arguments: argparse.Namespace) -> int:
    """0 done or stopped by the budget, 1 a point failed, 2 the arguments or a file are at fault."""
    out: Path | None = arguments.out
    if out is None and not (arguments.samples and (arguments.plan or arguments.measure_only)):
        raise SamplesError("--out FILE is missing: where the profile goes")
    file = arguments.samples or out.with_suffix(".samples.jsonl")  # type: ignore[union-attr]
    samples, left = Samples(), 0
    if not arguments.fit_only:
        left = measure(file, arguments)
        if arguments.plan:
            return 0
        samples = read(file) if file.exists() else samples
        if left:
            print(f"{left} points are left; the same command again goes on with them")
    elif not file.exists():
        raise SamplesError(f"{file}: no such file; run bench without --fit-only on a GPU first")
    else:
        samples = read(file)
    if not arguments.measure_only and not left:
        write_profile(samples, arguments)
    return 1 if samples.failed else 0


def measure(file: Path, arguments: argparse.Namespace) -> int:
    """Measures what *file* does not hold yet; how many jobs are left."""
    from .bench import Bench, describe, discover, on_file, plan, where_from

    assert __package__
    names = discover(__package__, arguments.only)
    folders = plan(__package__, names, on_file(file), arguments.most)
    describe(folders)
    if not arguments.plan:
        file.parent.mkdir(parents=True, exist_ok=True)
        head = {"commit": arguments.commit or where_from()}
        Bench(file, arguments.budget, __package__, head=head).measure(folders)
    return sum(folder.left for folder in folders)


def write_profile(samples: Samples, arguments: argparse.Namespace) -> None:
    """Fits *samples*, writes the profile and prints the residuals."""
    from .fit.profile import build, text
    from .fit.report import table

    second = read(arguments.second) if arguments.second else None
    document = build(samples, second, arguments.steps)
    if arguments.commit:
        document["commit"] = arguments.commit
    draft = arguments.out.with_name(arguments.out.name + ".part")
    try:
        draft.write_text(text(document))
        draft.replace(arguments.out)
    except OSError as error:
        raise SamplesError(f"{arguments.out}: {error.strerror}") from None
    sys.stdout.write(table(document))
    print(f"{arguments.out}: {len(document['kernels'])} kernels, {len(samples.points)} points")
