"""Where every error of a scenario file is reported, and what extends, --set and sweep do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.feasible import faults
from sim.load import load
from sim.simulate import chunks
from sim.study import load_study
from sim.trace.chunk import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.scenario import Scenario
    from sim.study import Study

LEAST = "trace: {source: azure-conv-like, requests: 10}\nmodel: llama-3.2-1b\n"
KV_KEYS = (
    "block_tokens, dtype, hbm_blocks, prefix_cache, eviction, promotion, prefetch, lookahead, "
    "write_back, reserve, queue_limit, layout, preemption, tier_dtypes"
)
SCENARIOS = Path(__file__).parent.parent / "scenarios"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own, so that messages hold short names."""
    monkeypatch.chdir(tmp_path)


def write(text: str | bytes, name: str = "a.yaml") -> Path:
    """A file of the test's folder."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines_of(
    text: str | bytes, *overrides: str, reader: Callable[..., Scenario | Study] = load
) -> list[str]:
    """The error lines of a file."""
    with pytest.raises(InputError) as caught:
        reader(write(text), overrides)
    return caught.value.lines


def test_one_broken_file_reports_everything_at_once() -> None:
    text = """\
trace: {source: synthetic, requests: 3.0, rate: 5 GB}
modle: llama-3.1-8b
loop:
  mode: no
  max_bach: 64
  token_budget: 017
  captured_batches: [1, "2", true]
