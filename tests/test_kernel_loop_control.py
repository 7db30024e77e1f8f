"""The resident loop on the CPU: its mailbox, its ways to end, its pages, and every mode alike."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import PATIENCE_S, Running

from kernels.backend import Cpu
from kernels.loop_control import check, host_c
from kernels.loop_control.launch import Loop
from kernels.loop_control.mailbox import NO_REQUEST, Reason
from kernels.loop_control.reference import Reference
from kernels.loop_control.state import State


class EmptyLoop(Running):
    """A loop with empty stages on three blocks."""

    def __init__(
        self, lengths: list[int], dedicated: bool = False, outputs: int = 64, **options: Any
    ) -> None:
        super().__init__(lengths, blocks=3, sets=2, outputs=outputs)
        options = {"watchdog_s": PATIENCE_S, "host_s": PATIENCE_S / 2} | options
        self.loop = Loop(
            self.state.backend, self.state, self.box, threads=64, dedicated=dedicated, **options
        )

    def launch(self, steps: int) -> None:
        self.loop.launch(steps)


@pytest.mark.parametrize("dedicated", [False, True])
def test_requests_come_and_go_while_the_loop_runs(dedicated: bool) -> None:
    run = EmptyLoop([20, 5, -1], dedicated).start()
    run.read_until(lambda row: row.step == 2)
    run.box.admit(70, length=33, remaining=5)
    assert list(run.read_until(lambda row: 70 in row.request).request) == [0, 1, 70]
    run.box.admit(71, length=3, remaining=5)  # no slot is free: it waits
    run.box.cancel(1)
    row = run.read_until(lambda row: 71 in row.request)
    assert list(row.request) == [0, 71, 70]
    assert row.active == 3
    run.box.cancel(71)
    run.box.cancel(12345)  # nobody's
    assert list(run.read_until(lambda row: row.taken == 5).request) == [0, NO_REQUEST, 70]
    run.box.ask_to_leave()
    assert run.end() is Reason.ASKED
    assert [row.step for row in run.rows] == list(range(len(run.rows)))
    assert list(run.state.lengths) == [20, -1, 33]
    assert list(run.state.all_pages()) == list(range(12))


def test_pages_that_the_host_hands_over_come_first() -> None:
    run = EmptyLoop([20, -1])
    table, counts = run.state.table, run.state.page_counts
    handed = [int(page) for page in run.state.ring[8:10]]
    run.state.free[1] -= 2
    run.box.admit(5, length=40, remaining=5, pages=handed)
    run.start(3)
    assert run.end() is Reason.STEPS
    assert list(table[1, :2]) == handed
    assert counts[1] == 3
    assert list(run.state.all_pages()) == list(range(12))


def test_a_cancelled_request_that_waits_never_runs() -> None:
    run = EmptyLoop([20, 20])
    run.box.admit(8, length=1, remaining=1)
    run.box.cancel(8)
    run.box.cancel(0)
    run.start(4)
    assert run.end() is Reason.STEPS
    assert [list(row.request) for row in run.rows] == [[NO_REQUEST, 1]] * 4


def test_a_launch_ends_after_its_steps_and_the_next_goes_on() -> None:
    run = EmptyLoop([20, 5], dedicated=True)
    for steps in (3, 4):
        run.start(steps)
        assert run.end() is Reason.STEPS
    assert [row.step for row in run.rows] == list(range(7))
    for row in run.rows:  # the sets take turns
        assert row.tokens.tolist() == run.state.tokens[row.step % 2].tolist()
    assert not run.loop.desk.gates.any()


def test_it_leaves_when_nobody_reads_or_nothing_is_left() -> None:
    run = EmptyLoop([20, 5], host_s=0.05, outputs=8).start()
    run.thread.join()
    assert run.box.reason() is Reason.UNREAD
    assert len(run.box.read_all()) == 8
    idle = EmptyLoop([-1, -1], host_s=0.05).start()
    assert idle.end() is Reason.IDLE
    assert idle.rows == []


def test_a_request_that_never_fits_ends_the_launch() -> None:
    run = EmptyLoop([-1, -1])
    run.box.admit(3, length=1000, remaining=1)
    assert run.start().end() is Reason.NO_PAGES


def test_the_watchdog_ends_a_hang() -> None:
    run = EmptyLoop([20], watchdog_s=0.2, host_s=0.1)
    run.loop.desk.gates[0] = 0xFFFF0000  # arrivals that never suffice
    begin = time.monotonic()
    run.start().thread.join(PATIENCE_S)
    assert run.box.reason() is Reason.ABORTED
    assert time.monotonic() - begin < PATIENCE_S
    assert not run.loop.desk.gates.any()


def test_the_c_host_reads_the_outputs() -> None:
    run = EmptyLoop([20, 5], outputs=16).start(40)
    seconds, rows = host_c.read_outputs(run.box, 40, keep=True)
    run.thread.join()
    assert (seconds > 0).all()
    assert rows[:, 1].tolist() == [2] * 40
    assert rows[5, 4:6].tolist() == run.state.tokens[1, 0].tolist()
    with pytest.raises(host_c.HostError):
        host_c.read_outputs(run.box, 1, patience_s=0.05)


def test_wrong_arguments_are_named() -> None:
    run = EmptyLoop([20])
    with pytest.raises(ValueError, match="remaining 0"):
        run.box.admit(1, length=4, remaining=0)
    with pytest.raises(ValueError, match="host_s"):
        EmptyLoop([20], host_s=30.0)
    with pytest.raises(ValueError, match="blocks"):
        EmptyLoop([20], dedicated=True).loop.launch(1, blocks=1)
    for request in range(4):
        run.box.admit(request, length=4, remaining=1)
    with pytest.raises(BufferError, match="4 entries"):
        run.box.cancel(0)


@pytest.mark.parametrize("sparse", [pytest.param(True, marks=pytest.mark.slow), False])
def test_every_mode_emits_and_commits_the_same(sparse: bool) -> None:
    case = {"slots": 3, "steps": 8, "sparse": sparse, "spare": 4, **check.SMALL}
    assert check.check(Cpu(3), case, np.random.default_rng(11)) <= check.TOLERANCE


@settings(max_examples=25, derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spare=st.integers(0, 12), slots=st.integers(1, 5))
def test_the_reference_loses_no_page_and_no_token(seed: int, spare: int, slots: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 40, slots)
    used = sum(-(-(int(n) + 3) // 16) for n in lengths)
    state = State(Cpu(), slots=slots, new_tokens=3, max_pages=4, pages=used + spare, sets=2)
    wanted = rng.integers(1, 20, slots)
    state.fill(list(lengths), list(wanted), rng)
    reference = Reference(state.save(), 3, 16)
    reference.waiting.extend((100 + i, int(rng.integers(1, 30)), 4) for i in range(3))
    got = dict.fromkeys(range(slots), 0)
    for _ in range(12):
        best = rng.integers(0, 2, (slots, 3))
        for request, tokens in reference.step(best, rng.integers(0, 2, (slots, 2))).items():
            got[request] = got.get(request, 0) + len(tokens)
        reference.serve()
        held = [page for row in reference.rows for page in row]
        assert sorted([*held, *reference.free]) == list(range(used + spare))
        for slot, row in enumerate(reference.rows):
            length = reference.lengths[slot]
            assert (length == -1) == (not row)
            if length >= 0:
                assert len(row) == -(-(length + 3) // 16)
    for request in range(slots):
        assert got[request] <= wanted[request]
        if request not in reference.request:
            assert got[request] == wanted[request]
