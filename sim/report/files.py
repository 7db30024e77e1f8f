"""Where everything is: the points' files, their resolved scenarios, and the environment.

One rule: links are relative to the page, so a folder may be moved or sent as a whole.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sim.result import read_json

from .words import html, listed

if TYPE_CHECKING:
    from pathlib import Path

    from sim.runs import Run

    from .view import View

FILES = (
    "summary.json", "scenario.json", "trace.json", "environment.json", "requests.parquet",
    "iterations.parquet", "transfers.parquet",
)  # fmt: skip
_NOT_SHOWN = {"units", "hash"}


def links(view: View, page: Path) -> str:
    """A row a run: its axes and links to its files, from where *page* stands."""
    rows = ""
    for cell in view.cells:
        for run in cell.runs:
            again = f", replication {run.replication}" if len(cell.runs) > 1 else ""
            found = " ".join(
                f'<a href="{_href(run.folder / name, page)}">{name.partition(".")[0]}</a>'
                for name in FILES
                if (run.folder / name).is_file()
            )
            rows += (
                f'<tr><td class="words">{html(view.name(cell), 200)}{again}</td>'
                f'<td class="words">{found}</td></tr>'
            )
    table = f'<div class="scroll"><table class="files">{rows}</table></div>'
    count = len(view.results.runs)
    return f"<details><summary>Files of {count} run(s)</summary>{table}</details>"


def _href(path: Path, page: Path) -> str:
    """*path* from the folder of *page*, as a link has it."""
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(page.parent))
    return html(quote(os.fsencode(relative.replace(os.sep, "/"))), 4000)


# ---------------------------------------------------------------------------- scenarios
def flat(scenario: dict[str, Any], path: str = "") -> dict[str, str]:
    """Values of *scenario* by dotted path, as text."""
    found: dict[str, str] = {}
    for key, value in scenario.items():
        place = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            found |= flat(value, place)
        elif place not in _NOT_SHOWN:
            found[place] = json.dumps(value)
    return found


def scenarios(view: View) -> str:
    """Resolved scenarios: once what all runs share, and by run what differs."""
    runs = [run for cell in view.cells for run in cell.runs]
    if not runs:
        return ""
    all_flat = [flat(run.scenario) for run in runs]
    keys = list(dict.fromkeys(key for one in all_flat for key in one))
    same = [key for key in keys if len({one.get(key) for one in all_flat}) == 1]
    apart = [key for key in keys if key not in set(same)]
    shared = "".join(
        f'<tr><td class="words">{html(key)}</td>'
        f'<td class="words">{html(all_flat[0][key], 300)}</td></tr>'
        for key in same
    )
    called = "The resolved scenario" if len(runs) == 1 else "What all points share"
    text = (
        f"<details><summary>{called}"
        f' ({len(same)} keys, SI units)</summary><div class="scroll"><table class="keys">{shared}'
        "</table></div></details>"
    )
    if apart:
        text += _apart(view, apart, all_flat)
    return text


def _apart(view: View, apart: list[str], all_flat: list[dict[str, str]]) -> str:
    heads = "".join(f'<th scope="col" class="words">{html(key)}</th>' for key in apart)
    rows, number = "", 0
    for cell in view.cells:
        for run in cell.runs:
            again = f" (replication {run.replication})" if len(cell.runs) > 1 else ""
            one = all_flat[number]
            number += 1
            cells = "".join(f'<td class="words">{html(one.get(k, "-"), 120)}</td>' for k in apart)
            rows += f'<tr><td class="words">{html(view.name(cell))}{again}</td>{cells}</tr>'
    return (
        f"<details><summary>What differs per point ({len(apart)} keys)</summary>"
        f'<div class="scroll"><table><thead><tr><th class="words">point</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


# ---------------------------------------------------------------------------- environment
def environment(view: View) -> str:
    """Versions and machines that the runs were made with; durations are left in their files."""
    found: dict[str, list[str]] = {}
    for run in view.results.runs:
        for key, value in _facts(run).items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    rows = "".join(
        f'<tr><td class="words">{html(key)}</td>'
        f'<td class="words">{html(listed(sorted(values)), 300)}</td></tr>'
        for key, values in sorted(found.items())
    )
    return f'<div class="scroll"><table class="keys">{rows}</table></div>' if rows else ""


def _facts(run: Run) -> dict[str, str]:
    if not (run.folder / "environment.json").is_file():
        return {}
    data = read_json(run.folder / "environment.json")
    versions = data.get("versions")
    found = {key: f"{data[key]}" for key in ("machine", "system", "python", "cores") if key in data}
    return found | (
        {str(k): f"{v}" for k, v in versions.items()} if isinstance(versions, dict) else {}
    )
