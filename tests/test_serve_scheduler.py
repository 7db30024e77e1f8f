"""The engine's scheduler and loop over a device whose steps take as long as a formula says."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from serving import PAGE, engine

from kernels.fit.samples import SamplesError
from kernels.serve.blocks import Pages
from kernels.serve.calibrate import Calibration, points
from kernels.serve.records import request_rows, token_rows, write_steps
from kernels.serve.request import Request
from kernels.serve.slots import HEADER, Slots
from kernels.serve.trace_file import Cut, read_trace

if TYPE_CHECKING:
    from pathlib import Path

    from kernels.serve.engine import Engine


def check(engine: Engine) -> None:
    """What holds after every run."""
    scheduler, slots = engine.scheduler, engine.device.slots
    for request in engine.requests:
        if request.rejected:
            assert not request.generated
            continue
        assert request.generated == request.output_tokens == len(request.tokens)
        assert request.tokens == [1000 * request.id + i + 1 for i in range(request.generated)]
        assert request.arrival <= request.admitted < request.first_token <= request.finished
    assert len(scheduler.ended) == len(engine.requests)
    assert scheduler.account.used == 0
    assert not scheduler.running
    assert not scheduler.waiting
    assert slots.lost() == 0
    assert len(slots.pages.free) == slots.pages.count
    for before, after in zip(engine.steps, engine.steps[1:], strict=False):
        assert before.end <= after.start + 1e-12
    for step in engine.steps:
        prompts = sum(chunk[2] for chunk in step.chunks)
        assert len(step.decode) * step.rows + prompts <= scheduler.token_budget
        assert step.blocks <= scheduler.account.capacity
        assert step.running <= scheduler.max_batch
        assert step.padded >= len(step.decode)
        if scheduler.prompts_first:
            assert not (step.decode and step.chunks)
    if not engine.requests:
        return
    got: dict[int, int] = {}
    for number, _, tokens in token_rows(engine.steps):
        got[number] = got.get(number, 0) + tokens
    assert got == {r.id: r.output_tokens for r in engine.requests if not r.rejected}


def compositions(engine: Engine) -> list[tuple[list[int], list[tuple[int, int, int]]]]:
    """Who decoded, and the chunks, step by step."""
    return [(list(step.decode), list(step.chunks)) for step in engine.steps]


def test_one_request_alone() -> None:
    found = engine([(0.5, 100, 3)])
    found.run()
    check(found)
    assert compositions(found) == [
        ([], [(0, 0, 64)]),
        ([], [(0, 64, 36)]),
        ([0], []),
        ([0], []),
    ]
    (row,) = request_rows(found.requests)
    # 100 prompt tokens of 10 us, then two steps of 1 ms.
    assert row["ttft_ms"] == pytest.approx(1.0)
    assert row["tpot_ms"] == pytest.approx(1.0)
    assert row["e2el_ms"] == pytest.approx(3.0)
    assert row["status"] == "finished"
    assert found.idle_s == pytest.approx(0.5)


def test_decoding_goes_first_and_prompts_share_what_is_left() -> None:
    found = engine([(0.0, 60, 4), (0.0, 40, 2), (0.0, 30, 1)])
    found.run()
    check(found)
    assert compositions(found) == [
        # The first admission leaves 4 tokens of budget, so that the second enters as well.
        ([], [(0, 0, 60), (1, 0, 4)]),
        ([0], [(1, 4, 36), (2, 0, 27)]),
        ([0, 1], [(2, 27, 3)]),
        ([0], []),
    ]
    assert [step.waiting for step in found.steps] == [1, 0, 0, 0]
    assert [step.context for step in found.steps] == [0, 61, 62 + 41, 63]
    # Request 2 wanted one token, which its prompt gave: it never decodes.
    assert found.requests[2].finished == found.requests[2].first_token


def test_nobody_overtakes_the_head_of_the_queue() -> None:
    found = engine([(0.0, 20, 30), (0.0, 160, 2), (0.0, 16, 2)], blocks=11)
    found.run()
    check(found)
    big, small = found.requests[1], found.requests[2]
    # 10 of 11 blocks for the big one: it waits for the first to end, and the small one for it.
    assert big.admitted >= found.requests[0].finished
    assert small.admitted >= big.admitted


def test_the_youngest_is_preempted_and_computed_again() -> None:
    # Two requests of 2 blocks each in 5 blocks: both want a third after 17 tokens.
    found = engine([(0.0, 30, 40), (0.0, 30, 40)], blocks=5)
    found.run()
    check(found)
    first, second = found.requests
    assert (first.preemptions, second.preemptions) == (0, 1)
    at = next(i for i, step in enumerate(found.steps) if step.preempted)
    assert found.steps[at].preempted == (1,)
    assert found.steps[at].decode == (0,)
    # Its prompt and the answer so far are prefilled again, in one chunk.
    again = [step.chunks for step in found.steps[at:] if step.chunks]
    generated = sum(1 in step.decode for step in found.steps[:at]) + 1
    assert again == [((1, 0, 30 + generated),)]


def test_a_swapped_request_goes_on_without_a_prompt() -> None:
    found = engine([(0.0, 30, 40), (0.0, 30, 40)], blocks=5, preemption="swap")
    found.run()
    check(found)
    assert found.requests[1].preemptions == 1
    back = [step for step in found.steps if step.swapped_in]
    assert [step.swapped_in for step in back] == [(1,)]
    assert 1 in back[0].decode
    assert sum(len(step.chunks) for step in found.steps) == 2
    assert found.device.mover.moves == 1  # type: ignore[union-attr]


def test_requests_that_can_never_fit_are_turned_away() -> None:
    found = engine([(0.0, 4000, 200), (0.0, 500, 1), (0.0, 16, 2)], blocks=8)
    found.run()
    check(found)
    assert [r.rejected for r in found.requests] == [
        "exceeds_model_context", "exceeds_kv_capacity", "",
    ]  # fmt: skip


def test_several_tokens_a_step() -> None:
    counts = iter([3, 1, 4, 2, 4, 4, 4, 4])
    found = engine([(0.0, 15, 12)], new_tokens=4, accepted=lambda request: next(counts))
    found.run()
    check(found)
    assert [step.commits for step in found.steps] == [(), (3,), (1,), (4,), (2,), (1,)]
    assert [step.context for step in found.steps[1:]] == [19, 22, 23, 27, 29]
    row = found.steps[1].record() | found.steps[1].composition()
    names = ("decode_requests", "decode_tokens", "context_tokens", "output_tokens")
    assert [row[name] for name in names] == [1, 4, 19, 3]
    assert (row["decode_ids"], row["decode_commits"]) == ([0], [3])


def test_a_resident_loop_leaves_for_a_prompt() -> None:
    found = engine([(0.0, 20, 8), (0.0035, 20, 2)], resident=True)
    found.run()
    check(found)
    # The prompt takes 0.2 ms and steps 1 ms: the second arrives in the fourth step, at whose end
    # the loop leaves.
    assert compositions(found) == [
        ([], [(0, 0, 20)]),
        *[([0], [])] * 4,
        ([], [(1, 0, 20)]),
        ([0, 1], []),
        *[([0], [])] * 2,
    ]
    assert not any(step.late for step in found.steps)
    assert [step.turn for step in found.steps[:2]] == ["", "entered"]
    assert [step.turn for step in found.steps[5:7]] == ["left", "entered"]
    # What was known when each step began: the second request from its own prompt on.
    assert [step.seen >= 0.0035 for step in found.steps] == [False] * 5 + [True] * 4
    assert found.entered == 2  # type: ignore[attr-defined]


def test_a_step_may_be_under_way_when_a_resident_loop_is_asked() -> None:
    # Blocks for the third are free only when the first has ended; when the host sees that, another
    # step of the second has begun.
    asked = [(0.0, 20, 3), (0.0, 20, 9), (0.0, 60, 2)]
    found = engine(asked, blocks=6, resident=True)
    found.run()
    check(found)
    late = [i for i, step in enumerate(found.steps) if step.late]
    assert [compositions(found)[i] for i in late] == [([1], [])]
    assert compositions(found)[late[0] - 1] == ([0, 1], [])
    assert compositions(found)[late[0] + 1] == ([], [(2, 0, 60)])


def test_a_resident_loop_leaves_before_blocks_run_out() -> None:
    found = engine([(0.0, 30, 40), (0.0, 30, 40)], blocks=5, resident=True)
    found.run()
    check(found)
    assert found.scheduler.preemptions >= 1


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("new_tokens", [1, 3])
def test_random_traffic_is_served_and_loses_nothing(
    resident: bool, preemption: str, new_tokens: int
) -> None:
    if resident and new_tokens > 1:
        pytest.skip("the fake resident loop emits one token")
    for seed in range(6):
        rng = np.random.default_rng(seed)
        count = 40
        times = np.sort(rng.exponential(2e-3, count).cumsum())
        asked = [
            (float(at), int(prompt), int(output))
            for at, prompt, output in zip(
                times, rng.integers(1, 200, count), rng.integers(1, 60, count), strict=True
            )
        ]
        found = engine(
            asked,
            blocks=int(rng.integers(17, 40)),
            batch=int(rng.integers(2, 9)),
            budget=int(rng.integers(32, 200)),
            preemption=preemption,
            new_tokens=new_tokens,
            resident=resident,
            accepted=(lambda r: 1 + (r.id + r.generated) % 3) if new_tokens > 1 else None,
            seed=seed,
        )
        found.run()
        check(found)
        admitted = [r.admitted for r in found.requests if not r.rejected]
        assert admitted == sorted(admitted)
        preempted = sum(len(step.preempted) for step in found.steps)
        assert preempted == sum(r.preemptions for r in found.requests)


def test_what_the_device_is_told_rebuilds_what_the_host_knows() -> None:
    """A twin that only reads packets and commits as the device does has the host's slots."""
    pages = Pages(range(40))
    slots = Slots(pages, 4, PAGE, sizes=(1, 2, 4))
    ring = np.full(64, -1, np.int32)
    ring[:40] = range(40)
    table, out = np.full((4, 8), -1, np.int32), np.zeros(4096, np.int32)
    lengths, words = np.full(4, -1), [0, 40]

    def tell() -> None:
        used = slots.packet(out)
        changed, words[0], words[1], pushed, first, told = out[:6].tolist()
        assert told == used
        ring[(first + np.arange(pushed)) % 64] = out[HEADER : HEADER + pushed]
        for offset in out[HEADER + pushed : HEADER + pushed + changed].tolist():
            slot, length, _, held = out[offset : offset + 4].tolist()
            lengths[slot] = length
            table[slot, :held] = out[offset + 8 : offset + 8 + held]

    def same() -> None:
        head, tail = words
        assert ring[np.arange(head, tail) % 64].tolist() == list(pages.free)
        for slot, request in enumerate(slots.holders):
            assert (lengths[slot] == -1) == (request is None)
            if request is not None:
                assert lengths[slot] == request.context_tokens
                assert table[slot, : len(request.pages)].tolist() == request.pages

    requests = [Request(i, 0.0, 20 + 9 * i, 5, generated=1, tokens=[7]) for i in range(4)]
    for request in requests[:3]:
        slots.reserve(request, request.prefill_tokens)
        slots.place(request)
    tell()
    same()
    slots.release(requests[0])  # its pages are pushed; the third moves down
    slots.reserve(requests[3], 100)  # popped from the head
    assert slots.size() == 2
    assert requests[2].slot == 0
    slots.place(requests[3])
    tell()
    same()
    assert not slots.dirty
    assert slots.lost() == 0


