"""Figures are made from results folders alone, and panels show what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.figure import Figure

from sim.errors import InputError
from sim.map_panels import front, heat
from sim.panels import Line, levels, places, plain_ticks, stacked
from sim.plots import draw
from sim.result import read_summary
from sim.runs import Run
from sim.study import load_study
from sim.sweeping import run_study

if TYPE_CHECKING:
    from pathlib import Path

STUDY = """
trace: {source: azure-conv-like, requests: 60, rate_scale: 4.0}
model: llama-3.2-1b
sweep: {loop.mode: [host, control, resident], trace.rate_scale: [2, 4]}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    run_study(load_study(folder / "study.yaml"), folder / "out", quiet=True)
    return folder / "out"


def test_a_study_has_an_overview_and_a_load_figure(study: Path) -> None:
    files = draw(study, study / "figures")
    names = {path.name for path in files}
    assert {"overview.svg", "overview.png", "load-ttft.svg", "cdf-ttft.svg"} <= names
    svg = (study / "figures" / "overview.svg").read_text()
    loops = ("host", "control", "resident")
    for said in (*loops, "Simulated", "measured", "p99 TTFT (ms)", "with prompts"):
        assert said in svg


def test_another_rate_draws_another_curve(study: Path, tmp_path: Path) -> None:
    points = sorted((study / "points").iterdir())
    drawn = set()
    for number, point in enumerate(points[:2]):
        draw(point, tmp_path / str(number))
        drawn.add((tmp_path / str(number) / "cdf-ttft.svg").read_bytes())
    assert len(drawn) == 2


def test_a_study_of_sessions_names_its_models(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("""
trace: {source: agent-like, requests: 40, rate: 1 /s, clip_prompt: {to: 500}}
model: llama-3.2-1b
sweep: {model: [llama-3.2-1b, llama-3.1-8b], trace.sessions: [closed, open]}
""")
    run_study(load_study(tmp_path / "study.yaml"), tmp_path / "out", quiet=True)
    draw(tmp_path / "out", tmp_path / "figures")
    svg = (tmp_path / "figures" / "cdf-ttft.svg").read_text()
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
        draw(tmp_path, tmp_path / "figures")


def test_a_run_without_iterations_says_what_is_missing(tmp_path: Path) -> None:
    text = STUDY.split("sweep")[0] + "record: {iterations: false}\n"
    (tmp_path / "one.yaml").write_text(text)
    run_study(load_study(tmp_path / "one.yaml"), tmp_path / "out", quiet=True)
    (point,) = (tmp_path / "out" / "points").iterdir()
    with pytest.raises(InputError, match=r"record.iterations: true"):
        draw(point, tmp_path / "figures")


def test_shares_of_a_partitioned_loop_fill_the_run_and_no_more(tmp_path: Path) -> None:
    text = STUDY.split("sweep")[0] + "loop: {mode: resident, prefill: partition}\n"
    (tmp_path / "one.yaml").write_text(text)
    run_study(load_study(tmp_path / "one.yaml"), tmp_path / "out", quiet=True)
    (point,) = (tmp_path / "out" / "points").iterdir()
    run = Run(point, {}, read_summary(point))
    parts = ("loop_gpu_busy_s", "loop_gap_s", "loop_idle_s")
    assert sum(run.summary[key] for key in parts) > 1.005 * run.summary["duration"]
    axes = Figure().subplots()
    stacked(axes, [("partition", [run])])
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(100.0)


# ---------------------------------------------------------------------------- panels
def _line(label: str, y: list[float], half: float = float("nan")) -> Line:
    values = np.array(y)
    x = np.arange(1.0, len(y) + 1)
    return Line(label, {"color": "#0072b2", "linestyle": "-"}, x, values, values - half,
                values + half)  # fmt: skip


def test_values_with_an_interval_have_a_bar_and_others_none() -> None:
    axes = Figure().subplots()
    lines = [_line("_hidden", [1.0, 2.0], 0.25), _line("bare", [3.0, float("nan")])]
    levels(axes, lines, "x", "y", log=False)
    (bars,) = axes.collections
    assert [path.vertices[:, 1].tolist() for path in bars.get_paths()] == [
        [0.75, 1.25], [1.75, 2.25],
    ]  # fmt: skip
    _, labels = axes.get_legend_handles_labels()
    assert labels == [" _hidden", "bare"]
    assert axes.get_ylim()[0] == 0


def test_a_log_axis_is_for_values_above_zero() -> None:
    axes = Figure().subplots()
    levels(axes, [_line("a", [0.0, 5.0])], "x", "y", log=True)
    assert axes.get_yscale() == "linear"
    axes = Figure().subplots()
    levels(axes, [_line("a", [0.1, 5.0])], "x", "y", log=True)
    assert axes.get_yscale() == "log"


def test_places_that_crowd_are_left_without_a_name() -> None:
    axes = Figure().subplots()
    places(axes, [1.0, 2.0, 30.0, 31.0, 60.0], ["1", "2", "30", "31", "60"])
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "30", "60"]


def test_a_map_frames_the_best_and_leaves_out_what_is_not_there() -> None:
    axes = Figure().subplots()
    values = np.array([[1.0, 2.0], [np.nan, 4.0]])
    heat(axes, values, (["a", "b"], ["c", "d"]), (1.0, 4.0), high_is_good=False, log=False,
         best=(0, 0))  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["1", "2", "4"]
    (frame,) = axes.patches
    assert (round(frame.get_x()), round(frame.get_y())) == (0, 0)
    (mesh,) = axes.collections
    shades = np.asarray(mesh.get_array())
    assert shades[1, 0, 3] == 0.0
    assert shades[0, 0, :3].sum() < shades[1, 1, :3].sum()  # lower is better, and darker


def test_a_front_leads_through_the_best_alone() -> None:
    axes = Figure().subplots()
    front(axes, [_line("a", [3.0, 1.0, 2.0], 0.5)], [(1.0, 3.0)], ("x", "y"), log=False)
    through = [line for line in axes.get_lines() if line.get_label() == "Pareto front"]
    assert [list(line.get_ydata()) for line in through] == [[3.0]]
    assert len(axes.collections) == 1
    many = _line("a", [1.0] * 80, 0.5)
    axes = Figure().subplots()
    front(axes, [many], [], ("x", "y"), log=False)
    assert not axes.collections


def test_a_study_along_numbers_has_the_curve(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("""
trace: {source: synthetic, requests: 2, rate: 10 /s, prompt_tokens: 64, output_tokens: 16}
model: llama-3.2-1b
loop: {host: c}
sweep:
  speculation: [null, {draft: eagle, width: 2, acceptance: 0.6}]
  trace.prompt_tokens: [64, 128, 2048]
""")
    points = load_study(tmp_path / "study.yaml")
    run_study(points, tmp_path / "out", quiet=True)
    draw(tmp_path / "out", tmp_path / "figures")
    svg = (tmp_path / "figures" / "along-mean_tpot_ms.svg").read_text()
    for said in ("Mean TPOT", "no speculation", "trace.prompt_tokens", "Simulated", ">2048<"):
        assert said in svg
