"""The section `sparse`: what each key changes, refuses, warns about, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.cli import main
from sim.errors import InputError
from sim.load import load
from sim.scenario import Scenario
from sim.sparse.selection import Layers, Selection
from sim.sparse.summary import Sums, summary
from sim.study import load_study

LEAST = "trace: {source: azure-conv-like, requests: 10}\nmodel: llama-3.1-8b\n"
DRAM = {"dram": {"capacity": "64 GiB"}}
OFFLOAD = {"resident_tokens": 4096}
LONG = 32_768


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scenario(sparse: dict[str, Any] | None, **sections: Any) -> Scenario:
    least = {"trace": {"source": "azure-conv-like", "requests": 10}, "model": "llama-3.1-8b"}
    if sparse is not None and sparse.get("offload"):
        sections.setdefault("hardware", DRAM)
    return Scenario.model_validate({**least, "sparse": sparse, **sections})


def selection(**sparse: Any) -> Selection:
    given = scenario(sparse)
    assert given.sparse is not None
    return Selection(given.sparse, given.kv, given.model.shape)


def lines_of(text: str) -> list[str]:
    Path("a.yaml").write_text(LEAST + text)
    with pytest.raises(InputError) as caught:
        load("a.yaml")
    return caught.value.lines


# ---------------------------------------------------------------- what each key changes
def test_what_a_long_context_reads() -> None:
    one = selection()
    assert one.chosen(LONG) == (2048 + 64 + 256) // 16
    assert one.attended(LONG) == 2048 + 64 + 256
    assert one.attended(LONG + 1) == 2048 + 64 + 256 - 15
    assert one.pages(LONG) == LONG // 16
    assert one.layers == Layers(dense=0, sparse=32, scored=32)
    assert one.resident(LONG) == LONG // 16
    assert one.offloaded(LONG) == one.fetched(LONG) == 0


@pytest.mark.parametrize(
    ("sparse", "what", "expected"),
    [
        ({"select": "dense"}, "attended", LONG),
        ({"select": "recency"}, "attended", 2048),
        ({"select": "window"}, "attended", 64 + 256),
        ({"select": "h2o"}, "attended", 2048 + 256),
        ({"select": "cluster"}, "attended", 64 + 256 + 26 * 80),
        ({"top_k_tokens": 1000}, "attended", 1008 + 64 + 256),
        ({"sink_tokens": 0}, "attended", 2048 + 256),
        ({"recent_tokens": 1}, "attended", 2048 + 64 + 16),
        ({"select": "cluster", "cluster_tokens": 100}, "attended", 64 + 256 + 21 * 112),
        ({"select": "cluster"}, "pages", -(-(2048 - 20) // 5)),
        ({"select": "cluster", "cluster_tokens": 160}, "pages", -(-(2048 - 20) // 10)),
        ({"select": "window"}, "pages", 0),
        ({"select": "h2o"}, "pages", 0),
        ({"select": "recency"}, "pages", 0),
        ({"select": "window", "drop": True}, "resident", 20),
        ({"select": "h2o", "drop": True}, "resident", 144),
        ({"select": "h2o", "drop": True, "dense_layers": 8}, "resident", 8 * 64 + 24 * 144 // 32),
        ({"offload": OFFLOAD}, "resident", 256),
        ({"offload": OFFLOAD}, "offloaded", 2048 - 256),
        ({"offload": {"resident_tokens": 8192}}, "resident", 512),
        ({"offload": OFFLOAD, "dense_layers": 16}, "resident", (2048 + 256) // 2),
    ],
    ids=str,
)
def test_each_key_changes_what_it_names(sparse: dict[str, Any], what: str, expected: int) -> None:
    assert getattr(selection(**sparse), what)(LONG) == expected
    assert getattr(selection(), what)(LONG) != expected
    assert scenario(sparse).hash != scenario({}).hash
    assert scenario(sparse).warnings() == []


@pytest.mark.parametrize(
    ("sparse", "layers"),
    [
        ({}, (0, 32, 32)),
        ({"dense_layers": 2}, (2, 30, 30)),
        ({"shared_layers": 4}, (0, 32, 8)),
        ({"dense_layers": 2, "shared_layers": 4}, (2, 30, 8)),
        ({"shared_layers": 32}, (0, 32, 1)),
        ({"select": "window", "dense_layers": 2}, (2, 30, 0)),
        ({"select": "dense"}, (32, 0, 0)),
    ],
    ids=str,
)
def test_layers(sparse: dict[str, Any], layers: tuple[int, int, int]) -> None:
    assert selection(**sparse).layers == layers


@pytest.mark.parametrize(
    ("policy", "vectors", "keeps"),
    [("topk", 2, False), ("cluster", 1, False), ("h2o", 0, True), ("window", 0, False)],
)
def test_what_scores_are_made_of(policy: str, vectors: int, keeps: bool) -> None:
    one = selection(select=policy)
    assert (one.vectors, one.keeps_scores) == (vectors, keeps)
    assert (one.pages(LONG) > 0) == (vectors > 0)


def test_the_mean_layer() -> None:
    assert Layers(2, 6, 3).mean(dense=10.0, sparse=4.0, choosing=2.0) == (20 + 24 + 6) / 8


def test_what_is_fetched() -> None:
    # 128 of 2028 blocks are selected by score, 236 of those in HBM are not sink or recent.
    average = selection(offload=OFFLOAD).fetched_on_average(LONG)
    assert average == pytest.approx(128 * 0.4 * (2028 - 236) / (2028 - 128))
    few = selection(offload=OFFLOAD, locality=0.9).fetched_on_average(LONG)
    assert few == pytest.approx(average / 4)
    back = selection(offload=OFFLOAD, returning=0.5).fetched_on_average(LONG)
    assert back < average
    more = selection(offload={"resident_tokens": 16_384}).fetched_on_average(LONG)
    assert more < average
    half = selection(offload=OFFLOAD, dense_layers=16).fetched_on_average(LONG)
    assert half == pytest.approx(average / 2)
    wide = selection(offload=OFFLOAD).fetched_on_average(LONG, 4, 4)
    assert average < wide < 4 * average
    assert selection(offload=OFFLOAD).fetched_on_average(4000) == 0.0  # all of it is in HBM
    for policy in ("window", "h2o", "recency"):
        assert selection(select=policy, offload=OFFLOAD).fetched_on_average(LONG) == 0.0


def test_a_cluster_is_fetched_whole() -> None:
    one = selection(select="cluster", offload=OFFLOAD)
    # 26 of 406 clusters of 5 blocks; (256 - 20) // 5 of them are in HBM.
    expected = 5 * 26 * 0.4 * (406 - 47) / (406 - 26)
    assert one.fetched_on_average(LONG) == pytest.approx(expected)


def test_whole_blocks_have_the_mean_that_is_expected() -> None:
    one = selection(offload=OFFLOAD, locality=0.995)
    contexts = np.arange(30_000, 32_000)
    average = one.fetched_on_average(contexts)
    assert 0.1 < average.mean() % 1.0 < 0.9
    whole = one.fetched(contexts)
    assert (np.abs(whole - average) < 1.0).all()
    running = np.cumsum(whole - average)
    assert np.abs(running).max() < 3.0
    assert whole.sum() == pytest.approx(average.sum(), abs=3.0)


def test_what_a_scorer_keeps_in_hbm() -> None:
    # A minimum and a maximum of 128 channels for 8 KV heads in 16 bits, in every scoring layer.
    assert selection().index_bytes_per_block == 2 * 8 * 128 * 2 * 32
    assert selection(shared_layers=4).index_bytes_per_block == 2 * 8 * 128 * 2 * 8
    assert selection(select="cluster").index_bytes_per_block == 8 * 128 * 2 * 32 / 5
    assert selection(select="window").index_bytes_per_block == 0.0
    assert selection().piece_layers == 1
    assert selection(shared_layers=4).piece_layers == 4


def test_the_working_set_grows_to_all_there_is() -> None:
    one = selection()
    assert one.touched(LONG, 1) == pytest.approx(148)
    assert one.touched(LONG, 2) == pytest.approx(148 + 128 * 0.4)
    assert one.touched(LONG, 10**6) == pytest.approx(2048)
    assert selection(select="window").touched(LONG, 100) == 20


# ---------------------------------------------------------------- recall, an assumption
def test_recall_is_reported_as_it_was_assumed() -> None:
    assert selection().recall(LONG) == 1.0
    assert selection().assumptions() == []
    given = selection(recall=0.9)
    assert (given.recall(2000), given.recall(LONG)) == (1.0, 0.9)
    assert selection(recall=0.9, dense_layers=16).recall(LONG) == pytest.approx(0.95)
    assert "0.9, given by the scenario" in given.assumptions()[0]


def test_the_curve_goes_through_its_point() -> None:
    one = selection(recall="power", sink_tokens=0, recent_tokens=16, top_k_tokens=16 * 199)
    assert one.recall(16 * 1000) == pytest.approx(0.7)  # 200 of 1000 blocks
    assert one.recall(16 * 200) == 1.0
    assert "estimated" in one.assumptions()[0]


def test_assumptions_name_the_locality_where_it_counts() -> None:
    lines = selection(offload=OFFLOAD, locality=0.7).assumptions()
    assert len(lines) == 1
    assert lines[0].startswith("sparse.locality: 0.7 of a selection")
    assert selection(select="window", offload=OFFLOAD).assumptions() == []


# ---------------------------------------------------------------- summary
def test_summary_of_two_steps_by_hand() -> None:
    one = selection(dense_layers=2, shared_layers=3, recall=0.8)
    sums = one.sums(np.array([LONG, 100]))
    assert sums == Sums(
        steps=2, blocks=2048 + 7, chosen=148 + 7, context=LONG + 100, attended=2368 + 100,
        scored=2048, fetched=0, recall=sums.recall,
    )  # fmt: skip
    found = summary(sums, one)
    token = 2 * 8 * 128 * 2  # bytes of a token in a layer
    total, selected = 32 * 2055, 2 * 2055 + 30 * 155
    assert found["kv_blocks_total"] == total
    assert found["kv_blocks_selected"] == selected
    assert found["kv_sparsity_ratio"] == 1.0 - selected / total
    assert found["kv_bytes_read"] == token * (2 * (LONG + 100) + 30 * (2368 + 100))
    assert found["kv_bytes_saved"] == token * 30 * (LONG - 2368)
    assert found["kv_scored"] == 2048 * 10
    assert found["kv_bytes_scored"] == 2048 * 10 * 2 * 8 * 128 * 2
    assert found["kv_attention_recall_assumed"] == pytest.approx((2 + 30 * 0.8 + 32) / 32 / 2)
    json.dumps(found)


def test_read_and_saved_are_what_dense_attention_reads() -> None:
    contexts = np.arange(1, 6000, 13)
    for policy in ("dense", "recency", "topk", "window", "h2o", "cluster"):
        one = selection(select=policy)
        found = summary(one.sums(contexts), one)
        read, saved = found["kv_bytes_read"], found["kv_bytes_saved"]
        assert isinstance(read, float)
        assert isinstance(saved, float)
        assert read + saved == contexts.sum() * 131_072
        assert (saved == 0.0) == (policy == "dense")
        assert "kv_attention_recall_assumed" not in found


def test_sums_add_up_and_nothing_is_no_sparsity() -> None:
    one = selection(offload=OFFLOAD)
    contexts = np.arange(30_000, 30_100)
    parts = one.sums(contexts[:40]).plus(one.sums(contexts[40:]))
    whole = one.sums(contexts)
    assert parts[:-1] == whole[:-1]
    assert parts.recall == pytest.approx(whole.recall)
    assert summary(Sums(), one)["kv_sparsity_ratio"] == 0.0
    fetched = summary(whole, one)["kv_bytes_fetched"]
    assert fetched == whole.fetched * 16 * 131_072
    assert whole.fetched > 0


# ---------------------------------------------------------------- identity
def test_the_section_leaves_no_mark_when_not_given() -> None:
    plain = scenario(None)
    assert "sparse" not in plain.resolved()
    assert scenario({}).resolved()["sparse"] == {"select": "topk"}
    assert scenario({"top_k_tokens": 2048, "locality": 0.6}).hash == scenario({}).hash
    assert plain.hash != scenario({}).hash


@pytest.mark.parametrize(
    "sparse",
    [None, {}, {"select": "cluster", "cluster_tokens": 100, "recall": "power"},
     {"offload": OFFLOAD, "locality": 0.9, "recall": 0.5}],
)  # fmt: skip
def test_resolved_comes_back_from_json(sparse: dict[str, Any] | None) -> None:
    given = scenario(sparse)
    text = json.dumps(given.resolved())
    back = Scenario.from_resolved(json.loads(text))
    assert back.sparse == given.sparse
    assert json.dumps(back.resolved()) == text
    assert back.hash == given.hash


def test_a_sweep_may_take_the_section_away() -> None:
    text = "sweep: {sparse: [null, {select: window}, {select: topk, top_k_tokens: 512}]}\n"
    Path("a.yaml").write_text(LEAST + text)
    points = load_study("a.yaml").points
    found = [point.scenario.sparse for point in points]
    assert [one and one.select for one in found] == [None, "window", "topk"]


# ---------------------------------------------------------------- warnings
@pytest.mark.parametrize(
    ("sparse", "warned"),
    [
        ({"select": "dense", "top_k_tokens": 64, "locality": 0.5},
         ["sparse.top_k_tokens", "sparse.locality"]),
        ({"select": "window", "top_k_tokens": 64}, ["sparse.top_k_tokens"]),
        ({"select": "recency", "sink_tokens": 16, "recent_tokens": 16},
         ["sparse.sink_tokens", "sparse.recent_tokens"]),
        ({"select": "h2o", "sink_tokens": 16}, ["sparse.sink_tokens"]),
        ({"select": "topk", "cluster_tokens": 64}, ["sparse.cluster_tokens"]),
        ({"select": "window", "shared_layers": 2}, ["sparse.shared_layers"]),
        ({"locality": 0.9}, ["sparse.locality"]),
        ({"returning": 0.5}, ["sparse.returning"]),
        ({"locality": 0.9, "returning": 0.5, "offload": OFFLOAD}, []),
        ({"select": "h2o", "locality": 0.9, "offload": OFFLOAD}, ["sparse.locality"]),
        ({"drop": True}, ["sparse.drop"]),
        ({"drop": False, "recall": None}, []),
    ],
    ids=str,
)  # fmt: skip
def test_warnings(sparse: dict[str, Any], warned: list[str]) -> None:
    lines = scenario(sparse).warnings()
    assert [line.partition(":")[0] for line in lines] == warned
    assert all("has no effect here; " in line for line in lines)


def test_dram_has_an_effect_if_kv_is_offloaded_to_it() -> None:
    kv = {"prefix_cache": False}
    assert scenario({"offload": OFFLOAD}, kv=kv).warnings() == []
    assert len(scenario({}, kv=kv, hardware=DRAM).warnings()) == 1


def called(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_check_prints_findings_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(LEAST + "sparse: {select: window, top_k_tokens: 64}\n")
    assert called("check", "a.yaml") == 0
    assert "sparse.top_k_tokens: has no effect here" in capsys.readouterr().err
    assert called("check", "a.yaml", "--set", "sparse.sink_tokens=-1") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "sparse.sink_tokens: must be >= 0, got -1" in said[0]


# ---------------------------------------------------------------- errors, each at its place
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sparse: {select: quest}\n",
         "a.yaml:3:18: sparse.select: expected one of dense, recency, topk, window, h2o, cluster, "
         "got 'quest'"),
        ("sparse: {top_k_token: 64}\n",
         "a.yaml:3:10: sparse.top_k_token: no such field; did you mean 'top_k_tokens'?"),
        ("sparse: {top_k_tokens: -1}\n", "a.yaml:3:24: sparse.top_k_tokens: must be >= 1, got -1"),
        ("sparse: {top_k_tokens: 1.5}\n",
         "a.yaml:3:24: sparse.top_k_tokens: expected a whole number, got 1.5"),
        ("sparse: {top_k_tokens: 8}\n",
         "a.yaml:3:24: sparse.top_k_tokens: 8 is less than a block of 16 (kv.block_tokens); give "
         "at least a block"),
        ("kv: {block_tokens: 128}\nsparse: {select: cluster}\n",
         "a.yaml:4:9: sparse.cluster_tokens: 80 is less than a block of 128 (kv.block_tokens); "
         "give at least a block"),
        ("sparse: {sink_tokens: -4}\n", "a.yaml:3:23: sparse.sink_tokens: must be >= 0, got -4"),
        ("sparse: {recent_tokens: 0}\n", "a.yaml:3:25: sparse.recent_tokens: must be >= 1, got 0"),
        ("sparse: {locality: 1.2}\n", "a.yaml:3:20: sparse.locality: must be <= 1.0, got 1.2"),
        ("sparse: {locality: -0.1}\n", "a.yaml:3:20: sparse.locality: must be >= 0.0, got -0.1"),
        ("sparse: {locality: .nan}\n",
         "a.yaml:3:20: sparse.locality: expected a finite number, got nan"),
        ("sparse: {returning: .inf}\n",
         "a.yaml:3:21: sparse.returning: expected a finite number, got inf"),
        ("sparse: {recall: 1.5}\n",
         "a.yaml:3:18: sparse.recall: expected a number from 0 to 1 or power, got 1.5"),
        ("sparse: {recall: .nan}\n",
         "a.yaml:3:18: sparse.recall: expected a number from 0 to 1 or power, got nan"),
        ("sparse: {recall: zipf}\n",
         "a.yaml:3:18: sparse.recall: expected a number from 0 to 1 or power, got 'zipf'"),
        ("sparse: {recall: [1]}\n",
         "a.yaml:3:18: sparse.recall: expected a number from 0 to 1 or power, got [1]"),
        ("sparse: {select: window, recall: power}\n",
         "a.yaml:3:34: sparse.recall: power is the curve of the blocks that score best; give a "
         "number, or select: topk or cluster"),
        ("sparse: {dense_layers: 32}\n",
         "a.yaml:3:24: sparse.dense_layers: 32 leave none of the model's 32 layers to select in; "
         "give less, or select: dense"),
        ("sparse: {dense_layers: 2, shared_layers: 31}\n",
         "a.yaml:3:42: sparse.shared_layers: 31 is more than the 30 layers that select; give at "
         "most these"),
        ("sparse: {shared_layers: 0}\n", "a.yaml:3:25: sparse.shared_layers: must be >= 1, got 0"),
        ("sparse: {offload: {resident_tokens: 4096}}\n",
         "a.yaml:3:19: sparse.offload: needs hardware.dram, where the KV goes; add e.g. "
         "`dram: {capacity: 64 GiB}` there"),
        ("hardware: {dram: {capacity: 1 GiB}}\nsparse: {offload: {tier: dram}}\n",
         "a.yaml:4:19: sparse.offload.resident_tokens: missing; it has no default"),
        ("hardware: {dram: {capacity: 1 GiB}}\nsparse: {offload: {resident_tokens: 2048}}\n",
         "a.yaml:4:37: sparse.offload.resident_tokens: 2048 do not hold the 2368 tokens of a "
         "selection; give at least these"),
        ("hardware: {dram: {capacity: 1 GiB}}\n"
         "sparse: {select: dense, offload: {resident_tokens: 2048}}\n",
         "a.yaml:4:34: sparse.offload: needs a selection, since every step of select: dense reads "
         "all KV; choose another sparse.select"),
        ("hardware: {dram: {capacity: 1 GiB}}\n"
         "sparse: {select: h2o, drop: true, offload: {resident_tokens: 4096}}\n",
         "a.yaml:4:44: sparse.offload: not together with sparse.drop, which keeps nothing to "
         "fetch"),
        ("hardware: {dram: {capacity: 1 GiB}}\n"
         "sparse: {offload: {tier: ssd, resident_tokens: 4096}}\n",
         "a.yaml:4:26: sparse.offload.tier: expected one of dram, got 'ssd'"),
        ("hardware: {dram: {capacity: 1 GiB}}\n"
         "replicas: {count: 2}\nsparse: {offload: {resident_tokens: 4096}}\n",
         "a.yaml:4:11: replicas.tiers: shared; sparse.offload keeps what one replica decodes in a "
         "part of DRAM of its own; give own"),
        ("sparse: 5\n", "a.yaml:3:9: sparse: expected a map of select, top_k_tokens"),
    ],
)  # fmt: skip
def test_one_error_is_the_only_line(text: str, line: str) -> None:
    lines = lines_of(text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(line)
