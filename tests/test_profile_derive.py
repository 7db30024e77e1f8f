"""Profiles scaled by data sheets: what changes, by how much, and that all of it is estimated."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import InputError
from sim.load import load
from sim.profile import load_profile, shipped
from sim.profile_files import profile_document
from sim.sheets import sheet_text, shipped_sheet, shipped_sheets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BASE = load_profile("nvidia-h200")
DERIVED = [name for name in shipped_sheets() if name != "nvidia-h200"]
H200: dict[str, Any] = json.loads(sheet_text("nvidia-h200"))


@pytest.fixture
def sheet(tmp_path: Path) -> Callable[..., Path]:
    """A data sheet like the H200's but for *changes*, derived from it."""

    def made(**changes: Any) -> Path:
        path = tmp_path / "mine.json"
        own = {"name": "mine", "derived_from": "nvidia-h200"}
        path.write_text(json.dumps(H200 | own | changes))
        return path

    return made


def parameters(profile: Any, kernel: str) -> dict[str, float]:
    return dict(profile.kernels[kernel].parameters)


def test_the_same_sheet_changes_no_number(sheet: Callable[..., Path]) -> None:
    same = load_profile(sheet())
    for name, kernel in BASE.kernels.items():
        assert parameters(same, name) == dict(kernel.parameters)
    for name, constant in BASE.constants.items():
        assert same.constant(name) == constant.value
    assert {n: dict(x.parameters) for n, x in same.loops.items()} == {
        n: dict(x.parameters) for n, x in BASE.loops.items()
    }


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("hbm_bytes_per_s", {"bytes_per_s", "gemv_bytes_per_s", "hbm_read_bytes_per_s",
                             "hbm_copy_bytes_per_s"}),
        ("bf16_flops_per_s", {"flops_per_s", "cached_flops_per_s"}),
        ("fp8_flops_per_s", {"flops_per_s"}),
        ("l2_bytes", {"l2_bytes"}),
        ("shared_bytes_per_sm", {"ring_bytes", "prefetch_ring_bytes"}),
        ("sms", {"gemv_flops_per_s", "l2_bytes_per_s", "consume_bytes_per_s", "slots", "score_s",
                 "cached_score_s", "cta_s", "ring_bytes", "prefetch_ring_bytes",
                 "l2_read_bytes_per_s"}),
    ],
)  # fmt: skip
def test_each_field_scales_what_it_names(
    sheet: Callable[..., Path], key: str, changed: set[str]
) -> None:
    half = load_profile(sheet(**{key: H200[key] / 2}))
    found = set()
    for section in ("kernels", "in_step", "loops"):
        before, after = getattr(BASE, section), getattr(half, section)
        for name, entry in before.items():
            for parameter, value in entry.parameters.items():
                new = after[name].parameters[parameter]
                if new != value:
                    found.add(parameter)
                    assert new / value == pytest.approx(2.0 if parameter.endswith("e_s") or
                                                        parameter == "cta_s" else 0.5)  # fmt: skip
    found |= {n for n, entry in BASE.constants.items() if half.constant(n) != entry.value}
    assert found == changed


def test_tensor_rates_go_by_format(sheet: Callable[..., Path]) -> None:
    half = load_profile(sheet(fp8_flops_per_s=H200["fp8_flops_per_s"] / 2))
    for name, factor in (("gemm.fp8", 0.5), ("gemm.bf16", 1.0), ("gemm.int4", 1.0)):
        ratio = parameters(half, name)["flops_per_s"] / parameters(BASE, name)["flops_per_s"]
        assert ratio == pytest.approx(factor)


def test_pcie_and_capacity(sheet: Callable[..., Path]) -> None:
    half = load_profile(sheet(pcie_bytes_per_s=32e9, hbm_bytes=48e9))
    for name, entry in BASE.constants.items():
        copies = name.startswith(("h2d", "d2h")) and name.endswith("_bytes_per_s")
        assert half.constant(name) == pytest.approx(entry.value * (0.5 if copies else 1.0))
    assert half.device["hbm_bytes"] == 48e9


@pytest.mark.parametrize("name", DERIVED)
def test_shipped_profiles_are_estimated_all_over(name: str) -> None:
    profile = load_profile(name)
    assert name in shipped()
    assert profile.status == "estimated"
    kinds = {entry.kind for entry in profile.constants.values()}
    for section in (profile.kernels, profile.in_step, profile.loops):
        kinds |= {entry.kind for entry in section.values()}
    assert kinds == {"estimated"}
    assert not profile.checks
    assert len(sheet_text(name)) < 2000
    document = profile_document(name)
    assert "measured" not in {entry["kind"] for entry in document["constants"].values()}
    assert "data sheet" in profile.sources["data-sheet"]


