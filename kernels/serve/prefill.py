"""Prompts through the model, chunk by chunk, over the decoder's weights and pages.

One rule: the launches are prepared once, for the largest step; how large a step is stands in `meta`
on the device and in the rows that the launches read. Keys and values go to the pages first; then a
chunk attends to all of its request's, gathered from there, so that a later chunk is no other case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..loop_control.mailbox import pinned
from ..loop_control.record import Launch, Recorder
from ..small_ops.launch import rmsnorm, rope_turns, silu_mul
from . import launch as own
from .from_c import from_c
from .prefill_math import make_math

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backend import Array, Backend
    from ..decoder.state import Pool
    from ..decoder.weights import Weights

    Run = Callable[[], None]
    Layer = tuple[Run, Run, Run, Run, int]

Host = np.ndarray[Any, Any]
MOST_PROMPTS = 256
"""Chunks in one step."""


class Piece(NamedTuple):
    """A chunk: its token *ids* int32 [n] from position *start* on, into *pages* of its request."""

    ids: Host
    start: int
    pages: Sequence[int]
    last: bool
    """Whether its last token's logits are wanted."""


class Prefill:
    """Prompts of at most *most_tokens* tokens and *most_keys* keys a step, into *pool*.

    With *bounds* the pages' least and largest keys are kept, for a decoder that selects pages.
    Raises `ValueError` unless the pool holds 16-bit keys.
    """

    def __init__(
        self,
        backend: Backend,
        weights: Weights,
        pool: Pool,
        *,
        most_tokens: int,
        most_keys: int,
        bounds: bool = False,
    ) -> None:
        if pool.kv_bits != 16:
            raise ValueError(f"prefill writes 16-bit keys, not {pool.kv_bits}")
        shape, xp = weights.shape, backend.xp
        self.backend, self.weights, self.pool, self.shape = backend, weights, pool, shape
        self.at = own.Layout(most_tokens, MOST_PROMPTS, most_keys, pool.page_tokens)
        self.host: Host = pinned(backend, self.at.words, np.int32)
        self.meta: Array = xp.zeros(self.at.words, np.int32)

        def bf16(*size: int) -> Array:
            return xp.zeros(size, np.uint16)

        heads, width = shape.kv_heads, shape.head_dim
        self.h, self.x, self.product = (bf16(most_tokens, shape.hidden) for _ in range(3))
        self.qkv = bf16(most_tokens, shape.q_width + 2 * shape.kv_width)
        self.q = bf16(most_tokens, shape.q_heads, width)
        self.k, self.v = (bf16(most_keys, heads, width) for _ in range(2))
        self.gate_up = bf16(most_tokens, 2 * shape.ffn)
        self.activated = bf16(most_tokens, shape.ffn)
        self.math = make_math(self)
        self._rows: list[Host] = []
        """Fields of launch parameters that hold the number of rows."""
        self._turns = rope_turns(backend, width, shape.theta)
        embed = self._recorded(own.embed, weights.embedding, self.meta, self.at.ids, self.h)
        self._embed = self._group([embed])
        self._layers = [self._layer(i, bounds) for i in range(shape.layers)]
        self._final = self._group([self._norm(weights.final_norm, first=False)])

    def launch(self, pieces: Sequence[Piece]) -> int:
        """Launches the step of *pieces* on the current stream; how many last tokens it gives.

        `first` reads these once the stream has ended. Raises `ValueError` if the step is too
        large.
        """
        tokens, keys, last = self._fill(pieces)
        for rows in self._rows:
            rows[0] = tokens
        math = self.math
        math.begin(tokens, keys, len(pieces), self.host, self.at)
        self._embed()
        for norm, caches, mlp_norm, silu, layer in self._layers:
            norm()
            math.product("qkv", layer)
            caches()
            math.attend(layer)
            mlp_norm()
            math.product("gate_up", layer)
            silu()
            math.product("down", layer)
        if last:
            self._final()
            math.head(last)
        return last

    def first(self, count: int) -> list[int]:
        """The *count* tokens of the step that has ended, in order of its pieces."""
        return self.math.tokens(count)

    # ---------------------------------------------------------------------------- preparation
    def _recorded(self, launcher: Any, *args: Any, **options: Any) -> Launch:
        recorder = Recorder(self.backend)
        launcher(recorder, *args, **options)
        (made,) = recorder.launches
        if "rows" in (made.struct.dtype.names or ()):
            self._rows.append(made.struct["rows"])
        return made

    def _norm(self, weight: Array, first: bool) -> Launch:
        x, residual = (self.h, None) if first else (self.product, self.h)
        return self._recorded(rmsnorm, x, weight, self.x, self.shape.epsilon, residual=residual)

    def _group(self, launches: list[Launch]) -> Callable[[], None]:
        """*launches* in one call, from C where there is a stream."""
        if self.backend.name == "gpu":
            return from_c(launches, self.backend.xp.cuda.get_current_stream())

        def run() -> None:
            for one in launches:
                one()

        return run

    def _layer(self, i: int, bounds: bool) -> Layer:
        layer, at, meta = self.weights.layers[i], self.at, self.meta
        cache = self.pool.cache[i]
        caches = [self._recorded(own.store, at, self.qkv, meta, self._turns, self.q, cache)]
        if bounds:
            caches.append(self._recorded(own.bounds, at, meta, cache, self.pool.minmax[i]))
        caches.append(self._recorded(own.gather, at, meta, cache, self.k, self.v))
        norm = self._norm(layer.attention_norm, first=i == 0)
        mlp_norm = self._norm(layer.mlp_norm, first=False)
        silu = self._recorded(silu_mul, self.gate_up, self.activated)
        group = self._group
        return group([norm]), group(caches), group([mlp_norm]), group([silu]), i

    # ---------------------------------------------------------------------------- a step
    def _fill(self, pieces: Sequence[Piece]) -> tuple[int, int, int]:
        """Writes *meta* and sends it; tokens, keys and last tokens of the step."""
        at, host, size = self.at, self.host, self.pool.page_tokens
        if len(pieces) > at.prompts:
            raise ValueError(f"{len(pieces)} chunks in a step, at most {at.prompts}")
        offsets = np.arange(size, dtype=np.int32)
        tokens = keys = last = touched = 0
        host[at.query_ends] = host[at.key_ends] = 0
        for i, piece in enumerate(pieces):
            count, end = len(piece.ids), piece.start + len(piece.ids)
            if tokens + count > at.tokens or keys + end > at.keys:
                raise ValueError(f"a step of more than {at.tokens} tokens or {at.keys} keys")
            pages = np.array(piece.pages[: -(-end // size)], np.int32)
            places = (pages[:, None] * np.int32(size) + offsets).reshape(-1)[:end]
            host[at.ids + tokens : at.ids + tokens + count] = piece.ids
            host[at.positions + tokens : at.positions + tokens + count] = np.arange(
                piece.start, end, dtype=np.int32
            )
            host[at.places + tokens : at.places + tokens + count] = places[piece.start :]
            host[at.key_places + keys : at.key_places + keys + end] = places
            first = piece.start // size
            pairs = host[at.pages + 2 * touched :][: 2 * (len(pages) - first)].reshape(-1, 2)
            pairs[:, 0] = pages[first:]
            pairs[:, 1] = np.minimum(end - np.arange(first, len(pages)) * size, size)
            touched += len(pages) - first
            tokens += count
            keys += end
            if piece.last:
                host[at.last + last] = tokens - 1
                last += 1
            host[at.query_ends + i + 1], host[at.key_ends + i + 1] = tokens, keys
        host[:4] = (tokens, keys, touched, 0)
        self._send(at.key_places + keys)
        return tokens, keys, last

    def _send(self, words: int) -> None:
        if self.backend.name == "cpu":
            self.meta[:words] = self.host[:words]
            return
        runtime = self.backend.xp.cuda.runtime
        stream = self.backend.xp.cuda.get_current_stream()
        runtime.memcpyAsync(self.meta.data.ptr, self.host.ctypes.data, 4 * words, 1, stream.ptr)
