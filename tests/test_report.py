"""The report is a page of its own: the answer first, nothing fetched, the same bytes again."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from sim.axis_names import place
from sim.cli import app, main
from sim.errors import InputError
from sim.plots import draw
from sim.report.answer import answer
from sim.report.inline import inline
from sim.report.judged import Judged
from sim.report.pictures import pictures
from sim.report.sections import ranges
from sim.report.view import View
from sim.report.words import figure, html, plain, spread
from sim.report.write import write_report
from sim.runs import Cell, read_study
from sim.stats import Estimate
from sim.study import load_study
from sim.sweeping import run_study

if TYPE_CHECKING:
    from pathlib import Path

STUDY = """# Do resident loops pay?
#
# At which rate?
trace: {source: synthetic, requests: 60, rate: 20 /s, prompt_tokens: 128,
  output_tokens: {exponential: 30, cap: 200}}
model: llama-3.2-1b
slo: {ttft: 50 ms, tpot: 2 ms}
"""
SWEEP = """sweep:
  trace.rate_scale: [1, 2, 4]
  loop.mode: [host, graph]
  seeds: 2
statistics: {baseline: {loop.mode: host}}
"""
HOSTILE = "<script>alert('&\"')</script>$x_1$\u202e\x07"


class Checker(HTMLParser):
    """Every element that is opened is closed, nothing is fetched or run, and no id is twice."""

    VOID = frozenset({"meta", "br", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object", "image")
        values = dict(attrs)
        assert not {name for name in values if name.startswith("on") or name == "src"}
        self.ids += [value for name, value in attrs if name == "id" and value]
        link = values.get("href") or ""
        assert tag in ("a", "use") or not link
        if tag == "a":
            assert "://" not in link
            assert not link.startswith("/")
            self.links.append(link)
        if tag == "use":
            assert link.startswith("#")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def checked(path: Path) -> Checker:
    page = path.read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert "://" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(checker.ids)
    assert set(re.findall(r'<use href="#([^"]*)"', page)) <= set(checker.ids)
    assert "default-src 'none'" in page
    for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(found)
    assert not re.search(r"\bnan\b", checker.text)
    return checker


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "loops.yaml").write_text(STUDY + SWEEP)
    run_study(load_study(folder / "loops.yaml"), folder / "out", quiet=True)
    write_report(folder / "out", folder / "out" / "report.html", folder / "out" / "figures")
    return folder / "out"


@pytest.fixture
def single(study: Path, tmp_path: Path) -> Path:
    point = next(iter(sorted((study / "points").iterdir())))
    shutil.copytree(point, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with one figure, for what is not about figures."""
    monkeypatch.setattr("sim.report.write.pictures", lambda view: pictures(view)[:1])


# ---------------------------------------------------------------------------- the page
def test_the_answer_comes_first_with_its_conditions(study: Path) -> None:
    text = re.sub(r"\s+", " ", checked(study / "report.html").text)
    order = (
        "loops", "At 2 times the rate, p99 TTFT with graph is", "Over the 3 values of",
        "Simulated: llama-3.2-1b on one GPU (nvidia-h200, measured profile); 60 requests of "
        "synthetic; 6 points; 2 seeds each.",
        "Comparison", "baseline", "Figures", "p99 TTFT against throughput", "What was asked",
        "Do resident loops pay?", "Simulated, measured, estimated", "launch_latency_s",
        "Statistics", "Student's t", "same random numbers", "No warm-up is cut", "Scenarios",
        "What all points share", "Files", "Environment", "numpy",
    )  # fmt: skip
    at = -1
    for said in order:
        found = text.find(said, at + 1)
        assert found > at, said
        at = found


def test_the_table_has_values_intervals_and_verdicts_of_every_point(study: Path) -> None:
    page = (study / "report.html").read_text()
    table = re.search(r'id="comparison".*?</section>', page, re.DOTALL)
    assert table is not None
    assert table[0].count("<tr>") == 1 + 6
    assert table[0].count("baseline</small>") == 3 * 3
    view = View(read_study(study))
    cell = view.cells[0]
    shown = spread(
        view.of(cell, "mean_tpot_ms").value or 0.0,
        ((view.of(cell, "mean_tpot_ms").high or 0) - (view.of(cell, "mean_tpot_ms").low or 0)) / 2,
    )
    assert f'{shown[0]}<span class="pm"> ± {shown[1]}</span>' in table[0]
    assert re.search(r'<small class="good">[\d.]+ % ± [\d.]+ % lower</small>', table[0])