kv: {dtype: bf8, block_tokens: -1}
slo: {ttft: 3, tpot: 12:30, e2el: 5 parsecs}
seed: 3
seed: 4
seed: 3
"""
    assert lines_of(text) == [
        "a.yaml:1:1: model: missing; add e.g. `model: llama-3.1-8b`",
        "a.yaml:1:38: trace.requests: expected a whole number, got 3.0",
        "a.yaml:1:49: trace.rate: '5 GB' is an amount of memory, not a rate; "
        "units that fit: /s, /min, /h, req/s, req/min, req/h",
        "a.yaml:2:1: modle: no such field; did you mean 'model'?",
        "a.yaml:4:9: loop.mode: YAML reads no as a boolean; write true or false, or 'no'",
        "a.yaml:5:3: loop.max_bach: no such field; did you mean 'max_batch'?",
        "a.yaml:6:17: loop.token_budget: YAML reads '017' as another number; write a plain decimal",
        "a.yaml:7:25: loop.captured_batches.1: expected a whole number, got '2'",
        "a.yaml:7:30: loop.captured_batches.2: expected a whole number, got true",
        "a.yaml:8:13: kv.dtype: expected one of bf16, fp8, int8, int4, got 'bf8'; "
        "did you mean 'fp8'?",
        "a.yaml:8:32: kv.block_tokens: must be >= 1, got -1",
        "a.yaml:9:13: slo.ttft: 3 has no unit; write e.g. '100 ms'",
        "a.yaml:9:22: slo.tpot: YAML reads '12:30' as another number; write a plain decimal",
        "a.yaml:9:35: slo.e2el: '5 parsecs' has the unknown unit 'parsecs'; "
        "units that fit: ns, us, ms, s, min, h",
        "a.yaml:11:1: duplicate key 'seed' (first in line 10); keep one",
        "a.yaml:12:1: duplicate key 'seed' (first in line 10); keep one",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "a.yaml:1:1: empty; a scenario is a map of keys to values"),
        ("- 1\n", "a.yaml:1:1: not a map; a scenario is a map of keys to values"),
        ("a:\n  b: c: d\n", "a.yaml:2:7: YAML syntax: mapping values are not allowed here"),
        ("loop:\n\tmode: x\n", "a.yaml:2:1: YAML syntax: found character '\\t' that cannot"),
        ("slo: {ttft: 1 s\n", "a.yaml:2:1: YAML syntax: expected ',' or '}', but got"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1: a second document; a scenario file holds one"),
        ("a: 1\nb: '\0'\n", "a.yaml:2:5: character U+0000 has no place in YAML; remove it"),
        (b"a: 1\nb: \xc3\xa4\xff\n", "a.yaml:2:5: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("[" * 50_000, "a.yaml:1:21: nested more than 20 deep; a scenario needs less"),
        ("a: 1\n" * 10_001, "a.yaml:10000:4: more than 20000 keys and values; a scenario needs"),
        ("#" * (2**20 + 1), "a.yaml: larger than 1 MiB; a scenario names its trace, it holds none"),
        ("a: !!python/name:os.system x\n", "a.yaml:1:4: tags are not allowed; remove"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_files_that_are_no_scenario(text: str | bytes, line: str) -> None:
    assert lines_of(text)[-1].startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kv: &a {}\n", "a.yaml:3:5: anchors are not allowed; remove '&a'"),
        ("admission: *a\n", "a.yaml:3:12: aliases are not allowed; write the value out"),
        ("seed: !!int 3\n", "a.yaml:3:7: tags are not allowed; remove 'tag:yaml.org,2002:int'"),
        ("<<: {seed: 3}\n", "a.yaml:3:1: merge keys are not allowed; use `extends:`"),
        ("1: 2\n", "a.yaml:3:1: a key is a word, and YAML reads '1' as int"),
        ("kv:\n  on: 2\n", "a.yaml:4:3: a key is a word, and YAML reads 'on' as bool"),
        ("? [a]\n: 1\n", "a.yaml:3:3: a key is a word, not a list or map"),
        ('name: "a\\0"\n', "a.yaml:3:7: name: 'a\\x00' holds control characters or line ends"),
        ("seed: 0x10\n", "a.yaml:3:7: seed: YAML reads '0x10' as another number; write a plain"),
        ("seed: 1e3\n", "a.yaml:3:7: seed: expected a whole number, got 1000.0"),
        ("seed: 08\n", "a.yaml:3:7: seed: expected a whole number, got '08'"),
        (f"seed: {'9' * 5000}\n", "a.yaml:3:7: seed: YAML reads '9999"),
        ("seed: 9223372036854775808\n", "a.yaml:3:7: seed: must be < 9223372036854775808, got 92"),
        ("name: 12\n", "a.yaml:3:7: name: expected a word, got 12"),
        ("name: off\n", "a.yaml:3:7: name: YAML reads off as a boolean; write true or false, or"),
        ("name: Two Words\n", "a.yaml:3:7: name: 'Two Words' may hold a-z, 0-9, '.', '_' and '-'"),
        ("kv:\n", f"a.yaml:3:4: kv: expected a map of {KV_KEYS}, got nothing"),
        ("record: {iterations: yes}\n", "a.yaml:3:22: record.iterations: YAML reads yes as a bool"),
        ("record: {iterations: 1}\n", "a.yaml:3:22: record.iterations: expected true or false, go"),
        ("loop: {prefill_share: .inf}\n", "a.yaml:3:23: loop.prefill_share: expected a finite num"),
        ("loop: {prefill_share: '0.5'}\n", "a.yaml:3:23: loop.prefill_share: expected a number, g"),
        ("loop: {captured_batches: 8}\n", "a.yaml:3:26: loop.captured_batches: expected a list, "),
        ("loop: {captured_batches: []}\n", "a.yaml:3:26: loop.captured_batches: expected 1 value"),
        ("loop: {token_budget: 9}\n", "a.yaml:3:22: loop.token_budget: token_budget (9) is less"),
        ("loop: {max_batch: 9999}\n", "a.yaml:3:19: loop.max_batch: token_budget (2048) is less"),
        ("loop: {captured_batches: [1, 999]}\n", "a.yaml:3:30: loop.captured_batches.1: 999 is m"),
        ("slo: {ttft: 0 s}\n", "a.yaml:3:13: slo.ttft: must be > 0, got '0 s'"),
        ("sweep: {seed: [1]}\n", "a.yaml:3:1: sweep: this file is a study of several runs; use"),
        ("extends: [b.yaml]\n", "a.yaml:3:10: extends: expected the name of one file, got ['b.y"),
        ("extends: b.yaml\n", "a.yaml:3:10: extends: no such file 'b.yaml'; it is sought beside"),
        ("extends: /b.yaml\n", "a.yaml:3:10: extends: '/b.yaml' is absolute; name the parent re"),
        ("extends: ../b.yaml\n", "a.yaml:3:10: extends: '../b.yaml' leaves the scenario's folder"),
        ("extends: a.yaml\n", "a.yaml:3:10: extends: 'a.yaml' extends this file in turn; break"),
    ],
    ids=lambda text: text.strip()[:30],
)
def test_one_error_in_a_good_file_is_the_only_line(text: str, line: str) -> None:
    (found,) = lines_of(LEAST + text)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        ("{requests: 3}", "a.yaml:1:8: trace: missing file or source; add e.g."),
        ("{file: x, source: synthetic}", "a.yaml:1:18: trace.source: not together with trace.fil"),
        ("{source: azure-conv-like}", "a.yaml:1:8: trace.requests: missing; `source: azure-conv-"),
        ("{source: azure-conv}", "a.yaml:1:17: trace.source: expected one of azure-conv-like, az"),
        ("{file: x, rate: 3 /s}", "a.yaml:1:18: trace.rate: only with source: agent-like, "),
        ("{file: ''}", "a.yaml:1:15: trace.file: expected a word, got ''"),
        ("{file: x, requests: 0}", "a.yaml:1:28: trace.requests: must be >= 1, got 0"),
        ("{file: x, rate_scale: fast}", "a.yaml:1:30: trace.rate_scale: expected a number, got "),
        ("{file: x, window: [0, 600 s]}", "a.yaml:1:27: trace.window.0: 0 has no unit; write e.g"),
        ("{file: x, window: [9 s, 9 s]}", "a.yaml:1:26: trace.window: it ends at 9 s, not after "),
        ("{file: x, window: [9 s]}", "a.yaml:1:26: trace.window.1: missing"),
        ("{file: x, window: 9 s}", "a.yaml:1:26: trace.window: expected a list, got '9 s'"),
        ("{file: x, time_scale: 0}", "a.yaml:1:30: trace.time_scale: must be >= 1e-06, got 0"),
        ("{file: x, thin: 0}", "a.yaml:1:24: trace.thin: must be > 0.0, got 0"),
        ("{file: x, thin: 1.5}", "a.yaml:1:24: trace.thin: must be <= 1.0, got 1.5"),
        ("{file: x, replica: {of: 4}}", "a.yaml:1:27: trace.replica.index: missing; it has no def"),
        ("{file: x, replica: {index: 4, of: 4}}", "a.yaml:1:35: trace.replica.index: 4 of 4: serv"),
        ("{file: x, replica: {index: 0, of: 0}}", "a.yaml:1:42: trace.replica.of: must be >= 1, g"),
        (
            "{file: x, replica: {index: 0, of: 2, by: hash}}",
            "a.yaml:1:49: trace.replica.by: expect",
        ),
        (
            "{file: x, dither: 3}",
            "a.yaml:1:26: trace.dither: expected auto, 'off' or a step such as",
        ),
        ("{file: x, dither: 0 s}", "a.yaml:1:26: trace.dither: a step of 0 s spreads nothing; wri"),
        ("{file: x, dither: off}", "a.yaml:1:26: trace.dither: YAML reads off as a boolean; write"),
        ("{file: x, clip_prompt: 8192}", "a.yaml:1:31: trace.clip_prompt: expected a map of to, k"),
        ("{file: x, clip_prompt: {to: 1}}", "a.yaml:1:36: trace.clip_prompt.to: expected model or"),
        ("{file: x, clip_prompt: {to: 9, keep: middle}}", "a.yaml:1:45: trace.clip_prompt.keep: e"),
        (
            "{merge: [{file: y, weight: 1}]}",
            "a.yaml:1:16: trace.merge: 1 of them; list 2 to 64 sources",
        ),
    ],
)
def test_traces(trace: str, line: str) -> None:
    (found,) = lines_of(f"trace: {trace}\nmodel: llama-3.1-8b\n")
    assert found.startswith(line)


X = "{file: x, weight: 1}"


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        (f"{{file: z, merge: [{X}, {X}]}}", "a.yaml:1:18: trace.merge: not together with trace.fi"),
        (f"{{merge: [{X}, {{file: y}}]}}", "a.yaml:1:39: trace.merge.1.weight: missing; it has no"),
        (f"{{merge: [{X}, {{weight: 2}}]}}", "a.yaml:1:39: trace.merge.1: missing file or source"),
        (f"{{merge: [{X}, {{file: y, weight: 0}}]}}", "a.yaml:1:57: trace.merge.1.weight: must be"),
        (f"{{merge: [{X}, {{fil: y, weight: 1, file: y}}]}}", "a.yaml:1:40: trace.merge.1.fil: no"),
        (f"{{merge: [{X}, {X}], sort: true}}", "a.yaml:1:62: trace.sort: only with trace.file; re"),
        (f"{{merge: [{X}, {X}], dither: auto}}", "a.yaml:1:70: trace.dither: not together with tr"),
        (
            f"{{merge: [{X}, {{weight: 1, merge: [{X}, {X}]}}]}}",
            "a.yaml:1:58: trace.merge.1.merge: not inside trace.merge; list all sources in one",
        ),
    ],
)
def test_merged_traces(trace: str, line: str) -> None:
    (found,) = lines_of(f"trace: {trace}\nmodel: llama-3.1-8b\n")
    assert found.startswith(line)


def test_a_slip_in_a_merged_source_gets_a_hint() -> None:
    (found,) = lines_of(
        f"trace: {{merge: [{X}, {{fil: y, weight: 1, file: y}}]}}\nmodel: llama-3-8b"
    )
    assert found.endswith("no such field; did you mean 'file'?")
    (found,) = lines_of("trace: {file: y, replica: {index: 0, oft: 4, of: 4}}\nmodel: llama-3-8b")
    assert found.endswith("no such field; did you mean 'of'?")


def test_every_change_at_once() -> None:
    text = """\
