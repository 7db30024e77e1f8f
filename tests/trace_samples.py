"""Small valid files of every format that is read, in the shape that its publisher gives it."""

from __future__ import annotations

import json
from typing import Any

AZURE_HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST_HEAD = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
VIDUR_HEAD = "arrived_at,num_prefill_tokens,num_decode_tokens"


def _lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _row(at: float, prompt: int, **more: Any) -> dict[str, Any]:
    ids = list(range(-(-prompt // 512)))
    return {"timestamp": at, "input_length": prompt, "output_length": 7, "hash_ids": ids} | more


def _turn(session: str, prompt: int, **more: Any) -> dict[str, Any]:
    row = _row(0, prompt, session_id=session)
    del row["timestamp"]
    return row | more


def _play(name: str, play: str, *after: str, **more: Any) -> dict[str, Any]:
    return {
        "request_id": name, "play_id": play, "not_before_ms": 5, "input_length": 130,
        "output_length": 9, "hash_ids": [1, 2, 3],
        "dependencies": [
            {"request_id": other, "trigger": "completion", "delay_ms": 3} for other in after
        ],
    } | more  # fmt: skip


def _call(at: float, prompt: int, **more: Any) -> dict[str, Any]:
    ids = list(range(1, prompt // 64 + 1))
    call = {"t": at, "type": "n", "model": "m", "in": prompt, "out": 20, "hash_ids": ids}
    return call | {"stop": "tool_use", "api_time": 1.5, "think_time": 0.5} | more


_WEKA = {
    "id": "w1", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 64,
    "system_tokens": 64,
    "requests": [
        _call(0.0, 200),
        {
            "t": 2.0, "type": "subagent", "agent_id": "a", "subagent_type": "x",
            "duration_ms": 3000, "total_tokens": 300, "tool_use_count": 1, "status": "completed",
            "models": ["m"], "tool_tokens": 0, "system_tokens": 64,
            "requests": [_call(0.0, 130), _call(2.0, 190, type="s", ttft=0.4)],
        },
        _call(9.0, 260, type="s", ttft=0.5),
    ],
}  # fmt: skip
_CHAT = {
    "chat_id": 5, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 33, "output_length": 9,
    "type": "text", "turn": 1, "hash_ids": [0, 1, 2],
}  # fmt: skip
_AGENTIC_HEAD = {
    "schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64,
    "hash_id_scope": "local", "source": {},
}  # fmt: skip
_AIBRIX = {"prompt": "a", "prompt_length": 101, "output_length": 7, "session_id": 0}

SAMPLES: dict[str, list[bytes]] = {
    "mooncake": [
        _lines(_row(0, 600), _row(3000, 700, hash_ids=[0, 5]), _row(3000, 9)),
        b'{"created_time": 1, "input_tokens": 4, "output_tokens": 2, "request_id": "a"}\n',
    ],
    "mooncake-sessions": [
        _lines(
            _row(0, 600, session_id="a"),
            _turn("a", 900, delay=250),
            _row(40, 5),
            _turn("a", 1300, delay_ms=10.5, priority=1),
            _row(99, 12, session_id="b"),
        )
    ],
    "mooncake-delta": [
        _lines(
            _row(0, 600, session_id="a"),
            _turn("a", 100, delay=250, hash_ids=[7]),
            _turn("a", 700, delay=5, hash_ids=[8, 9]),
        )
    ],
    "agentic-mooncake": [
        _lines(
            _row(0, 600, request_id="r1"),
            _row(5, 700, request_id="r2", wait_for=["r1"], tool_wait_ms=30),
            _row(5, 800, request_id="r3", wait_for=["r1"], branches=2),
            _row(9, 900, request_id="r4", wait_for=["r2", "r3"], delay=3, prefix_reset=True),
        ),
        _lines(
            _AGENTIC_HEAD,
            _play("a", "p"),
            _play("b", "p", "a"),
            _play("c", "q"),
            _play("d", "q", "c", not_before_ms=900),
        ),
    ],
    "applied-compute": [
        _lines(
            {
                "num_turns": 2,
                "input_prompt_length": 500,
                "assistant_response_length": [20, 30],
                "tool_call_output_length": [100, 10],
                "tool_call_latency": [0.5, 2.0],
                "final_assistant_response_length": 70,
            },
        )
    ],
    "azure": [
        (
            AZURE_HEAD + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.99,396,109\n"
        ).encode(),
        b"TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\r\n"
        b"2024-10-15T12:00:00.269Z,0,770,491\r\n2024-10-15T12:00:05.8Z,1,949,126",
    ],
    "burstgpt": [
        (BURST_HEAD + "5,ChatGPT,472,18,490,API log\n45,GPT-4,1087,0,1087,API log\n").encode(),
        b"Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens\n"
        b"19440110.0,one,43,GPT-4,906,446\n19440111.5,,2,ChatGPT,36,29\n"
        b"19440200.0,one,8,GPT-4,1779,123\n",
    ],
    "bailian": [
        _lines(
            _CHAT,
            _CHAT | {"chat_id": 6, "parent_chat_id": 5, "timestamp": 9.25, "turn": 2},
            _CHAT | {"chat_id": 7, "timestamp": 10, "type": "image", "hash_ids": []},
        )
    ],
    "weka": [_lines(_WEKA, _WEKA | {"id": "w2"})],
    "vidur": [
        (VIDUR_HEAD + "\n0.0,374,44\n4.314579,396,109\n4.5,1,1\n").encode(),
        (
            VIDUR_HEAD + ",session_id,block_hash_ids,session_turn_index\n"
            "1.0,1000,5,a,0|1,0\n2.0,600,5,b,7|8,0\n4.0,1030,6,a,0|1|2,1\n5.0,3,3,,,0\n"
        ).encode(),
    ],
    "splitwise": [
        b"request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,"
        b"token_size\n0,2,0,1.5,1,374,44\n1,2,0,5.75,1,396,109\n"
    ],
    "requests": [b"arrival_s,prompt_tokens,output_tokens\n0.5,374,44\n4.25,396,109\n"],
    "llmservingsim": [
        _lines(
            {"input_toks": 3, "output_toks": 2, "arrival_time_ns": 46, "input_tok_ids": [1, 2, 3]},
            {"input_toks": 9, "output_toks": 1, "arrival_time_ns": 47938952},
        )
    ],
    "aibrix": [
        _lines(
            {"timestamp": 5, "requests": [_AIBRIX, {"Prompt Length": 2, "Output Length": 3}]},
            {"timestamp": 2500, "requests": [_AIBRIX]},
        )
    ],
}
"""By format; each file reads without a finding, under any policy and replay."""
