"""Properties of the decode step on the CPU: its checks, its state, its ways to be driven."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from kernels.backend import Cpu
from kernels.checking import CheckError, close
from kernels.decoder import library
from kernels.decoder.bench import (
    FEWEST,
    SAMPLES,
    SKIPPED,
    SPAN_S,
    WARM,
    Point,
    _timed,
    chosen,
    on_file,
    order,
)
from kernels.decoder.bench_points import BUDGET_TOKENS, grid
from kernels.decoder.check import cases, check, weights_of
from kernels.decoder.check_stages import check_stages
from kernels.decoder.library import STAGES, LibraryStep
from kernels.decoder.modes import HostPython, make_mode
from kernels.decoder.reference import TIE, Reference, check_tokens, snapshot
from kernels.decoder.shape import LLAMA_1B, LLAMA_8B, TINY, floor_seconds
from kernels.decoder.state import DecoderState, Pool
from kernels.decoder.weights import Weights, quantise, random_bf16
from kernels.element import decode
from kernels.w4a16_gemv.pack import unpack

if TYPE_CHECKING:
    from pathlib import Path

CPU = Cpu(2)
CASES = list(cases(small=True))


def step_of(
    lengths: list[int], tokens: int = 1, remaining: int = 99, **options: Any
) -> LibraryStep:
    """A TINY step over a fresh state."""
    weights = weights_of(CPU, "tiny")
    state = DecoderState(CPU, TINY, len(lengths), tokens, text_size=256)
    state.fill(lengths, [remaining] * len(lengths), np.random.default_rng(2))
    return LibraryStep(CPU, weights, state, **options)


LONG = (
    "stages-tiny-3-3-16-16-4-16", "steps-tiny-3-1-16-16-0-16-8", "steps-tiny-3-2-8-16-3-16-4",
    "drafts-tiny-2-4-16-16-0-16-8-true",
)  # fmt: skip


def named(case: dict[str, Any]) -> str:
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=named(c), marks=[pytest.mark.slow] * (named(c) in LONG)) for c in CASES],
)
def test_cases(case: dict[str, Any]) -> None:
    check(CPU, case, np.random.default_rng(1))


# ------------------------------------------------------------------------------- sizes, weights
def test_bytes_of_the_models() -> None:
    assert LLAMA_1B.bytes_streamed() == pytest.approx(2.4716e9, rel=1e-4)
    assert LLAMA_8B.bytes_streamed() == pytest.approx(15.01e9, rel=1e-4)
    assert LLAMA_1B.bytes_streamed(4) == pytest.approx(2.4716e9 * 2128 / 2048 / 4, rel=1e-3)
    assert LLAMA_1B.kv_bytes(1024) == 1024 * 16 * 2 * 8 * 64 * 2
    assert LLAMA_1B.kv_bytes(1024, 8) < LLAMA_1B.kv_bytes(1024)
    assert floor_seconds(LLAMA_1B.bytes_streamed()) == pytest.approx(536e-6, rel=1e-3)


def test_weights_are_normal_and_the_same_for_a_seed() -> None:
    one, two = Weights(CPU, TINY, 3), Weights(CPU, TINY, 3)
    other = Weights(CPU, TINY, 4)
    np.testing.assert_array_equal(one.layers[1].down, two.layers[1].down)
    assert (one.head != other.head).mean() > 0.9
    assert (one.head != one.embedding).mean() > 0.9
    values = decode(one.head, "bf16")
    assert abs(values.mean()) < 1e-4
    assert values.std() == pytest.approx(0.02, rel=0.01)
    assert (values**4).mean() / values.std() ** 4 == pytest.approx(3, abs=0.05)
    gains = decode(one.final_norm, "bf16")
    assert gains.mean() == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="multiple of 8"):
        random_bf16(CPU, (3,), 1, 0, 1)


@pytest.mark.parametrize("rows", [16, 1 << 14])
def test_quantised_weights_are_near(rows: int) -> None:
    matrix = random_bf16(CPU, (48, 512), 9, 0.0, 0.02)
    back = unpack(np, quantise(CPU, matrix, rows), 4)[:48, :512]
    values = decode(matrix, "bf16")
    close(back, values, 0.12)
    assert np.abs(back - values).max() < 0.02


# ------------------------------------------------------------------------------- state
def test_state_goes_back() -> None:
    step = step_of([20, -1, 31], remaining=4)
    state = step.state
    saved, before = state.save(pages=True), snapshot(state)
    texts = []
    for _ in range(2):
        for _ in range(5):
            step.launch()
        texts.append(state.text.copy())
        assert state.slots.lengths.tolist() == [-1, -1, -1]
        np.testing.assert_array_equal(state.slots.all_pages(), np.arange(state.slots.pages))
        state.load(saved)
    np.testing.assert_array_equal(*texts)
    for name, value in snapshot(state).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_pages_hold_normal_keys_and_their_bounds() -> None:
    for bits in (16, 8):
        state = DecoderState(CPU, TINY, 1, text_size=256, kv_bits=bits)
        state.fill([200], [9], np.random.default_rng(1))
        pages = state.slots.table[0, :12].astype(np.int64)
        keys, values = Reference(weights_of(CPU, "tiny")).committed(state, 1, pages, 192)
        assert keys.std() == pytest.approx(1, abs=0.05)
        assert values.std() == pytest.approx(1, abs=0.05)
        paged = keys.reshape(TINY.kv_heads, 12, 16, TINY.head_dim).transpose(1, 0, 2, 3)
        bounds = decode(state.minmax[1][pages], "bf16")
        close(bounds[:, :, 0], paged.min(axis=2), 4e-3)
        close(bounds[:, :, 1], paged.max(axis=2), 4e-3)


def test_state_is_checked() -> None:
    with pytest.raises(ValueError, match="multiple of four pages"):
        DecoderState(CPU, TINY, 1, text_size=100)
    pool = Pool(CPU, TINY, 4, 32)
    with pytest.raises(ValueError, match="pool of 32-token pages"):
        DecoderState(CPU, TINY, 1, text_size=256, pool=pool)
    state = DecoderState(CPU, TINY, 2, pages=4, text_size=128)
    with pytest.raises(ValueError, match="in a text of 128"):
        state.fill([128, 2], [1, 1], np.random.default_rng(1))
    with pytest.raises(ValueError, match="pages of"):
        state.fill([60, 60], [1, 1], np.random.default_rng(1))


# ------------------------------------------------------------------------------- the step
def test_stages_come_in_order() -> None:
    step = step_of([5], budget_pages=2)
    order_ = [item.stage for item in step.items]
    assert set(order_) == set(STAGES)
    places = [STAGES.index(stage) for stage in order_ if stage not in ("embed", "head", "commit")]
    per_layer = len(places) // TINY.layers
    assert places[:per_layer] == sorted(places[:per_layer])
    assert (order_[0], order_[-1]) == ("embed", "commit")
    assert len(step.items) == 5 + 12 * TINY.layers


def test_idle_slots_change_nothing() -> None:
    step = step_of([-1, -1])
    before = snapshot(step.state)
    cache = step.state.cache.copy()
    step.launch()
    for name, value in snapshot(step.state).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    np.testing.assert_array_equal(step.state.cache, cache)


def test_a_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_last_column(self: Any, x: Any, matrix: Any, y: Any) -> Any:
        def multiply() -> None:
            wrong = decode(matrix, "bf16").copy()
            wrong[:, -8:] = 0
            y[...] = library.encode(decode(x, "bf16") @ wrong.T, "bf16")

        return multiply

    monkeypatch.setattr(library._Products, "plain", without_last_column)
    with pytest.raises(CheckError, match="qkv product of layer 0"):
        check_stages(step_of([9, 40]))


def test_budget_beyond_the_pages_is_dense() -> None:
    dense, sparse = step_of([70, 33]), step_of([70, 33], budget_pages=16)
    for step in (dense, sparse):
        step.launch()
    np.testing.assert_array_equal(dense.logits, sparse.logits)


def test_budget_matters() -> None:
    dense, sparse = step_of([200]), step_of([200], budget_pages=3)
    for step in (dense, sparse):
        step.launch()
    assert (dense.logits != sparse.logits).any()


def test_too_many_rows_for_packed_weights() -> None:
    with pytest.raises(ValueError, match="17 rows"):
        step_of([5] * 17, weight_bits=4)


def test_tie_rule() -> None:
    logits = np.random.default_rng(1).standard_normal((2, 500))
    best, second = logits[0].argsort()[::-1][:2]
    assert check_tokens(logits, [best, -1]) == 0
    logits[0, second] = logits[0, best] - 0.9 * TIE * logits[0].std()
    assert check_tokens(logits, [second, -1]) > 0
    logits[0, second] = logits[0, best] - 1.2 * TIE * logits[0].std()
    with pytest.raises(CheckError, match="below the best"):
        check_tokens(logits, [second, -1])


def test_lowest_index_wins_a_tie() -> None:
    step = step_of([9])
    weights = Weights(CPU, TINY)
    weights.head[:] = weights.head[0]
    LibraryStep(CPU, weights, step.state).launch()
    assert step.state.slots.tokens[0, 0, 0] == 0


# ------------------------------------------------------------------------------- modes, bench
def test_host_mode_brings_the_slab_back() -> None:
    step = step_of([20, 31], remaining=50)
    mode = make_mode(step, "host-python")
    assert isinstance(mode, HostPython)
    assert mode.nodes == len(step.items)
    seconds = mode.run(3)
    assert len(seconds) == 3
    assert min(seconds) > 0
    assert mode.host[:2].tolist() == [23, 34]
    mode.close()
    with pytest.raises(ValueError, match="mode 'fast'"):
        make_mode(step, "fast")


def test_timed_leaves_the_first_steps_out() -> None:
    class Slow:
        runs: ClassVar[list[int]] = []

        def run(self, steps: int) -> list[float]:
            self.runs.append(steps)
            return [*[9.0] * SKIPPED, *[seconds] * (steps - SKIPPED)]

    for seconds, samples in ((1e-3, SAMPLES), (4e-3, int(SPAN_S / 4e-3)), (1.0, FEWEST)):
        assert _timed(Slow()) == [seconds] * samples
    assert Slow.runs[:2] == [WARM, SKIPPED + SAMPLES]


def test_grid_has_the_promised_points() -> None:
    points = list(grid())
    assert len(points) == len(set(points))
    main = {(p.batch, p.context, p.budget_tokens) for p in points if p.model == "1b"}
    for batch in (1, 2, 4, 8, 16, 32, 64):
        for context in (512, 1024, 2048, 4096, 8192, 16384, 32768):
            assert (batch, context, 0) in main
            assert ((batch, context, BUDGET_TOKENS) in main) == (context > BUDGET_TOKENS)
    assert max(p.rows for p in points if p.kernels == "fused") == 16
    assert {p.context for p in points if p.model == "8b"} == {512, 2048, 8192}
    assert not Point(weights="w4a16", batch=32).possible
    assert not Point(model="8b", batch=64, context=32768).possible


def test_points_on_file_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    assert on_file(path) == set()
    done = Point(batch=4, mode="control")
    lines = [{"kind": "header"}, {"kind": "step", **done.record(), "seconds": [1e-3]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert on_file(path) == {done}


def test_options_choose_points() -> None:
    names = ("model", "modes", "kernels", "batches", "contexts", "weights", "kv", "tokens")
    options = dict.fromkeys((*names, "budget_tokens")) | {"batches": ["8"], "kernels": ["torch"]}
    found = list(chosen(argparse.Namespace(**options)))
    assert found
    assert {(p.batch, p.kernels) for p in found} == {(8, "torch")}
    keys = [order(p)[:7] for p in sorted(grid(), key=order)]
    runs = [key for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    assert len(runs) == len(set(runs))