def test_ratios_of_the_h100() -> None:
    profile = load_profile("nvidia-h100")
    ratio = profile.constant("hbm_read_bytes_per_s") / BASE.constant("hbm_read_bytes_per_s")
    assert ratio == pytest.approx(3.35 / 4.8)
    assert parameters(profile, "gemm.bf16")["flops_per_s"] == pytest.approx(
        parameters(BASE, "gemm.bf16")["flops_per_s"]
    )
    assert profile.constant("graph_launch_s") == BASE.constant("graph_launch_s")


def test_no_fp8_products_without_tensor_cores_for_them(tmp_path: Path) -> None:
    from sim.feasible import faults

    assert "gemm.fp8" not in load_profile("nvidia-a100").kernels
    assert "gemm.fp8" in load_profile("nvidia-l40s").kernels
    (tmp_path / "s.yaml").write_text(
        "trace: {source: synthetic, requests: 5, rate: 2 /s, prompt_tokens: 8, output_tokens: 2}\n"
        "model: {preset: llama-3.2-1b, weights: fp8}\nhardware: {profile: nvidia-a100}\n"
    )
    with pytest.raises(InputError, match="profile nvidia-a100 has no kernel for fp8"):
        load(tmp_path / "s.yaml", (), faults)


def test_the_hash_covers_both_sheet_and_base(sheet: Callable[..., Path]) -> None:
    first = load_profile(sheet()).hash
    assert load_profile(sheet(hbm_bytes=1e11)).hash != first
    assert load_profile(sheet()).hash == first


def test_loading_is_fast() -> None:
    profile_document("nvidia-l40s")
    begin = time.process_time()
    profile_document("nvidia-l40s")
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hbm_bytes": None}, "hbm_bytes: None is no finite number"),
        ({"hbm_bytes": float("nan")}, "hbm_bytes: nan is no finite number"),
        ({"sms": -1}, "sms: -1 is not in 1 to 1e"),
        ({"sms": True}, "sms: True is no finite number"),
        ({"bf16_flops_per_s": 1e300}, "is not in 1 to 1e"),
        ({"gpu": 3}, "gpu: missing or not a text"),
        ({"more": 3}, "'more': no field of a data sheet"),
        ({"schema": 2}, "schema: 2; this version reads 1"),
        ({"derived_from": "nvidia-l40s"}, "no measured profile 'nvidia-l40s'"),
        ({"derived_from": 3}, "derived_from: 3 is no profile's name"),
        ({"name": "nvidia-h200"}, "is the measured profile's; choose another"),
    ],
)
def test_bad_sheets_give_one_line(
    sheet: Callable[..., Path], changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        load_profile(sheet(**changes))
    assert len(caught.value.lines) == 1


def test_the_command_writes_a_profile_that_stands_alone(
    sheet: Callable[..., Path], tmp_path: Path
) -> None:
    def derive(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["profile", "derive", *arguments])

    out = tmp_path / "out.json"
    done = derive("--from", "nvidia-h200", "--spec", "nvidia-l40s", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "estimated from nvidia-h200" in done.output
    assert load_profile(out).hash == load_profile("nvidia-l40s").hash
    for arguments, what in (
        (["--spec", "nvidia-l40s", "--out", str(out)], "exists already"),
        (["--spec", "nvidia-l40s", "--out", "x.txt"], "ends in .json"),
        (["--spec", "nvidia-h200", "--out", "x.json"], "choose another"),
        (["--spec", "none", "--out", "x.json"], "No such file"),
        (["--from", "nvidia-l40s", "--spec", "nvidia-h100", "--out", "x.json"], "is estimated"),
    ):
        failed = derive(*arguments)
        assert isinstance(failed.exception, InputError)
        assert what in str(failed.exception)
    own = tmp_path / "own.json"
    assert derive("--spec", str(sheet(sms=100)), "--out", str(own)).exit_code == 0
    assert load_profile(own).device["sms"] == 100


def test_unknown_sheets_are_named() -> None:
    with pytest.raises(InputError, match="no data sheet of that name; shipped are nvidia-a100"):
        shipped_sheet("none")


def test_more_memory_than_the_gpu_has_is_said(tmp_path: Path) -> None:
    from sim.feasible import warnings

    text = "trace: {source: synthetic, requests: 5, rate: 2 /s, prompt_tokens: 8, output_tokens: 2}"
    (tmp_path / "s.yaml").write_text(text + "\nmodel: llama-3.2-1b\n")
    sets = ["hardware.hbm.capacity=100 GB"]
    assert warnings(load(tmp_path / "s.yaml", sets)) == []
    (said,) = warnings(load(tmp_path / "s.yaml", [*sets, "hardware.profile=nvidia-h100"]))
    assert said.startswith("hardware.hbm.capacity: 100 GB is more than the 80 GB of nvidia-h100")
    assert warnings(load(tmp_path / "s.yaml", ["hardware.profile=nvidia-h100"])) == []
