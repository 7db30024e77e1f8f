"""Qwen-Bailian usage traces: one JSON object a request, times in seconds, chats that follow chats.

A session is what hangs on one root chat. Its turns are named by their chats, so one chat may have
several that follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.errors import shown
from sim.trace.lines import blocks
from sim.trace.rows import BadRowError
from sim.trace.turns import Turn

from . import chains
from .objects import LINE_LIMIT, Unread, count, ids, record_of, said, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sim.trace.chunk import Tally
    from sim.trace.rows import Findings
    from sim.trace.turns import Replay

KEYS = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length")
_ROOT = -1


@dataclass(frozen=True, slots=True)
class _Chat:
    line: int
    chat: int
    parent: int
    time_s: float
    prompt: int
    output: int
    ids: NDArray[np.int64] | None


def turns(path: Path, findings: Findings, tally: Tally, replay: Replay) -> Iterator[Turn]:
    """The chats in order of time, each after its parent; how long a user took is not known.

    A chat whose parent is not there, or left out as a bad row, is a root.
    """
    chats = _chats(path, findings, tally)
    prompts, rows = [chat.prompt for chat in chats], [chat.ids for chat in chats]
    bad = chains.misfits(path, tally, replay, prompts, rows)
    for row, finding in bad.items():
        findings.add(chats[row].line, finding)
    ghosts = {chats[row].line for row in bad}
    root_of: dict[int, int] = {}
    coming = {chat.chat for chat in chats}
    orphans = 0
    for chat in sorted(chats, key=lambda chat: chat.time_s):
        parent = chat.parent
        coming.discard(chat.chat)
        if parent in coming or parent == chat.chat:
            text = f"parent_chat_id: chat {parent} is not before chat {chat.chat}; correct the row"
            findings.add(chat.line, BadRowError("chat before its parent", text))
            continue
        if chat.chat in root_of:
            text = f"chat_id: {chat.chat} is there a second time; delete or rename one"
            findings.add(chat.line, BadRowError("chat_id twice", text))
            continue
        root_of[chat.chat] = root_of.get(parent, chat.chat)
        orphans += parent != _ROOT and parent not in root_of
        yield Turn(
            chat.chat, chat.line, chat.prompt, chat.output, str(root_of[chat.chat]), chat.time_s,
            (parent,) if parent in root_of else (), ids=chat.ids, ghost=chat.line in ghosts,
        )  # fmt: skip
    if orphans:
        tally.note(f"{orphans:,} chats have no parent in the file, or a bad one: read as roots")


def _chats(path: Path, findings: Findings, tally: Tally) -> list[_Chat]:
    chats: list[_Chat] = []
    unread = Unread((*KEYS, "hash_ids"), tally)
    bare = 0
    for block in blocks(path, LINE_LIMIT):
        for number, line in block.numbered():
            try:
                record = record_of(line, KEYS)
                if record is None:
                    continue
                chats.append(_chat(number, record))
            except BadRowError as bad:
                findings.add(number, bad)
                continue
            unread.see(record)
            bare += chats[-1].ids is None
        findings.check()
    if bare:
        tally.note(f"{bare:,} requests have no blocks (images): read without a prefix")
    return chats


def _chat(number: int, record: dict[str, Any]) -> _Chat:
    chat, parent = (record[key] for key in KEYS[:2])
    for key, value in zip(KEYS, (chat, parent), strict=False):
        if type(value) is not int or not _ROOT <= value < 2**63:
            raise BadRowError("bad chat", f"{key}: {said(value)} is no chat; write its number")
    if chat == _ROOT:
        raise BadRowError("bad chat", f"chat_id: {shown(chat)} stands for no chat; write a number")
    return _Chat(
        number, chat, parent,
        float(time_of("timestamp", record["timestamp"], 1.0, "seconds")),
        count("input_length", record["input_length"], output=False),
        count("output_length", record["output_length"], output=True),
        ids("hash_ids", record["hash_ids"]) if record.get("hash_ids") else None,
    )  # fmt: skip
