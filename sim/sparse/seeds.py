"""What the first seed selects, on plain data: as it was, defects included.

The seed (gpu-resident-inference-lab) scores a page by how full it is and how near to the decode
head: a policy by position that asks no query, so nothing about attention follows from it. Its
defect: a full page is worth 10000 a token, so a newest page with k of B tokens comes after every
full page that ends at most 100 (B - k) tokens before the head. In a context shorter than that the
page with the newest tokens is left out whenever as many full pages exist as are selected; only
further back distance weighs more. `topk` and `window` always read the newest block. A second one:
prompt pages are committed with the first output tokens, so the first step finds no candidates,
reads everything and reports 0 of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Page(NamedTuple):
    """A page of one layer of one request: *tokens* tokens from its token *start* on."""

    id: int
    layer: int
    start: int
    tokens: int
    committed: bool = True
    draft: bool = False


class Selected(NamedTuple):
    """What the seed reports of a selection."""

    pages: tuple[Page, ...]
    """By rank."""
    blocks_total: int
    blocks_selected: int
    bytes_read: int
    bytes_saved: int
    sparsity_ratio: float


def score(page: Page, length: int) -> int:
    """The seed's score of a page of a request of *length* tokens, prompt and committed."""
    return 10_000 * page.tokens - 100 * abs(page.start + page.tokens - length) - page.layer


def select(pages: Sequence[Page], length: int, top_k: int, block_bytes: int) -> Selected:
    """The seed's *top_k* pages over all layers together, of those committed and no drafts.

    Every page counts as *block_bytes* bytes, full or not.
    """
    candidates = [page for page in pages if page.committed and not page.draft]
    ranked = sorted(
        candidates, key=lambda page: (-score(page, length), page.layer, page.start, page.id)
    )
    chosen = tuple(ranked[:top_k])
    total, selected = len(candidates), len(chosen)
    ratio = max(0.0, 1.0 - selected / total) if total else 0.0
    saved = (total - selected) * block_bytes
    return Selected(chosen, total, selected, selected * block_bytes, saved, ratio)


def pages_of(length: int, page_tokens: int, layer: int = 0) -> list[Page]:
    """The committed pages of one layer of a request of *length* tokens."""
    starts = range(0, length, page_tokens)
    return [Page(i, layer, at, min(page_tokens, length - at)) for i, at in enumerate(starts)]