def test_the_step_log_says_who_ran(tmp_path: Path) -> None:
    found = engine([(0.0, 60, 4), (0.0, 40, 2)])
    found.timed_every = 2
    found.run()
    write_steps(tmp_path / "steps.jsonl.gz", {"mode": "fake"}, found.steps)
    with gzip.open(tmp_path / "steps.jsonl.gz", "rt") as file:
        head, *rows = [json.loads(line) for line in file]
    assert head == {"kind": "steps", "version": 1, "mode": "fake"}
    assert rows[1]["decode_ids"] == [0]
    assert rows[1]["chunks"] == [[1, 4, 36]]
    assert rows[1]["kind"] == "mixed"
    assert rows[1]["prefill_context_tokens"] == 4
    assert rows[1]["duration_s"] == pytest.approx(1e-3 + 36e-5)
    assert ["gpu_s" in row for row in rows] == [i % 2 == 0 for i in range(len(rows))]


AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 18:15:46.6805900,374,44\r
2023-11-16 18:15:50.9951690,396,109\r
2023-11-16 18:16:46.6805900,10,20"""


def test_traces_are_read(tmp_path: Path) -> None:
    azure = tmp_path / "a.csv"
    azure.write_text(AZURE, newline="")
    rows = read_trace(azure, Cut(end=60.0, rate_scale=2.0, most_prompt=380))
    assert [row[1:] for row in rows] == [(374, 44), (380, 109)]
    assert rows[1].time == pytest.approx((50.9951690 - 46.6805900) / 2)
    moon = tmp_path / "m.jsonl"
    moon.write_text(
        '{"timestamp": 3000, "input_length": 9, "output_length": 2, "hash_ids": [1]}\n'
        '{"timestamp": 1500, "input_length": 8, "output_length": 1, "hash_ids": [1]}\n'
    )
    assert read_trace(moon) == [(0.0, 8, 1), (1.5, 9, 2)]
    plain = tmp_path / "p.csv"
    plain.write_text("arrival_s,prompt_tokens,output_tokens\n1.5,3,4\n2,5,6\n9,7,8\n")
    assert read_trace(plain, Cut(begin=0.5, requests=1)) == [(0.0, 5, 6)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "a,b\n1,2\n", "columns a, b; known are"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n0,0,3\n", ":2: prompt_tokens: '0'"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\nnan,1,3\n", ":2: arrival_s"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n1,1\n", ":2: output_tokens: None"),
        ("a.csv", AZURE.replace("18:15:50", "18-15"), ":3: TIMESTAMP"),
        ("a.jsonl", "{\n", ":1:"),
        ("a.jsonl", "[1]\n", ":1: expected an object"),
        ("a.csv", "", "no request"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text, newline="")
    with pytest.raises(SamplesError) as caught:
        read_trace(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resident", [False, True])
def test_the_calibration_grid_runs_and_leaves_nothing(resident: bool) -> None:
    found = engine([], blocks=4000, batch=8, budget=2048, resident=resident)
    found.scheduler.max_context = 8192
    grid = points(8)
    run, skipped = Calibration(found).run(grid)
    check(found)
    assert run + skipped == len(grid)
    assert skipped < len(grid) / 8
    prompts = {sum(chunk[2] for chunk in step.chunks) for step in found.steps}
    assert {16, 64, 1024, 1984} <= prompts
    before = {chunk[1] for step in found.steps for chunk in step.chunks}
    assert {0, 1024, 6144} <= before
    assert {len(step.decode) for step in found.steps if not step.chunks} >= {1, 2, 3, 4, 6, 8}
    if not resident:
        assert any(len(step.decode) == 7 and step.chunks for step in found.steps)


def test_a_horizon_never_runs_out_of_blocks() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        count, new = int(rng.integers(1, 9)), int(rng.integers(1, 4))
        found = engine([], blocks=int(rng.integers(60, 200)), batch=8, new_tokens=new)
        scheduler = found.scheduler
        for i in range(count):
            request = Request(i, 0.0, int(rng.integers(1, 100)), 10_000, generated=1)
            scheduler.decoding.append(request)
            scheduler.account.take(scheduler.account.blocks(request.context_tokens))
        steps = scheduler.horizon(1000)

        def wanted(steps: int, scheduler: Any = scheduler, new: int = new) -> int:
            blocks, held = scheduler.account.blocks, scheduler.decoding
            return sum(
                blocks(r.context_tokens + steps * new) - blocks(r.context_tokens) for r in held
            )

        assert wanted(steps) <= scheduler.account.free
        if steps < 64:
            assert wanted(steps + 1) > scheduler.account.free
