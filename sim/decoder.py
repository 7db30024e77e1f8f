"""The stages of a decode step as our decoder runs them, in its two kernel sets.

`library` launches cuBLAS products (or ours, with 4-bit weights) and a kernel of ours for everything
between; `fused` has five stages a layer, seven where pages are selected. The one rule: which
kernels there are, and what each reads and writes, is what `kernels/decoder` and
`kernels/fused_step` launch; their times come from the profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .cache_stages import CacheStages
from .dtypes import BITS
from .forms import Roofline, SplitKv
from .profile import Small, decode_kernel
from .stages import Body, Pass, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .models import ModelShape
    from .profile import Form, Profile
    from .selecting import Selecting
    from .setup import Product

ELEMENT_BYTES = 2.0
GROUPS = {
    "norm": "qkv", "rope": "qkv", "append": "qkv",
    "mlp_norm": "gate_up", "silu_mul": "gate_up", "final_norm": "head", "verify": "commit",
    "record": "commit",
}  # fmt: skip
"""The stage that a kernel is counted under where a decoder's stages are timed."""


Parts = tuple[tuple[Stage, ...], tuple[Stage, ...], tuple[Stage, ...], tuple[Stage, ...]]
"""Before the layers, in a layer before and after attention, behind the layers."""


class Commit(NamedTuple):
    """How drafts are judged: see `CacheStages.verify`."""

    rule: str
    drafted: bool


GREEDY = Commit("greedy", drafted=False)


