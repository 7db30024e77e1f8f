"""Measures the Weka sessions of Claude Code: the tables of agent-like.

    python bench/fit_agents.py [--traces DIR] > sim/trace/workloads/agent_tables.py

Reads `kv_cache_tester_sessions.jsonl.xz` under DIR (default: traces/). The report on generators
measures one half of the sessions in the same manner and judges the result on the other half.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 64
WIDE = 205_000  # prompts above it need a context of over 200k tokens
LOST = 0.03  # of the blocks before: less is a trimmed end, more an edit
SHRINK = 20_000  # tokens: more is a compaction
SMALL = 40_000  # tokens: a prompt that is still being filled
SHARES = (0, 0.01, 0.02, 0.05, *(round(0.1 * k, 1) for k in range(1, 10)), 0.95, 0.98, 0.99, 0.995)
SHARES = (*SHARES[:4], *sorted({*SHARES[4:], 0.15, 0.25, 0.35, 0.65, 0.75, 0.85}), 0.998, 1)
HEAD = '''"""What coding agents do: quantile tables measured on the Weka sessions of Claude Code.

Written by bench/fit_agents.py from kv-cache-tester (WEKA, Apache-2.0; callanjfox/kv-cache-tester),
{sessions} sessions with {turns:,} turns; do not edit by hand. A table is a tuple of values at the
shares in `SHARES`; tokens or seconds.
"""

from __future__ import annotations

# fmt: off
'''


def table(values: Any) -> tuple[float, ...]:
    """Quantiles at `SHARES`."""
    found = np.quantile(np.asarray(values, dtype=np.float64), SHARES)
    return tuple(float(f"{value:.5g}") for value in found)


def written(name: str, values: tuple[float, ...]) -> str:
    """A tuple as Python source."""
    lines, line = [], ""
    for value in values:
        word = f"{int(value) if value == int(value) else value}, "
        if len(line) + len(word) > 94:
            lines.append(line.rstrip())
            line = ""
        line += word
    inner = "\n".join(f"    {each}" for each in (*lines, line.rstrip()))
    return f"{name} = (\n{inner}\n)"


def turns_of(session: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests of the main conversation."""
    return [request for request in session["requests"] if request["type"] != "subagent"]


def common(a: list[int], b: list[int]) -> int:
    """Ids that two prompts begin with together."""
    size = min(len(a), len(b))
    differ = np.flatnonzero(np.array(a[:size]) != np.array(b[:size]))
    return int(differ[0]) if len(differ) else size


