"""Searches as stories: a made-up machine whose limits break at a known rate answers at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import InputError
from sim.pareto import pareto
from sim.runs import read_study
from sim.search import Search
from sim.search.bisection import Bracket, bisection
from sim.search.command import search_study
from sim.search.outcome import read_probes
from sim.search.panels import draw_search, rungs
from sim.search.tables import answer, remarks
from sim.stats import Estimate
from sim.study import load_study
from sim.sweeping import point_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sim.study import Point


# ---------------------------------------------------------------------------- bisection alone
def walk(keeps: Callable[[float], bool | None], *args: float, whole: bool = False) -> Any:
    """The values probed and the bracket."""
    values, steps = [], bisection(*args, whole=whole)
    value = next(steps)
    while True:
        values.append(value)
        try:
            value = steps.send(keeps(value))
        except StopIteration as stop:
            return values, stop.value


def test_doubles_then_halves_then_looks_above() -> None:
    values, bracket = walk(lambda x: x <= 10, 1, 64, 0.05)
    # sqrt(8*16), sqrt(8*11.31), sqrt(9.512*11.31), sqrt(9.512*10.37); above: sqrt(10.37*64)
    assert values == [1, 2, 4, 8, 16, 11.31, 9.512, 10.37, 9.932, 25.76]
    assert bracket == Bracket("found", 9.932, 10.37)


def test_a_finer_tolerance_narrows_the_bracket() -> None:
    widths = [
        (b.high - b.low) / b.low
        for b in (walk(lambda x: x <= 10, 1, 64, tolerance)[1] for tolerance in (0.2, 0.02, 0.002))
    ]
    assert all(width <= t for width, t in zip(widths, (0.2, 0.02, 0.002), strict=True))
    assert widths[0] > widths[1] > widths[2]


def test_ends_of_the_range() -> None:
    assert walk(lambda x: True, 1, 5, 0.1) == ([1, 2, 4, 5], Bracket("above", 5, None))
    assert walk(lambda x: False, 1, 4, 0.1) == ([1, 2], Bracket("below", None, 1))


def test_a_probe_without_an_answer_ends_it() -> None:
    assert walk(lambda x: None if x > 3 else True, 1, 64, 0.1)[1] == Bracket(
        "failed", 2, None, failed=4
    )


def test_whole_numbers_only() -> None:
    values, bracket = walk(lambda x: x <= 11, 1, 64, 0.001, whole=True)
    assert values == [1, 2, 4, 8, 16, 11, 13, 12, 27]
    assert (bracket.low, bracket.high) == (11, 12)


def test_limits_that_are_kept_again_above_are_found() -> None:
    bracket = walk(lambda x: x <= 10 or x > 20, 1, 64, 0.05)[1]
    assert bracket.status == "found"
    assert bracket.again == 25.76


# ---------------------------------------------------------------------------- a made-up machine
STUDY = """
# Which?
trace:
  source: synthetic
  requests: 100
  rate: 2 /s
  prompt_tokens: 64
  output_tokens: 8
model: llama-3.2-1b
slo: {ttft: 1 s}
"""
SWEEP = "sweep: {loop.mode: [host, graph]}\n"
CAPACITY = """search:
  subject_to: {p99_ttft: 100 ms}
  over: {trace.rate_scale: {from: 1, to: 64}}
  tolerance: 0.05