trace:
  merge:
  - {file: t/a.jsonl, weight: 0.7, dither: 3 s, requests: 100}
  - {source: azure-conv-like, requests: 500, weight: 0.3, dither: auto}
  requests: 400
  window: [10 s, 20 min]
  time_scale: 2
  rate_scale: 0.5
  thin: 0.5
  replica: {index: 1, of: 4, by: session}
  clip_prompt: {to: model, keep: first}
model: llama-3-8b
"""
    trace = load(write(text, "sub/a.yaml")).trace
    assert trace.window == (10.0, 1200.0)
    assert trace.merge is not None
    assert trace.merge[0].file == str(Path.cwd() / "sub/t/a.jsonl")
    assert [part.dither for part in trace.merge] == [3.0, "auto"]
    assert load(write("trace: {file: x, dither: false}\nmodel: llama-3-8b")).trace.dither == "off"


def test_files_to_merge_have_to_be_there() -> None:
    drawn = "{source: azure-conv-like, requests: 9, weight: 1}"
    path = write(f"trace: {{merge: [{X}, {drawn}, {X}]}}\nmodel: llama-3.2-1b\n")
    with pytest.raises(InputError) as error:
        load(path, faults=faults)
    places = [line.partition(" ")[0] for line in error.value.lines]
    assert places == ["a.yaml:1:24:", "a.yaml:1:97:"]
    assert all("no such file; check the path" in line for line in error.value.lines)


def test_nothing_about_a_merge_is_inherited_by_another_origin() -> None:
    merge = f"trace: {{merge: [{X}, {X}], requests: 7, thin: 0.5}}\nmodel: llama-3-8b\n"
    write(merge, "base.yaml")
    trace = load(write("extends: base.yaml\ntrace: {file: z, sort: true}\n")).trace
    assert (trace.merge, trace.requests, trace.thin) == (None, None, 0.5)
    write("trace: {file: z, sort: true, requests: 7}\nmodel: llama-3-8b\n", "base.yaml")
    trace = load(write(f"extends: base.yaml\ntrace: {{merge: [{X}, {X}]}}\n")).trace
    assert (trace.file, trace.sort, trace.requests) == (None, False, None)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("gpt", "a.yaml:2:8: model: no preset 'gpt'; presets: llama-3.2-1b, llama-3-8b,"),
        ("{prest: x}", "a.yaml:2:9: model.prest: no such field; did you mean 'preset'?"),
        ("{preset: lama-3-8b}", "a.yaml:2:17: model.preset: no preset 'lama-3-8b'; did you mean"),
        ("{preset: llama-3-8b, ffn: 3}", "a.yaml:2:29: model.ffn: not together with preset; rem"),
        ("{preset: llama-3-8b, max_context: x}", "a.yaml:2:42: model.max_context: expected a wh"),
        ("{preset: llama-3-8b, weights: 8}", "a.yaml:2:38: model.weights: expected one of bf16"),
        ("7", "a.yaml:2:8: model: expected a map of preset, weights, name, layers"),
    ],
)
def test_models(model: str, line: str) -> None:
    (found,) = lines_of(f"trace: {{file: x}}\nmodel: {model}\n")
    assert found.startswith(line)


def test_lengths() -> None:
    text = """\
