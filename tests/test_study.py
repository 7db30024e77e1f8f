"""What a study asks for: points and replications, and where its errors are reported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.feasible import faults
from sim.load import load, load_run
from sim.study import load_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.study import Study

SCENARIOS = Path(__file__).parent.parent / "scenarios"
LEAST = "trace: {source: azure-conv-like, requests: 10}\nmodel: llama-3.2-1b\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own, so that messages hold short names."""
    monkeypatch.chdir(tmp_path)


def study_of(rest: str, overrides: Sequence[str] = (), name: str = "a.yaml") -> Study:
    """The study of a file of the least scenario and *rest*."""
    Path(name).write_text(f"{LEAST}{rest}\n")
    return load_study(name, overrides, faults)


def lines_of(rest: str, overrides: Sequence[str] = ()) -> list[str]:
    """The error lines of such a file."""
    with pytest.raises(InputError) as caught:
        study_of(rest, overrides)
    return caught.value.lines


def values(study: Study) -> list[tuple[object, ...]]:
    """The values on the axes of each point."""
    return [tuple(point.axes.values()) for point in study.points]


# ---------------------------------------------------------------------------- axes


def test_what_is_zipped_moves_together_beside_other_axes() -> None:
    study = study_of("""\
sweep:
  loop.mode: [host, graph]
  zip:
    - {loop.max_batch: [8, 16, 32], loop.token_budget: {from: 512, to: 1024, count: 3}}
    - {kv.dtype: [bf16, fp8], kv.block_tokens: [16, 32]}""")
    assert len(study.points) == 2 * 3 * 2
    assert values(study)[:3] == [
        ("host", 8, 512, "bf16", 16),
        ("host", 8, 512, "fp8", 32),
        ("host", 16, 768, "bf16", 16),
    ]
    assert study.groups == (
        ("loop.mode",), ("loop.max_batch", "loop.token_budget"), ("kv.dtype", "kv.block_tokens"),
    )  # fmt: skip
    last = study.points[-1].scenario
    assert (last.loop.mode, last.loop.max_batch, last.loop.token_budget) == ("graph", 32, 1024)
    assert (last.kv.dtype, last.kv.block_tokens) == ("fp8", 32)


def test_a_single_group_may_stand_without_a_list() -> None:
    study = study_of("sweep: {zip: {loop.max_batch: [8, 16], kv.dtype: [bf16, fp8]}}")
    assert values(study) == [(8, "bf16"), (16, "fp8")]


def test_variants_are_an_axis_of_their_own() -> None:
    study = study_of("""\
loop: {max_batch: 8}
sweep:
  variants:
    baseline: {}
    on the device: {loop.mode: resident, loop.prefill: partition, kv: {dtype: fp8}}
  loop.max_batch: {from: 8, to: 16, step: 8}""")
    assert values(study) == [
        ("baseline", 8), ("baseline", 16), ("on the device", 8), ("on the device", 16),
    ]  # fmt: skip
    assert study.axes == {"variant": ["baseline", "on the device"], "loop.max_batch": [8, 16]}
    modes = [(p.scenario.loop.mode, p.scenario.loop.prefill) for p in study.points[1:3]]
    assert modes == [("graph", "exit"), ("resident", "partition")]
    assert [p.scenario.kv.dtype for p in study.points] == ["bf16", "bf16", "fp8", "fp8"]


def test_ranges_are_lists() -> None:
    ranges = study_of("sweep: {trace.rate_scale: {from: 1, to: 4, step: 1}}")
    written = study_of("sweep: {trace.rate_scale: [1, 2, 3, 4]}")
    assert [p.scenario.hash for p in ranges.points] == [p.scenario.hash for p in written.points]
    assert ranges.points == written.points


def test_a_range_with_units_reaches_the_scenario() -> None:
    text = "sweep: {hardware.hbm.capacity: {from: 64 GiB, to: 128 GiB, count: 2, scale: log}}"
    study = study_of(text)
    assert values(study) == [("64 GiB",), ("128 GiB",)]
    assert [p.scenario.hardware.hbm.capacity for p in study.points] == [64 * 2**30, 128 * 2**30]


# ---------------------------------------------------------------------------- filters


