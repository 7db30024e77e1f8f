"""Products of single matrices: nearer than the form over all of them, on held-out points too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernels.fit.matrices import matrices, products
from kernels.fit.samples import Samples, read

ROOT = Path(__file__).parent.parent
KERNELS = json.loads((ROOT / "sim" / "profiles" / "nvidia-h200.json").read_text())["kernels"]


@pytest.fixture(scope="module")
def made():
    return products(read(ROOT / "calibration" / "h200-run1.jsonl.gz"), KERNELS)


def test_every_matrix_of_the_decoder_has_its_16_bit_product(made):
    assert len(matrices()) == 10
    for n, k in matrices():
        entry = made[f"gemm.bf16.{n}x{k}"]
        assert entry["source"] == "run"
        assert entry["residuals"]["training"]["median"] < 0.04
        assert entry["domain"]["m"][1] <= 128


def test_held_out_points_are_nearer_than_the_form_over_all_matrices(made):
    held = [entry["residuals"]["holdout"] for entry in made.values()]
    count = sum(figures["n"] for figures in held)
    assert count >= 10
    mean = sum(figures["n"] * figures["median"] for figures in held if figures["n"]) / count
    assert mean < KERNELS["gemm.bf16"]["residuals"]["holdout"]["median"]


def test_without_points_there_are_none():
    assert products(Samples(), KERNELS) == {}
