"""Tiny runs whose every time is known: the table in `toy.py` gives each iteration's length.

All times are in ticks, and both engines must meet them to the last bit.
"""

from __future__ import annotations

import pytest
from toy import MODEL, TICK, hbm, play, toy_scenario, write_profile

from sim.errors import InputError


@pytest.fixture(params=["step", "leap"])
def replay(request, tmp_path):
    """Runs (arrival, prompt, output) rows on the toy GPU with the engine in turn."""

    def run(rows, **sections):
        return play(toy_scenario(tmp_path, rows, **sections), request.param)

    return run


def blocks(count, size):
    return {
        "hardware": {"hbm": hbm(count, size)},
        "kv": {"block_tokens": size},
    }


def until(ticks):
    return {"at": f"{ticks * TICK} s"}


# ---------------------------------------------------------------- one and two requests
def test_one_request_alone(replay):
    ran = replay([(0, 8, 4)])
    assert ran.rows("kind", "path", "context_tokens", "output_tokens") == [
        (0, 20, "prefill", "host", 0, 1),
        (20, 16, "decode", "graph", 9, 1),
        (36, 16, "decode", "graph", 10, 1),
        (52, 16, "decode", "graph", 11, 1),
    ]
    row = ran.requests.iloc[0]
    assert (row.status, row.generated_tokens, row.preemptions) == ("finished", 4, 0)
    assert ran.ticks("first_token_s") == [20]
    assert ran.ticks("finished_s") == [68]
    assert row.ttft_ms == 20 * TICK * 1e3
    assert row.tpot_ms == 16 * TICK * 1e3
    assert row.e2el_ms == 68 * TICK * 1e3
    assert row.queue_ms == 0
    assert ran.summary["duration"] == 68 * TICK


def test_output_of_one_token_is_done_after_its_prefill(replay):
    ran = replay([(0, 8, 1)])
    assert ran.rows("kind") == [(0, 20, "prefill")]
    assert ran.ticks("finished_s") == ran.ticks("first_token_s") == [20]
    assert ran.requests.tpot_ms.isna().all()
    assert ran.summary["mean_tpot_ms"] is None
    assert ran.summary["mean_itl_ms"] is None


def test_prompt_and_output_of_one_token(replay):
    ran = replay([(0, 1, 1)], **blocks(1, 16))
    assert ran.ticks("finished_s") == [20]


def test_two_that_arrive_together_share_every_iteration(replay):
    ran = replay([(0, 8, 3), (0, 5, 2)])
    assert ran.rows("decode_requests", "prefill_requests", "prefill_tokens", "context_tokens") == [
        (0, 20, 0, 2, 13, 0),
        (20, 16, 2, 0, 0, 8 + 5 + 2),
        (36, 16, 1, 0, 0, 10),
    ]
    assert ran.ticks("first_token_s") == [20, 20]
    assert ran.ticks("finished_s") == [52, 36]


def test_arrival_in_the_middle_of_an_iteration_waits_for_its_end(replay):
    ran = replay([(0, 8, 6), (30, 8, 2)])
    assert ran.rows("kind", "waiting", "running") == [
        (0, 20, "prefill", 0, 1),
        (20, 16, "decode", 0, 1),
        (36, 24, "mixed", 0, 2),
        (60, 16, "decode", 0, 2),
        (76, 16, "decode", 0, 1),
        (92, 16, "decode", 0, 1),
    ]
    assert ran.ticks("admitted_s") == [0, 36]
    assert ran.ticks("first_token_s") == [20, 60]
    assert ran.ticks("finished_s") == [108, 76]


def test_arrival_on_a_boundary_is_seen_there(replay):
    on = replay([(0, 8, 4), (36, 8, 1)])
    assert on.ticks("admitted_s") == [0, 36]
    assert on.ticks("finished_s") == [76, 60]


def test_arrival_just_after_a_boundary_waits(replay):
    after = replay([(0, 8, 4), (36.0625, 8, 1)])
    assert after.ticks("admitted_s") == [0, 52]
    assert after.ticks("finished_s") == [76, 76]


def test_idle_between_arrivals(replay):
    ran = replay([(0, 8, 1), (1000, 8, 2)])
    assert ran.rows() == [(0, 20), (1000, 20), (1020, 16)]
    assert ran.summary["loop_time_s"] == 56 * TICK
    assert ran.summary["loop_idle_s"] == (1036 - 56) * TICK