def test_except_leaves_out_what_matches_all_keys() -> None:
    grid = "loop.mode: [host, graph], trace.rate_scale: [1, 4, 8]"
    study = study_of(f"sweep: {{{grid}, except: [{{loop.mode: host, trace.rate_scale: [4, 8]}}]}}")
    assert values(study) == [("host", 1), ("graph", 1), ("graph", 4), ("graph", 8)]
    assert study.left_out == 2
    study = study_of(f"sweep: {{{grid}, except: {{trace.rate_scale: [4.0, 8]}}}}")
    assert values(study) == [("host", 1), ("graph", 1)]
    assert study.axes == {"loop.mode": ["host", "graph"], "trace.rate_scale": [1]}


def test_only_keeps_what_matches_one_of_them_and_except_still_holds() -> None:
    grid = "loop.mode: [host, graph], trace.rate_scale: [1, 4, 8]"
    only = "only: [{loop.mode: host}, {trace.rate_scale: 8}]"
    assert values(study_of(f"sweep: {{{grid}, {only}}}")) == [
        ("host", 1), ("host", 4), ("host", 8), ("graph", 8),
    ]  # fmt: skip
    study = study_of(f"sweep: {{{grid}, {only}, except: {{loop.mode: graph}}}}")
    assert values(study) == [("host", 1), ("host", 4), ("host", 8)]


def test_filters_know_variants_zips_units_and_maps() -> None:
    study = study_of("""\
sweep:
  variants: {plain: {}, fp8: {kv.dtype: fp8}}
  zip: [{hardware.hbm.capacity: [1 TiB, 2 TiB], loop.max_batch: [8, 16]}]
  hardware.dram: [null, {capacity: 8 GiB}]
  except:
    - {variant: fp8, hardware.hbm.capacity: 1024 GiB}
    - {hardware.dram: null, loop.max_batch: 16}
    - {hardware.dram: {capacity: 8192 MiB}, variant: plain}""")
    assert values(study) == [
        ("plain", "1 TiB", 8, None),
        ("fp8", "2 TiB", 16, {"capacity": "8 GiB"}),
    ]


def test_a_filter_lists_values_that_are_lists_themselves() -> None:
    axis = "loop.captured_batches: [[1, 2], [1, 4], [1, 8]]"
    study = study_of(f"sweep: {{{axis}, except: {{loop.captured_batches: [1, 2]}}}}")
    assert values(study) == [([1, 4],), ([1, 8],)]
    study = study_of(f"sweep: {{{axis}, only: {{loop.captured_batches: [[1, 2], [1, 8]]}}}}")
    assert values(study) == [([1, 2],), ([1, 8],)]


def test_a_large_grid_may_be_filtered_down() -> None:
    grid = "seed: {from: 1, to: 300, step: 1}, loop.max_batch: {from: 1, to: 100, step: 1}"
    study = study_of(f"sweep: {{{grid}, only: {{loop.max_batch: 7, seed: [5, 6]}}}}")
    assert values(study) == [(5, 7), (6, 7)]
    assert study.left_out == 29_998


# ---------------------------------------------------------------------------- seeds


def test_replications_count_the_seed_up_alike_for_every_point() -> None:
    study = study_of("seed: 7\nsweep: {loop.mode: [host, graph], seeds: 3}")
    runs = [(p.axes["loop.mode"], p.replication, p.scenario.seed) for p in study.points]
    assert runs == [
        ("host", 0, 7), ("host", 1, 8), ("host", 2, 9),
        ("graph", 0, 7), ("graph", 1, 8), ("graph", 2, 9),
    ]  # fmt: skip
    assert study.seeds == 3
    assert len({p.scenario.hash for p in study.points}) == 6
    alone = load_study("a.yaml", ["seed=8"]).points[0].scenario
    assert study.points[1].scenario.hash == alone.hash
    assert study.points[1].scenario.resolved() == alone.resolved()


def test_seeds_alone_make_a_study_of_one_point() -> None:
    study = study_of("sweep: {seeds: 2}")
    assert [(p.axes, p.replication) for p in study.points] == [({}, 0), ({}, 1)]


# ---------------------------------------------------------------------------- sections


SECTIONS = """\
statistics: {warm_up: 60 s, baseline: {loop.mode: graph}}
prices: {currency: USD, gpu_hour: {nvidia-h200: 3.5}}
power: {}
"""


