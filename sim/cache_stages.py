"""What a step does with its KV beside attention: append, page scores, selection, verification.

The one rule: sizes are counted as the kernels were calibrated, so that the profile's forms hold.
Nodes of a graph, the gap between two of them included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .curve import Curve
from .dtypes import BITS
from .forms import SplitKv, StreamRows, Waves
from .profile import decode_kernel

if TYPE_CHECKING:
    from .profile import Form, Profile

ELEMENT_BYTES = 2.0  # new keys and values, bounds, queries and logits: 16 bits


@dataclass(frozen=True, slots=True)
class CacheStages:
    """Stages of a step of *batch* requests with *tokens* new tokens each over a paged cache."""

    profile: Profile
    batch: int
    tokens: float
    """The mean over requests, where they differ."""
    heads: int
    kv_heads: int
    head_dim: int
    page_tokens: int = 16
    kv_dtype: str = "bf16"
    place: str = ""
    """Where the kernels run, if inside a decode step."""

    def _form(self, name: str) -> Form:
        return self.profile.inside(name, self.place)

    def append(self) -> float:
        """Seconds of writing the new keys and values and the pages' bounds."""
        form = self._form("kv_append.bf16")
        assert isinstance(form, StreamRows)
        rows = self.batch * self.kv_heads
        token = self.head_dim * ELEMENT_BYTES
        # New rows read and written, the page's keys before them read, the bounds written.
        pages = 1.0 + (self.tokens - 1.0) / self.page_tokens
        before = (self.page_tokens - 1.0) / 2.0
        stored = BITS[self.kv_dtype] / 16.0
        moved = 2.0 * self.tokens * (1.0 + stored) + before * stored + 2.0 * pages
        return form.seconds(rows * token * moved, rows)

    def score(self, pages: float, vectors: float = 2.0) -> float:
        """Seconds of scoring *pages* pages a request: bounds, queries, page table and scores.

        The bounds are *vectors* vectors for each page and KV head.
        """
        form = self._form("page_score")
        assert isinstance(form, StreamRows)
        rows, every = self.batch * self.kv_heads, self.batch * pages
        bounds = every * self.kv_heads * vectors * self.head_dim * ELEMENT_BYTES
        queries = self.batch * self.tokens * self.heads * self.head_dim * ELEMENT_BYTES
        return form.seconds(bounds + queries + 4.0 * every * (self.kv_heads + 1), rows)

    def scoring(self, vectors: float) -> Curve:
        """`score` as a function of the pages of all requests together."""
        form = self._form("page_score")
        assert isinstance(form, StreamRows)
        rows = self.batch * self.kv_heads
        page = self.kv_heads * vectors * self.head_dim * ELEMENT_BYTES
        page += 4.0 * (self.kv_heads + 1)
        queries = self.batch * self.tokens * self.heads * self.head_dim * ELEMENT_BYTES
        rate, rest = form.bytes_per_s, form.row_s * rows
        return Curve(form.t0_s, page / rate, queries / rate + form.ramp_s, rest * rest)

    def select(self, pages: float) -> float:
        """Seconds of choosing among *pages* pages for each request and KV head."""
        form = self._form("topk_select")
        assert isinstance(form, Waves)
        return form.seconds(self.batch * self.kv_heads, pages)

    def selecting(self) -> Curve:
        """`select` as a function of the pages of all requests together."""
        form = self._form("topk_select")
        assert isinstance(form, Waves)
        none, one = self.select(0.0), self.select(1.0)
        return Curve(none, (one - none) / self.batch, 0.0, 0.0)

    def attend(self, tokens: float) -> float:
        """Seconds of attention of all requests over *tokens* tokens of the cache each."""
        name = decode_kernel(self.kv_dtype)
        if self.tokens > 1 and self.kv_dtype == "bf16":
            name = "verify_attention.bf16"
        form = self._form(name)
        assert isinstance(form, SplitKv)
        # Queries of all new tokens share a request's keys: they count as more heads.
        heads = self.heads * self.tokens
        total = float(self.batch * tokens)
        return form.seconds(self.batch, total, heads, self.kv_heads, self.head_dim)

    def verify(self, vocabulary: int, rule: str = "greedy", drafted: bool = False) -> float:
        """Seconds of verification and commit over each row of *vocabulary* logits.

        *rule*: `greedy` takes the arg-max of each row, `rejection` samples; *drafted*: from what
        the draft's probabilities leave, 32 bits each, of which it reads a row a request.
        """
        form = self._form(f"verify_commit.{rule}")
        assert isinstance(form, StreamRows)
        rows = self.batch * self.tokens
        moved = rows * vocabulary * ELEMENT_BYTES
        if drafted:
            moved += self.batch * vocabulary * 4.0
        return form.seconds(moved, rows)
