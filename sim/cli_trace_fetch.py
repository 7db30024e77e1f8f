"""`residentsim trace fetch`: a public trace from its publisher."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError
from .trace.naming import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .trace.public_sets import PublicSet

LARGE_BYTES = 100_000_000


def fetch_trace(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Which trace; --list says which there are.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder it goes to.")] = Path(
        "traces"
    ),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")
    ] = False,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Take the file even if it is not as it was known.")
    ] = False,
    names: Annotated[bool, typer.Option("--list", help="List the traces that can be had.")] = False,
) -> None:
    """Download a public trace: says source, licence, size and digest first, continues and checks.

    A download that is cut off goes on where it ended when the command is run again.
    """
    from .trace.fetch import fetch, public_set, target_of

    if names:
        _list()
        return
    if name is None:
        raise InputError("NAME: missing; name a trace, or see which there are with --list")
    one = public_set(name)
    _say(one, to)
    if one.url is None:
        raise InputError(f"{name}: its publisher has no single file of it; get it as said above")
    if not target_of(one, to).exists():
        _agree(one.size_bytes, yes)

    def agree(size: int | None) -> None:
        if one.size_bytes is None:
            _agree(size, yes)

    with _progress(one.file) as progress:
        path, checked = fetch(one, to, agree, progress, unverified=unverified)
    typer.echo(f"{said(path)}: {checked}")
    typer.echo(f"look at it with: residentsim trace inspect {said(path)} --format {one.format}")


def _list() -> None:
    from .trace.public_sets import SETS

    width = max(map(len, SETS))
    for one in SETS.values():
        size = "by hand" if one.url is None else _size(one.size_bytes)
        typer.echo(f"{one.name:{width}}  {size:>11}  {one.licence:14}  {one.what}")


def _say(one: PublicSet, folder: Path) -> None:
    """Print what is known of *one*."""
    known = f" ({one.told_by})" if one.told_by else ""
    rows = [
        ("source", one.source),
        ("version", one.version),
        ("licence", one.licence),
        ("address", one.url or "none"),
        ("size", _size(one.size_bytes, exact=True) + (known if one.size_bytes else "")),
        ("SHA-256", (one.sha256 or "unknown") + (known if one.sha256 else "")),
        ("goes to", said(folder / one.file)) if one.url else ("by hand", one.how),
    ]
    typer.echo(f"{one.name}: {one.what}")
    for key, value in rows:
        typer.echo(f"  {key:8} {value}")


def _size(size: int | None, exact: bool = False) -> str:
    if size is None:
        return "unknown"
    from .units import bytes_text

    return f"{bytes_text(size)}, {size:,} bytes" if exact else bytes_text(size)


def _agree(size: int | None, yes: bool) -> None:
    """Ask before a large download; raises `InputError` if nobody can be asked or says no."""
    if yes or size is None or size <= LARGE_BYTES:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{_size(size)} to download; say --yes if that is what you want")
    if not typer.confirm(f"download {_size(size)}?", err=True):
        raise InputError("not downloaded")


@contextmanager
def _progress(file: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda have, size: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file, total=None)
        yield lambda have, size: bar.update(task, completed=have, total=size)