def main() -> None:
    """Print the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, default=Path("traces"), metavar="DIR")
    options = parser.parse_args()
    print(source(find(options.traces), (0, 1)))


def find(folder: Path) -> Path:
    """The file of sessions somewhere under *folder*."""
    return next(iter(sorted(folder.rglob("kv_cache_tester_sessions.jsonl.xz"))))


def source(path: Path, halves: tuple[int, ...]) -> str:
    """The module of tables, from the lines whose number modulo 2 is in *halves*."""
    sessions: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    agents: list[list[dict[str, Any]]] = []
    with lzma.open(path, "rt") as file:
        for number, line in enumerate(file):
            if number % 2 in halves:
                record(number, json.loads(line), sessions, steps, agents)
    head = HEAD.format(sessions=len(sessions), turns=len(steps) + len(sessions))
    return head + body(sessions, steps, agents) + "\n# fmt: on"


def record(
    number: int,
    session: dict[str, Any],
    sessions: list[dict[str, Any]],
    steps: list[dict[str, Any]],
    agents: list[list[dict[str, Any]]],
) -> None:
    """Take one session apart."""
    turns = turns_of(session)
    wide = max(turn["in"] for turn in turns) > WIDE
    sessions.append({
        "number": number, "turns": len(turns), "first": turns[0]["in"], "wide": wide,
        "prefix": session["tool_tokens"] + session["system_tokens"],
        "out": [turn["out"] for turn in turns],
    })  # fmt: skip
    agents += [r["requests"] for r in session["requests"] if r["type"] == "subagent"]
    for count, (before, turn) in enumerate(itertools.pairwise(turns), 1):
        kept = common(before["hash_ids"], turn["hash_ids"])
        held = len(before["hash_ids"])
        steps.append({
            "session": number, "turn": count, "wide": wide,
            "before": before["in"], "in": turn["in"],
            "think": turn.get("think_time"), "user": turn["input_types"] == ["text"],
            "lost": held - kept, "share": (held - kept) / max(1, held),
            "kept": kept * BLOCK, "growth": turn["in"] - before["in"],
        })  # fmt: skip


def body(
    sessions: list[dict[str, Any]], steps: list[dict[str, Any]], agents: list[list[dict[str, Any]]]
) -> str:
    """All tables as Python source."""
    out = [written("SHARES", tuple(SHARES))]
    wide = [s for s in sessions if s["wide"]]
    narrow = [s for s in sessions if not s["wide"]]
    out.append("# sessions whose prompts need a context of over 200k tokens")
    out.append(f"WIDE_SHARE = {len(wide) / len(sessions):.4g}")
    out.append("# turns a session, and tokens of its first prompt")
    for name, some in (("NARROW", narrow), ("WIDE", wide)):
        out.append(written(f"{name}_TURNS", table([s["turns"] for s in some])))
        out.append(written(f"{name}_FIRST", table([s["first"] for s in some])))
        ranks = [np.argsort(np.argsort([s[key] for s in some])) for key in ("turns", "first")]
        out.append(f"{name}_RANK_CORRELATION = {np.corrcoef(*ranks)[0, 1]:.3f}")
    out.append("# tokens of tools and system prompt")
    out.append(written("PREFIX", table([s["prefix"] for s in sessions])))
    lengths = np.log(np.maximum([o for s in sessions for o in s["out"]], 1))
    means = np.array([np.mean(np.log(np.maximum(s["out"], 1))) for s in sessions])
    out.append("# tokens of an answer, and the share of its log-variance that is its session's")
    out.append(written("OUTPUT", table([o for s in sessions for o in s["out"]])))
    out.append(
        f"OUTPUT_BY_SESSION = {share_between(lengths, means, [s['turns'] for s in sessions])}"
    )
    shrunk = [s for s in steps if s["growth"] < -SHRINK]
    rest = [s for s in steps if s["growth"] >= -SHRINK]
    edits = [s for s in rest if s["share"] > LOST]
    grown = [s for s in rest if s["share"] <= LOST and s["growth"] > 0]
    out.append(
        "# tokens that a turn adds: the first, the second, and the third to eighth after one"
    )
    out.append(
        "# of fewer than 40,000 tokens; others after one of fewer than 80,000, than 120,000,"
    )
    out.append("# and of more; in sessions of wide context. The share of the log-variance that is")
    out.append("# its session's")
    names = ("FIRST", "SECOND", "EARLY", "LOW", "MIDDLE", "HIGH", "WIDE")
    kinds = [[s for s in grown if growth_kind(s) == kind] for kind in range(len(names))]
    for name, some in zip(names, kinds, strict=True):
        out.append(written(f"{name}_GROWTH", table([s["growth"] for s in some])))
    logs = np.log([s["growth"] for s in grown])
    numbers = np.array([s["session"] for s in grown])
    ids, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, logs) / counts
    out.append(f"GROWTH_BY_SESSION = {share_between(logs, means, counts.tolist())}")
    own = {s["number"]: s["turns"] for s in sessions}
    ranks = [np.argsort(np.argsort(x)) for x in ([own[n] for n in ids], means)]
    out.append("# rank correlation of a session's turns and its mean log growth")
    out.append(f"GROWTH_BY_TURNS = {np.corrcoef(*ranks)[0, 1]:.3f}")
    out.append("# seconds from an answer to the next turn: a tool runs, a user thinks")
    thinks = [s for s in steps if s["think"] is not None]
    out.append(written("TOOL_S", table([s["think"] for s in thinks if not s["user"]])))
    out.append(written("USER_S", table([s["think"] for s in thinks if s["user"]])))
    out.append("# the share of the log-variance of both that is its session's")
    logs = np.log(np.maximum([s["think"] for s in thinks], 1.0))
    numbers = np.array([s["session"] for s in thinks])
    for name, kind in (("TOOL", False), ("USER", True)):
        some = np.array([s["user"] == kind for s in thinks])
        _, inverse, counts = np.unique(numbers[some], return_inverse=True, return_counts=True)
        means = np.bincount(inverse, logs[some]) / counts
        out.append(f"{name}_BY_SESSION = {share_between(logs[some], means, counts.tolist())}")
    users = {
        name: float(np.mean([s["user"] for s in steps if s["session"] == name])) for name in own
    }
    out.append("# the share of a session's turns that are a user's, and its correlation with their")
    out.append("# number that gives the share over all turns")
    out.append(written("USER_SHARE", table(list(users.values()))))
    whole = float(np.mean([s["user"] for s in steps]))
    out.append(f"USER_BY_TURNS = {tilt(list(own.values()), list(users.values()), whole):.2f}")
    out.append("# turns whose prompt has lost the end of the one before, of all; blocks lost")
    trimmed = [s for s in rest if 0 < s["share"] <= LOST]
    out.append(f"TRIM_SHARE = {len(trimmed) / len(steps):.4f}")
    out.append(f"TRIM_ONE_BLOCK = {np.mean([s['lost'] == 1 for s in trimmed]):.4f}")
    out.append("# turns that change what was in the prompt: (seconds since the answer, share)")
    out.append(
        steps_of(
            "EDIT_SHARE",
            (0, 10, 60, 300, 1800, 1e9),
            [(s["think"], s["share"] > LOST and s["growth"] >= -SHRINK) for s in thinks],
        )
    )
    out.append("# tokens that such a turn keeps, and adds")
    out.append(written("EDIT_KEPT", table([s["kept"] for s in edits])))
    out.append(written("EDIT_GROWTH", table([s["growth"] for s in edits])))
    out.append("# share of turns that compact the prompt, by its tokens: (from, share)")
    for name, is_wide in (("NARROW", False), ("WIDE", True)):
        limits = (0, 1e9) if is_wide else (0, 100e3, 130e3, 140e3, 145e3, 150e3, 160e3, 1e9)
        some = [(s["before"], s["growth"] < -SHRINK) for s in steps if s["wide"] == is_wide]
        out.append(steps_of(f"{name}_COMPACT", limits, some))
    out.append("# tokens of a compacted prompt, and seconds until it is sent")
    out.append(written("COMPACTED", table([s["in"] for s in shrunk])))
    out.append(written("COMPACT_S", table([s["think"] for s in shrunk if s["think"] is not None])))
    out += agent_tables(agents)
    return "\n".join(out)


def tilt(turns: list[int], shares: list[float], whole: float) -> float:
    """The correlation of normal scores at which the mean share over all turns is *whole*."""
    rng = np.random.default_rng(0)
    score, own = rng.standard_normal((2, 200_000))
    ranks = np.argsort(np.argsort(score)) / len(score)
    weights = np.quantile(turns, ranks)
    best = []
    for r in np.arange(-0.8, 0.81, 0.02):
        mixed = r * score + (1 - r * r) ** 0.5 * own
        drawn = np.quantile(shares, np.argsort(np.argsort(mixed)) / len(mixed))
        best.append((abs(float(np.average(drawn, weights=weights)) - whole), float(r)))
    return min(best)[1]


def growth_kind(step: dict[str, Any]) -> int:
    """Which table of growth a turn belongs to."""
    if step["wide"]:
        return 6
    if step["before"] >= SMALL or step["turn"] > 8:
        return 3 + int(step["before"] >= 80_000) + int(step["before"] >= 120_000)
    return min(step["turn"] - 1, 2)


def steps_of(name: str, limits: tuple[float, ...], events: list[tuple[float, bool]]) -> str:
    """Pairs (from, share of events that are true) as Python source."""
    lines = []
    for low, high in itertools.pairwise(limits):
        share = np.mean([is_so for at, is_so in events if low <= at < high])
        lines.append(f"    ({low:.10g}, {share:.4f}),")
    return f"{name} = (\n" + "\n".join(lines) + "\n)"


def agent_tables(agents: list[list[dict[str, Any]]]) -> list[str]:
    """Tables of sub-agents: their turns, prompts and waits."""
    later = [(a, b) for turns in agents for a, b in itertools.pairwise(turns)]
    return [
        "# a sub-agent's turns, first prompt, growth and waits",
        written("SUB_TURNS", table([len(turns) for turns in agents])),
        written("SUB_FIRST", table([turns[0]["in"] for turns in agents])),
        written("SUB_GROWTH", table([max(1, b["in"] - a["in"]) for a, b in later])),
        written("SUB_S", table([b.get("think_time") or 0.0 for _, b in later])),
    ]


def share_between(logs: Any, means: Any, counts: list[int]) -> str:
    """The share of the variance of *logs* that lies between groups of these means and sizes."""
    whole = float(np.var(logs))
    between = float(np.average((means - np.average(means, weights=counts)) ** 2, weights=counts))
    return f"{between / whole:.3f}"


if __name__ == "__main__":
    main()
