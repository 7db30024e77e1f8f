"""Step logs of any engine: names, units, formats, and what is wrong with a file."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sim.errors import InputError
from sim.step_log import from_dicts, read_steps
from sim.step_names import plain, unit_of
from sim.step_rows import gather

if TYPE_CHECKING:
    from pathlib import Path

STEPS = [
    {"start_s": 0.0, "duration_s": 0.01, "decode_requests": 2, "prefill_tokens": 0},
    {"start_s": 0.01, "duration_s": 0.03, "decode_requests": 2, "prefill_tokens": 100},
]


def column(log: Any, name: str) -> list[float]:
    return list(log.columns[name].tolist())


def test_formats_hold_the_same_steps(tmp_path: Path) -> None:
    names = list(STEPS[0])
    lines = "".join(json.dumps(step) + "\n" for step in STEPS)
    files = {
        "a.jsonl": lines.encode(),
        "b.jsonl.gz": gzip.compress(lines.encode()),
        "c.json": json.dumps(STEPS, indent=2).encode(),
        "d.json": json.dumps({"engine": "x", "steps": STEPS}, indent=1).encode(),
        "e.csv": "\n".join(
            [";".join(names), *(";".join(map(str, step.values())) for step in STEPS)]
        ).encode(),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    pq.write_table(pa.Table.from_pylist(STEPS), tmp_path / "f.parquet")
    for name in (*files, "f.parquet"):
        log = read_steps(tmp_path / name)
        for key in names:
            assert column(log, key) == [step[key] for step in STEPS], (name, key)


@pytest.mark.parametrize(
    ("name", "short", "unit"),
    [
        ("iterLatencyMS", "iterlatency", "ms"), ("step_time_us", "steptime", "us"),
        ("latency (ms)", "latency", "ms"), ("duration", "duration", None),
        ("Start_Time", "starttime", None), ("elapsed_seconds", "elapsed", "s"), ("ms", "ms", None),
    ],
)  # fmt: skip
def test_units_stand_in_names(name: str, short: str, unit: str | None) -> None:
    assert (plain(name), unit_of(name)) == (short, unit)


def test_nested_and_camel_case_names_of_tensorrt_llm() -> None:
    log = from_dicts([{
        "iter": 7, "iterLatencyMS": 12.5, "numActiveRequests": 5,
        "inflightBatchingStats": {"numGenRequests": 4, "numContextRequests": 1, "numCtxTokens": 90},
    }])  # fmt: skip
    assert column(log, "duration_s") == [0.0125]
    assert [column(log, f"{kind}_requests") for kind in ("decode", "prefill")] == [[4], [1]]
    assert column(log, "prefill_tokens") == [90]


def test_context_tokens_of_vllm_are_those_computed() -> None:
    row = {"context_requests": 1, "context_tokens": 80, "generation_requests": 3,
           "generation_tokens": 3, "elapsed_ms": 9.0}  # fmt: skip
    log = from_dicts([row])
    assert column(log, "prefill_tokens") == [80]
    assert "context_tokens" not in log.columns
    ours = from_dicts([{"decode_requests": 3, "context_tokens": 80, "duration_s": 0.01}])
    assert column(ours, "context_tokens") == [80]


def test_ctx_tokens_are_those_read_where_a_column_has_those_computed() -> None:
    row = {"dt": 0.01, "decode_reqs": 3, "decode_toks": 3, "ctx_tokens": 700}
    both = from_dicts([row | {"prefill_toks": 80}])
    assert column(both, "prefill_tokens") == [80]
    assert column(both, "context_tokens") == [700]
    assert column(both, "decode_tokens") == [3]
    assert column(from_dicts([row]), "prefill_tokens") == [700]  # as TensorRT-LLM counts


def test_iteration_lines_of_a_text_log(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text(
        "INFO starting\n"
        "(EngineCore_DP0 pid=1) INFO 12-22 21:44:40 [core.py:349] Iteration(515): 1 context "
        "requests, 64 context tokens, 20 generation requests, 20 generation tokens, iteration "
        "elapsed time: 10.99 ms\n"
    )
    log = read_steps(tmp_path / "engine.log")
    assert column(log, "decode_requests") == [20]
    assert column(log, "prefill_tokens") == [64]
    assert column(log, "duration_s") == [pytest.approx(0.01099)]


def test_maps_take_sums_numbers_units_and_lists() -> None:
    rows = [{"t0": 3000, "t1": 3020, "ids": ["a", "b", "c"], "new": {"c": 50}, "lens": [5, 6]}]
    log = from_dicts(rows, {
        "start_s": "t0[ms]", "duration_s": "t1-t0[ms]", "decode_requests": "ids-1",
        "prefill_tokens": "new", "prefill_requests": "new", "context_tokens": "lens",
    })  # fmt: skip
    found = {name: column(log, name)[0] for name in log.names}
    assert found == {
        "start_s": 3.0, "duration_s": pytest.approx(0.02), "decode_requests": 2,
        "prefill_tokens": 50, "prefill_requests": 1, "context_tokens": 11,
    }  # fmt: skip
    assert log.names["decode_requests"] == "ids-1"


def test_kinds_of_requests_told_apart_by_what_there_is() -> None:
    phase = from_dicts([
        {"forward_mode": "DECODE", "batch_size": 4, "num_tokens": 4, "step_ms": 5},
        {"forward_mode": "EXTEND", "batch_size": 2, "num_tokens": 300, "step_ms": 9},
    ])  # fmt: skip
    assert column(phase, "decode_requests") == [4, 0]
    assert column(phase, "prefill_requests") == [0, 2]
    assert column(phase, "prefill_tokens") == [0, 300]
    totals = from_dicts([{"num_tokens": 130, "decode_tokens": 30, "step_ms": 5}])
    assert column(totals, "prefill_tokens") == [100]


def test_ends_iso_times_and_epochs() -> None:
    log = from_dicts(
        [{"start": "2026-01-01T00:00:00", "end": "2026-01-01T00:00:00.250", "decodes": 1}]
    )
    assert column(log, "duration_s") == [0.25]
    epoch = from_dicts([
        {"start_ms": 1.76e12 + i * 10, "duration_ms": 9, "decodes": 1} for i in range(3)
    ])  # fmt: skip
    assert np.allclose(column(epoch, "start_s"), [0, 0.01, 0.02], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "duration_s,decode_requests\n0.1,x\n", ":2: decode_requests: 'x' is no number"),
        ("a.csv", "duration_s,decode_requests\n0.1,1\n0.1,-4\n", ":3: decode_requests: "),
        ("a.csv", "duration_s,decode_requests\n0.1,1,5\n", ":2: 3 fields, the header has 2"),
        ("a.csv", "duration_s,duration_s\n0.1,1\n", ":1: column 'duration_s' twice"),
        ("a.csv", "n,decode_requests\n1,1\n", ": no column for duration_s; say which with --map"),
        ("a.csv", "duration_s,n\n1,1\n", ": no column for decode_requests; say which"),
        ("a.jsonl", '{"duration_s": 0.1, "decode_requests": 1}\n{"dur\n', ":2: not JSON: "),
        ("a.jsonl", '{"duration_s": 0.1, "decode_requests": 1}\n[1]\n', ":2: [1] is no object"),
        ("a.json", "[1, 2]", ": step 1: 1 is no dictionary"),
        ("a.json", '{"a": 1,\n "b": 2}', ": holds no list of steps"),
        ("a.parquet", "PAR1nothing", ": damaged Parquet: "),
        ("a.jsonl", "", ": is empty; "),
        ("a.csv", "duration,decodes\n120,1\n130,1\n", ": the median step takes 125 s (duration)"),
        ("a.csv", "duration_s,decodes\n0,1\n,1\n,2\n", ": no step with a duration above 0"),
        ("a.csv", "duration_s,decodes\ninf,1\n", ":2: duration_s: 'inf' is no number"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_steps(tmp_path / name)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(f"{tmp_path / name}{said}"), caught.value.lines


def test_bad_maps_name_what_there_is() -> None:
    for text, said in (
        ("duration_s", "--map 'duration_s': write our=theirs"),
        ("length=x", "--map 'length=x': no column 'length'; start_s, "),
        ("duration_s=lat", "steps: --map duration_s: no column 'lat'; there are 'a'"),
        ("duration_s=a[h]", "--map duration_s: unit 'h'; choose s, ms, us, ns"),
    ):
        with pytest.raises(InputError) as caught:
            from_dicts([{"a": 1, "decode_requests": 1}], [text])
        assert caught.value.lines[0].startswith(said)


def test_only_some_rows(tmp_path: Path) -> None:
    rows = [step | {"path": path} for step, path in zip(STEPS, ("graph", "host"), strict=True)]
    assert column(from_dicts(rows, only=["path=host"]), "duration_s") == [0.03]
    with pytest.raises(InputError, match="no such column"):
        from_dicts(rows, only=["mode=host"])


def test_many_rows_are_thinned_after_their_neighbours_were_seen() -> None:
    def parts() -> Any:
        for number in range(50):
            start = np.arange(number * 100, number * 100 + 100) * 1.0
            yield {
                "start_s": start,
                "duration_s": start * 0 + 0.5,
                "decode_requests": start * 0 + 1,
            }

    columns, rows, thinned = gather(parts(), most=300)
    assert (rows, thinned) == (5000, True)
    assert 300 <= len(columns["start_s"]) <= 601
    step = columns["next_start_s"] - columns["start_s"]
    assert (step[:-1] == 1.0).all()  # the neighbour's start, not that of the next row kept
    assert (np.diff(columns["start_s"])[:-1] > 1.0).all()


def test_large_files_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.step_files._LARGE", 0)
    text = "t_start;step_ms;decodes\n" + "".join(f"{i / 100};9.5;{i % 3 + 1}\n" for i in range(50))
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.csv", "b.csv.gz"):
        log = read_steps(tmp_path / name)
        assert column(log, "duration_s") == [0.0095] * 50
        assert column(log, "decode_requests")[:4] == [1, 2, 3, 1]
    (tmp_path / "c.csv").write_text("step_ms,decodes\n1,2\n1\n")
    with pytest.raises(InputError, match=r"c\.csv: .*Expected 2 columns, got 1"):
        read_steps(tmp_path / "c.csv")


def test_several_files_are_several_runs(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps(STEPS))
    log = read_steps([tmp_path / "a.json", tmp_path / "b.json"])
    assert column(log, "segment") == [0, 0, 1, 1]
    assert np.isnan(log.columns["next_start_s"][[1, 3]]).all()


def test_a_clock_that_goes_back_begins_another_run() -> None:
    steps = [{"start_s": i * 0.01, "duration_s": 0.01, "decodes": 1} for i in range(150)]
    log = from_dicts([*steps, *steps])
    assert column(log, "segment") == [0] * 150 + [1] * 150
    assert np.isnan(log.columns["next_start_s"][[149, 299]]).all()
    shuffled = [steps[i ^ 1] for i in range(150)]  # written when they ended
    log = from_dicts(shuffled)
    assert column(log, "start_s") == sorted(step["start_s"] for step in steps)


# ---------------------------------------------------------------- logs of others
def busy(count: int = 40) -> list[dict[str, Any]]:
    """Steps of 10 ms that decode, 2 ms apart, by nobody's names."""
    return [{"at": i * 0.012, "ms": 10.0, "seqs": 3, "new": 0} for i in range(count)]