# ---------------------------------------------------------------- chunks and slots
def test_prompt_longer_than_the_budget_comes_in_chunks(replay):
    ran = replay([(0, 150, 2)])
    assert ran.rows("kind", "prefill_tokens", "output_tokens") == [
        (0, 18, "prefill", 64, 0),
        (18, 18, "prefill", 64, 0),
        (36, 20, "prefill", 22, 1),
        (56, 16, "decode", 0, 1),
    ]
    assert ran.ticks("first_token_s") == [56]


def test_decoding_requests_take_their_share_of_the_budget(replay):
    # 64 - 1 tokens are left for the second prompt; its last 2 leave room for the third.
    ran = replay([(0, 8, 6), (10, 65, 1), (10, 61, 1)])
    assert ran.rows("kind", "decode_requests", "prefill_requests", "prefill_tokens") == [
        (0, 20, "prefill", 0, 1, 8),
        (20, 24, "mixed", 1, 1, 63),
        (44, 24, "mixed", 1, 2, 2 + 61),
        (68, 16, "decode", 1, 0, 0),
        (84, 16, "decode", 1, 0, 0),
        (100, 16, "decode", 1, 0, 0),
    ]
    assert ran.ticks("admitted_s") == [0, 20, 44]
    assert ran.ticks("finished_s") == [116, 68, 68]


def test_queue_is_first_in_first_out(replay):
    ran = replay([(0, 8, 2), (1, 8, 2), (2, 8, 1), (2, 8, 1)], loop={"max_batch": 1})
    assert ran.ticks("admitted_s") == [0, 36, 72, 92]
    assert ran.ticks("finished_s") == [36, 72, 92, 112]
    assert [row[2] for row in ran.rows("waiting")] == [0, 3, 2, 2, 1, 0]


def test_nobody_overtakes_a_head_that_lacks_memory(replay):
    # 3 blocks: the first holds 2 until 36, so that the second (2 blocks) holds up the third (1).
    ran = replay([(0, 32, 2), (1, 32, 1), (1, 8, 1)], **blocks(3, 16))
    assert ran.ticks("admitted_s") == [0, 36, 36]
    assert ran.ticks("finished_s") == [36, 56, 56]


# ---------------------------------------------------------------- memory
def test_out_of_memory_preempts_the_youngest_and_computes_it_again(replay):
    # Blocks of 4 tokens, 6 in all. At 84 both hold 3 and need a fourth: the second goes, with 5
    # tokens committed. It needs 4 blocks for 13 tokens, which are free when the first is done.
    ran = replay([(0, 8, 10), (0, 8, 10)], **blocks(6, 4))
    assert ran.ticks("first_token_s") == [20, 20]
    assert ran.ticks("finished_s") == [164, 164 + 20 + 4 * 16]
    assert ran.ticks("admitted_s") == [0, 0]
    assert ran.requests.preemptions.tolist() == [0, 1]
    assert ran.summary["kv_preemptions"] == 1
    assert ran.rows("kind", "kv_blocks", "prefill_tokens", "waiting")[4:] == [
        (68, 16, "decode", 6, 0, 0),
        (84, 16, "decode", 4, 0, 1),
        (100, 16, "decode", 4, 0, 1),
        (116, 16, "decode", 4, 0, 1),
        (132, 16, "decode", 4, 0, 1),
        (148, 16, "decode", 5, 0, 1),
        (164, 20, "prefill", 4, 13, 0),
        (184, 16, "decode", 4, 0, 0),
        (200, 16, "decode", 4, 0, 0),
        (216, 16, "decode", 4, 0, 0),
        (232, 16, "decode", 5, 0, 0),
    ]
    assert ran.summary["kv_blocks_allocated"] == ran.summary["kv_blocks_freed"]
    assert ran.summary["kv_blocks_peak"] == 6
    # The gap of the preempted request, from its token at 84 to the next at 184.
    assert ran.summary["loop_longest_stall_ms"] == 100 * TICK * 1e3


def test_waiting_requests_stay_behind_one_that_was_preempted(replay):
    ran = replay([(0, 8, 10), (0, 8, 10), (90, 4, 1)], **blocks(6, 4))
    assert ran.requests.preemptions.tolist() == [0, 1, 0]
    assert ran.ticks("admitted_s") == [0, 0, 164]
    assert ran.ticks("finished_s")[2] == 184


