"""The names a user writes: formats that are read, formats that are written.

Nothing heavy is imported, since every scenario is checked against these.
"""

from __future__ import annotations

FORMATS = {
    "mooncake": "Mooncake JSON lines: times in ms, one hash id a 512-token block",
    "mooncake-sessions": "Mooncake lines with session_id and delay: closed loop in a session",
    "mooncake-delta": "as mooncake-sessions, but later turns hold only what is new",
    "agentic-mooncake": "Mooncake lines with wait_for and tool waits, version 1 and 2",
    "applied-compute": "one agent session a line: turns, tool outputs and tool latencies",
    "azure": "Azure LLM inference CSV of 2023, 2024 and 2025",
    "burstgpt": "BurstGPT CSV, with and without sessions",
    "bailian": "Qwen-Bailian JSON lines: chats, times in s, 16-token blocks",
    "weka": "Claude Code sessions of kv-cache-tester: one session a line, with sub-agents",
    "vidur": "Vidur CSV, with session and block columns where it has them",
    "splitwise": "Splitwise-sim CSV",
    "llmservingsim": "LLMServingSim JSON lines, times in ns",
    "aibrix": "AIBrix workload JSON lines: several requests a time stamp",
    "requests": "CSV of arrival_s, prompt_tokens, output_tokens",
    "parquet": "our Parquet",
}
"""Each format that is read, with what it is."""
WRITABLE = ("mooncake", "agentic-mooncake", "vidur", "parquet")
SESSIONS = ("auto", "open", "closed")
"""How sessions are replayed: as recorded (open), each turn after the answers it waits for (closed),
or closed where the trace has delays (auto)."""
