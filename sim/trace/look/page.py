"""The page of `trace inspect --html`: one file with tables and pictures, nothing fetched.

One rule: the same traces give the same bytes; light and dark follow the reader's settings, and
print is light.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from sim.errors import InputError
from sim.trace.naming import said
from sim.trace.write import replacing

from .panels import panels
from .sections import Section, bad_rows, comparison, sections
from .svg import legend, svg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .panels import Named

ENDINGS = (".html", ".htm")
_LIGHT = "--ink:#1c1c1c;--dim:#5c5c5c;--paper:#fff;--rule:#d9d9d9;--grid:#e6e6e6;" \
    "--a:#1f5fa8;--b:#c65a10;--grey:#7a7a7a;--good:#1a7f37;--bad:#b42318"  # fmt: skip
_DARK = "--ink:#e8e8e8;--dim:#a6a6a6;--paper:#15171a;--rule:#3a3d42;--grid:#2b2e33;" \
    "--a:#6cabf0;--b:#f09a55;--grey:#9a9a9a;--good:#57c26e;--bad:#ff8477"  # fmt: skip
_STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
@media print{{:root{{color-scheme:light;{_LIGHT}}}figure,section{{break-inside:avoid}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1.2rem;max-width:70rem;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}}
h1{{font-size:1.35rem;margin:0 0 .2rem;overflow-wrap:anywhere}}
h2{{font-size:1rem;margin:0 0 .4rem}}
p{{margin:.2rem 0}}.dim{{color:var(--dim)}}
.grid2{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));
gap:1.4rem 2rem;margin:1.2rem 0}}
section.wide{{margin:1.2rem 0}}section{{min-width:0;overflow-x:auto}}
table{{border-collapse:collapse;width:100%;font-size:.9rem}}
td,th{{text-align:right;padding:.16rem .5rem;border-bottom:1px solid var(--rule);
font-variant-numeric:tabular-nums;font-weight:400;vertical-align:top;overflow-wrap:anywhere}}
th{{color:var(--dim)}}td:first-child,th:first-child,.words{{text-align:left}}
td:first-child{{color:var(--dim);white-space:nowrap}}td:first-child,th:first-child{{padding-left:0}}
.within{{color:var(--good)}}.beyond{{color:var(--bad);font-weight:600}}
figure{{margin:0;min-width:0}}figcaption{{font-weight:600;margin-bottom:.1rem}}
svg{{width:100%;height:auto;display:block}}
svg text{{font:11px system-ui,sans-serif;fill:var(--dim)}}
.grid{{stroke:var(--grid);fill:none}}.line{{fill:none;stroke-width:1.6}}
.line.dashed{{stroke-dasharray:5 4}}.fill{{opacity:.25;stroke:none}}
.line.a{{stroke:var(--a)}}.line.b{{stroke:var(--b)}}.line.grey{{stroke:var(--grey)}}
.fill.a,.dot.a{{fill:var(--a)}}.fill.b,.dot.b{{fill:var(--b)}}
.key{{font-size:.8rem;color:var(--dim);margin-right:1rem;white-space:nowrap}}
.key::before{{content:"";display:inline-block;width:1.4em;vertical-align:.25em;margin-right:.35em;
border-top:2px solid var(--grey)}}
.key.a::before{{border-color:var(--a)}}.key.b::before{{border-color:var(--b)}}
.key.dashed::before{{border-top-style:dashed}}
"""


def check_page(path: Path) -> None:
    """Raise `InputError` unless *path* ends as a page."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{said(path)}: not a page's name; end it with {' or '.join(ENDINGS)}")


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
    title = " and ".join(escape(summary["file"]) for summary in summaries)
    head, tables, notes = body
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{head}\n"
        f'<div class="grid2">{pictures}</div>\n{tables}\n{notes}</body></html>\n'
    )
    with replacing(path) as file:
        file.write(text.encode())


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
