"""The pages of `trace inspect`: on a terminal of any width, as HTML, and the panels of both."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.chunk import Chunk, Links, Tally
from sim.trace.compare import compare
from sim.trace.look.inspection import Inspection
from sim.trace.look.page import write_page
from sim.trace.look.panels import Line, Panel, panels
from sim.trace.look.sections import sections
from sim.trace.look.summary import summary
from sim.trace.look.svg import svg
from sim.trace.look.tables import show, show_comparison
from sim.trace.look.words import bar, number, short, span, spark, tick
from sim.trace.ragged import Ragged

if TYPE_CHECKING:
    from pathlib import Path

VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
HOSTILE = "t<script>&'\"[bold]\u202e.csv"


def everything(seed: int = 0, days: float = 1.5) -> Inspection:
    """A trace with prefix ids and sessions over more than a day."""
    rng = np.random.default_rng(seed)
    n = 600
    times = np.sort(rng.uniform(0, days * 86400, n))
    sessions = rng.integers(0, 60, n)
    last: dict[int, int] = {}
    after, prompts, blocks = [], [], 100
    rows: list[list[int]] = []
    for i, session in enumerate(sessions.tolist()):
        before = last.get(session)
        after.append([] if before is None else [before])
        rows.append([*([0, 1] if before is None else rows[before]), blocks])
        blocks += 1
        prompts.append(16 * len(rows[-1]))
        last[session] = i
    links = Links(
        [f"s{session}" for session in sessions],
        Ragged.of(after),
        np.where([bool(a) for a in after], rng.exponential(5.0, n), 0.0),
        np.full(n, np.nan),
    )
    inspection = Inspection(16)
    inspection.add(
        Chunk(times - times[0], np.array(prompts), rng.integers(1, 900, n), Ragged.of(rows), links)
    )
    return inspection


def said(inspection: Inspection, file: str = "t.csv", **tally: Any) -> dict[str, Any]:
    made = Tally(**tally)
    return {"file": file, "format": "vidur", "format_why": "told so"} | summary(inspection, made)


def bare() -> Inspection:
    inspection = Inspection()
    ones = np.ones(3, dtype=np.int64)
    inspection.add(Chunk(np.array([0.0, 0.0, 0.0]), ones, ones))
    return inspection


class Checker(HTMLParser):
    """Every element that is opened is closed, and nothing is fetched or run."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(path: Path) -> str:
    page = path.read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "nan" not in page.lower().replace("finance", "")
    for found in re.findall(r"<svg.*?</svg>", page):
        ET.fromstring(found)
    return checker.text


# the page -----------------------------------------------------------------------------------