def test_sections_are_no_part_of_the_points() -> None:
    plain = study_of("sweep: {loop.mode: [host, graph]}")
    study = study_of(f"{SECTIONS}sweep: {{loop.mode: [host, graph]}}")
    assert study.points == plain.points
    assert [p.scenario.hash for p in study.points] == [p.scenario.hash for p in plain.points]
    assert study.statistics.warm_up == "60 s"
    assert study.prices is not None
    assert study.prices.gpu_hour == {"nvidia-h200": 3.5}
    assert study.power is not None
    assert (plain.prices, plain.power, plain.search) == (None, None, None)


def test_a_run_takes_sections_but_no_sweep_and_no_search() -> None:
    rest = SECTIONS.replace(", baseline: {loop.mode: graph}", "")
    Path("a.yaml").write_text(LEAST + rest)
    Path("b.yaml").write_text(LEAST.replace("\nmodel", "\nname: a\nmodel"))
    assert load("a.yaml", faults=faults).hash == load("b.yaml").hash
    assert sorted(load_run("a.yaml")[1]) == ["power", "prices", "statistics"]
    assert load_run("a.yaml", ["prices.currency=EUR"])[1]["prices"].currency == "EUR"
    Path("a.yaml").write_text(
        f"{LEAST}{rest}search: {{over: {{trace.rate_scale: {{from: 1, to: 9}}}}, "
        "subject_to: {p99_ttft: 2 s}}\n"
    )
    with pytest.raises(InputError) as caught:
        load("a.yaml")
    assert caught.value.lines == [
        "a.yaml:6:1: search: this file is a study of several runs; use `residentsim sweep a.yaml`"
    ]
    study = load_study("a.yaml")
    assert study.search is not None
    assert study.search.path == "trace.rate_scale"


def test_sections_are_inherited_and_so_are_axes_each_as_a_whole() -> None:
    study_of(
        f"{SECTIONS}sweep: {{loop.mode: [host, graph], loop.max_batch: {{from: 8, to: 32, step: 8}}"
        ", variants: {a: {kv.dtype: fp8}, b: {}}}",
        name="base.yaml",
    )
    Path("a.yaml").write_text(
        "extends: base.yaml\nprices: {gpu_hour: {nvidia-h200: 4}}\n"
        "sweep: {loop.max_batch: {from: 8, to: 16, count: 2}, variants: {a: {seed: 5}}}\n"
    )
    study = load_study("a.yaml")
    assert study.prices is not None
    assert (study.prices.currency, study.prices.gpu_hour) == ("USD", {"nvidia-h200": 4})
    assert study.axes == {
        "loop.mode": ["host", "graph"], "loop.max_batch": [8, 16], "variant": ["a", "b"],
    }  # fmt: skip
    assert (study.points[0].scenario.kv.dtype, study.points[0].scenario.seed) == ("bf16", 5)


def test_a_value_of_a_childs_range_stands_in_the_child() -> None:
    study_of("sweep: {loop.max_batch: [8, 16]}", name="base.yaml")
    Path("a.yaml").write_text(
        "extends: base.yaml\nsweep: {loop.max_batch: {from: 0, to: 8, step: 8}}\n"
    )
    with pytest.raises(InputError) as caught:
        load_study("a.yaml")
    assert caught.value.lines == ["a.yaml:2:25: loop.max_batch: must be >= 1, got 0"]


def test_the_baseline_takes_the_value_of_its_axis() -> None:
    axis = "sweep: {hardware.hbm.capacity: [1 TiB, 2 TiB]}"
    study = study_of(f"statistics: {{baseline: {{hardware.hbm.capacity: 2048 GiB}}}}\n{axis}")
    assert study.statistics.baseline == {"hardware.hbm.capacity": "2 TiB"}


