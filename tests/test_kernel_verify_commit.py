"""Verification and commit on the CPU: greedy, lossless sampling, lengths, pages and the ring."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from kernels.backend import Cpu
from kernels.checking import equal
from kernels.verify_commit import check, launch, reference


@pytest.mark.parametrize(
    "case", list(check.cases(small=True)), ids=lambda c: f"{c['mode']}-{c['q']}"
)
def test_small_cases(case: dict) -> None:
    assert check.check(Cpu(), case, np.random.default_rng(1)) < 0.5


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 9),
    tokens=st.integers(1, 6),
    vocabulary=st.sampled_from((8, 1000, 2048, 2056)),
    mode=st.sampled_from(("greedy", "logits", "probabilities")),
    q=st.booleans(),
    acceptance=st.sampled_from((0.0, 0.5, 1.0)),
    threads=st.sampled_from((128, 160)),
    grid=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_equals_the_reference(seed: int, **case: object) -> None:
    case |= {"element": "fp32", "page_tokens": 16, "ties": True}
    assert check.check(Cpu(), case, np.random.default_rng(seed)) < 0.5


def sampled(p: np.ndarray, q: np.ndarray | None, rounds: int, seed: int) -> np.ndarray:
    """Tokens [rounds * 256, T] that leave the kernel when drafts are drawn from *q* [T - 1, V]."""
    rng, backend, batch = np.random.default_rng(seed), Cpu(sms=2), 256
    tokens, vocabulary = p.shape
    slots = roomy_slots(batch, tokens)
    space = launch.workspace(backend, batch, tokens, vocabulary)
    target = np.broadcast_to(p.astype(np.float32), (batch, tokens, vocabulary)).copy()
    source = np.full((tokens - 1, vocabulary), 1 / vocabulary) if q is None else q
    probs = None if q is None else np.broadcast_to(q.astype(np.float32), (batch, *q.shape)).copy()
    found = []
    for _ in range(rounds):
        slots.lengths[:] = 1
        draft = np.stack([rng.choice(vocabulary, batch, p=row) for row in source], axis=1)
        out, emitted = np.empty((batch, tokens), np.int32), np.empty(batch, np.int32)
        launch.verify_commit(
            backend, target, draft.astype(np.int32), out, emitted, slots, space,
            mode="probabilities", draft_probs=probs, threads=128,
            uniforms=rng.random((batch, tokens), np.float32),
        )  # fmt: skip
        found.append(out)
    return np.concatenate(found)


@pytest.mark.parametrize("with_q", [True, False])
def test_sampling_keeps_the_target_distribution(with_q: bool) -> None:
    rng = np.random.default_rng(11)
    p, q = rng.dirichlet(np.full(8, 0.7), 3), rng.dirichlet(np.full(8, 2.0), 2)
    out = sampled(p, q if with_q else None, 4, seed=5)
    for position in range(3):
        # Given that all earlier tokens were accepted, each position is a draw of its own row.
        own = out[out[:, position] >= 0, position]
        counts = np.bincount(own, minlength=8)
        assert chisquare(counts, p[position] * len(own)).pvalue > 1e-3


def test_nothing_is_refused_when_draft_and_target_agree() -> None:
    p = np.random.default_rng(3).dirichlet(np.ones(16), 3)
    assert (sampled(p, p[:2], 1, seed=1) >= 0).all()


# ---------------------------------------------------------------------------- commit
def roomy_slots(batch: int, tokens: int, max_pages: int = 8, free: int = 0) -> launch.Slots:
    """Requests of length 1 that hold the pages of one step, and *free* pages in the ring."""
    held = -(-(1 + tokens) // 16)
    capacity = 1 << max(1, batch * max_pages + free).bit_length()
    ring = np.full(capacity, -1, np.int32)
    ring[:free] = 1000 + np.arange(free)
    return launch.Slots(
        lengths=np.ones(batch, np.int32),
        remaining=np.full(batch, 2**30, np.int32),
        page_counts=np.full(batch, held, np.int32),
        table=np.arange(batch * max_pages, dtype=np.int32).reshape(batch, max_pages),
        free_ring=ring,
        free_head=np.zeros(1, np.uint32),
        free_tail=np.full(1, free, np.uint32),
        status=np.zeros(2, np.uint32),
    )


def commit(slots: launch.Slots, emitted: list[int], tokens: int = 4) -> np.ndarray:
    """Tokens after a commit of *emitted*, tokens 100, 101, ... having been proposed."""
    out = np.broadcast_to(np.arange(100, 100 + tokens, dtype=np.int32), (len(emitted), tokens))
    out = out.copy()
    launch.commit(Cpu(), out, np.array(emitted, np.int32), slots, threads=128)
    return out


def test_commit_clips_what_is_emitted_and_pads() -> None:
    slots = roomy_slots(2, 4)
    slots.remaining[:] = (3, 9)
    assert commit(slots, [4, 2]).tolist() == [[100, 101, 102, -1], [100, 101, -1, -1]]
    assert slots.remaining.tolist() == [0, 7]
    assert slots.lengths.tolist() == [-1, 3]


def test_a_finished_request_gives_back_its_pages_in_order_and_another_takes_them() -> None:
    slots = roomy_slots(2, 4)
    slots.page_counts[:] = (3, 1)
    slots.remaining[0] = 1
    slots.lengths[1] = 12
    commit(slots, [1, 2])
    assert slots.page_counts.tolist() == [0, 2]
    assert slots.table[1, :2].tolist() == [8, 0]
    assert slots.free_ring[:3].tolist() == [0, 1, 2]
    assert (slots.free_head[0], slots.free_tail[0]) == (1, 3)


def test_a_request_short_of_pages_waits_and_goes_on_later() -> None:
    slots = roomy_slots(3, 4, free=1)
    slots.lengths[:] = (12, 12, 3)
    commit(slots, [2, 2, 2])
    assert slots.status[0] == 1
    assert slots.lengths.tolist() == [14, -2 - 14, 5]
    assert slots.page_counts.tolist() == [2, 1, 1]
    slots.remaining[2] = 1  # finishes now, its page goes to the waiting request
    out = commit(slots, [1, 4, 1])
    assert out[1].tolist() == [100, 101, 102, 103]  # a skipped slot keeps its row
    assert slots.lengths.tolist() == [15, 14, -1]
    assert slots.table[1, 1] == slots.table[2, 0]
    assert slots.status[0] == 0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    batch=st.sampled_from((1, 6, 150)),
    tokens=st.integers(1, 6),
    steps=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_pages_are_conserved_over_steps(batch: int, tokens: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = check.random_slots(batch, tokens, 16, rng)
    slots = launch.Slots(**{name: array.copy() for name, array in state.items()})
    before = all_pages(slots)
    for _ in range(steps):
        emitted = rng.integers(1, tokens + 1, batch).astype(np.int32)
        out = rng.integers(0, 99, (batch, tokens)).astype(np.int32)
        want_out, want_emitted = out.copy(), emitted.copy()
        launch.commit(Cpu(), out, emitted, slots, threads=128)
        reference.commit(state, want_emitted, want_out, tokens, 16)
        equal(out, want_out, "tokens")
        equal(emitted, want_emitted, "emitted")
        for field in fields(slots):
            equal(getattr(slots, field.name), state[field.name], field.name)
        assert all_pages(slots) == before


def all_pages(slots: launch.Slots) -> list[int]:
    """Every page in a table or in the ring, sorted; each must stand there once."""
    used = [slots.table[b, :n] for b, n in enumerate(slots.page_counts)]
    head, tail = int(slots.free_head[0]), int(slots.free_tail[0])
    ring = slots.free_ring[(head + np.arange((tail - head) % 2**32)) % len(slots.free_ring)]
    pages = sorted(int(page) for page in np.concatenate([*used, ring]))
    assert len(set(pages)) == len(pages)
    return pages


def test_launcher_names_what_is_off() -> None:
    slots, space = roomy_slots(1, 2), launch.workspace(Cpu(), 1, 2, 8)
    target, draft = np.zeros((1, 2, 8), np.float32), np.zeros((1, 1), np.int32)
    out, emitted = np.zeros((1, 2), np.int32), np.zeros(1, np.int32)
    with pytest.raises(ValueError, match="needs uniforms"):
        launch.verify_commit(Cpu(), target, draft, out, emitted, slots, space, mode="logits")
    with pytest.raises(ValueError, match="expected int32"):
        launch.verify_commit(Cpu(), target, draft.astype(np.int64), out, emitted, slots, space)