def test_the_same_results_give_the_same_bytes_wherever_they_are(
    study: Path, tmp_path: Path
) -> None:
    shutil.copytree(study, tmp_path / "copy", ignore=shutil.ignore_patterns("report*", "figures"))
    again = tmp_path / "copy" / "report.html"
    files = write_report(tmp_path / "copy", again, tmp_path / "copy" / "figures")
    assert again.read_bytes() == (study / "report.html").read_bytes()
    for path in files[1:]:
        assert path.read_bytes() == (study / "figures" / path.name).read_bytes(), path.name


@pytest.mark.usefixtures("few")
def test_other_results_give_another_page(study: Path, single: Path) -> None:
    pages = set()
    for number, point in enumerate(sorted((study / "points").iterdir())[:2]):
        page = single / f"{number}.html"
        write_report(point, page, single / "figures")
        pages.add(page.read_bytes())
    assert len(pages) == 2


def test_a_single_run_has_its_numbers(single: Path) -> None:
    write_report(single, single / "report.html", single / "figures")
    text = checked(single / "report.html").text
    for said in ("The run in numbers", "p99.9", "throughput:", "1 point; one seed", "TTFT of"):
        assert said in text
    assert "Comparison" not in text


@pytest.mark.usefixtures("few")
def test_links_lead_to_files_that_are_there(study: Path, tmp_path: Path) -> None:
    page = tmp_path / "far" / "away.html"
    write_report(study, page, tmp_path / "f")
    links = checked(page).links
    assert len(links) == 12 * 6
    for link in links:
        assert (page.parent / link).is_file(), link