"""


@dataclass
class Machine:
    """Writes summaries: p99 TTFT is 10 ms times the rate scale over the mode's speed."""

    folder: Path
    speed: dict[str, float]
    ran: list[Point] = field(default_factory=list)
    fails_at: float = np.inf
    extra: Callable[[Point], dict[str, Any]] = lambda point: {}

    @dataclass
    class Outcome:
        failed: list[Any]

    def run(self, points: Sequence[Point]) -> Outcome:
        failed = []
        for point in points:
            scenario, name = point.scenario, point_id(point.scenario)
            if (self.folder / "points" / name).exists():
                continue
            self.ran.append(point)
            scale = scenario.trace.rate_scale / scenario.replicas.count
            if scale >= self.fails_at:
                failed.append(type("F", (), {"id": name, "message": "line\nboom"})())
                continue
            path = self.folder / "points" / name
            path.mkdir(parents=True)
            ttft = 10.0 * scale / self.speed[scenario.loop.mode]
            summary = {
                "loop_mode": scenario.loop.mode, "cost_extrapolated": [], "duration": 10.0,
                "requests_in": 100, "completed": 100, "trace_closed_loop": False,
                "p99_ttft_ms": ttft, "request_goodput": 10.0 * scale,
                "request_throughput": 2.0 * scenario.trace.rate_scale,
                "output_throughput": 80.0, "total_output_tokens": 800, "total_input_tokens": 6400,
                "cost_profile": scenario.hardware.profile, "cost_profile_status": "measured",
                "seed": scenario.seed, "loop_gpu_busy_s": 5.0, "loop_gpu_busy_prefill_s": 1.0,
                "replicas": [{}] * scenario.replicas.count,
            } | self.extra(point)  # fmt: skip
            (path / "summary.json").write_text(json.dumps(summary))
        return self.Outcome(failed)


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Searches STUDY with more text on a made-up machine; gives document and machine."""

    def estimate(cell: Any, metric: str, settings: Any) -> Estimate:
        values = np.array([float(run.summary.get(metric) or 0) for run in cell.runs])
        spread = float(values.max() - values.min())
        value = float(values.mean())
        return Estimate(value, value - spread, value + spread, len(values), "replications")

    monkeypatch.setattr("sim.search.probes.estimate", estimate)
    monkeypatch.setattr(
        "sim.search.provision.offered", lambda probe: 2.0 * probe.sets["trace.rate_scale"]
    )
    monkeypatch.setattr(
        "sim.search.outcome.offered", lambda probe: 2.0 * probe.sets["trace.rate_scale"]
    )

    def made(text: str, folder: str = "out", **machine: Any) -> Any:
        file = tmp_path / "study.yaml"
        file.write_text(STUDY + text)
        fake = Machine(tmp_path / folder, {"host": 1.0, "graph": 2.0}, **machine)
        document = search_study(
            load_study(file), lambda more: load_study(file, more).points, fake.folder,
            run=fake.run, plots=False, quiet=True,
        )  # fmt: skip
        return document, fake

    return made


def test_capacity_of_each_configuration(search: Any) -> None:
    document, machine = search(SWEEP + CAPACITY)
    host, graph = document["configurations"]
    # Limits break above 10 and above 20; the paths are those of the bisection alone.
    assert [p["set"]["trace.rate_scale"] for p in host["probes"]] == [
        1, 2, 4, 8, 16, 11.31, 9.512, 10.37, 9.932, 25.76
    ]  # fmt: skip
    assert (host["capacity"], host["broken_at"]) == (9.932, 10.37)
    assert 19 < graph["capacity"] <= 20 < graph["broken_at"] < 21
    assert host["words"] == "9.93; at 10.4 p99_ttft is 104 ms (limit 100 ms)"
    assert host["notes"] == graph["notes"] == []
    assert answer(document).startswith("graph has the most within p99_ttft 100 ms: trace.rate_scal")
    assert len(machine.ran) == len(host["probes"]) + len(graph["probes"])


def test_every_probe_is_a_point_of_the_study(search: Any) -> None:
    document, machine = search(SWEEP + CAPACITY)
    results = read_study(machine.folder)
    assert len(results.cells) == len(machine.ran)
    assert list(results.axes) == ["loop.mode", "trace.rate_scale"]
    assert results.missing == ()
    ids = {name for e in document["configurations"] for p in e["probes"] for name in p["ids"]}
    assert ids == {path.name for path in (machine.folder / "points").iterdir()}


def test_a_search_goes_on_where_it_was_killed(search: Any) -> None:
    whole, machine = search(SWEEP + CAPACITY)
    text = (machine.folder / "probes.json").read_bytes()
    (machine.folder / "probes.json").unlink()
    again, nothing = search(SWEEP + CAPACITY)
    assert nothing.ran == []
    assert again == whole
    assert (machine.folder / "probes.json").read_bytes() == text


def test_seeds_are_judged_on_the_mean_or_on_the_bound(search: Any) -> None:
    def extra(point: Point) -> dict[str, Any]:
        scale = point.scenario.trace.rate_scale
        return {"p99_ttft_ms": 10 * scale * (0.9 if point.replication else 1.1)}

    seeds = "sweep: {seeds: 2}\n"
    mean, _ = search(seeds + CAPACITY, "mean", extra=extra)
    bound, _ = search(seeds + CAPACITY + "  judge: bound\n", "bound", extra=extra)
    assert mean["configurations"][0]["capacity"] == 9.932  # breaks above 10
    assert 8.0 <= bound["configurations"][0]["capacity"] <= 100 / 12  # the bound is 1.2 of the mean
    assert len(mean["configurations"][0]["probes"][0]["ids"]) == 2
    assert "(" in bound["configurations"][0]["words"]


def test_nothing_keeps_the_limits(search: Any) -> None:
    document, _ = search(CAPACITY.replace("100 ms", "4 ms"))
    found = document["configurations"][0]
    assert found["status"] == "below"
    assert found["words"].startswith("none: at the lower end, trace.rate_scale 1, already p99_ttft")
    assert answer(document).startswith("No configuration stays within p99_ttft 4 ms, not even at")


def test_everything_keeps_the_limits(search: Any) -> None:
    document, _ = search(CAPACITY.replace("100 ms", "9 s"))
    assert document["configurations"][0]["words"].startswith("at least 64: every limit is kept")
    assert "at least trace.rate_scale 64" in answer(document)


def test_a_failing_probe_is_said(search: Any) -> None:
    document, _ = search(SWEEP + CAPACITY, fails_at=4)
    assert document["configurations"][0]["words"] == (
        "at least 2, not known: the probe at trace.rate_scale 4 failed: boom"
    )
    none, _ = search(CAPACITY, "none", fails_at=0)
    assert answer(none) == "No capacity is known: the probes failed."


def test_a_second_crossing_is_said(search: Any) -> None:
    def extra(point: Point) -> dict[str, Any]:
        return {"p99_ttft_ms": 50.0} if point.scenario.trace.rate_scale > 20 else {}

    document, _ = search("loop: {mode: host}\n" + CAPACITY, extra=extra)
    first, second = document["configurations"][0]["notes"]
    assert first.startswith("not monotonic: at trace.rate_scale 25.76 the limits are kept again")
    assert "p99_ttft improves from trace.rate_scale 16 to 25.76 by 110 % of its limit" in second


def test_the_goal_ranks_configurations(search: Any) -> None:
    def extra(point: Point) -> dict[str, Any]:
        value = 9.0 if point.scenario.loop.mode == "host" else 3.0
        return {"output_throughput": value, "mean_tpot_ms": value}

    document, _ = search(SWEEP + CAPACITY + "  goal: {maximize: output_throughput}\n", extra=extra)
    assert answer(document).startswith("host has the best output_throughput (9) within")
    document, _ = search(SWEEP + CAPACITY + "  goal: {minimize: mean_tpot}\n", extra=extra)
    assert answer(document).startswith("graph has the best mean_tpot (3")


# ---------------------------------------------------------------------------- GPUs for a rate
PRICES = "prices: {currency: USD, gpu_hour: {nvidia-h200: 3.6}}\n"


def test_gpus_for_a_rate(search: Any) -> None:
    text = SWEEP + PRICES + CAPACITY + "  target: {rate: 100 /s}\n"
    document, machine = search(text)
    host, graph = (e["provision"] for e in document["configurations"])
    # One carries 2 * 9.932 = 19.9 requests/s, so six carry 100; each then has 100/6 < 19.9.
    assert (host["gpus"], host["verified"], host["cost_per_hour"]) == (6, True, 6 * 3.6)
    assert host["per_gpu_per_s"] == pytest.approx(19.864)
    assert graph["gpus"] == 3
    tried = [p for p in machine.ran if p.scenario.replicas.count == 6]
    assert len(tried) == 1
    assert tried[0].scenario.trace.rate_scale == 50.0
    assert tried[0].scenario.trace.requests == 600
    assert answer(document).startswith(
        "100 requests/s within p99_ttft 100 ms take 3 x graph, 10.8 USD/h; or 6 x host, 21.6 USD/h"
    )
    assert "GPUs: as independent replicas behind a router that deals evenly" in remarks(document)


def test_an_answer_that_does_not_hold_takes_more_gpus(search: Any) -> None:
    def extra(point: Point) -> dict[str, Any]:
        return {"p99_ttft_ms": 500.0} if 1 < point.scenario.replicas.count < 8 else {}

    document, _ = search(CAPACITY + "  target: {rate: 100 /s}\n", extra=extra)
    need = document["configurations"][0]["provision"]
    assert (need["gpus_by_capacity"], need["gpus"], need["verified"]) == (3, 6, False)
    document, _ = search(CAPACITY + "  target: {rate: 200 /s}\n", extra=extra)
    need = document["configurations"][0]["provision"]
    assert (need["gpus_by_capacity"], need["gpus"], need["verified"]) == (6, 8, True)
    assert "a run with 6 breaks one: p99_ttft is 500 ms (limit 100 ms)" in need["words"]


def test_what_cannot_be_tried_says_why(search: Any) -> None:
    document, machine = search(CAPACITY + "  target: {rate: 9999 /s}\n")
    need = document["configurations"][0]["provision"]
    assert need["verified"] is None
    assert "not tried: more than 64 replicas" in need["words"]
    document, machine = search(CAPACITY + "  target: {rate: 100 /s, verify: false}\n", "no")
    assert document["configurations"][0]["provision"]["verified"] is None
    assert all(point.scenario.replicas.count == 1 for point in machine.ran)


# ---------------------------------------------------------------------------- halving
HALVING = """sweep: {loop.max_batch: [8, 16, 32, 64]}
search:
  goal: {maximize: output_throughput}
  subject_to: {p99_ttft: 100 ms}
  halving: {requests: [10, 20, 40], keep: 0.5}