def test_a_page_has_all_sections_and_panels_and_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        trace = everything()
        write_page([("trace", trace)], [said(trace)], None, tmp_path / name)
    text = checked(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    for section in sections(said(trace)).values():
        assert section.title in text
    titles = [panel.title for panel in panels([("trace", trace)])]
    assert len(titles) == 11
    for title in titles:
        assert title in text
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 11
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page


def test_a_page_of_two_traces_judges_them(tmp_path: Path) -> None:
    a, b = everything(0), everything(1, days=3.0)
    found = compare(a, b)
    traces = [("A", a), ("B", b)]
    write_page(traces, [said(a, "a.csv"), said(b, "b.csv")], found, tmp_path / "t.html")
    text = checked(tmp_path / "t.html")
    assert "A: a.csv" in text
    assert "B: b.csv" in text
    page = (tmp_path / "t.html").read_text()
    assert '<td class="words beyond">beyond 0.05</td>' in page
    assert '<td class="words within">within 0.05</td>' in page
    for row in found["rows"].values():
        assert row["figure"] in text


def test_names_and_bad_rows_cannot_break_a_page(tmp_path: Path) -> None:
    figures = said(
        everything(), HOSTILE, skipped=2, reasons={"<b>": 2},
        examples=["x:1: <img src=x>", "y"], notes=["<script>alert(1)</script>"],
    )  # fmt: skip
    write_page([("trace", everything())], [figures], None, tmp_path / "t.html")
    text = checked(tmp_path / "t.html")
    assert "<img src=x>" in text
    assert "note: <script>alert(1)</script>" in text


def test_pages_of_odd_traces(tmp_path: Path) -> None:
    one = Inspection()
    one.add(Chunk(np.zeros(1), np.full(1, 9_999_999), np.ones(1, dtype=np.int64)))
    late = Inspection()
    tokens = np.array([1, 10_000_000])
    late.add(Chunk(np.array([0.0, 1e9]), tokens, tokens, Ragged.of([(), (1, 1)])))
    for trace in (bare(), one, late):
        write_page([("trace", trace)], [said(trace)], None, tmp_path / "t.html")
        checked(tmp_path / "t.html")
        both = [("A", trace), ("B", everything())]
        figures = [said(trace), said(both[1][1])]
        write_page(both, figures, compare(trace, both[1][1]), tmp_path / "t.html")
        checked(tmp_path / "t.html")


def test_the_command_writes_page_and_picture(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(VIDUR + "0,10,1\n1,20,2\n2,0,2\n")
    page, picture = tmp_path / "p.html", tmp_path / "p.png"
    arguments = ["inspect", str(path), "--html", str(page), "--picture", str(picture)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "t.csv:4" in checked(page)
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(app, [*arguments[:2], str(path), *arguments[2:4]])
    assert result.exit_code == 0, result.output
    assert "B against A" in checked(page)


def test_a_page_needs_a_known_ending(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(VIDUR + "0,10,1\n")
    result = CliRunner().invoke(app, ["inspect", str(path), "--html", str(tmp_path / "p.pdf")])
    assert isinstance(result.exception, InputError)
    assert "end it with .html or .htm" in str(result.exception)


# panels -------------------------------------------------------------------------------------


def points(path: str) -> list[tuple[float, float]]:
    found = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)
    return [(float(x), float(y)) for x, y in found]


def test_a_panel_is_drawn_where_its_values_are() -> None:
    line = Line("l", np.array([0.0, 5.0, 10.0]), np.array([0.0, 100.0, 50.0]))
    root = ET.fromstring(svg(Panel("t", "x", "y", [line], low=0.0, high=100.0)))
    (path,) = (e.attrib["d"] for e in root.iter("path") if "line" in e.attrib["class"])
    (x0, y0), (x1, y1), (x2, y2) = points(path)
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(2 * (y2 - y1))
    labels = {e.text: float(e.attrib["y"]) for e in root.iter("text") if "y" in e.attrib}
    assert labels["100"] - 3.5 == pytest.approx(y1)


def test_logarithmic_axes_have_ticks_where_they_belong() -> None:
    x = np.array([1.0, 10.0, 100_000.0])
    root = ET.fromstring(svg(Panel("t", "x", "y", [Line("l", x, x)], x_log=True, y_log=True)))
    (path,) = (e.attrib["d"] for e in root.iter("path") if "line" in e.attrib["class"])
    at = {
        e.text: float(e.attrib["x"])
        for e in root.iter("text")
        if e.get("text-anchor") == "middle" and "x" in e.attrib
    }
    for (px, _), label in zip(points(path), ("1", "10", "100k"), strict=True):
        assert at[label] == pytest.approx(px, abs=0.11)
    few = ET.fromstring(svg(Panel("t", "x", "y", [Line("l", x[:2] * 30, x[:2])], x_log=True)))
    labels = [e.text for e in few.iter("text")]
    assert {"50", "100", "200"} <= set(labels)


def test_steps_hold_their_value_and_gaps_stay_open() -> None:
    line = Line("l", np.arange(4.0), np.array([1.0, np.nan, 2.0]), step=True)
    root = ET.fromstring(svg(Panel("t", "x", "y", [line])))
    (path,) = (e.attrib["d"] for e in root.iter("path") if "line" in e.attrib["class"])
    assert path.count("M") == 2
    found = points(path)
    assert found[0][1] == found[1][1]
    assert len(found) == 4


def test_panels_only_where_there_is_something() -> None:
    titles = {panel.title for panel in panels([("trace", bare())])}
    assert titles == {
        "Arrival rate",
        "Prompt and output tokens",
        "Prompt lengths",
        "Output lengths",
    }
    two = panels([("A", everything(0)), ("B", everything(1))])
    assert len(two) == 12  # prompt and output tokens apart
    for panel in two:
        assert {line.colour for line in panel.lines} >= {"a", "b"}


# the terminal -------------------------------------------------------------------------------


def shown(width: int, *, terminal: bool, two: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=terminal, no_color=True, markup=False, emoji=False,
        highlight=False,
    )  # fmt: skip
    figures = said(everything(), skipped=1, reasons={"bad": 1}, examples=["t.csv:1: bad"])
    if two:
        show_comparison(console, compare(everything(), everything(1)), [figures, figures])
    else:
        show(console, figures)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_page_fits_its_width(width: int, two: bool) -> None:
    text = shown(width, terminal=True, two=two)
    assert max(map(len, text.splitlines())) <= width
    assert "t.csv:1: bad" in text
    if not two:
        assert "█" in text
        for title in ("traffic", "arrivals", "prefix reuse", "sessions", "rate by hour"):
            assert title in text


def test_a_pipe_gets_plain_text() -> None:
    text = shown(120, terminal=False)
    assert text.isascii()
    assert "traffic" in text


def test_a_wide_terminal_has_tables_beside_each_other() -> None:
    narrow, wide = (shown(width, terminal=True).splitlines() for width in (80, 120))
    assert len(wide) < len(narrow)
    assert any("traffic" in line and "arrivals" in line for line in wide)


# words --------------------------------------------------------------------------------------


def test_figures_in_words() -> None:
    assert [short(v) for v in (0, 0.1234, 999, 1000, 12_345, 1e6, 2.5e9, None)] == [
        "0", "0.123", "999", "1k", "12.3k", "1M", "2.5G", "-",
    ]  # fmt: skip
    assert [span(v) for v in (0.0, 2e-6, 0.0123, 59, 600, 20_000, 400_000, None)] == [
        "0 s", "2 us", "12.3 ms", "59 s", "10 min", "5.56 h", "4.63 d", "-",
    ]  # fmt: skip
    assert number(1_234_567) == "1,234,567"
    assert number(1234.5678, "s") == "1,234.57 s"
    assert tick(-0.0) == "0"
    assert tick(1e-5) == "1e-5"


def test_small_charts() -> None:
    assert spark([0, 1, 4, 8], rich=True) == " ▁▄█"
    assert spark([0, 1, 4, 8], rich=False) == " _-#"
    assert spark([0, 0], rich=True) == "  "
    assert spark([], rich=True) == ""
    assert bar(0.5, 3, rich=True) == "█▌"
    assert bar(0.5, 4, rich=False) == "##"
    assert bar(0.0, 4, rich=True) == bar(0.0, 4, rich=False) == ""