def test_figures_are_files_too_and_the_page_shows_them(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {path.name for path in (study / "figures").iterdir()}
    assert {"cdf-ttft.svg", "load-ttft.png", "pareto.svg", "iteration-stages.svg"} <= names
    assert len([n for n in names if n.endswith(".svg")]) * 2 == len(names)
    page = (study / "report.html").read_text()
    assert page.count("<figure") == len(names) // 2 - 1  # all but the overview
    assert page.count('role="img" aria-label="') == page.count("<figure")
    monkeypatch.setattr("sim.plots.svg_of", lambda picture, source: (b"", b""))
    assert set(draw(study, study / "figures")) == set((study / "figures").iterdir())


def test_colours_are_the_pages_and_no_text_is_a_path(study: Path) -> None:
    page = (study / "report.html").read_text()
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    left = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", figures))
    assert left <= {"#ffffff", "#101010"}  # numbers on bars
    for variable in re.findall(r"var\((--\w+)\)", page):
        assert f"{variable}:" in page
    assert ">p99 TTFT against throughput</text>" in figures


# ---------------------------------------------------------------------------- what is missing
@pytest.mark.usefixtures("few")
def test_failures_are_named_with_their_tracebacks(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "out")
    points = json.loads((study / "study.json").read_text())["points"]
    one, other = points[0], points[2]
    shutil.rmtree(tmp_path / "out" / "points" / one["id"])
    shutil.rmtree(tmp_path / "out" / "points" / other["id"])
    (tmp_path / "out" / "failures").mkdir(exist_ok=True)
    failure = {
        "id": one["id"], "axes": one["axes"], "replication": 0, "error": "MemoryError",
        "message": f"out of {HOSTILE}", "traceback": f"Traceback\n  {HOSTILE}", "attempts": 3,
    }  # fmt: skip
    (tmp_path / "out" / "failures" / f"{one['id']}.json").write_text(json.dumps(failure))
    page = tmp_path / "out" / "report.html"
    write_report(tmp_path / "out", page, tmp_path / "f")
    text = checked(page).text
    for said in ("Points without a result", "MemoryError", "3 attempt(s)", "Traceback",
                 "1 point(s) have not run yet", other["id"]):  # fmt: skip
        assert said in text


def test_a_run_without_iterations_says_so(single: Path) -> None:
    (single / "iterations.parquet").unlink()
    write_report(single, single / "report.html", single / "figures")
    text = checked(single / "report.html").text
    assert "record.iterations: true" in text
    assert "TTFT of requests" in text
    with pytest.raises(InputError, match=r"record\.iterations: true"):
        draw(single, single / "figures")


# ---------------------------------------------------------------------------- hostile input
def test_names_and_values_are_text_and_never_markup(study: Path, tmp_path: Path) -> None:
    """A folder from someone else may say anything."""
    folder = tmp_path / "a <b>&'\"#? %41"
    shutil.copytree(study, folder)
    data = json.loads((folder / "study.json").read_text())
    data |= {"name": HOSTILE, "question": HOSTILE}
    for point in data["points"]:
        mode = point["axes"].pop("loop.mode")
        point["axes"] |= {"</style><b>": f"_{mode}{HOSTILE}"}
    data["axes"] = {"trace.rate_scale": [1, 2, 4],
                    "</style><b>": [f"_{m}{HOSTILE}" for m in ("host", "graph")]}  # fmt: skip
    data["statistics"]["baseline"] = None
    (folder / "study.json").write_text(json.dumps(data))
    for point in (folder / "points").iterdir():
        for name, keys in (
            ("summary.json", ("model_id", "cost_profile")), ("scenario.json", ("name",)),
            ("environment.json", ("machine",)),
        ):  # fmt: skip
            path = point / name
            path.write_text(json.dumps(json.loads(path.read_text()) | dict.fromkeys(keys, HOSTILE)))
    page = folder / "report.html"
    write_report(folder, page, folder / "figures")
    found = checked(page)
    assert HOSTILE[:8] in found.text
    for link in found.links:
        assert "%3C" not in link  # relative to the page, which stands in that folder
    assert "\u202e" not in page.read_text()
    assert "\x07" not in page.read_text()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("study.json", "{"), ("study.json", "[]"), ("study.json", '{"points": 3}'),
        ("points/ID/summary.json", "{}"), ("points/ID/summary.json", "nonsense"),
        ("points/ID/scenario.json", "{"), ("points/ID/requests.parquet", "PAR1"),
        ("points/ID/environment.json", "3"), ("points/ID/iterations.parquet", ""),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line_and_leaves_no_page(
    study: Path, tmp_path: Path, capsys: Any, name: str, text: str
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(study, folder, ignore=shutil.ignore_patterns("report*", "figures"))
    for point in (folder / "points").iterdir():
        path = folder / name.replace("ID", point.name)
        path.write_text(text)
    with pytest.raises(SystemExit) as caught:
        main(["report", str(folder)])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder) in line
    assert not (folder / "report.html").exists()
    assert not (folder / "figures").exists()


@pytest.mark.usefixtures("few")
def test_places_that_cannot_be_written_are_refused(single: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a page's name"):
        write_report(single, tmp_path / "report.pdf", tmp_path / "f")
    with pytest.raises(InputError, match="cannot be read"):
        write_report(tmp_path / "nothing", tmp_path / "r.html", tmp_path / "f")
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(single, tmp_path / "r.html", tmp_path / "taken")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.usefixtures("few")
def test_a_report_in_a_runs_folder_does_not_keep_it_from_being_replaced(single: Path) -> None:
    from sim.result import new_folder

    assert CliRunner().invoke(app, ["report", str(single)]).exit_code == 0
    with new_folder(single, replace=True) as folder:
        (folder / "summary.json").write_text("{}")
    assert not (single / "report.html").exists()


# ---------------------------------------------------------------------------- how it looks at it
def view_of(study: Path, axes: dict[str, list[Any]], **values: float) -> View:
    """The study with other axes: a cell a combination, all with the summary of its first run."""
    from itertools import product

    results = read_study(study)
    run = results.runs[0]
    cells = []
    for number, point in enumerate(product(*axes.values())):
        of = dict(zip(axes, point, strict=True))
        summary = run.summary | {key: value * (number + 1) for key, value in values.items()}
        cells.append(Cell(of, (replace(run, axes=of, summary=summary),)))
    settings = results.statistics.model_copy(update={"baseline": None})
    return View(replace(results, axes=axes, cells=tuple(cells), statistics=settings))


@pytest.mark.parametrize(
    ("axes", "compared", "along"),
    [
        ({"loop.mode": ["a", "b"], "trace.rate_scale": [1, 2]}, "loop.mode", "trace.rate_scale"),
        ({"x": [1, 2, 3], "variant": ["p", "q"]}, "variant", "x"),
        ({"hardware.dram.capacity": ["32 GiB", "1 TiB"], "s": [None, {"capacity": "8 TiB"}]},
         "s", "hardware.dram.capacity"),
        ({"loop.max_batch": [8, 16], "trace.rate_scale": [1, 2, 3]},
         "loop.max_batch", "trace.rate_scale"),
        ({"loop.max_batch": [8, 16]}, None, "loop.max_batch"),
        ({"model": ["m"], "kv": ["a", "b"]}, "kv", None),
    ],
)  # fmt: skip
def test_what_is_compared_and_what_runs_along(study: Path, axes, compared, along) -> None:
    view = view_of(study, axes)
    assert (view.compared, view.along) == (compared, along)


def test_axes_that_move_together_are_one(study: Path) -> None:
    view = view_of(study, {"loop.max_batch": [4, 16], "trace.rate_scale": [1, 2]})
    cells = tuple(
        replace(cell, axes=cell.axes | {"loop.token_budget": 128 * cell.axes["loop.max_batch"]})
        for cell in view.cells
    )
    axes = view.results.axes | {"loop.token_budget": [512, 2048]}
    view = View(replace(view.results, axes=axes, cells=cells))
    assert list(view.axes) == ["loop.max_batch", "trace.rate_scale"]
    assert view.called("loop.max_batch", 16) == "max_batch 16, token_budget 2048"
    assert [len(group) for _, group in Judged(view).groups] == [2, 2]


def test_the_lead_changes_only_where_neither_lead_may_be_chance(study: Path) -> None:
    def said(reach: float) -> str:
        view = view_of(study, {"variant": ["a", "b"], "trace.rate_scale": [1, 2]})
        for cell, value in zip(view.cells, (1.0, 4.0, 2.0, 3.0), strict=True):
            found = Estimate(value, value - reach, value + reach, 5, "replications")
            view._estimates[id(cell), "p99_ttft_ms"] = found
        return answer(Judged(view))[0]

    assert "the lead passes from a to b between 1 and 2" in said(0.4)
    assert "with a at 1, with b at 1" in said(0.6)
    assert "the lead passes" not in said(0.6)


def test_few_lines_share_a_figure_and_many_have_facets_or_stay_out(study: Path) -> None:
    axes = {"loop.mode": ["a", "b"], "k": ["p", "q", "r"], "n": [1, 2, 3]}
    (facet,) = view_of(study, axes).layout("n")
    assert facet[0] == ""
    assert len(facet[1]) == 6
    axes["loop.mode"] = ["a", "b", "c", "d"]
    facets = view_of(study, axes).layout("n")
    assert [(title, list(lines)) for title, lines in facets] == [
        (k, ["a", "b", "c", "d"]) for k in ("p", "q", "r")
    ]
    axes["k"] = [f"k{n}" for n in range(9)]
    ((title, lines),) = view_of(study, axes).layout("n")
    assert title == "k0"
    assert list(lines) == ["a", "b", "c", "d"]


def test_of_five_hundred_points_a_part_is_in_view_and_all_are_folded(study: Path) -> None:
    from sim.report.table import tables

    axes = {"loop.mode": ["a", "b"], "n": list(range(250))}
    text = tables(Judged(view_of(study, axes)))
    seen, folded = text.split("<details>")
    assert seen.count("<tr>") <= 37
    assert folded.count("<tr>") == 501


def test_equal_values_tie_and_nobody_is_marked(study: Path) -> None:
    view = view_of(study, {"loop.mode": ["a", "b"], "n": [1, 2]})
    judged = Judged(view)
    assert all(judged.best(cells, "p99_ttft_ms") == [] for _, cells in judged.groups)
    view = view_of(study, {"loop.mode": ["a", "b"]}, p99_itl_ms=2.0)
    judged = Judged(view)
    assert judged.best(view.cells, "p99_itl_ms") == [view.cells[0]]


def test_a_figures_ids_are_its_own() -> None:
    drawn = (
        '<?xml version="1.0"?>\n<svg width="9pt" viewBox="0 0 9 9"><metadata>x</metadata>'
        '<g id="axes_1"><path id="m1" d="M 1.23456 2" style="fill: #0072b2"/></g>'
        '<use xlink:href="#m1" style="stroke: #000000"/><text>id="m1" #000000</text></svg>'
    )
    found = inline(drawn, "one", 'what "it" shows')
    assert 'id="one-m1"' in found
    assert 'href="#one-m1"' in found
    assert "axes_1" not in found
    assert "M 1.23 2" in found
    assert "fill: var(--c0)" in found
    assert 'aria-label="what &quot;it&quot; shows"' in found
    assert '<text>id="m1" #000000</text>' in found
    assert "metadata" not in found


# ---------------------------------------------------------------------------- words
def test_numbers_say_no_more_than_they_know() -> None:
    assert spread(12.3456, 0.321) == ("12.35", "0.32")
    assert spread(3.65619, 0.00068) == ("3.656", "0.001")
    assert spread(12345.6, 700.0) == ("12,346", "700")
    assert [figure(x) for x in (None, 0.0, 0.0123, 999.4, 12345.6)] == [
        "-", "0", "0.0123", "999", "12,346",
    ]  # fmt: skip


def test_text_stays_on_its_line() -> None:
    assert plain("a\nb\u202e") == "a\\nb\\u202e"
    assert len(plain("x" * 500)) == 60
    assert html("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"


def test_places_of_quantities_and_of_words() -> None:
    assert place("64 GiB") == 64 * 2.0**30
    assert place({"capacity": "1 KiB"}) == 1024.0
    assert [place(x) for x in (2, "graph", None, True)] == [2.0, None, None, None]


def test_what_left_the_measured_is_said_once() -> None:
    entries = [["k: batch 9 outside 1 to 4", "odd"], ["k: batch 16 outside 1 to 4"]]
    assert ranges(entries) == {"k: batch 9 to 16 outside 1 to 4": 2, "odd": 1}