def test_requests_that_can_never_fit_are_rejected_with_the_reason(replay):
    short = MODEL | {"max_context": 40}
    rows = [(0, 36, 5), (0, 30, 4), (0, 29, 4), (5, 1, 32)]
    ran = replay(rows, model=short, **blocks(2, 16))
    assert ran.requests.status.tolist() == ["rejected", "rejected", "finished", "finished"]
    assert ran.requests.reason.tolist()[:2] == ["exceeds_model_context", "exceeds_kv_capacity"]
    assert ran.requests.admitted_s.isna().tolist() == [True, True, False, False]
    assert ran.requests.ttft_ms.isna().tolist() == [True, True, False, False]
    assert ran.summary["requests_rejected_by_reason"] == {
        "exceeds_kv_capacity": 1,
        "exceeds_model_context": 1,
    }
    assert (ran.summary["completed"], ran.summary["failed"]) == (2, 2)


def test_all_rejected(replay):
    ran = replay([(0, 100, 1), (7, 100, 1)], **blocks(1, 16))
    assert ran.summary["requests_rejected"] == 2
    assert ran.summary["request_throughput"] == 0
    assert ran.summary["mean_ttft_ms"] is None
    assert ran.summary["loop_iterations"] == 0
    assert len(ran.iterations) == 0


def test_weights_that_leave_no_room_are_the_users_error(tmp_path):
    with pytest.raises(InputError, match="no KV block beside"):
        play(toy_scenario(tmp_path, [(0, 8, 1)], **blocks(0, 16)))


# ---------------------------------------------------------------- the end of the run
def test_stop_leaves_what_is_not_done_unfinished(replay):
    # At 52 the third is admitted, but the mixed iteration would last until 76 and is not begun.
    rows = [(0, 8, 4), (0, 8, 2), (50, 8, 1), (55, 8, 1), (61, 8, 1)]
    ran = replay(rows, stop=until(60), loop={"max_batch": 2})
    assert ran.rows() == [(0, 20), (20, 16), (36, 16)]
    assert ran.requests.status.tolist() == ["unfinished", "finished", "unfinished", "unfinished"]
    assert ran.requests.generated_tokens.tolist() == [3, 2, 0, 0]
    assert ran.requests.finished_s.isna().tolist() == [True, False, True, True]
    assert ran.requests.first_token_s.isna().tolist() == [False, False, True, True]
    assert ran.requests.admitted_s.isna().tolist() == [False, False, False, True]
    assert ran.summary["duration"] == 60 * TICK
    assert ran.summary["requests_unfinished"] == ran.summary["failed"] == 3
    assert ran.summary["requests_in"] == 4
    assert ran.summary["tokens_committed"] == 5


def test_stop_at_a_boundary_counts_the_iteration_that_ends_there(replay):
    ran = replay([(0, 8, 4), (36, 8, 1)], stop=until(36))
    assert ran.rows() == [(0, 20), (20, 16)]
    assert ran.requests.generated_tokens.tolist() == [2, 0]
    assert ran.summary["requests_unfinished"] == 2


def test_stop_before_anything_ends(replay):
    ran = replay([(0, 8, 4)], stop=until(3))
    assert ran.rows() == []
    assert ran.requests.status.tolist() == ["unfinished"]
    assert ran.summary["loop_gpu_busy_fraction"] == 0
    assert ran.summary["requests_unfinished"] == ran.summary["requests_in"] == 1


def test_stop_after_the_last_request_counts_the_idle_time(replay):
    ran = replay([(0, 8, 1)], stop=until(1024))
    assert ran.summary["duration"] == 1
    assert ran.summary["request_throughput"] == 1
    assert ran.summary["requests_unfinished"] == 0


# ---------------------------------------------------------------- the loop's modes
def test_host_loop(replay):
    ran = replay([(0, 8, 3), (30, 8, 1)], loop={"mode": "host"})
    assert ran.rows("kind", "path", "launches", "syncs") == [
        (0, 20, "prefill", "host", 2 * 5 + 2, 1),
        (20, 16, "decode", "host", 2 * 5 + 2, 1),
        (36, 24, "mixed", "host", 2 * 6 + 2, 1),
    ]


