"""The profile and its loader: what the shipped file says, and what a broken file is answered."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli_profile import app
from sim.errors import InputError
from sim.profile import Profile, load_profile, shipped

SHIPPED = Path(__file__).parent.parent / "sim" / "profiles" / "nvidia-h200.json"
DOCUMENT = json.loads(SHIPPED.read_text())


@pytest.fixture
def profile() -> Profile:
    return load_profile("nvidia-h200")


@pytest.fixture
def broken(tmp_path):
    """Loads the shipped document after *change* and gives the lines of the error."""

    def lines(change):
        document = copy.deepcopy(DOCUMENT)
        change(document)
        path = tmp_path / "p.json"
        path.write_text(json.dumps(document))
        with pytest.raises(InputError) as caught:
            load_profile(path)
        return [line.removeprefix(f"{path}: ") for line in caught.value.lines]

    return lines


def test_shipped_profile(profile):
    assert shipped() == ["nvidia-a100", "nvidia-h100", "nvidia-h200", "nvidia-l40s"]
    assert profile.status == "measured"
    assert profile.device["sms"] == 132
    assert len(profile.hash) == 12
    assert 0.4e-6 < profile.constant("graph_node_s") < 1.2e-6
    assert 4e-6 < profile.constant("graph_launch_s") < 8e-6
    assert 0.8e-6 < profile.constant("grid_barrier_s") < 1.2e-6
    assert profile.constant("hbm_read_bytes_per_s") == pytest.approx(4.6e12, rel=0.03)
    assert profile.constant("prefetch_ring_bytes") == 200 * 1024 * 132
    assert all(kernel.includes_node_gap for kernel in profile.kernels.values())


def test_launch_latency_is_a_part_of_the_synchronisation(profile):
    assert profile.constant("launch_latency_s") < profile.constant("host_sync_s")


def test_each_value_carries_its_kind_and_a_known_source(profile):
    for entry in (*profile.constants.values(), *profile.kernels.values()):
        assert entry.source in profile.sources
        assert entry.note
    assert profile.kind("grid_barrier_s") == "measured"
    assert profile.kind("gemm.bf16") == "fitted"
    assert profile.kind("gemm.int8") == "estimated"
    names = profile.estimated()
    assert {"launch_latency_s", "host_c_schedule_s", "gemm.int4.flops_per_s"} <= set(names)
    assert not {"grid_barrier_s", "gemm.bf16", "decode_attention.int8"} & set(names)


def test_kernels_by_dtype(profile):
    for weights in ("bf16", "fp8", "int8", "int4"):
        assert profile.gemm(weights).seconds(1e9, 1e9) > 1e9 / 4.8e12
    assert profile.decode_attention("bf16").kv_bytes == 2.0
    assert profile.decode_attention("int8").kv_bytes == 1.0 + 4.0 / 128.0
    assert profile.decode_attention("int4").kv_bytes == 0.6875
    assert profile.prefill_attention().seconds(32, 128, 2048, 0) > 0.0
    assert 1e-6 < profile.elementwise().seconds(0.0) < 4e-6
    assert profile.elementwise("add").seconds(0.0) < profile.elementwise("sample").seconds(0.0)
    assert profile.elementwise("embed") is profile.elementwise()


def other(tmp_path, change):
    """The shipped profile after *change* of its document."""
    document = copy.deepcopy(DOCUMENT)
    change(document)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    return load_profile(path)


@pytest.mark.parametrize(("has", "lacks"), [("fp8", "int8"), ("int8", "fp8")])
def test_an_8_bit_cache_borrows_the_other_and_is_marked(tmp_path, has, lacks):
    def change(document):
        kernels = document["kernels"]
        entry = kernels.pop("decode_attention.fp8", None) or kernels["decode_attention.int8"]
        kernels.pop("decode_attention.int8", None)
        kernels[f"decode_attention.{has}"] = entry

    profile = other(tmp_path, change)
    assert profile.decode_attention(lacks) is profile.decode_attention(has)
    assert profile.kind(f"decode_attention.{has}") == "fitted"
    assert profile.kind(f"decode_attention.{lacks}") == "estimated"


def test_what_is_not_in_the_profile_is_named(tmp_path):
    profile = other(tmp_path, lambda document: document["kernels"].pop("gemm.int4"))
    with pytest.raises(InputError, match=r"kernels\.gemm\.int4: not in this profile; it has"):
        profile.gemm("int4")
    with pytest.raises(InputError, match=r"constants\.nonsense: missing"):
        profile.constant("nonsense")


NEW = {
    "page_score": ("stream_rows", {"t0_s": 1e-6, "bytes_per_s": 4e12, "ramp_s": 0, "row_s": 0}),
    "topk_select.flat": ("waves", {"t0_s": 1e-6, "row_s": 1e-6, "entry_s": 1e-9, "slots": 132}),
}


def test_kernels_of_the_new_forms_are_loaded(tmp_path):
    def change(document):
        said = {key: document["kernels"]["gemm.bf16"][key] for key in ("kind", "source", "note")}
        for name, (form, parameters) in NEW.items():
            document["kernels"][name] = {
                "form": form, "parameters": parameters, "domain": {}, "residuals": {},
                "includes_node_gap": True, **said,
            }  # fmt: skip

    profile = other(tmp_path, change)
    assert profile.kernel("page_score").form.seconds(4e6, 10) == pytest.approx(2e-6)
    assert profile.kernel("topk_select.flat").form.seconds(132, 1000) == pytest.approx(3e-6)


@pytest.mark.parametrize(
    ("name", "key", "value", "what"),
    [
        ("topk_select.flat", "slots", 0, "it must be > 0"),
        ("topk_select.flat", "slots", 1e-200, "is not in 1 to inf"),
        ("page_score", "row_s", 1e300, "is not in 0 to 1e"),
        ("page_score", "form", "waves", "use stream_rows"),
    ],
)
def test_new_forms_are_checked_as_hard(broken, name, key, value, what):
    def change(document):
        form, parameters = NEW[name]
        entry = {"form": form, "parameters": dict(parameters)}
        entry["parameters" if key != "form" else "form"] = (
            {**parameters, key: value} if key != "form" else value
        )
        document["kernels"][name] = {**document["kernels"]["gemm.bf16"], **entry}

    assert what in "\n".join(broken(change))


def test_domain(profile):
    kernel = profile.kernel("gemm.bf16")
    assert kernel.outside(m=1, n=4096, k=4096) == []
    assert kernel.outside(m=9000) == ["gemm.bf16: m 9000 outside 1 to 8192"]


def test_hash_is_of_the_content_not_of_the_layout(profile, tmp_path):
    path = tmp_path / "same.json"
    path.write_text(json.dumps(dict(reversed(DOCUMENT.items()))))
    assert load_profile(path).hash == profile.hash
    path.write_text(json.dumps({**DOCUMENT, "date": "other"}))
    assert load_profile(str(path)).hash != profile.hash


def test_a_pipe_is_no_profile(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match=r"': not a regular file; give a profile's path"):
        load_profile(tmp_path / "pipe.json")


def test_no_such_profile(tmp_path):
    for name in ("nvidia-h300", str(tmp_path), tmp_path / "none.json", "nul\0"):
        with pytest.raises(InputError, match="one of: nvidia-a100, nvidia-h100, nvidia-h200"):
            load_profile(name)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 10_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "schema: None; this version reads 1"),
        (b'{"schema": true}', "schema: True; this version reads 1"),
        (b'{"a": ["\\ud800"]}', "cannot be printed; remove them"),
        (b'{"\\u001b[2J": 1}', "cannot be printed; remove them"),
        (b'{"schema": 2}', "schema: 2; this version reads 1"),
        (b" " * (4 << 20) + b"{}", "larger than"),
    ],
)
def test_no_profile_in_the_file(tmp_path, text, what):
    path = tmp_path / "p.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=what):
        load_profile(path)


def test_missing_parts_are_all_named(broken):
    def change(document):
        del document["constants"]["graph_node_s"]
        del document["kernels"]["gemm.bf16"]
        del document["checks"]
        document["commit"] = 7

    found = [line.split(": ")[0] for line in broken(change)]
    assert found == ["commit", "constants.graph_node_s", "kernels.gemm.bf16", "checks"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "1 us", None, True, 10**400])
def test_bad_numbers(broken, value):
    def change(document):
        document["constants"]["graph_node_s"]["value"] = value
        document["kernels"]["gemm.bf16"]["parameters"]["t0_s"] = value

    lines = broken(change)
    assert [line.split(": ")[0] for line in lines] == [
        "constants.graph_node_s.value",
        "kernels.gemm.bf16.parameters.t0_s",
    ]


def test_a_rate_of_zero_would_divide(broken):
    def change(document):
        document["kernels"]["elementwise"]["parameters"]["bytes_per_s"] = 0
        document["constants"]["h2d_bytes_per_s"]["value"] = 0.0

    assert [line.split(": ")[1] for line in broken(change)] == [
        "0.0 is too small; it must be > 0",
        "0 is too small; it must be > 0",
    ]


def test_unknown_form_kind_parameter_and_domain(broken):
    def change(document):
        kernels = document["kernels"]
        kernels["gemm.bf16"]["form"] = "split_kv"
        kernels["elementwise"]["kind"] = "guessed"
        kernels["decode_attention.bf16"]["parameters"]["more"] = 1.0
        kernels["prefill_attention.bf16"]["domain"]["context"] = [2, 1]
        kernels["gemm.fp8"]["fixed"] = {"q": {"kind": "measured"}}

    lines = "\n".join(broken(change))
    assert "gemm.bf16.form: 'split_kv' is unknown here; use roofline or roofline_gemv" in lines
    assert "elementwise.kind: 'guessed'; use measured, fitted, estimated" in lines
    assert "'more': no parameter of split_kv; remove it" in lines
    assert "domain.'context': [2, 1]; write [low, high]" in lines
    assert "gemm.fp8.fixed.'q'.note: missing or not a text" in lines


def leaves(node, path=()):
    """Paths of all nodes of a document."""
    yield path
    children = {dict: lambda: node.items(), list: lambda: enumerate(node)}.get(type(node), tuple)
    for key, child in children():
        yield from leaves(child, (*path, key))


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (("kernels", "gemm.bf16", "parameters", "q"), 1e-200, "is not in 1 to 12"),
        (("kernels", "gemm.bf16", "parameters", "bytes_per_s"), 1e-244, "is not in 1 to inf"),
        (("kernels", "gemm.int4", "parameters", "gemv_flops_per_s"), 1e-9, "is not in 1 to inf"),
        (("constants", "grid_barrier_s", "value"), 1e300, "is not in 0 to 1e.06"),
    ],
)
def test_numbers_whose_powers_overflow_are_refused(tmp_path, place, value, what):
    document = copy.deepcopy(DOCUMENT)
    node = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=what):
        load_profile(tmp_path / "p.json")


@settings(deadline=None, max_examples=20)
@given(
    path=st.sampled_from([p for p in leaves(DOCUMENT) if p]),
    value=st.one_of(
        st.none(), st.booleans(), st.floats(), st.text(max_size=3), st.just([]), st.just({}),
        st.just([1]), st.just({"a": 1}),
    ),
)  # fmt: skip
def test_any_broken_node_is_an_input_error_or_a_profile(tmp_path_factory, path, value):
    document = copy.deepcopy(DOCUMENT)
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_text(json.dumps(document))
    try:
        loaded = load_profile(file)
    except InputError:
        return
    loaded.estimated()
    loaded.gemm("bf16").seconds(1e6, 1e6)
    assert CliRunner().invoke(app, ["show", str(file)]).exit_code == 0


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from sim.profile import load_profile; load_profile('nvidia-h200');"
        "print({'pandas', 'pydantic', 'scipy', 'simpy', 'kernels'} & set(sys.modules))"
    )
    root = SHIPPED.parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "set()"


def test_show_says_its_status_and_lists_everything(profile):
    result = CliRunner().invoke(app, ["show"])
    assert result.exit_code == 0
    assert "MEASURED" in result.output
    for name in (*profile.constants, *profile.kernels, *profile.sources):
        assert name in result.output
    assert "placeholder until an engine is measured" in result.output


# ---------------------------------------------------------------- loops
LOOP = {
    "parameters": {"around_s": 1e-5, "node_s": 1e-6}, "kind": "fitted", "source": "run",
    "domain": {"batch": [1, 64]}, "residuals": {}, "note": "",
}  # fmt: skip


def with_loops(**loops):
    def change(document):
        document["loops"] = {name.replace("__", "/"): entry for name, entry in loops.items()}

    return change


def test_loops_are_loaded_and_a_profile_may_have_none(tmp_path):
    profile = other(tmp_path, with_loops(graph__library=LOOP))
    assert profile.loops["graph/library"].parameters["around_s"] == 1e-5
    assert profile.loops["graph/library"].domain["batch"] == (1.0, 64.0)
    assert other(tmp_path, lambda document: document.pop("loops", None)).loops == {}


@pytest.mark.parametrize(
    ("name", "entry", "what"),
    [
        ("warp__library", LOOP, "loops.warp/library: no loop; write one of host-python, host-c"),
        ("graph", LOOP, "loops.graph: no loop"),
        ("graph__library", 1, "loops.graph/library: missing or not an object"),
        ("graph__library", {**LOOP, "kind": "guess"}, "loops.graph/library.kind: 'guess'"),
        ("host-c__library", LOOP, "loops.host-c/library.parameters.submit_s: None is no finite"),
        ("resident__fused", LOOP, "loops.resident/fused.parameters.node_s: no parameter"),
        (
            "graph__library",
            {**LOOP, "leaving": {"exit_s": 1.0}},
            "loops.graph/library.leaving.relaunch_s: None is no finite number",
        ),
        (
            "graph__library",
            {**LOOP, "parameters": {"around_s": -1.0, "node_s": 1e300}},
            "loops.graph/library.parameters.around_s: -1.0 is too small",
        ),
    ],
)
def test_a_broken_loop_is_one_line(broken, name, entry, what):
    assert any(
        what in line.replace("'node_s'", "node_s") for line in broken(with_loops(**{name: entry}))
    )