trace:
  source: synthetic
  requests: 3
  rate: 2 /s
  prompt_tokens: {exponential: 3, uniform: [1, 3]}
  output_tokens: {uniform: [1, 2, 3]}
model: llama-3.1-8b
"""
    assert lines_of(text) == [
        "a.yaml:5:18: trace.prompt_tokens: a length has one of fixed, exponential, uniform, "
        "lognormal, pareto, mixture, table, and this has both exponential and uniform",
        "a.yaml:6:28: trace.output_tokens.uniform: expected 2 values, got 3",
    ]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("rate", "0 /s", "must be 1e-06 /s to 1e+09 /s, got 0 /s"),
        ("rate", "0.001 /h", "must be 1e-06 /s to 1e+09 /s, got 2.77778e-07 /s"),
        ("rate", "2e9 /s", "must be 1e-06 /s to 1e+09 /s, got 2e+09 /s"),
        ("rate", "1e-6 /s", "2000 requests arrive within 2e+09 s, 1e+09 s (31 years) is the most"),
        ("rate_scale", "1e-7", "must be >= 1e-06, got 1e-07"),
        ("rate_scale", "1000001", "must be <= 1000000.0, got 1000001"),
        ("burstiness", "1e-4", "must be >= 0.001, got 0.0001"),
        ("burstiness", "1e7", "must be <= 1000000.0, got 10000000.0"),
        ("prompt_tokens", "10000001", "fixed: must be <= 10000000, got 10000001"),
        ("prompt_tokens", "{exponential: 10000001}", "exponential: must be <= 10000000"),
        ("prompt_tokens", "{uniform: [1, 10000001]}", "uniform.1: must be <= 10000000"),
        ("prompt_tokens", "{lognormal: {median: 1e8, sigma: 1}}", "lognormal.median: must be <="),
        ("prompt_tokens", "{lognormal: {median: 9, sigma: 11}}", "lognormal.sigma: must be <= 10"),
        ("output_tokens", "{fixed: 1, cap: 10000001}", "cap: must be <= 10000000"),
        ("requests", "100000001", "must be <= 100000000, got 100000001"),
    ],
)
def test_what_a_generator_would_refuse(key: str, value: str, what: str) -> None:
    lines = {
        "source": "synthetic",
        "requests": "2000",
        "rate": "1e6 /s",
        "arrivals": "gamma",
        "prompt_tokens": "5",
        "output_tokens": "5",
    } | {key: value}
    text = "".join(f"  {name}: {entry}\n" for name, entry in lines.items())
    (found,) = lines_of(f"trace:\n{text}model: llama-3.1-8b\n")
    number = [*lines].index(key) + 2
    assert found.startswith(f"a.yaml:{number}:")
    assert f" trace.{key}" in found
    assert what in found


@pytest.mark.parametrize("rate", ["1e-6 /s", "1e9 /s"])
def test_what_a_scenario_takes_a_generator_takes(rate: str) -> None:
    text = f"""\
