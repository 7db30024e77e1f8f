"""Figures are made from results folders alone, and the same results give the same bytes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sim.curve_panels import Swept, lines, middle, swept
from sim.errors import InputError
from sim.load import load_points
from sim.panels import Run, plain_ticks, shared
from sim.plots import draw_run, draw_study
from sim.sweep import run_points

STUDY = """
trace: {source: azure-conv-like, requests: 60, rate_scale: 4.0}
model: llama-3.2-1b
sweep: {loop.mode: [host, control, resident], trace.rate_scale: [2, 4]}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    run_points(load_points(folder / "study.yaml"), folder / "out", quiet=True)
    return folder / "out"


def test_a_study_has_an_overview_and_a_load_figure(study: Path) -> None:
    files = draw_study(study, study / "figures")
    names = {path.name for path in files}
    assert {"overview.svg", "overview.png", "load.svg", "latency.svg", "time.png"} <= names
    svg = (study / "figures" / "overview.svg").read_text()
    loops = ("host", "control", "resident")
    for said in (*loops, "simulated", "measured", "TTFT p99 (ms)", "GPU busy"):
        assert said in svg


def test_figures_are_the_same_to_the_byte(study: Path, tmp_path: Path) -> None:
    once, again = draw_study(study, tmp_path / "one"), draw_study(study, tmp_path / "two")
    for one, two in zip(once, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_another_rate_draws_another_curve(study: Path, tmp_path: Path) -> None:
    points = sorted((study / "points").iterdir())
    drawn = set()
    for number, point in enumerate(points[:2]):
        draw_run(point, tmp_path / str(number))
        drawn.add((tmp_path / str(number) / "latency.svg").read_bytes())
    assert len(drawn) == 2


def test_a_study_of_sessions_names_its_models(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("""
trace: {source: agent-like, requests: 40, rate: 1 /s, clip_prompt: {to: 500}}
model: llama-3.2-1b
sweep: {model: [llama-3.2-1b, llama-3.1-8b], trace.sessions: [closed, open]}
""")
    run_points(load_points(tmp_path / "study.yaml"), tmp_path / "out", quiet=True)
    draw_study(tmp_path / "out", tmp_path / "figures")
    svg = (tmp_path / "figures" / "latency.svg").read_text()
    assert "llama-3.2-1b and llama-3.1-8b" in svg
    for model in ("llama-3.2-1b", "llama-3.1-8b"):
        assert f"{model}, open" in svg
        assert f"{model}, closed" in svg


@pytest.mark.parametrize("decades", [0.3, 1.0, 2.0, 3.0, 5.0])
def test_a_log_axis_has_room_for_its_numbers(decades: float) -> None:
    axes = Figure().subplots()
    axes.set_xscale("log")
    axes.plot([30, 30 * 10**decades], [0, 1])
    plain_ticks(axes.xaxis)
    low, high = axes.get_xlim()
    assert 1 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 11


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study.json: cannot be read"):
        draw_study(tmp_path, tmp_path / "figures")


def test_a_run_without_iterations_says_what_is_missing(tmp_path: Path) -> None:
    text = STUDY.split("sweep")[0] + "record: {iterations: false}\n"
    (tmp_path / "one.yaml").write_text(text)
    run_points(load_points(tmp_path / "one.yaml"), tmp_path / "out", quiet=True)
    (point,) = (tmp_path / "out" / "points").iterdir()
    with pytest.raises(InputError, match=r"record.iterations: true"):
        draw_run(point, tmp_path / "figures")


def test_shares_of_a_partitioned_loop_fill_the_run_and_no_more(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from sim.panels import Run, stacked
    from sim.result import read_summary

    text = STUDY.split("sweep")[0] + "loop: {mode: resident, prefill: partition}\n"
    (tmp_path / "one.yaml").write_text(text)
    run_points(load_points(tmp_path / "one.yaml"), tmp_path / "out", quiet=True)
    (point,) = (tmp_path / "out" / "points").iterdir()
    summary = read_summary(point)
    overlapping = summary["loop_gpu_busy_s"] + summary["loop_gap_s"] + summary["loop_idle_s"]
    assert overlapping > 1.005 * summary["duration"]
    axes = Figure().subplots()
    stacked(axes, [Run(point, {}, summary)])
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(100.0)


# ---------------------------------------------------------------- a metric along an axis
def _run(median: float | None = 1.0, common: frozenset[tuple[str, str]] = frozenset(), **axes):
    named = {key.replace("__", "."): value for key, value in axes.items()}
    return Run(Path("nowhere"), named, {"median_tpot_ms": median, "loop_mode": "graph"}, common)


def _grid(**axes) -> list[Run]:
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    common = shared(points)
    return [_run(1.0 + number, common, **point) for number, point in enumerate(points)]


def test_the_axis_with_most_numbers_runs_along_and_the_first_other_makes_panels() -> None:
    width = [{"controller": "load_aware"}, 1, 2, 3, 4]
    runs = _grid(s__draft=["eagle", "ngram"], s__rate=[0.2, 0.4, 0.6], s__width=width)
    how = swept(runs)
    assert how == Swept("s.width", "s.draft", ("s.rate",))
    assert how.panel_values(runs) == ["eagle", "ngram"]
    assert len(how.of_panel(runs, "ngram")) == 15
    chosen = [tuple(run.axes.values()) for run in middle(runs, how)]
    assert chosen == [("eagle", 0.2, 3), ("eagle", 0.4, 3), ("eagle", 0.6, 3)]


@pytest.mark.parametrize(
    "axes",
    [
        {"loop__mode": ["host", "graph", "resident"]},
        {"batch": [1, 2]},
        {"batch": [1, 2, 3, "a", "b"]},
        {"flag": [True, False, 1]},
    ],
)
def test_few_numbers_make_no_curve(axes) -> None:
    assert swept(_grid(**axes)) is None


def _drawn(runs: list[Run]) -> dict[str, tuple[str, list[float], list[float]]]:
    """Style and points of each line of the first panel, by label."""
    how = swept(runs)
    assert how is not None
    axes = Figure().subplots()
    lines(axes, how.of_panel(runs, how.panel_values(runs)[0]), how, "median_tpot_ms", "ms")
    return {
        str(line.get_label()): (
            line.get_linestyle(),
            list(line.get_xdata()),
            list(line.get_ydata()),
        )
        for line in axes.get_lines()
    }


def test_runs_without_the_feature_are_dashed_and_maps_are_named_by_what_differs() -> None:
    sparse = [None, {"select": "topk", "k": 64}, {"select": "topk", "k": 128}]
    found = _drawn(_grid(sparse=sparse, tokens=[1024, 512, 2048]))
    assert found == {
        "no sparse": ("--", [512, 1024, 2048], [2.0, 1.0, 3.0]),
        "k 64": ("-", [512, 1024, 2048], [5.0, 4.0, 6.0]),
        "k 128": ("-", [512, 1024, 2048], [8.0, 7.0, 9.0]),
    }


def test_the_value_that_is_no_number_is_a_level_across() -> None:
    base = {"controller": "load_aware"}
    runs = [_run(3.0, rate=rate, width=base) for rate in (0.2, 0.8)]
    runs += [_run(rate * n, rate=rate, width=n) for rate in (0.2, 0.8) for n in (1, 2, 3)]
    found = _drawn(runs)
    assert found["baseline"][0] == "--"
    assert found["baseline"][2] == [3.0, 3.0]
    assert found["0.2"][1] == [1, 2, 3]


def test_a_study_along_numbers_has_the_curve(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("""
trace: {source: synthetic, requests: 2, rate: 10 /s, prompt_tokens: 64, output_tokens: 16}
model: llama-3.2-1b
loop: {host: c}
sweep:
  speculation: [null, {draft: eagle, width: 2, acceptance: 0.6}]
  trace.prompt_tokens: [64, 128, 2048]
""")
    run_points(load_points(tmp_path / "study.yaml"), tmp_path / "out", quiet=True)
    draw_study(tmp_path / "out", tmp_path / "figures")
    svg = (tmp_path / "figures" / "curve.svg").read_text()
    for said in ("TPOT median", "no speculation", "trace.prompt_tokens", "simulated", ">2k<"):
        assert said in svg