BUSY = {"start_s": "at", "decode_requests": "seqs", "prefill_tokens": "new"}


def test_a_column_called_by_a_unit_has_that_unit() -> None:
    assert column(from_dicts(busy(), BUSY | {"duration_s": "ms"}), "duration_s")[0] == 0.01


def test_a_unit_that_starts_and_durations_contradict_is_refused() -> None:
    rows = [row | {"lat": row["ms"]} for row in busy()]
    with pytest.raises(InputError) as caught:
        from_dicts(rows, BUSY | {"duration_s": "lat"})
    (line,) = caught.value.lines
    assert line.startswith(
        "steps: steps start every 0.012 s (at) but last 10 s (lat): another unit"
    )
    assert "--map duration_s=lat[ms]" in line
    assert len(from_dicts(rows, BUSY | {"duration_s": "lat[ms]"})) == 40


def test_durations_from_starts_or_ends_alone() -> None:
    rows = [{"start": at, "decodes": decodes} for at, decodes in
            [(0.0, 0), (0.1, 2), (0.3, 2), (0.6, 1), (5.0, 0), (5.4, 1)]]  # fmt: skip
    starts = from_dicts(rows)
    # The step at 0.6 is followed by one that nobody went on to: perhaps the engine was idle.
    assert column(starts, "start_s") == [0.0, 0.1, 0.3, 5.0]
    assert column(starts, "duration_s") == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert starts.notes[0].startswith(
        "no durations: steps last from start_s (start) to start_s, 1 "
    )
    ends = from_dicts([{"end": row["start"], "decodes": row["decodes"]} for row in rows])
    assert column(ends, "duration_s") == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert column(ends, "decode_requests") == [2, 2, 1, 1]  # a time belongs to the step it ends
    assert column(ends, "start_s") == pytest.approx([0.0, 0.1, 0.3, 5.0])


