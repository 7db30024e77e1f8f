"""What a move of pages leaves behind."""

from __future__ import annotations

from typing import Any


def move_pages(source: Any, target: Any, source_pages: Any, target_pages: Any) -> Any:
    """*target* [pages, page_bytes] after page `target_pages[i]` became `source_pages[i]`."""
    moved = target.copy()
    moved[target_pages] = source[source_pages]
    return moved
