"""The page of a report: the answer first, then the table, the figures, and what they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.page import check_page, document, write
from sim.plots import ready, save, svg_of
from sim.runs import read_study

from . import inline
from .answer import answer, conditions
from .courses import recorded
from .files import environment, links, scenarios
from .judged import Judged
from .pictures import pictures, source
from .searched import found, notes
from .sections import facts, failures, method, question, section, trust
from .table import tables
from .view import View
from .words import html, plain

if TYPE_CHECKING:
    from pathlib import Path

    from sim.plots import Picture

_STYLE = """
body{max-width:76rem}
h1{font-size:1.1rem;color:var(--dim);font-weight:600}
h2{font-size:1.1rem;margin:1.6rem 0 .5rem}
.answer{font-size:1.3rem;line-height:1.4;margin:.3rem 0 .6rem;max-width:56rem}
.rest{font-size:1.05rem;display:block;margin-top:.3rem}li .rest{display:inline;font-size:inherit}
.more{margin:.2rem 0 .6rem;padding-left:1.2rem;max-width:60rem}.more li{margin:.15rem 0}
section.wide{overflow-x:visible}
.scroll{overflow-x:auto}
th{overflow-wrap:normal}table.keys,table.files{width:auto}
td{white-space:nowrap}.keys td,.files td{white-space:normal}
thead th{vertical-align:bottom;border-bottom:2px solid var(--rule)}
tbody+tbody tr:first-child td{border-top:2px solid var(--rule)}
.best b{color:var(--good)}.pm{color:var(--dim);font-size:.85em;font-weight:400}
.good{color:var(--good)}.bad{color:var(--bad)}
.figures{display:grid;grid-auto-flow:dense;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem}
.figures figure{border:1px solid var(--rule);border-radius:6px;background:var(--card);
padding:.7rem .7rem .5rem;overflow-x:auto}
.figures figure.whole{grid-column:1/-1}
figcaption{font-weight:400;font-size:.85rem;color:var(--dim);margin:.4rem 0 0;
border-top:1px solid var(--rule);padding-top:.35rem}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--a)}
pre{overflow-x:auto;font-size:.8rem;background:var(--card);border:1px solid var(--rule);
padding:.5rem}
a{color:var(--a)}
.warn{border-left:4px solid var(--bad);padding-left:.8rem}
@media (max-width:52rem){.figures{grid-template-columns:minmax(0,1fr)}
.figures figure.whole svg{min-width:46rem}.answer{font-size:1.1rem}}
@media print{body{max-width:none;padding:0;font-size:9.5pt}#scenarios,#files{display:none}
.answer{font-size:13pt;max-width:none}.rest{font-size:10pt}.more{max-width:none}
figcaption{font-size:7.5pt}h2{margin-top:.9rem}.scroll{overflow:visible}
table{font-size:7.5pt}td,th{padding:.1rem .25rem}
figure,tr,.answer{break-inside:avoid}h2{break-after:avoid}
section{break-inside:auto!important}details:not([open]){display:none}
.figures figure{overflow:visible}.figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:.5rem}
.figures figure.whole svg{min-width:0}}
"""


def write_report(folder: Path, out: Path, figures: Path) -> list[Path]:
    """The report of the study's or run's *folder* as the page *out*, its figures in *figures*.

    Returns the files written. Raises `InputError` if *folder* is damaged or a place cannot be
    written.
    """
    check_page(out)
    view = View(read_study(folder))
    rests = source(view) if view.cells else ""
    wanted = pictures(view)
    drawn = {picture.name: svg_of(picture, rests) for picture in wanted}
    shown = [(picture, drawn[picture.name][0].decode()) for picture in wanted]
    page = _page(view, shown, out)
    ready(out.parent)
    files = save(drawn, figures) if drawn else []
    write(out, page)
    return [out, *files]


def _page(view: View, drawn: list[tuple[Picture, str]], out: Path) -> str:
    judged = Judged(view)
    name = plain(view.results.name)
    parts = [
        f"<main><h1>{html(name)}</h1>{_answer(judged)}\n",
        section("Points without a result", _warned(failures(view)), "failures"),
        section("Comparison" if view.compared else "Results", _compared(judged), "comparison"),
        section("The run in numbers", facts(view), "facts"),
        section("The search", notes(view), "search"),
        section("Figures", _figures(view, drawn), "figures"),
        section("What was asked", question(view), "question"),
        section("Simulated, measured, estimated, extrapolated", trust(view), "trust"),
        section("Statistics", method(judged), "statistics"),
        section("Scenarios", scenarios(view), "scenarios"),
        section("Files", links(view, out), "files"),
        section("Environment", environment(view), "environment"),
        "</main>",
    ]
    return document(f"{name}: report", "".join(parts), inline.STYLE + _STYLE,
                    inline.LIGHT, inline.DARK)  # fmt: skip


def _answer(judged: Judged) -> str:
    search = found(judged.view)
    said = [search] * bool(search) + answer(judged)
    more = "".join(f"<li>{sentence}</li>" for sentence in said[1:])
    return (
        f'<p class="answer">{said[0] if said else "Nothing to compare."}</p>'
        + (f'<ul class="more">{more}</ul>' if more else "")
        + f"<p class=dim>{html(conditions(judged))}</p>"
    )


def _warned(body: str) -> str:
    return f'<div class="warn">{body}</div>' if body else ""


def _compared(judged: Judged) -> str:
    if len(judged.view.cells) < 2:
        return ""
    within = "among the points of a group" if judged.view.compared else "in its column"
    note = (
        f"<p class=dim>Bold: the best value {within}, whether or not it can be told from the "
        "others; ± is half of an interval, the longer one. Below, in small: against the "
        "baseline.</p>"
    )
    return tables(judged) + note


def _figures(view: View, drawn: list[tuple[Picture, str]]) -> str:
    shown = "".join(
        f"<figure{' class=whole' if picture.wide else ''}>"
        f"{inline.inline(svg, picture.name, f'{picture.title}. {picture.says}')}"
        f"<figcaption>{html(picture.says)}</figcaption></figure>\n"
        for picture, svg in drawn
        if picture.on_page
    )
    left_out = [cell for cell in view.alike if not recorded(cell.runs[0])] if view.cells else []
    note = "<p class=dim>Figures over time need record.iterations: true.</p>" if left_out else ""
    return f'<div class="figures">{shown}</div>{note}' if shown else note
