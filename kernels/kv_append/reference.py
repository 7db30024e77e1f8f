"""What the append does, on plain arrays: positions by the rule, bounds by the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def append(history: Any, new: Any, length: int) -> Any:
    """*history* [positions, ...] with *new* [tokens, ...] from position *length* on; a copy."""
    result = history.copy()
    result[length : length + len(new)] = new
    return result


def bounds(keys: Any, length: int, tokens: int, page_tokens: int) -> Iterator[tuple[int, Any, Any]]:
    """Page, minima and maxima over tokens of every page that *tokens* from *length* on touch.

    *keys* [positions, ...] hold the step's tokens already; positions behind them do not count.
    """
    end = length + tokens
    for page in range(length // page_tokens, -(-end // page_tokens)):
        part = keys[page * page_tokens : min((page + 1) * page_tokens, end)]
        yield page, part.min(axis=0), part.max(axis=0)


def packed_page(length: int, page_tokens: int, most_tokens: int) -> int | None:
    """The page that a step packs into the 4-bit cache, if the last one may have completed it."""
    due = length >= page_tokens and length % page_tokens < most_tokens
    return length // page_tokens - 1 if due else None