trace:
  source: synthetic
  requests: 900
  rate: {rate}
  arrivals: constant
  prompt_tokens: 10000000
  output_tokens: {{lognormal: {{median: 1e7, sigma: 10}}}}
model: llama-3.1-8b
"""
    (chunk,) = chunks(load(write(text)), Tally())
    assert len(chunk) == 900


def test_a_pipe_is_no_scenario(tmp_path: Path) -> None:
    os.mkfifo("pipe.yaml")
    Path("link.yaml").symlink_to("pipe.yaml")
    for name in ("pipe.yaml", "link.yaml"):
        with pytest.raises(InputError) as caught:
            load(Path(name))
        assert caught.value.lines == [f"{name}: not a regular file; save the scenario in one"]


@pytest.mark.parametrize("text", ["", "- 1", "a: b: c", "\0", b"\xff", "[" * 50, "#" * (2**20 + 1)])
def test_a_line_end_in_a_file_s_name_does_not_split_the_message(text: str | bytes) -> None:
    path = write(text, "a\nb.yaml")
    for make in (path.touch, path.unlink, path.mkdir):
        make()
        with pytest.raises(InputError) as caught:
            load(path)
        (line,) = caught.value.lines
        assert line.startswith("'a\\nb.yaml':")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, what in {
        "none.yaml": f"none.yaml: no such file; it is sought from {tmp_path.resolve()}",
        ".": ".: a directory; name a file in it",
        "\0": "'\\x00': not a file name (",
    }.items():
        with pytest.raises(InputError) as caught:
            load(Path(path))
        (line,) = caught.value.lines
        assert line.startswith(what)


def test_yaml_12_numbers_and_paths() -> None:
    text = (
        "trace: {file: t/x.jsonl, rate_scale: 1e-3}\nmodel: llama-3-8b\nhardware: {profile: p.json}"
    )
    scenario = load(write(text, "sub/My Study.yaml"))
    here = Path.cwd()
    assert scenario.trace.rate_scale == 1e-3
    assert scenario.trace.file == str(here / "sub/t/x.jsonl")
    assert scenario.hardware.profile == str(here / "sub/p.json")
    assert scenario.name == "my-study"
    moved = load(Path("sub/My Study.yaml"), ["trace.file=y.csv", "hardware.profile=nvidia-h200"])
    assert moved.trace.file == str(here / "y.csv")
    assert moved.hardware.profile == "nvidia-h200"


# ---------------------------------------------------------------------------- extends


def test_extends_merges_maps_and_replaces_the_rest() -> None:
    base = "name: base\nloop: {max_batch: 64, captured_batches: [1, 2]}\nseed: 5\n"
    write(LEAST + base, "base.yaml")
    child = load(
        write("extends: base.yaml\nloop: {captured_batches: [4], host: c}\n", "child.yaml")
    )
    assert child.name == "child"
    assert child.seed == 5
    assert (child.loop.max_batch, child.loop.captured_batches) == (64, (4,))
    assert child.loop.host == "c"
    assert child.model.shape.name == "llama-3.2-1b"


def test_errors_stand_in_the_file_that_they_came_from() -> None:
    write(LEAST + "loop: {mode: graf, max_batch: x}\nlop: 3\n", "base.yaml")
    assert lines_of("extends: base.yaml\nloop: {max_batch: y}\nseed: z\n") == [
        "a.yaml:2:19: loop.max_batch: expected a whole number, got 'y'",
        "a.yaml:3:7: seed: expected a whole number, got 'z'",
        "base.yaml:3:14: loop.mode: expected one of host, graph, control, resident, engine, "
        "got 'graf'; "
        "did you mean 'graph'?",
        "base.yaml:4:1: lop: no such field; did you mean 'loop'?",
    ]


def test_a_broken_parent_is_reported_with_the_child() -> None:
    write("a: [\n", "base.yaml")
    first, second = lines_of("extends: base.yaml\nseed: 017\n")
    assert first.startswith("a.yaml:2:7: seed: YAML reads '017'")
    assert second.startswith("base.yaml:2:1: YAML syntax")


def test_cycles_and_long_chains() -> None:
    write("extends: a.yaml\n", "b.yaml")
    assert lines_of("extends: b.yaml\n") == [
        "b.yaml:1:10: extends: 'a.yaml' extends this file in turn; break the cycle"
    ]
    for i in range(17):
        write(f"extends: {i + 1}.yaml\n", f"{i}.yaml")
    write(LEAST, "17.yaml")
    assert load(Path("1.yaml")).seed == 0
    with pytest.raises(InputError, match=r"^16\.yaml:1:10: extends: more than 16 parents"):
        load(Path("0.yaml"))


def test_a_parent_may_lie_beside_or_under_the_working_directory(tmp_path: Path) -> None:
    write(LEAST, "base.yaml")
    assert load(write("extends: ../base.yaml\nseed: 3\n", "sub/child.yaml")).seed == 3
    outside = tmp_path / "sub"
    outside.joinpath("link.yaml").symlink_to("/etc/hosts")
    with pytest.raises(InputError, match="leaves the scenario's folder"):
        load(write("extends: link.yaml\n", "sub/child.yaml"))


SYNTHETIC = """\
trace: {source: synthetic, requests: 5, rate: 1 /s, prompt_tokens: 3, output_tokens: {fixed: 4}}
model: {preset: llama-3-8b, weights: fp8, max_context: 4096}
"""


@pytest.mark.parametrize(
    ("base", "child", "expected"),
    [
        (LEAST, "{file: /x.csv}", {"file": "/x.csv", "source": None, "requests": None}),
        (SYNTHETIC, "{file: /x.csv, sort: true}", {"file": "/x.csv", "rate": None, "sort": True}),
        (SYNTHETIC, "{source: azure-conv-like}", {"requests": 5, "prompt_tokens": None}),
        (
            "trace: {file: x, sort: true, requests: 9, rate_scale: 2}\nmodel: llama-3-8b\n",
            "{source: azure-conv-like, requests: 3}",
            {"file": None, "sort": False, "requests": 3, "rate_scale": 2.0},
        ),
    ],
)
def test_a_child_may_switch_between_file_and_source(
    base: str, child: str, expected: dict[str, object]
) -> None:
    write(base, "base.yaml")
    trace = load(write(f"extends: base.yaml\ntrace: {child}\n")).trace
    assert {key: getattr(trace, key) for key in expected} == expected


def test_a_distribution_replaces_the_parents() -> None:
    write(SYNTHETIC, "base.yaml")
    child = "extends: base.yaml\ntrace: {output_tokens: {exponential: 9}}\n"
    length = load(write(child)).trace.output_tokens
    assert length is not None
    assert (length.exponential, length.fixed) == (9.0, None)


OWN = "name: n, layers: 1, hidden: 8, heads: 2, kv_heads: 1, head_dim: 4, ffn: 9, vocab: 10"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("llama-3.2-1b", ("llama-3.2-1b", "bf16", 131_072)),
        ("{preset: llama-3.2-1b}", ("llama-3.2-1b", "fp8", 131_072)),
        ("{weights: int4}", ("llama-3-8b", "int4", 4096)),
        (f"{{{OWN}, max_context: 7}}", ("n", "fp8", 7)),
    ],
)
def test_a_child_may_switch_the_model(model: str, expected: tuple[str, str, int]) -> None:
    write(SYNTHETIC, "base.yaml")
    found = load(write(f"extends: base.yaml\nmodel: {model}\n")).model
    assert (found.shape.name, found.weights, found.shape.max_context) == expected


# ---------------------------------------------------------------------------- --set


def test_overrides() -> None:
    path = write(LEAST + "slo: {ttft: 1 s}\n")
    scenario = load(path, ["loop.max_batch=64", "slo.tpot=20 ms", "model.weights=fp8", "seed=1"])
    assert scenario.loop.max_batch == 64
    assert (scenario.slo.ttft, scenario.slo.tpot) == (1.0, 0.02)
    assert (scenario.model.shape.name, scenario.model.weights) == ("llama-3.2-1b", "fp8")
    assert load(path, ["seed=1", "seed=2"]).seed == 2
    assert load(path, ["slo={ttft: 3 s}", "loop.captured_batches=[1, 2]"]).slo.ttft == 3.0
    assert load(path, ["slo.ttft="]).slo.ttft is None


def test_errors_of_overrides() -> None:
    overrides = [
        "loop.max_bach=64",
        "loop",
        "slo.ttft=[1",
        "sweep.seed=1",
        "kv=5",
        "slo.tpot=3",
        "seed=017",
    ]
    assert lines_of(LEAST, *overrides) == [
        f"--set kv=5: kv: expected a map of {KV_KEYS}, got 5",
        "--set loop: write PATH=VALUE, e.g. --set loop.max_batch=64",
        "--set loop.max_bach=64: loop.max_bach: no such field; did you mean 'max_batch'?",
        "--set seed=017: seed: YAML reads '017' as another number; write a plain decimal",
        "--set slo.tpot=3: slo.tpot: 3 has no unit; write e.g. '100 ms'",
        "--set slo.ttft=[1: YAML syntax: expected ',' or ']', but got '<stream end>' "
        "while parsing a flow sequence",
        "--set sweep.seed=1: sweep.seed: cannot be set here; write it in the file",
    ]


# ---------------------------------------------------------------------------- sweep


def test_a_sweep_is_the_product_in_file_order() -> None:
    text = LEAST + "sweep:\n  loop.mode: [host, resident]\n  trace.rate_scale: [1, 2.5]\n"
    points = load_study(write(text)).points
    assert [tuple(point.axes.values()) for point in points] == [
        ("host", 1),
        ("host", 2.5),
        ("resident", 1),
        ("resident", 2.5),
    ]
    assert [p.scenario.loop.mode for p in points] == ["host", "host", "resident", "resident"]
    assert [p.scenario.trace.rate_scale for p in points] == [1.0, 2.5, 1.0, 2.5]
    assert list(points[0].axes) == ["loop.mode", "trace.rate_scale"]
    assert len({point.scenario.hash for point in points}) == 4
    assert {point.scenario.name for point in points} == {"a"}


def test_no_sweep_is_one_point() -> None:
    (point,) = load_study(write(LEAST), ["seed=3"]).points
    assert point.axes == {}
    assert point.scenario == load(Path("a.yaml"), ["seed=3"])


def test_axes_of_maps_and_models() -> None:
    text = LEAST + "sweep: {trace: [{file: x.csv}, {rate_scale: 2}], model.weights: [bf16, fp8]}\n"
    points = load_study(write(text, "sub/a.yaml")).points
    assert [p.scenario.trace.source for p in points] == [None, None] + ["azure-conv-like"] * 2
    assert points[0].scenario.trace.file == str(Path.cwd() / "sub/x.csv")
    assert [p.scenario.model.weights for p in points] == ["bf16", "fp8"] * 2


def test_errors_of_axes_stand_at_the_axis_once() -> None:
    text = """\