"""


def batches(**values: tuple[float, float]) -> Callable[[Point], dict[str, Any]]:
    """(throughput, p99 TTFT) by `b8` and so on."""

    def extra(point: Point) -> dict[str, Any]:
        throughput, ttft = values[f"b{point.scenario.loop.max_batch}"]
        return {"output_throughput": throughput, "p99_ttft_ms": ttft}

    return extra


def test_halving_keeps_the_best_and_puts_broken_limits_last(search: Any) -> None:
    extra = batches(b8=(10, 50), b16=(20, 50), b32=(30, 50), b64=(99, 200))
    document, machine = search(HALVING, extra=extra)
    ranked = [(e["axes"]["loop.max_batch"], e["rung"]) for e in document["configurations"]]
    assert ranked == [(32, 3), (16, 2), (8, 1), (64, 1)]
    runs = [(p.scenario.trace.requests, p.scenario.loop.max_batch) for p in machine.ran]
    assert runs == [(10, 8), (10, 16), (10, 32), (10, 64), (20, 32), (20, 16), (40, 32)]
    assert answer(document) == (
        "max_batch 32 is best in output_throughput (30) within p99_ttft 100 ms (simulated)."
    )


def test_keep_says_how_many_go_on(search: Any) -> None:
    extra = batches(b8=(10, 50), b16=(20, 50), b32=(30, 50), b64=(40, 50))
    _, machine = search(HALVING.replace("0.5", "0.75"), extra=extra)
    assert [p.scenario.trace.requests for p in machine.ran].count(20) == 3


def test_halving_where_nothing_keeps_the_limits_or_runs(search: Any) -> None:
    extra = batches(b8=(10, 150), b16=(20, 120), b32=(30, 150), b64=(99, 200))
    document, _ = search(HALVING, extra=extra)
    assert document["configurations"][0]["axes"] == {"loop.max_batch": 16}  # least above the limit
    assert "though it breaks a limit (p99_ttft)" in answer(document)
    document, _ = search(HALVING, "failed", extra=extra, fails_at=0)
    assert answer(document) == "Every configuration failed."


# ---------------------------------------------------------------------------- what users write
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("search: {subject_to: {p99_ttft: 2 s}}", "search: give one of over and halving"),
        ("search: {over: {trace.rate_scale: {from: 1, to: 2}}}", "capacity needs limits"),
        ("search: {halving: {requests: [1, 2]}}", "halving ranks by a goal"),
        (CAPACITY.replace("100 ms", "100"), "'100 ms', got|has no unit"),
        (CAPACITY.replace("p99_ttft: 100 ms", "p99_ttft_ms: 100"), "write it as `p99_ttft`"),
        (CAPACITY.replace("100 ms", ".nan s"), "is not finite"),
        (CAPACITY.replace("p99_ttft: 100 ms", "goodput_share: .nan"), "finite number"),
        (CAPACITY.replace("to: 64", "to: 1"), "1 is not above from"),
        (CAPACITY.replace("to: 64", "to: .inf"), "search.over.trace.rate_scale"),
        (CAPACITY.replace("from: 1", "from: -1"), "search.over.trace.rate_scale"),
        (CAPACITY.replace("0.05", "2"), "search.tolerance: must be < 1"),
        (CAPACITY + "  target: {rate: 0 /s}", "search.target.rate: must be > 0"),
        (CAPACITY + "  goal: {}", "search.goal: give one of maximize and minimize"),
        (CAPACITY + "  judges: mean", "search.judges: no such field; did you mean 'judge'"),
        (HALVING.replace("20, 40", "20, 20"), "20 after 20; rungs must grow"),
        (HALVING.replace("0.5", "1.0"), "search.halving.keep: must be < 1"),
        ("search: [1]", "search: expected a map"),
        (CAPACITY.replace("p99_ttft", "p99_tft"), "p99_tft: '100 ms' is a time, and only laten"),
    ],
)
def test_bad_sections_give_one_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "s.yaml").write_text(STUDY + text)
    with pytest.raises(InputError, match=what) as caught:
        load_study(tmp_path / "s.yaml")
    assert len(caught.value.lines) == 1
    assert "s.yaml:" in caught.value.lines[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            CAPACITY.replace("p99_ttft:", "p98_ttft:"),
            "p98_ttft: no such metric; did you mean 'p9._ttft'",
        ),
        (CAPACITY.replace("p99_ttft: 100 ms", "cost_per_mtok: 1"), "needs a price table"),
        (CAPACITY.replace("p99_ttft: 100 ms", "mean_w: 300"), "needs a power model"),
        (
            CAPACITY + "  goal: {maximize: mean_ttft}\n",
            "goal: maximize: mean_ttft is better lower, so this seeks the worst",
        ),
        (CAPACITY.replace("rate_scale", "rat_scale"), "search.over: --set trace.rat_scale=1"),
        (
            CAPACITY.replace("trace.rate_scale", "loop.max_batch").replace("64", "1e9"),
            "search.over",
        ),
    ],
)
def test_what_a_study_cannot_have_is_refused_before_it_runs(
    search: Any, tmp_path: Path, text: str, what: str
) -> None:
    with pytest.raises(InputError, match=what):
        search(text)
    assert not (tmp_path / "out" / "points").exists()


def test_settings_survive_the_manifest() -> None:
    text = {"subject_to": {"p99_ttft": "2 s", "goodput_share": 0.99}, "target": {"rate": "3 /s"}}
    search = Search.model_validate(text | {"over": {"trace.rate_scale": {"from": 1, "to": 2}}})
    assert search.subject_to == {"p99_ttft": 2.0, "goodput_share": 0.99}
    data = json.loads(json.dumps(search.model_dump(mode="json")))
    assert Search.model_validate(data, context={"si": True}) == search


# ---------------------------------------------------------------------------- what is left behind
def test_figures_have_the_same_bytes(search: Any, tmp_path: Path) -> None:
    power = "power: {}\n"
    _, machine = search(SWEEP + PRICES + power + CAPACITY)
    first = [path.read_bytes() for path in draw_search(machine.folder, tmp_path / "a")]
    again = [path.read_bytes() for path in draw_search(machine.folder, tmp_path / "b")]
    assert len(first) == 2
    assert first == again
    assert b"USD per million output tokens" in first[0]
    assert b"graph has the most within" in first[0]  # the caption


def test_the_figure_of_a_halving(search: Any) -> None:
    extra = batches(b8=(1, 1), b16=(2, 1), b32=(3, 1), b64=(4, 1))
    document, _ = search(HALVING, extra=extra)
    axes = Figure().subplots()
    rungs(axes, document)
    best, *_, worst = axes.get_lines()
    assert list(best.get_xdata()) == [10, 20, 40]
    assert list(best.get_ydata()) == [4, 4, 4]
    assert list(worst.get_xdata()) == [10]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"method": "capacity", "pareto": []}'])
def test_damaged_documents(tmp_path: Path, text: str) -> None:
    assert read_probes(tmp_path) is None
    (tmp_path / "probes.json").write_text(text)
    with pytest.raises(InputError, match=r"probes\.json"):
        read_probes(tmp_path)


def test_the_front_of_cost_against_goodput(search: Any) -> None:
    document, _ = search(SWEEP + PRICES + CAPACITY)
    # All probes cost the same here, so only the most goodput is on the front: graph's capacity.
    (only,) = document["pareto"]
    graph = document["configurations"][1]
    assert only["configuration"] == 1
    assert only["goodput_per_s"] == pytest.approx(10 * graph["capacity"])


def test_the_front_of_a_halving_is_of_its_last_rung(search: Any) -> None:
    def extra(point: Point) -> dict[str, Any]:
        length = point.scenario.trace.requests or 0
        return {"output_throughput": 1e3 / length, "request_goodput": 1e3 / length}

    document, _ = search(HALVING + PRICES, extra=extra)
    assert [entry["rung"] for entry in document["configurations"]] == [3, 2, 1, 1]
    # Earlier rungs have more goodput here, of shorter runs.
    assert [point["configuration"] for point in document["pareto"]] == [0]
    assert "not beaten in both cost and goodput on the last rung: max_batch 8" in remarks(document)


def test_a_capacity_of_a_run_that_is_too_short_is_called_out(search: Any) -> None:
    document, _ = search(SWEEP + CAPACITY)
    assert [entry["notes"] for entry in document["configurations"]] == [[], []]
    document, _ = search(SWEEP + CAPACITY, "short", extra=lambda _: {"request_throughput": 12.0})
    host, _ = document["configurations"]
    assert host["notes"] == [
        "too short to be steady: 19.9 requests/s arrive and 12 are finished, so a longer run may"
        " carry less; give more trace.requests"
    ]


def test_pareto() -> None:
    assert pareto([], ("lower",)) == []
    assert pareto([(1, 1), (2, 2), (1, 2), (1, 2)], ("lower", "higher")) == [2, 3]
    assert pareto([(1, 1), (2, 2), (1, 2)], ("lower", "lower")) == [0]
    assert pareto([(float("nan"), 9), (3, 1)], ("lower", "higher")) == [1]
    with pytest.raises(ValueError, match="directions"):
        pareto([(1, 2)], ("lower",))


# ---------------------------------------------------------------------------- for real
def test_the_command_searches_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        STUDY + "prices: {currency: EUR, gpu_hour: {nvidia-h200: 2}}\n"
        "search: {subject_to: {p99_ttft: 3 ms}, tolerance: 0.5,"
        " over: {trace.rate_scale: {from: 64, to: 4096}}}\n"
    )
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--no-plots"]
    arguments += ["--jobs", "1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "Capacity by bisection (simulated)" in first.output
    found = read_probes(tmp_path / "out")
    assert found is not None
    bracket = found["configurations"][0]
    low, high = bracket["capacity"], bracket["broken_at"]
    assert high - low <= 0.5 * low
    before = sorted((tmp_path / "out" / "points").iterdir())
    assert CliRunner().invoke(app, arguments).output == first.output
    assert sorted((tmp_path / "out" / "points").iterdir()) == before


@pytest.mark.slow
def test_bisection_agrees_with_a_fine_grid(tmp_path: Path) -> None:
    from sim.simulate import Simulation

    limits = STUDY.replace("requests: 100", "requests: 400")
    (tmp_path / "s.yaml").write_text(
        limits + "search: {subject_to: {p99_ttft: 20 ms}, tolerance: 0.05,"
        " over: {trace.rate_scale: {from: 64, to: 16384}}}\n"
    )
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["sweep", str(tmp_path / "s.yaml"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = read_probes(out)
    assert found is not None
    low, high = (found["configurations"][0][key] for key in ("capacity", "broken_at"))
    kept = []
    grid = [low * 1.01**step for step in range(-40, 41)]
    for scale in grid:
        point = load_study(tmp_path / "s.yaml", [f"trace.rate_scale={scale}"]).points[0]
        kept.append(Simulation(point.scenario).run()["p99_ttft_ms"] <= 20.0)
    crossing = kept.index(False)
    assert 0 < crossing < len(grid)
    # The grid's crossing lies in the bracket, give or take a step of the grid.
    assert low / 1.01 <= grid[crossing]
    assert grid[crossing - 1] <= high * 1.01