def test_lists_frames_objects_and_columns_of_steps(tmp_path: Path) -> None:
    from dataclasses import make_dataclass

    import pandas as pd

    maps = BUSY | {"duration_s": "ms"}
    rows = busy()
    numpy = [{name: np.asarray(value) for name, value in row.items()} for row in rows]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    made = make_dataclass("Step", list(rows[0]))
    for found in (
        numpy, [made(**row) for row in rows], pd.DataFrame(rows), columns, {"steps": rows},
        {"config": {}, "steps": rows, "requests": [{"id": 1}]},
    ):  # fmt: skip
        log = from_dicts(found, maps)  # type: ignore[arg-type]
        assert column(log, "duration_s") == [0.01] * 40
    for name, data in (("a.json", {"steps": rows, "requests": [{"id": 1}]}), ("b.json", columns)):
        (tmp_path / name).write_text(json.dumps(data))
        log = read_steps(tmp_path / name, [f"{ours}={theirs}" for ours, theirs in maps.items()])
        assert column(log, "start_s") == [row["at"] for row in rows]
    with pytest.raises(InputError, match=r"steps: several lists \('a', 'b'\); call one steps"):
        from_dicts({"a": rows, "b": rows}, maps)  # type: ignore[arg-type]


def test_arrays_of_requests_count_as_requests() -> None:
    log = from_dicts([{"ids": np.arange(3), "kv_lens": np.array([5, 6, 7]), "step_ms": 4.0}],
                     {"decode_requests": "ids"})  # fmt: skip
    assert column(log, "decode_requests") == [3]
    assert column(log, "context_tokens") == [18]