def test_the_manifest_says_what_was_asked() -> None:
    Path("a.yaml").write_text(
        "# Is it so,\n#  or not?\n#\n# It is.\ntrace: {source: azure-conv-like, requests: 10}\n"
        "# no question\nmodel: llama-3.2-1b\nstatistics: {confidence: 0.9}\n"
        "sweep: {variants: {a: {}, b: {seed: 4}}, loop.mode: [host, graph]}\n"
    )
    study = load_study("a.yaml")
    said = study.manifest()
    assert said["question"] == study.question == "Is it so, or not?\n\nIt is."
    assert (said["name"], said["seeds"]) == ("a", 1)
    assert said["axes"] == {"variant": ["a", "b"], "loop.mode": ["host", "graph"]}
    assert said["points"][1] == {
        "id": said["points"][1]["id"],
        "axes": {"variant": "a", "loop.mode": "graph"},
        "replication": 0,
    }
    assert said["points"][1]["id"].startswith(study.points[1].scenario.hash)
    assert said["statistics"]["confidence"] == 0.9
    assert (said["search"], said["prices"], said["power"]) == (None, None, None)


def test_the_shipped_example_is_what_it_says() -> None:
    study = load_study(SCENARIOS / "loops-with-intervals.yaml", faults=faults)
    assert study.question.startswith("Do the three decode loops differ at the 99th percentile")
    assert (len(study.points), study.seeds, study.left_out) == (10 * 5, 5, 2)
    assert study.axes["trace.rate_scale"] == [2, 8, 32]
    assert study.statistics.baseline == {"variant": "graph"}


# ---------------------------------------------------------------------------- errors