sweep:
  loop.mode: [host, resdent]
  loop.max_bach: [1, 2]
  slo: [{ttft: 3}]
  seed: [1, 2, 1]
  kv.dtype: bf16
  name: [a, b]
  stop: []
  loop.mode.x: [1]
  a-b: [1]
"""
    assert lines_of(LEAST + text, reader=load_study) == [
        "a.yaml:4:21: loop.mode: expected one of host, graph, control, resident, engine, "
        "got 'resdent'; "
        "did you mean 'resident'?",
        "a.yaml:5:3: loop.max_bach: no such field; did you mean 'max_batch'?",
        "a.yaml:6:16: slo.ttft: 3 has no unit; write e.g. '100 ms'",
        "a.yaml:7:3: sweep.seed: the same value twice; remove one",
        "a.yaml:8:3: sweep.kv.dtype: expected a list of values, got 'bf16'",
        "a.yaml:9:3: sweep.name: cannot be swept",
        "a.yaml:10:3: sweep.stop: an empty list; give at least one value",
        "a.yaml:11:3: sweep.loop.mode.x: loop.mode is set or swept as well; remove one of them",
        "a.yaml:12:3: sweep.a-b: an axis is a dotted path, e.g. loop.max_batch",
    ]


@pytest.mark.parametrize(
    ("sweep", "overrides", "line"),
    [
        ("5", (), "a.yaml:3:8: sweep: expected a map of dotted paths to lists"),
        ("{seed: [1]}", ["seed=2"], "a.yaml:3:9: sweep.seed: seed is set or swept as well"),
        ("{loop: {mode: [host]}}", (), "a.yaml:3:9: sweep.loop: expected a list of values, got"),
        (
            "{hardware.hbm.capacity: [1 TiB, 1024 GiB]}",
            (),
            "a.yaml:3:8: sweep: {'hardware.hbm.capacity': '1024 GiB'} and "
            "{'hardware.hbm.capacity': '1 TiB'} are the same scenario; remove one",
        ),
        (
            f"{{seed: {list(range(200))}, loop.max_batch: {list(range(1, 102))}}}",
            (),
            "a.yaml:3:8: sweep: more than 10000 points; shorten an axis",
        ),
        ("{loop.max_batch: [8, 4096]}", (), "a.yaml:3:29: loop.max_batch: token_budget (2048)"),
    ],
)
def test_errors_of_sweeps(sweep: str, overrides: Sequence[str], line: str) -> None:
    (found,) = lines_of(f"{LEAST}sweep: {sweep}\n", *overrides, reader=load_study)
    assert found.startswith(line)


# ---------------------------------------------------------------------------- all of it


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_scenarios(path: Path) -> None:
    points = load_study(path).points
    assert points
    assert path.read_text().startswith("# ")  # the question it answers
    for point in points:
        assert point.scenario.name == path.stem
        assert point.scenario.warnings() == []


KEYS = ["trace", "source", "file", "model", "loop", "mode", "kv", "slo", "ttft", "sweep", "extends"]
WORDS = ["no", "017", "1:30", "5 GB", "synthetic", "llama-3-8b", "a.yaml", "*x", "&x 1", "<<", "~"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TREES = st.recursive(
    SCALARS | st.sampled_from(WORDS),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), below, max_size=4)
    ),
    max_leaves=12,
)
SETTINGS = settings(
    max_examples=90,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def only_input_errors(text: str | bytes, *overrides: str) -> None:
    """Reads *text* in both ways; anything but `InputError` goes through."""
    path = write(text)
    for reader in (load, load_study):
        try:
            reader(path, overrides)
            lines = []
        except InputError as error:
            lines = error.lines or ["nothing is said\n"]
        assert all(line.isprintable() for line in lines)


@SETTINGS
@given(st.text() | st.binary())
def test_random_text(text: str | bytes) -> None:
    only_input_errors(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


@SETTINGS
@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5), st.booleans())
def test_random_trees(tree: dict[str, object], complete: bool) -> None:
    only_input_errors((LEAST if complete else "") + yaml.safe_dump(tree, allow_unicode=True))


@SETTINGS
@given(st.lists(st.sampled_from([*KEYS, *WORDS, ": ", "\n", "  ", "- ", "{", "}", "[", "]", ","])))
def test_random_tokens(tokens: list[str]) -> None:
    only_input_errors("".join(tokens))


@SETTINGS
@given(st.sampled_from(KEYS), st.text(max_size=12) | st.sampled_from(WORDS))
def test_random_overrides(key: str, text: str) -> None:
    only_input_errors(LEAST, f"{key}={text}", text)