def test_what_a_log_lacks_is_said() -> None:
    rows = [{"step_ms": 9.0, "n_dec": 1, "n_pre": 1, "chunk": 50, "ctx": 7} for _ in range(3)]
    with pytest.raises(InputError) as caught:
        from_dicts(rows)
    (line,) = caught.value.lines
    assert "steps compute prompts (n_pre) but no column for prefill_tokens" in line
    assert line.endswith("not used: 'chunk', 'ctx'")
    notes = from_dicts(rows, {"prefill_tokens": "chunk"}).notes
    assert notes == [
        "no start of steps (--map start_s=NAME): time between steps is not seen",
        "no column for start_s, context_tokens; not used: 'ctx'",
    ]
    with pytest.raises(InputError, match="no column for duration_s and decode_requests; say which "
                       "with --map duration_s=NAME --map decode_requests=NAME"):  # fmt: skip
        from_dicts([{"a": 1, "b": 2}])


def test_time_stamps_of_tensorrt_llm() -> None:
    log = from_dicts([
        {"timestamp": f"11-21-2026 08:00:00.{i}0", "iterLatencyMS": 90, "numGenRequests": 1}
        for i in range(3)
    ])  # fmt: skip
    assert column(log, "start_s") == pytest.approx([0.0, 0.1, 0.2], abs=1e-6)