PLACES = [
    ("{zip: [{seed: [1, 2], loop.max_batch: [8]}]}", "a.yaml:3:30: sweep.zip.0.loop.max_batch: 1 "),
    ("{zip: [3]}", "a.yaml:3:15: sweep.zip.0: expected a map of dotted paths to lists, got 3"),
    ("{zip: []}", "a.yaml:3:9: sweep.zip: an empty list; give a map of the axes"),
    ("{zip: {seed: 3}}", "a.yaml:3:15: sweep.zip.seed: expected a list of values, got 3"),
    ("{zip: {seed: [1, 2], zip: [1, 2]}}", "a.yaml:3:29: sweep.zip.zip: stands in `sweep` itself"),
    ("{zip: {seed: [1], stop.at: [1 s]}, seed: [2]}", "a.yaml:3:43: sweep.seed: seed is set or"),
    ("{variants: [a]}", "a.yaml:3:19: sweep.variants: expected a map of names to what each sets"),
    ("{variants: {}}", "a.yaml:3:19: sweep.variants: expected a map of names to what each sets"),
    ("{variants: {a: 3}}", "a.yaml:3:23: sweep.variants.a: expected a map of dotted paths to va"),
    ("{variants: {a: {sweep: {}}}}", "a.yaml:3:24: sweep.variants.a.sweep: there is no sweep in a"),
    ("{variants: {a: {name: x}}}", "a.yaml:3:24: sweep.variants.a.name: cannot be swept"),
    ("{variants: {a: {loop.mod: x}}}", "a.yaml:3:24: loop.mod: no such field; did you mean 'mode"),
    ("{variants: {a: {loop.mode: x}}}", "a.yaml:3:35: loop.mode: expected one of host, graph"),
    (
        "{loop.mode: [host, graph], variants: {a: {loop: {mode: resident}}, b: {}}}",
        "a.yaml:3:50: sweep.variants.a.loop: loop.mode is set or swept as well; remove one of them",
    ),
    ("{variants: {a: {}, b: {}}}", "a.yaml:3:8: sweep: {'variant': 'b'} and {'variant': 'a'} are "),
    ("{variants: {a: {seed: 1}}, seeds: 2}", "a.yaml:3:24: sweep.variants.a.seed: not together wi"),
    ("{variant: [a]}", "a.yaml:3:9: sweep.variant: the axis that `variants` makes; give the"),
    ("{seed: [1, 2], seeds: 2}", "a.yaml:3:9: sweep.seed: not together with seeds, which counts"),
    ("{seeds: 0}", "a.yaml:3:16: sweep.seeds: must be from 1 to 10000, got 0"),
    ("{seeds: true}", "a.yaml:3:16: sweep.seeds: expected a whole number, how often each point is"),
    ("{seeds: 20000}", "a.yaml:3:16: sweep.seeds: must be from 1 to 10000, got 20000"),
    ("{sweep: {seed: [1]}}", "a.yaml:3:9: sweep.sweep: there is no sweep in a sweep; list the"),
    ("{prices.currency: [USD]}", "a.yaml:3:9: sweep.prices.currency: is no part of a run, and can"),
    ("{excpt: [{seed: 1}], seed: [1]}", "a.yaml:3:9: sweep.excpt: no such field; did you mean 'ex"),
    ("{seed: [1, 2], except: [{sed: 1}]}", "a.yaml:3:33: sweep.except.0.sed: is no axis of the sw"),
    ("{seed: [1, 2], except: [{seed: 3}]}", "a.yaml:3:39: sweep.except.0.seed: 3 is no value of t"),
    ("{seed: [1, 2], only: [{seed: [1, 3]}]}", "a.yaml:3:41: sweep.only.0.seed: 3 is no value of"),
    ("{seed: [1, 2], only: {seed: []}}", "a.yaml:3:36: sweep.only.seed: an empty list; give at"),
    ("{seed: [1, 2], only: [{}]}", "a.yaml:3:30: sweep.only.0: an empty filter; name an axis and"),
    ("{seed: [1, 2], only: []}", "a.yaml:3:29: sweep.only: an empty list; give at least one"),
    ("{seed: [1, 2], except: 1}", "a.yaml:3:31: sweep.except: expected a map of axes to values"),
    ("{seed: [1, 2], except: {seed: [1, 2]}}", "a.yaml:3:8: sweep: its filters leave no point; lo"),
    (
        "{variants: {a: {}, b: {seed: 4}}, except: {variant: [a, c]}}",
        "a.yaml:3:64: sweep.except.variant: 'c' is no variant; values: a, b",
    ),
    (
        "{variants: {a: {}, b: {seed: 4}}, except: {seed: 4}}",
        "a.yaml:3:51: sweep.except.seed: is set by variants, and no axis; write variant and their",
    ),
    (
        "{zip: {seed: [1, 2], loop.max_batch: [8, 9]}, only: [{seed: 1, loop.max_batch: 9}]}",
        "a.yaml:3:61: sweep.only.0: no point has all of this; its values stand in other rows",
    ),
    ("{seed: {from: 0, to: 10000, step: 1}}", "a.yaml:3:42: sweep.seed.step: gives 10,001 values;"),
    ("{seed: {from: 1, to: .nan, count: 2}}", "a.yaml:3:29: sweep.seed.to: expected a finite numb"),
    ("{seed: {from: 1, to: 8, stp: 2}}", "a.yaml:3:32: sweep.seed.stp: no such key of a range; di"),
    ("{seed: {from: 1, to: 8}}", "a.yaml:3:9: sweep.seed: a linear range without step or count"),
    ("{seed: {from: 1, to: 4, count: 3}}", "a.yaml:3:15: seed: expected a whole number, got 2.5"),
    (
        "{seed: {from: 1, to: 600, step: 1}, loop.max_batch: {from: 1, to: 600, step: 1},"
        " only: {seed: 1}}",
        "a.yaml:3:8: sweep: more than 200000 combinations before its filters; shorten an axis",
    ),
    (
        "{loop.max_batch: {from: 1, to: 600, step: 1}, seeds: 17}",
        "a.yaml:3:8: sweep: more than 10000 runs (600 points x 17 seeds); shorten an axis",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sweep", "line"), PLACES, ids=[sweep for sweep, _ in PLACES])
def test_one_line_at_its_place(sweep: str, line: str) -> None:
    (found,) = lines_of(f"sweep: {sweep}")
    assert found.startswith(line)


def test_what_is_set_for_all_points_cannot_be_set_by_a_variant() -> None:
    sweep = "sweep: {variants: {a: {}, b: {loop.mode: host}}}"
    (line,) = lines_of(sweep, ["loop.mode=resident"])
    assert line.startswith("a.yaml:3:31: sweep.variants.b.loop.mode: loop.mode is set or swept")


def test_seeds_must_not_leave_their_range() -> None:
    (line,) = lines_of(f"seed: {2**63 - 2}\nsweep: {{seeds: 3}}")
    assert line.startswith(
        f"a.yaml:4:16: sweep.seeds: seeds up to {2**63}, {2**63 - 1} is the last"
    )


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("statistics: {warm_up: 60}", "a.yaml:3:23: statistics.warm_up: 60 is no share below 1; a"),
        ("statistics: {warmup: 0.1}", "a.yaml:3:14: statistics.warmup: no such field; did you mea"),
        ("statistics: 3", "a.yaml:3:13: statistics: expected a map of warm_up, baseline, confiden"),
        ("statistics:", "a.yaml:3:12: statistics: expected a map of warm_up, baseline, confiden"),
        ("statistics: {baseline: {seed: 1}}", "a.yaml:3:25: statistics.baseline.seed: is no axis"),
        (
            "statistics: {baseline: {seed: 3}}\nsweep: {seed: [1, 2]}",
            "a.yaml:3:31: statistics.baseline.seed: 3 is no value of this axis; values: 1, 2",
        ),
        (
            "statistics: {baseline: {seed: [1, 2]}}\nsweep: {seed: [1, 2]}",
            "a.yaml:3:31: statistics.baseline.seed: one value is compared with, got [1, 2]",
        ),
        ("prices: {gpu_hour: {nvidia-h200: 1}}", "a.yaml:3:9: prices.currency: missing"),
        ("power: {idle: 3}", "a.yaml:3:9: power.idle: no such field; "),
        (
            "prices: {currency: EUR, gpu_hour: {nvidia-h100: 1}}",
            "a.yaml:3:35: prices.gpu_hour: no price for nvidia-h200; add `nvidia-h200: ...`",
        ),
        (
            "search: {subject_to: {p99_ttft: 1 s}, over: {seed: {from: 1, to: 9}}}\n"
            "sweep: {seed: [1, 2]}",
            "a.yaml:3:46: search.over.seed: seed is swept as well; remove one of them",
        ),
        (
            "search: {subject_to: {p99_ttft: 1 s}, over: {seed: {frm: 1, to: 9}}}",
            "a.yaml:3:52: search.over.seed.from: missing",
        ),
        ("serch: {}", "a.yaml:3:1: serch: no such field; did you mean 'search'?"),
    ],
)  # fmt: skip
def test_errors_of_sections_stand_there(rest: str, line: str) -> None:
    assert lines_of(rest)[0].startswith(line)