def test_resident_loop_leaves_for_prefill_and_comes_back(replay):
    ran = replay([(0, 8, 4), (30, 8, 2)], loop={"mode": "resident"})
    assert ran.rows("kind", "path", "decode_requests", "launches", "syncs") == [
        (0, 2 + 20, "prefill", "host", 0, 12, 1),
        (22, 3 + 15, "decode", "resident", 1, 0, 0),
        (40, 2 + 20, "prefill", "host", 0, 12, 1),
        (62, 3 + 15, "decode", "resident", 2, 0, 0),
        (80, 15, "decode", "resident", 1, 0, 0),
    ]
    assert ran.ticks("first_token_s") == [22, 62]
    assert ran.ticks("finished_s") == [95, 80]
    # The first request stalled from its token at 40 to the next at 80.
    assert ran.summary["loop_longest_stall_ms"] == 40 * TICK * 1e3


def test_resident_loop_leaves_once_for_a_prompt_in_chunks(replay):
    ran = replay([(0, 8, 2), (25, 100, 1)], loop={"mode": "resident"})
    assert ran.rows("kind") == [
        (0, 22, "prefill"),
        (22, 18, "decode"),
        (40, 2 + 18, "prefill"),
        (60, 20, "prefill"),
    ]


def test_resident_loop_that_left_needs_no_second_exit(replay):
    ran = replay([(0, 8, 1), (100, 8, 2)], loop={"mode": "resident"})
    assert ran.rows("kind") == [(0, 22, "prefill"), (100, 20, "prefill"), (120, 18, "decode")]


def test_partition_prefills_beside_a_slower_loop(replay):
    # The prefill of 100 tokens takes two chunks. A request that is prefilled joins at the next
    # boundary (its first token counts when the chunk ends), and admission waits for one too.
    loop = {"mode": "resident", "prefill": "partition", "prefill_share": 0.5}
    ran = replay([(0, 8, 4), (30, 100, 2), (30, 3, 1)], loop=loop)
    columns = ("path", "decode_requests", "prefill_tokens")
    assert [row for row in ran.rows(*columns) if row[2] == "resident"] == [
        (37, 29, "resident", 1, 0),
        (66, 29, "resident", 1, 0),
        (95, 29, "resident", 1, 0),
        (124, 29, "resident", 1, 0),
    ]
    assert [row for row in ran.rows(*columns) if row[2] == "partition"] == [
        (0, 37, "partition", 0, 8),
        (37, 32.875, "partition", 0, 64),
        (69.875, 37, "partition", 0, 36),
        (106.875, 37, "partition", 0, 3),
    ]
    assert ran.ticks("first_token_s") == [37, 106.875, 143.875]
    assert ran.ticks("finished_s") == [124, 153, 143.875]
    assert ran.summary["loop_launches"] == 0


def test_loop_beside_an_idle_partition_runs_at_full_speed(replay):
    loop = {"mode": "resident", "prefill": "partition", "prefill_share": 0.5}
    ran = replay([(0, 8, 3)], loop=loop)
    assert ran.rows() == [(0, 37), (37, 15), (52, 15)]


# ---------------------------------------------------------------- graphs
@pytest.fixture
def per_request(tmp_path):
    """Attention takes a tick more for each request in the batch, in each of the two layers."""
    kernels = {"decode_attention.bf16": {"cta_s": TICK}}
    write_profile(tmp_path / "toy.json", kernels=kernels)
    return {"max_batch": 8, "captured_batches": [2, 4]}


def test_graph_runs_as_the_next_captured_size(replay, per_request):
    ran = replay([(0, 2, 2)] * 3, loop=per_request)
    rows = ran.rows("path", "decode_requests", "padded_requests", "context_tokens", "launches")
    assert rows[1:] == [(20, 16 + 2 * 4, "graph", 3, 4, 9, 1)]


def test_graph_of_the_exact_size_is_not_padded(replay, per_request):
    ran = replay([(0, 2, 2)] * 4, loop=per_request)
    assert ran.rows("path", "padded_requests")[1:] == [(20, 16 + 2 * 4, "graph", 4)]


def test_batch_beyond_the_largest_graph_is_launched_by_the_host(replay, per_request):
    ran = replay([(0, 2, 2)] * 5, loop=per_request)
    rows = ran.rows("path", "padded_requests", "launches")
    assert rows[1:] == [(20, 16 + 2 * 5, "host", 5, 12)]


def test_mixed_iteration_is_not_padded(replay, per_request):
    ran = replay([(0, 2, 3)] * 3 + [(10, 2, 1)], loop=per_request)
    assert ran.rows("kind", "padded_requests")[1] == (20, 24 + 2 * 3, "mixed", 3)
