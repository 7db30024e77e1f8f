"""Money and energy of runs, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from toy import play, toy_scenario
from typer.testing import CliRunner

from sim.cli import app
from sim.economics import METRICS, Power, Prices, economics, faults, line, watts
from sim.errors import InputError
from sim.load import load_run
from sim.profile import load_profile
from sim.sheets import shipped_sheet, shipped_sheets

if TYPE_CHECKING:
    from pathlib import Path

NAME = "nvidia-h200"
SUMMARY: dict[str, Any] = {
    "cost_profile": NAME, "duration": 1800.0, "total_output_tokens": 4_000_000,
    "total_input_tokens": 12_000_000, "completed": 20_000, "request_goodput": 10.0,
    "loop_gpu_busy_s": 900.0, "loop_gpu_busy_prefill_s": 300.0,
}  # fmt: skip


class Ran:
    """A run with SUMMARY and changes to it."""

    def __init__(self, **changes: Any) -> None:
        self.summary = SUMMARY | changes


def prices(**more: Any) -> Prices:
    return Prices(currency="USD", gpu_hour={NAME: 4.0}, **more)


def power(**more: Any) -> Power:
    return Power.model_validate({"gpu": {NAME: {"idle": "100 W", "peak": "700 W"}}} | more)


def test_gpu_hours_and_cost_by_hand() -> None:
    found = economics(Ran(), prices(), None)
    assert found["gpu_hours"] == 0.5
    assert (found["cost"], found["currency"]) == (2.0, "USD")
    assert found["cost_per_mtok"] == 0.5  # 2 USD for 4 million tokens
    assert found["cost_per_mtok_total"] == 0.125
    assert found["cost_per_1k_requests"] == 0.1
    assert found["cost_per_good_request"] == pytest.approx(2.0 / 18_000)
    assert found["energy_kwh"] is found["energy_j_per_token"] is found["mean_w"] is None


def test_energy_by_hand() -> None:
    found = economics(Ran(), None, power())
    # Half of the time busy: 600 s at 0.6 of the range and 300 s at all of it, of 1800 s.
    assert found["mean_w"] == pytest.approx(100 + 600 * (0.6 * 600 + 300) / 1800)
    assert found["energy_kwh"] == pytest.approx(found["mean_w"] * 1800 / 3.6e6)
    assert found["energy_j_per_token"] == pytest.approx(found["mean_w"] * 1800 / 4e6)
    assert found["power_kind"] == "estimated"
    assert found["cost"] is None


def test_replicas_are_gpus() -> None:
    found = economics(Ran(replicas=[{}] * 4), prices(), power())
    assert (found["gpu_hours"], found["cost"]) == (2.0, 8.0)
    assert found["mean_w"] == pytest.approx(4 * 100 + 600 * (0.6 * 600 + 300) / 1800)


@pytest.mark.parametrize(
    ("table", "model", "metric", "value"),
    [
        ({"host_hour": 2.0}, {}, "cost", 3.0),
        ({"energy_kwh": 10.0}, {}, "cost", 2.0 + 10.0 * 320 * 0.5 / 1000),
        ({}, {"host": "50 W"}, "mean_w", 370.0),
        ({}, {"memory_bound": 0.3}, "mean_w", 260.0),
        ({}, {"compute_bound": 0.5}, "mean_w", 270.0),
        ({}, {"gpu": {NAME: {"peak": "700 W"}}, "idle_share": 0.5}, "mean_w", 350 + 350 * 11 / 30),
        ({}, {"gpu": {NAME: {"idle": "100 W", "peak": "400 W"}}}, "mean_w", 210.0),
        ({}, {"kind": "calibrated"}, "power_kind", "calibrated"),
    ],
)  # fmt: skip
def test_each_knob(table: Any, model: Any, metric: str, value: Any) -> None:
    plain = economics(Ran(), prices(), power())
    found = economics(Ran(), prices(**table), power(**model))
    assert plain[metric] != found[metric]
    assert found[metric] == (value if isinstance(value, str) else pytest.approx(value))


def test_a_price_of_energy_takes_the_data_sheet_without_a_model() -> None:
    found = economics(Ran(), prices(energy_kwh=10.0), None)
    idle, peak = 105.0, 700.0
    mean_w = idle + (peak - idle) * (0.6 * 600 + 300) / 1800
    assert found["cost"] == pytest.approx(2.0 + 10.0 * mean_w * 0.5 / 1000)
    assert found["power_kind"] == "estimated"


def test_busy_all_the_time_draws_no_more_than_the_peak() -> None:
    busy = Ran(loop_gpu_busy_s=2000.0, loop_gpu_busy_prefill_s=2000.0)
    assert economics(busy, None, power())["mean_w"] == 700.0


def test_what_has_no_ground_is_none() -> None:
    found = economics(Ran(total_output_tokens=0, completed=0, request_goodput=None), prices(), None)
    assert found["cost_per_mtok"] is found["cost_per_1k_requests"] is None
    assert found["cost_per_good_request"] is None
    old = Ran()
    del old.summary["loop_gpu_busy_prefill_s"]
    assert economics(old, None, power())["energy_kwh"] is None
    assert economics(Ran(), None, None)["cost"] is None
    assert set(METRICS) <= set(found)


def test_profiles_without_a_price_or_watts() -> None:
    with pytest.raises(InputError, match=r"prices\.gpu_hour: no price for mine; add `mine: ...`"):
        economics(Ran(cost_profile="mine"), prices(), None)
    with pytest.raises(InputError, match="no watts for mine, which has no data sheet here"):
        economics(Ran(cost_profile="mine"), None, Power())
    upside_down = power(gpu={NAME: {"idle": "900 W"}})
    assert "idle 900 W is above peak 700 W" in faults(None, upside_down, [NAME])[0][1]
    assert faults(prices(), Power(), [NAME]) == []


def test_every_shipped_profile_has_watts() -> None:
    for name in shipped_sheets():
        idle, peak = watts(Power(), name)
        assert peak == shipped_sheet(name).peak_w
        assert idle == pytest.approx(0.15 * peak)


def test_the_line_says_money_only_with_a_table() -> None:
    assert line(SUMMARY, None, None) is None
    assert line(SUMMARY, prices(), None) == (
        "cost: 0.5 GPU-hours; 0.5 USD per million output tokens; 0.1 USD per 1,000 requests;"
        " 0.000111 USD per request within the SLO"
    )
    said = line(SUMMARY, None, power())
    assert said == (
        "cost: 0.5 GPU-hours; 0.16 kWh, 320 W on average, 0.144 J per output token (estimated)"
    )


@pytest.mark.parametrize(
    ("node", "data"),
    [
        (Prices, {"currency": "USD", "gpu_hour": {}}),
        (Prices, {"currency": "USD", "gpu_hour": {NAME: float("nan")}}),
        (Prices, {"currency": "USD", "gpu_hour": {NAME: -1.0}}),
        (Prices, {"currency": "USD", "gpu_hour": {NAME: "3"}}),
        (Prices, {"currency": "", "gpu_hour": {NAME: 1.0}}),
        (Prices, {"gpu_hour": {NAME: 1.0}}),
        (Power, {"idle_share": 1.5}),
        (Power, {"memory_bound": float("inf")}),
        (Power, {"host": 100}),
        (Power, {"host": "-5 W"}),
        (Power, {"gpu": {NAME: {"peak": "0 W"}}}),
        (Power, {"kind": "measured"}),
        (Power, {"gpu": {NAME: {"peek": "1 W"}}}),
    ],
)
def test_hostile_values(node: type[Prices] | type[Power], data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        node.model_validate(data)


PRICED = """
trace: {source: synthetic, requests: 20, rate: 20 /s, prompt_tokens: 64, output_tokens: 8}
model: llama-3.2-1b
"""


def test_run_prints_one_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        PRICED + "prices: {currency: EUR, gpu_hour: {nvidia-h200: 2}}\npower: {}\n"
    )
    done = CliRunner().invoke(app, ["run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "o")])
    (said,) = (text for text in done.output.splitlines() if text.startswith("cost: "))
    assert "EUR per million output tokens" in said
    assert said.endswith("J per output token (estimated)")
    (tmp_path / "p.yaml").write_text(PRICED)
    done = CliRunner().invoke(app, ["run", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "p")])
    assert "cost: " not in done.output


def test_prices_are_no_part_of_the_hash_and_faults_have_a_place(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(PRICED)
    (tmp_path / "p.yaml").write_text(PRICED + "prices: {currency: EUR, gpu_hour: {other: 2}}\n")
    with pytest.raises(
        InputError, match=r"p.yaml:4:\d+: prices.gpu_hour: no price for nvidia-h200"
    ):
        load_run(tmp_path / "p.yaml")
    good = PRICED + "prices: {currency: EUR, gpu_hour: {nvidia-h200: 2}}\n"
    (tmp_path / "p.yaml").write_text(good)
    assert load_run(tmp_path / "p.yaml")[0].hash == load_run(tmp_path / "s.yaml")[0].hash


def test_a_run_knows_how_long_prompts_kept_it_busy(tmp_path: Path) -> None:
    summary = play(toy_scenario(tmp_path, [(0, 8, 3)])).summary
    assert 0 < summary["loop_gpu_busy_prefill_s"] < summary["loop_gpu_busy_s"]
    assert summary["goodput_share"] is None
    assert load_profile(NAME).status == "measured"


def test_a_study_shows_cost_and_energy_of_each_point(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        PRICED + "sweep: {replicas.count: [1, 2]}\n"
        "prices: {currency: EUR, gpu_hour: {nvidia-h200: 2}}\npower: {}\n"
    )
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "o"), "--no-plots"]
    done = CliRunner().invoke(app, [*arguments, "--jobs", "1"])
    assert done.exit_code == 0, done.output
    words = done.output.replace("\n", " ")
    assert "EUR/Mtok" in words
    assert "estimated" in words
    one, two = (
        float(row.split("│")[-3]) for row in done.output.splitlines() if row.startswith("│")
    )
    assert two == pytest.approx(2 * one, rel=0.05)  # twice the GPUs for the same tokens
