"""Generated workloads in a scenario: names, knobs and lengths, and what a run makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

from sim.errors import InputError
from sim.load import load
from sim.scenario import Scenario
from sim.source import KEYS, clients_identity, knobs
from sim.trace.chunk import Tally
from sim.trace.generate import generate
from sim.trace.workloads.catalog import KNOBS, WORKLOADS
from sim.workload import chunks

if TYPE_CHECKING:
    from pathlib import Path

PLAIN: dict[str, Any] = {
    "requests": 50, "rate": "2 /s", "prompt_tokens": {"exponential": 300},
    "output_tokens": {"uniform": [3, 90]},
}  # fmt: skip
HOURS = [float(hour) for hour in range(24)]
# by source, a value of every knob that it takes
KNOBS_OF: dict[str, dict[str, Any]] = {
    "azure-conv-like": {"diurnal": "burstgpt", "start_hour": 7},
    "azure-code-like": {"diurnal": 0.5, "start_hour": 7.5},
    "mooncake-conversation-like": {"diurnal": HOURS, "start_hour": 7},
    "mooncake-synthetic-like": {"diurnal": 0.5, "start_hour": 7},
    "agent-like": {
        "requests": 400, "rate": "0.1 /s", "arrivals": "constant", "burstiness": 0.5,
        "sub_agents": 0.1, "shared_prefix": True, "diurnal": 0.5, "start_hour": 7,
    },
    "reasoning-like": {"rate": "3 /s", "start_hour": 7},
    "servegen": {
        "population": "m-small", "rate": "3 /s", "start_hour": 7, "prompt_tokens": 300,
        "output_tokens": 9,
    },
    "poisson": PLAIN | {"rank_correlation": 0.5, "diurnal": 0.5, "start_hour": 7},
    "gamma": PLAIN | {"burstiness": 0.5, "diurnal": 0.5, "start_hour": 7},
    "constant": PLAIN | {"diurnal": 0.5, "start_hour": 7},
    "on-off": PLAIN | {
        "on_period": "20 s", "off_period": "1 min", "burstiness": 0.5, "diurnal": 0.5,
    },
    "synthetic": PLAIN | {"arrivals": "constant", "burstiness": 0.5, "rank_correlation": 0.5},
}  # fmt: skip


def scenario(**trace: Any) -> Scenario:
    return Scenario.model_validate({"trace": {"requests": 50} | trace, "model": "llama-3.2-1b"})


def times(of: Scenario) -> list[float]:
    return [at for chunk in chunks(of, Tally()) for at in chunk.arrival_s.tolist()]


def needed(source: str) -> dict[str, Any]:
    keys = [KNOBS[name].key for name in WORKLOADS[source].needs]
    least = {key: KNOBS_OF[source][key] for key in keys}
    return least | {"requests": KNOBS_OF[source].get("requests", 50)}


@pytest.mark.parametrize("source", WORKLOADS)
def test_every_knob_has_an_effect_and_comes_back_from_json(source: str) -> None:
    least = needed(source)
    bare = scenario(source=source, **least)
    hashes = {bare.hash}
    made = {json.dumps(_content(bare))}
    optional = [key for key in KNOBS_OF[source] if key not in least and key != "requests"]
    for key in optional:
        value = {key: KNOBS_OF[source][key]}
        if key == "start_hour" and "diurnal" in KNOBS_OF[source]:
            value["diurnal"] = KNOBS_OF[source]["diurnal"]
        if key == "burstiness" and "arrivals" in KNOBS_OF[source]:
            value["arrivals"] = "gamma"
        if key in ("prompt_tokens", "output_tokens"):
            value = {"prompt_tokens": 300, "output_tokens": 9}
        one = scenario(source=source, **(least | value))
        hashes.add(one.hash)
        made.add(json.dumps(_content(one)))
        text = json.dumps(one.resolved())
        back = Scenario.from_resolved(json.loads(text))
        assert back.hash == one.hash
        assert json.dumps(back.resolved()) == text
        assert times(back) == times(one)
    same = {"prompt_tokens", "output_tokens"} <= {*optional}  # given together
    assert len(hashes) == len(made) == 1 + len(optional) - same


def _content(of: Scenario) -> list[Any]:
    found: list[Any] = []
    for chunk in chunks(of, Tally()):
        ids = [] if chunk.block_ids is None else chunk.block_ids.values.tolist()
        after = [] if chunk.links is None else chunk.links.after.values.tolist()
        columns = (chunk.arrival_s, chunk.prompt_tokens, chunk.output_tokens)
        found += [[column.tolist() for column in columns], ids, after]
    return found


def test_a_scenario_plays_what_the_generator_makes() -> None:
    given = scenario(source="on-off", **KNOBS_OF["on-off"])
    asked = knobs(given.trace)
    assert asked["on_s"] == 20.0
    assert asked["off_s"] == 60.0
    made = [at for c in generate("on-off", 50, 0, **asked) for at in c.arrival_s.tolist()]
    assert made == times(given)
    # the shape of gamma gaps means nothing beside other processes, and is not handed on
    assert "burstiness" not in knobs(scenario(source="synthetic", **PLAIN).trace)
    assert "burstiness" not in knobs(scenario(source="agent-like").trace)
    tally = Tally()
    list(chunks(scenario(source="agent-like"), tally))
    assert (tally.block_tokens, tally.last_block) == (64, "full")


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ({"source": "azure"}, "expected one of azure-conv-like, .*got 'azure'"),
        ({"source": "azure-conv-like", "rate": "2 /s"}, "rate: means nothing to azure-conv-like"),
        ({"source": "poisson", "rate": "2 /s"}, "prompt_tokens: missing; poisson needs it"),
        ({"source": "gamma", **PLAIN}, "burstiness: missing; gamma needs it"),
        ({"source": "on-off", **PLAIN}, "on_period: missing; on-off needs it.*off_period: missing"),
        ({"source": "poisson", **PLAIN, "on_period": "2 s"}, "on_period: means nothing to poisson"),
        ({"source": "poisson", **PLAIN, "on_period": 2.0}, "has no unit"),
        (
            {"source": "on-off", **PLAIN, "on_period": "0 s", "off_period": "2 s"},
            "must be 0.001 s to",
        ),
        ({"source": "poisson", **PLAIN, "rank_correlation": 2}, "less than or equal to 1"),
        ({"source": "poisson", **PLAIN, "start_hour": 3}, "means nothing without diurnal"),
        ({"source": "poisson", **PLAIN, "diurnal": "moon"}, "expected one of servegen-m-large"),
        ({"source": "poisson", **PLAIN, "diurnal": True}, "expected one of servegen-m-large"),
        ({"source": "poisson", **PLAIN, "diurnal": 1.5}, "an amplitude from 0 to 1"),
        ({"source": "poisson", **PLAIN, "diurnal": [1, 2]}, "or 24 numbers"),
        ({"source": "poisson", **PLAIN, "diurnal": [0] * 24}, "or 24 numbers"),
        ({"source": "poisson", **PLAIN, "diurnal": 0.5, "start_hour": 24}, "24 is no hour of day"),
        ({"source": "servegen", "population": "x"}, "expected one of m-large"),
        ({"source": "servegen", "clients": "x", "population": "m-mid"}, "means nothing beside"),
        ({"source": "servegen", "prompt_tokens": 3}, "means nothing without output_tokens"),
        ({"source": "azure-conv-like", "shared_prefix": True}, "shared_prefix: only with"),
        ({"source": "agent-like", "sub_agents": -0.1}, "greater than or equal to 0"),
        ({"file": "a", "sub_agents": 0.1}, "sub_agents: only with source: agent-like; remove it"),
        ({"file": "a", "clients": "x"}, "clients: only with source: servegen; remove it"),
    ],
)
def test_what_is_refused(trace: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        scenario(**trace)


def test_each_key_is_refused_where_it_means_nothing() -> None:
    for source, workload in WORKLOADS.items():
        taken = {KNOBS[name].key for name in workload.knobs}
        for key in KEYS:
            value = next(v[key] for v in (*KNOBS_OF.values(), {"clients": "x"}) if key in v)
            if key not in taken:
                with pytest.raises(ValidationError, match=f"{key}: means nothing to {source}"):
                    scenario(source=source, **(needed(source) | {key: value}))


# lengths ------------------------------------------------------------------------------------


def lengths(tokens: Any, requests: int = 20_000) -> np.ndarray:
    given = {"source": "poisson", "rate": "9 /s", "output_tokens": 3, "requests": requests}
    played = chunks(scenario(**given, prompt_tokens=tokens), Tally())
    return np.concatenate([chunk.prompt_tokens for chunk in played])


def test_lengths_of_every_kind() -> None:
    assert set(lengths(7)) == {7}
    assert lengths({"pareto": {"least": 50, "alpha": 2}}).min() == 50
    mixed = lengths({"mixture": [{"weight": 3, "fixed": 5}, {"weight": 1, "uniform": [8, 9]}]})
    assert np.mean(mixed == 5) == pytest.approx(0.75, abs=0.02)
    assert {*mixed.tolist()} == {5, 8, 9}
    body = {"lognormal": {"median": 300, "sigma": 0.5}}
    tailed = lengths(body | {"tail": {"share": 0.1, "alpha": 1.1}})
    assert np.quantile(tailed, 0.999) > 3 * np.quantile(lengths(body), 0.999)
    assert lengths(body | {"within": [100, 400]}).max() <= 400
    assert lengths(body | {"cap": 320}).max() == 320


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"mixture": []}, "at least 1 item"),
        ({"mixture": [{"fixed": 3}]}, "weight"),
        ({"mixture": [{"weight": 1, "mixture": [{"weight": 1, "fixed": 2}]}]}, "list all parts in"),
        ({"fixed": 3, "within": [9, 4]}, "9 is more than 4; swap them"),
        ({"pareto": {"least": 0, "alpha": 1}}, "greater than or equal to 1"),
        ({"pareto": {"least": 5, "alpha": 0}}, "greater than or equal to 0.05"),
        ({"fixed": 3, "tail": {"share": 0, "alpha": 1}}, "greater than 0"),
        ({"table": 5}, "valid string"),
    ],
)
def test_lengths_that_are_none(tokens: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        lengths(tokens)


SOURCE = """\
trace:
  source: poisson
  requests: 40
  rate: 5 /s
  prompt_tokens: {table: data/lengths.csv}
  output_tokens: {mixture: [{weight: 1, table: data/lengths.csv}, {weight: 1, fixed: 3}]}