def test_all_findings_come_at_once() -> None:
    assert lines_of("""\
statistics: {confidence: 2}
sweep:
  loop.mode: [host, grph]
  zip: [{seed: [1], loop.max_batch: [8, 9]}]
  variants: {a: {loop.mode: graph}, b: {}}
  except: [{loop.mode: graph}, {variant: c}, {lop: 1}]""") == [
        "a.yaml:3:26: statistics.confidence: must be <= 0.9999, got 2",
        "a.yaml:5:21: loop.mode: expected one of host, graph, control, resident, engine, "
        "got 'grph'; did you mean 'graph'?",
        "a.yaml:6:21: sweep.zip.0.loop.max_batch: 2 in the list, and 1 in that of seed; what moves "
        "together has as many",
        "a.yaml:7:18: sweep.variants.a.loop.mode: loop.mode is set or swept as well; remove one "
        "of them",
        "a.yaml:8:24: sweep.except.0.loop.mode: 'graph' is no value of this axis; "
        "did you mean 'grph'?",
        "a.yaml:8:47: sweep.except.2.lop: is no axis of the sweep; axes: loop.mode",
    ]  # fmt: skip


PATHS = ["loop.mode", "seed", "loop.max_batch", "variant", "trace", "hardware.dram", "a-b", "kv"]
KEYS = [
    *PATHS,
    "zip",
    "variants",
    "only",
    "except",
    "seeds",
    "sweep",
    "from",
    "to",
    "step",
    "count",
]
WORDS = ["host", "graph", "64 GiB", "1 TiB", "log", "8", "3 s", "a"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS)
RANGES = st.fixed_dictionaries(
    {"from": SCALARS, "to": SCALARS},
    optional={"step": SCALARS, "count": SCALARS, "scale": st.sampled_from(["log", "linear", 3])},
)
TREES = st.recursive(
    SCALARS | RANGES,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=3)
    ),
    max_leaves=10,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4),
    st.dictionaries(st.sampled_from(["baseline", "warm_up", "over", "goal", "gpu_hour"]), TREES),
    st.sampled_from(["statistics", "search", "prices", "power"]),
)
def test_random_studies(sweep: dict[str, object], section: dict[str, object], name: str) -> None:
    try:
        study_of(yaml.safe_dump({"sweep": sweep, name: section}))
        lines = []
    except InputError as error:
        lines = error.lines or ["nothing is said\n"]
    assert all(line.isprintable() for line in lines)
