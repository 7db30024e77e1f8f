"""The fused step on the CPU: its tape, its checks, what it refuses; the soak's bookkeeping."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kernels import build
from kernels.backend import Cpu
from kernels.checking import CheckError
from kernels.decoder.shape import LLAMA_1B, LLAMA_8B, SHAPES
from kernels.decoder.soak import Soak, SoakError, Traffic
from kernels.decoder.soak_loops import HostLoop
from kernels.decoder.state import DecoderState
from kernels.fused_step import check, pack
from kernels.fused_step.check_stages import check_stages
from kernels.fused_step.launch import FusedStep, Model, defines
from kernels.fused_step.reference import Reference
from kernels.fused_step.resident import Resident
from kernels.graph_control.check import StandIn
from kernels.graph_control.launch import Control
from kernels.loop_control.mailbox import Mailbox, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = Cpu()
PAIRS = {"same": 0, "stages": 1, "wide": 2}
RESIDENT_SPILLS = {0: 64, 1: 1500}
"""Bytes that a thread of the persistent kernel may store and load, of the 1B build, dense and with
selected pages, whose scoring holds 64 registers of pages on their way. Measured: 0 and 1052."""


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(i, id=name, marks=[pytest.mark.slow] * (name != "stages"))
        for name, i in PAIRS.items()
    ],
)
def test_cases(index: int) -> None:
    case = list(check.cases(True))[index]
    assert check.check(CPU, case, np.random.default_rng([1, index])) <= check.decoder_check.CHAIN


def test_a_wrong_weight_is_noticed() -> None:
    case = {**list(check.cases(True))[1], "batch": 1, "idle": None}
    step = check.step_of(CPU, case, np.random.default_rng(1))
    weights, model, _ = check.parts_of(CPU, "small")
    tape = model.tape.copy()
    # What follows the first tiles of qkv is not what the reference multiplies by.
    model.tape[:, :4096] = model.tape[:, 4096:8192]
    try:
        with pytest.raises(CheckError, match="qkv of layer 0"):
            check_stages(step, Reference(weights, budget_pages=step.budget_pages))
    finally:
        model.tape[...] = tape


# ------------------------------------------------------------------------------- the tape
def numbered(shape: Any) -> Any:
    """Weights of *shape* whose elements count up from matrix to matrix."""
    matrices, first = [], 0
    for n, k in shape.products.values():
        matrices.append((first + np.arange(n * k)).astype(np.uint32).reshape(n, k))
        first += n * k
    names = dict(zip(shape.products, matrices, strict=True))
    norms = {"attention_norm": np.zeros(0), "mlp_norm": np.zeros(0)}
    head = (first + np.arange(shape.vocabulary * shape.hidden)).astype(np.uint32)
    layers = [SimpleNamespace(**names, **norms)]
    return SimpleNamespace(
        backend=CPU, shape=shape, layers=layers, head=head.reshape(shape.vocabulary, shape.hidden)
    )


@pytest.mark.parametrize("shape", [check.SMALL, check.WIDE], ids=lambda shape: shape.name)
def test_tapes_hold_every_weight_once_and_in_order(shape: Any) -> None:
    shape = replace(shape, layers=1)
    weights = numbered(shape)
    tiles = list(pack.products(weights))
    counts = [(len(part), 2 * part.shape[1]) for part in tiles]
    assert counts == pack.tile_counts(shape)
    everything = np.concatenate([part.reshape(-1) for part in tiles])
    assert np.array_equal(np.sort(everything), np.arange(len(everything)))
    # A warp's share of a tile is a span of the inner dimension, in every product.
    sources = [*(getattr(weights.layers[0], name) for name in shape.products), weights.head]
    for part, source in zip(tiles, sources, strict=True):
        inner, first = source.shape[1], int(source.min())
        chunk = 1024 * pack.chunk_units(shape) // 2
        cut = part.reshape(len(part), -1, pack.WARPS, chunk)
        columns = (cut.astype(np.int64) - first) % inner
        span = inner // pack.WARPS
        assert (columns // span == np.arange(pack.WARPS)[:, None]).all()


def test_a_lane_finds_its_operands_in_a_tile() -> None:
    """Row g, and in tall tiles row g + 8, columns 8 t .. 8 t + 7 of a block of 32."""
    inner = 1024
    rows = np.arange(16 * inner, dtype=np.uint32).reshape(16, inner)
    for warp, block, lane in ((0, 0, 0), (3, 1, 17), (15, 0, 31), (9, 1, 6)):
        g, t = divmod(lane, 4)
        at = warp * (inner // 16) + block * 32 + 8 * t
        tall = pack.tall_tiles(rows)[0].reshape(2, 16, 2, 32, 8)
        assert tall[block, warp, 0, lane].tolist() == rows[g, at : at + 8].tolist()
        assert tall[block, warp, 1, lane].tolist() == rows[g + 8, at : at + 8].tolist()
        flat = pack.flat_tiles(rows[:8])[0].reshape(16, 2, 32, 8)
        assert flat[warp, block, lane].tolist() == rows[g, at : at + 8].tolist()
        # Two units in a chunk lie together for a warp.
        both = pack.tall_tiles(rows, 2)[0].reshape(16, 2, 2, 32, 8)
        assert np.array_equal(both.transpose(1, 0, 2, 3, 4), tall)


def test_rows_are_ordered_in_pairs() -> None:
    shape = check.SMALL
    order = pack.qkv_order(shape)
    assert np.array_equal(np.sort(order), np.arange(shape.products["qkv"][0]))
    for tile in order.reshape(-1, 8):
        head, channel = np.divmod(tile, shape.head_dim)
        assert len(set(head)) == 1
        assert (channel[4:] == channel[:4] + shape.head_dim // 2).all()
    pairs = pack.gate_up_order(shape).reshape(-1, 2, 8)
    assert (pairs[:, 1] == pairs[:, 0] + shape.ffn).all()
    assert np.array_equal(np.sort(pairs[:, 0].reshape(-1)), np.arange(shape.ffn))


@pytest.mark.parametrize("workers", [1, 6, 131])
@pytest.mark.parametrize("tiles", [1, 6, 384, 8016])
def test_shares_cover_every_tile_once(tiles: int, workers: int) -> None:
    spans = [pack.share(tiles, worker, workers) for worker in range(workers)]
    assert [spans[0][0], spans[-1][1]] == [0, tiles]
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(spans))
    sizes = [end - begin for begin, end in spans]
    assert max(sizes) - min(sizes) <= 1


def test_tapes_are_cut_by_worker() -> None:
    weights, model, _ = check.parts_of(CPU, "small")
    shape, sizes = weights.shape, pack.tape_bytes(weights.shape, check.CPU_WORKERS)
    matrices = shape.bytes_streamed() - 2 * shape.hidden * (2 * shape.layers + 1)
    assert model.bytes_streamed == sum(sizes) == matrices
    assert model.tape.shape == (check.CPU_WORKERS, max(sizes) // 2)
    at = [0] * check.CPU_WORKERS
    for tiles in pack.products(weights):
        for worker in range(check.CPU_WORKERS):
            begin, end = pack.share(len(tiles), worker, check.CPU_WORKERS)
            mine = tiles[begin:end].reshape(-1)
            assert np.array_equal(model.tape[worker, at[worker] :][: mine.size], mine)
            at[worker] += mine.size


def test_chunks_are_whole_units() -> None:
    for shape in (*SHAPES.values(), check.SMALL, check.WIDE):
        assert pack.chunk_units(shape) == (2 if shape.hidden % 2048 == 0 else 1)
    for shape in (LLAMA_1B, LLAMA_8B):
        for _, size in pack.tile_counts(shape):
            assert size % (pack.UNIT_BYTES * pack.chunk_units(shape)) == 0
    # Whole tiles cost the 1B model little balance.
    sizes = pack.tape_bytes(LLAMA_1B, 131)
    assert max(sizes) < 1.03 * sum(sizes) / len(sizes)


# ------------------------------------------------------------------------------- bad inputs
def state_of(batch: int, tokens: int = 1, **options: Any) -> DecoderState:
    return DecoderState(CPU, check.SMALL, batch, tokens, text_size=64, **options)


def test_wrong_inputs_are_named() -> None:
    _, model, _ = check.parts_of(CPU, "small")
    many = SimpleNamespace(shape=model.shape, workers=132)
    with pytest.raises(ValueError, match=r"24 rows .* at most 16"):
        FusedStep(CPU, many, state_of(3, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="17 rows"):
        FusedStep(CPU, many, state_of(17))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of 8 bits"):
        FusedStep(CPU, model, state_of(1, kv_bits=8))
    with pytest.raises(ValueError, match="3 requests of 2 heads, 4 workers"):
        FusedStep(CPU, model, state_of(3))
    large = SimpleNamespace(shape=LLAMA_8B, workers=132)
    with pytest.raises(ValueError, match="9 rows of 4096 values"):
        FusedStep(CPU, large, state_of(9))  # type: ignore[arg-type]
    for wrong in ({"hidden": 1536}, {"ffn": 768}, {"vocabulary": 264}, {"q_heads": 4}):
        shape = replace(check.SMALL, name="odd", **wrong)
        with pytest.raises(ValueError, match="odd: hidden"):
            Model(CPU, SimpleNamespace(shape=shape))  # type: ignore[arg-type]


def test_the_control_block_needs_an_sm() -> None:
    _, model, _ = check.parts_of(CPU, "small")
    gpu = SimpleNamespace(name="gpu", sms=model.workers, xp=np)
    step = SimpleNamespace(backend=gpu, state=None, model=model)
    with pytest.raises(ValueError, match="4 workers and the control block"):
        Resident(step, Mailbox(CPU, 1, 1))  # type: ignore[arg-type]


def test_the_watchdog_ends_a_hang() -> None:
    case = next(iter(check.cases(True)))
    step = check.step_of(CPU, case, np.random.default_rng(2))
    box = Mailbox(CPU, case["batch"], case["tokens"])
    loop = Resident(step, box, watchdog_s=0.2)
    loop.desk.gates[0] = 0xFFFF0000  # arrivals that never suffice
    loop.launch(3)
    assert box.reason() is Reason.ABORTED
    assert box.read_all() == []
    assert not loop.desk.gates.any()


def test_a_wish_to_leave_is_heeded_at_the_end_of_the_step() -> None:
    case = next(iter(check.cases(True)))
    step = check.step_of(CPU, case, np.random.default_rng(2))
    box = Mailbox(CPU, case["batch"], case["tokens"])
    loop = Resident(step, box, watchdog_s=check.CPU_WATCHDOG_S)
    # The word of the wish is the one where the workers of a step arrive: set while they work.
    words = np.zeros(len(loop.desk.gates) + 2, np.uint32)
    control = loop.params.value["control"]
    control["mail"], control["gates"] = words[1:].ctypes.data, words[2:].ctypes.data
    loop.launch(5)
    assert box.reason() is Reason.ASKED
    assert len(box.read_all()) == 1
    assert not words.any()


# ------------------------------------------------------------------------------- budgets
@pytest.mark.parametrize("sparse", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_persistent_kernel_fits(sparse: int) -> None:
    state: Any = SimpleNamespace(batch=1, tokens=1, page_tokens=16)
    macros = (*defines(LLAMA_1B, state), f"SPARSE={sparse}")
    for name, used in build.resources("fused_step", "sm_90", macros).items():
        assert used.registers <= 128, f"{name}: 512 threads"
        most = RESIDENT_SPILLS[sparse] if name == "resident" else 64
        assert used.spill_bytes <= most, f"{name} spills"
        assert used.shared_bytes <= 4096, f"{name}: static shared memory beside the ring's"


# ------------------------------------------------------------------------------- the soak
PAGES, SLOTS = 14, 4


def soak_of(host: bool, seed: int = 3) -> Soak:
    """A soak of a step that only commits, with drafts and few pages."""
    rng = np.random.default_rng(seed)
    stand_in = StandIn(CPU, SLOTS, PAGES, np.random.default_rng(8))
    state = stand_in.state
    state.fill([-1] * SLOTS, [0] * SLOTS, rng)
    taken = state.pages - PAGES
    box, loop = Mailbox(CPU, SLOTS, 3), None
    if host:
        step = SimpleNamespace(
            backend=CPU, state=SimpleNamespace(slots=state), launch=stand_in.step
        )
        loop = HostLoop(step, box)
    else:
        control = Control(CPU, stand_in.step, state, box)
        loop = SimpleNamespace(launch=control.launch, wait=lambda: None)
    assert taken >= 0
    return Soak(state, None, box, loop, rng, Traffic((1, 50), (1, 30), 12))


@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_a_soak_counts_every_token_and_page(host: bool) -> None:
    soak = soak_of(host)
    line = soak.run(40)
    assert "none lost, all pages back" in line
    assert soak.steps >= 40
    assert soak.launches > 2
    for one in soak.requests:
        assert one.cancelled or len(one.tokens) == one.wanted


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda soak: soak.state.ring.fill(0), "pages of"),
        (lambda soak: soak.state.remaining.__iadd__(1), "tokens of"),
        (lambda soak: soak.box.outputs.fill(0), "nothing for|steps read"),
        (lambda soak: soak.requests.clear(), "nobody asked"),
    ],
    ids=["page", "token", "row", "request"],
)
def test_a_soak_notices_what_is_lost(
    harm: Callable[[Soak], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.decoder.soak.PATIENCE_S", 0.2)
    soak = soak_of(host=True)
    loop, launched = soak.loop, []

    def launch(most: int) -> None:
        loop.launch(min(most, 5))
        launched.append(most)
        if len(launched) == 2:
            harm(soak)

    soak.loop = SimpleNamespace(launch=launch, wait=loop.wait)
    with pytest.raises(SoakError, match=words):
        soak.run(60)