model: llama-3.2-1b
"""


def test_files_are_named_relative_to_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = tmp_path / "data" / "lengths.csv"
    table.write_text("tokens,weight\n44,1\n")
    (tmp_path / "a.yaml").write_text(SOURCE)
    given = load(tmp_path / "a.yaml")
    (chunk,) = chunks(given, Tally())
    assert {*chunk.prompt_tokens.tolist()} == {44}
    assert {*chunk.output_tokens.tolist()} == {44, 3}
    tokens = given.resolved()["trace"]["prompt_tokens"]
    assert tokens == {"table": tokens["table"]}
    assert tokens["table"].startswith("lengths.csv#")
    before = given.hash
    table.write_text("tokens,weight\n45,1\n")
    assert load(tmp_path / "a.yaml").hash != before
    table.unlink()
    with pytest.raises(InputError, match=r"lengths\.csv: no such file"):
        list(chunks(load(tmp_path / "a.yaml"), Tally()))


def test_clients_files_are_known_by_content(tmp_path: Path) -> None:
    folder = tmp_path / "sg"
    folder.mkdir()
    (folder / "chunk-0-trace.csv").write_text("0,2,1,Gamma,1,0.5\n")
    dataset = folder / "chunk-0-dataset.json"
    laws = {"0": {"input_tokens": "{7: 1}", "output_tokens": "{3: 1}"}}
    dataset.write_text(json.dumps(laws))
    text = "trace: {source: servegen, requests: 9, clients: sg}\nmodel: llama-3.2-1b\n"
    (tmp_path / "a.yaml").write_text(text)
    given = load(tmp_path / "a.yaml")
    (chunk,) = chunks(given, Tally())
    assert {*chunk.prompt_tokens.tolist()} == {7}
    named = given.resolved()["trace"]["clients"]
    assert named.startswith("sg#")
    dataset.write_text(json.dumps(laws).replace("7", "8"))
    assert load(tmp_path / "a.yaml").resolved()["trace"]["clients"] != named
    assert clients_identity(str(tmp_path / "none")).startswith("none#")


def test_a_child_with_another_source_drops_what_means_nothing_to_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "trace: {source: on-off, requests: 9, rate: 5 /s, on_period: 9 s, off_period: 9 s, "
        "prompt_tokens: 8, output_tokens: 3}\nmodel: llama-3.2-1b\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\ntrace: {source: poisson}\n")
    trace = load(child).trace
    assert (trace.source, trace.rate, trace.on_period, trace.off_period) == (
        "poisson",
        5.0,
        None,
        None,
    )
    child.write_text("extends: base.yaml\ntrace: {source: azure-code-like}\n")
    assert load(child).trace.rate is None
