"""The page of `trace inspect --html`: one file with tables and pictures, nothing fetched.

One rule: the same traces give the same bytes; light and dark follow the reader's settings, and
print is light.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from sim.page import document, write

from .panels import panels
from .sections import Section, bad_rows, comparison, sections
from .svg import legend, svg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .panels import Named

_STYLE = """
.within{color:var(--good)}.beyond{color:var(--bad);font-weight:600}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
.grid{stroke:var(--grid);fill:none}.line{fill:none;stroke-width:1.6}
.line.dashed{stroke-dasharray:5 4}.fill{opacity:.25;stroke:none}
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.grey{stroke:var(--grey)}
.fill.a,.dot.a{fill:var(--a)}.fill.b,.dot.b{fill:var(--b)}
.key{font-size:.8rem;color:var(--dim);margin-right:1rem;white-space:nowrap}
.key::before{content:"";display:inline-block;width:1.4em;vertical-align:.25em;margin-right:.35em;
border-top:2px solid var(--grey)}
.key.a::before{border-color:var(--a)}.key.b::before{border-color:var(--b)}
.key.dashed::before{border-top-style:dashed}
"""


def write_page(
    traces: Sequence[Named],
    summaries: Sequence[dict[str, Any]],
    compared: dict[str, Any] | None,
    path: Path,
) -> None:
    """Write the page of one trace to *path*, or of two with what `compare` found."""
    body = _one(summaries[0]) if compared is None else _two(summaries, compared)
    pictures = "".join(
        f"<figure><figcaption>{escape(panel.title)}</figcaption>{legend(panel)}{svg(panel)}"
        "</figure>"
        for panel in panels(traces)
    )
    title = " and ".join(summary["file"] for summary in summaries)
    head, tables, notes = body
    text = f'{head}\n<div class="grid2">{pictures}</div>\n{tables}\n{notes}'
    write(path, document(title, text, _STYLE))


def _one(summary: dict[str, Any]) -> tuple[str, str, str]:
    head = f"<h1>{escape(summary['file'])}</h1><p>{_in_short(summary)}</p>"
    tables = _tables([*sections(summary).values(), *bad_rows(summary)])
    return head, tables, _notes("", summary["notes"])


def _two(summaries: Sequence[dict[str, Any]], compared: dict[str, Any]) -> tuple[str, str, str]:
    head = "".join(
        f"<h1>{side}: {escape(summary['file'])}</h1><p>{_in_short(summary)}</p>"
        for side, summary in zip("AB", summaries, strict=True)
    )
    table = comparison(compared, ("", ""))
    head += f'<section class="wide">{_table(Section("B against A", table.rows, table.heads))}'
    head += "</section>"
    tables = ""
    for side, summary in zip("AB", summaries, strict=True):
        tables += _tables(bad_rows(summary, f" of {side}"))
    notes = _notes("", compared["notes"])
    notes += "".join(
        _notes(f"{side}: ", summary["notes"]) for side, summary in zip("AB", summaries, strict=True)
    )
    if compared["on_off"]:
        notes += _notes("", ["A stops at times (on/off traffic), so gaps have a wider bar"])
    return head, tables, notes


def _in_short(summary: dict[str, Any]) -> str:
    return (
        f"{summary['requests']:,} requests in {summary['duration_s']:,.6g} s. "
        f'<span class="dim">Format {escape(summary["format"])}: '
        f"{escape(summary['format_why'])}</span>"
    )


def _tables(found: Sequence[Section]) -> str:
    tables = "".join(f"<section>{_table(section)}</section>" for section in found)
    return f'<div class="grid2">{tables}</div>' if found else ""


def _table(section: Section) -> str:
    words = {at for at, head in enumerate(section.heads) if head in ("", "verdict")}
    parts = [f"<h2>{escape(section.title)}</h2><table>"]
    if section.heads:
        cells = "".join(
            f"<th{' class=words' if at in words else ''}>{escape(head)}</th>"
            for at, head in enumerate(section.heads)
        )
        parts.append(f"<tr>{cells}</tr>")
    for row in section.rows:
        cells = ""
        for at, cell in enumerate(row):
            kind = ["words"] if at in words or not section.heads else []
            first = cell.partition(" ")[0]
            if at in words and first in ("within", "beyond"):
                kind.append(first)
            cells += f'<td class="{" ".join(kind)}">{escape(cell)}</td>' if kind else (
                f"<td>{escape(cell)}</td>"
            )  # fmt: skip
        parts.append(f"<tr>{cells}</tr>")
    parts.append("</table>")
    return "".join(parts)


def _notes(side: str, notes: Sequence[str]) -> str:
    return "".join(f'<p class="dim">{side}note: {escape(note)}</p>' for note in notes)