@dataclass(frozen=True, slots=True)
class DecoderStages:
    """Builds the steps of one model; *gap_s* is the time between two kernels in that loop.

    Where the profile has a kernel as it runs inside a step, that is taken.
    """

    profile: Profile
    shape: ModelShape
    place: str
    """`library`, `fused`, or `resident`: the fused set inside one persistent kernel."""
    weights: str
    kv_dtype: str
    gap_s: float
    page_tokens: int = 16
    head_weights: str = ""
    """Format of the LM head; not given: that of the others."""

    def work(
        self,
        batch: int,
        rows: int,
        pages: float | None = None,
        commit: Commit = GREEDY,
        selecting: Selecting | None = None,
        extra: Sequence[Product] = (),
    ) -> Pass:
        """A step of *batch* requests with *rows* new tokens in all.

        *pages*: how many pages of a request are scored, None for a dense step; *selecting* says in
        which layers, not given: in all; *extra* comes behind the LM head.
        """
        cache = self.cache(batch, rows)
        head, before, after, tail = (
            self._library(rows, cache, commit)
            if self.place == "library"
            else self._fused(rows, cache, commit)
        )
        tail += tuple(self._product(name, batch, k, n, "bf16") for name, k, n in extra)
        layers = self.shape.layers
        if pages is None:
            return Pass(Body(rows, head, before, after, layers), tail)
        chosen = (
            self._stage("score", cache.score(pages)),
            self._stage("select", cache.select(pages)),
        )
        some = layers if selecting is None else selecting.selections
        return Pass(Body(rows, head, before, after, layers, chosen, some), tail)

    def attend(self, batch: int, rows: int, attended: float, selected: bool = False) -> float:
        """Seconds of a layer's attention of *batch* requests over *attended* tokens each.

        *selected*: over a list of pages that were selected.
        """
        form, shape = self.attention(batch, rows, selected), self.shape
        # Queries of all new tokens share a request's keys: they count as more heads.
        heads, total = shape.heads * (rows / batch), float(batch * attended)
        return form.seconds(batch, total, heads, shape.kv_heads, shape.head_dim) + self.shift

    def attention(self, batch: int, rows: int, selected: bool = False) -> SplitKv:
        """The form of attention of *batch* requests with *rows* new tokens in all."""
        # Up to 8 token rows and up to 16 are two builds of the fused kernels.
        wide = self.place != "library" and rows > 8
        kind = "selected" if selected else "rows16" if wide else ""
        name = decode_kernel(self.kv_dtype)
        own = ".".join(filter(None, (name, kind, self.place)))
        several = rows > batch and self.kv_dtype == "bf16" and own not in self.profile.in_step
        form = self._form("verify_attention.bf16" if several else name, kind)
        assert isinstance(form, SplitKv)
        return form

    @property
    def shift(self) -> float:
        """What a stage takes more than where its kernel was timed: there another gap is in it."""
        return self.gap_s - self.profile.constant("graph_node_s")

    def _library(self, rows: int, cache: CacheStages, commit: Commit) -> Parts:
        shape = self.shape
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        head_weights = self.head_weights or self.weights
        before = (
            self._small("norm", rows, 4 * shape.hidden),
            self._product("qkv", rows, shape.hidden, query + 2 * key),
            self._small("rope", rows, 2 * (query + 2 * key)),
            self._stage("append", cache.append()),
        )
        after = (
            self._product("out", rows, query, shape.hidden),
            self._small("mlp_norm", rows, 4 * shape.hidden),
            self._product("gate_up", rows, shape.hidden, 2 * shape.ffn),
            self._small("silu_mul", rows, 3 * shape.ffn),
            self._product("down", rows, shape.ffn, shape.hidden),
        )
        tail = (
            self._small("final_norm", rows, 4 * shape.hidden),
            self._product("head", rows, shape.hidden, shape.vocab, head_weights),
            self._stage("verify", cache.verify(shape.vocab, *commit)),
            self._small("record", rows, 2),
        )
        return (self._small("embed", rows, 2 * shape.hidden),), before, after, tail

    def _fused(self, rows: int, cache: CacheStages, commit: Commit) -> Parts:
        shape = self.shape
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        before = (self._product("qkv", rows, shape.hidden, query + 2 * key),)
        after = (
            self._product("out", rows, query, shape.hidden),
            self._product("gate_up", rows, shape.hidden, 2 * shape.ffn),
            self._product("down", rows, shape.ffn, shape.hidden),
        )
        # The head has chosen a token of each row already, unless it is to be sampled.
        logits = shape.vocab if commit.rule == "rejection" else 0
        tail = (
            self._product("head", rows, shape.hidden, shape.vocab),
            self._stage("verify" if logits else "commit", cache.verify(logits, *commit)),
        )
        return (self._small("begin", rows, 2),), before, after, tail

    def cache(self, batch: int, rows: int) -> CacheStages:
        """What such a step does with its KV."""
        shape = self.shape
        return CacheStages(
            self.profile, batch, rows / batch, shape.heads, shape.kv_heads, shape.head_dim,
            self.page_tokens, self.kv_dtype, self.place,
        )  # fmt: skip

    def _product(self, name: str, rows: int, k: int, n: int, weights: str = "") -> Stage:
        weights = weights or self.weights
        kernel = f"gemm.{weights}" if self.place == "library" else f"gemv.{weights}"
        form = self._form(kernel, f"{n}x{k}")
        assert isinstance(form, Roofline)
        streamed = k * n * BITS[weights] / 8.0
        moved = streamed + ELEMENT_BYTES * rows * (k + n)
        work = moved, 2.0 * rows * n * k, float(rows * k)
        fixed = form.fixed(*work) + self.shift
        return Stage(name, form.seconds(*work) + self.shift, fixed, streamed)

    def _small(self, name: str, rows: int, elements: int) -> Stage:
        kernel = f"elementwise.{name.removeprefix('mlp_').removeprefix('final_')}"
        form = self._form(kernel if kernel in self.profile.kernels else "elementwise")
        assert isinstance(form, Small)
        return self._stage(name, form.seconds(ELEMENT_BYTES * rows * elements))

    def _form(self, name: str, matrix: str = "") -> Form:
        return self.profile.inside(name, self.place, matrix)

    def _stage(self, name: str, seconds: float) -> Stage:
        return Stage(name, seconds + self.shift)
