"""Decode passes of one model in one loop: measured where that was done, else from its kernels.

The one rule: whoever runs passes, the model that serves or one that drafts for it, runs them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache_stages import CacheStages
from .forms import SplitKv
from .measured import Layer, MeasuredLoops, attention_of, mixed_layer
from .moe import fetch_of
from .stages import Pass, Stage, Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .cost import Chunk
    from .curve import Curve
    from .modes import Modes
    from .profile import Form
    from .setup import Setup
    from .timing import Timing


class ModelCost:
    """What passes of the model of *setup* take under *modes*."""

    def __init__(self, setup: Setup, modes: Modes) -> None:
        self.setup = setup
        self.profile, self.shape = setup.profile, setup.shape
        self.modes = modes.between() if setup.between else modes
        self.stages = Stages(
            setup.shape, setup.weights, setup.loop.kernels, setup.profile, setup.experts
        )
        self.measured = MeasuredLoops(setup, modes)
        self.split_kv = setup.profile.decode_attention(setup.kv_dtype)
        self.prefill = setup.profile.prefill_attention()
        self.layers: dict[tuple[int, int], Layer] = {}
        self.wide: dict[str, float] = {}
        """The most new tokens a request that an attention kernel was asked about."""
        self.uses: dict[str, None] = {}
        """Kernels beside products, small stages and decode attention that passes have run."""

    def step(self, mode: str, padded: int, rows: int, batch: int) -> tuple[Timing, Layer]:
        """*batch* requests, run as *padded*, decode *rows* tokens in all."""
        alone = self._alone_for(mode, batch)
        found = self.measured.decode(mode, padded, rows, batch, alone)
        if found is None:
            found = alone(padded, rows), self.layer(padded, rows)
        setup = self.setup
        if rows > padded:
            kernel = self._attends(padded, rows)[0]
            self.uses.setdefault(kernel)
            if not self.measured.usable:
                self.wide[kernel] = max(rows / padded, self.wide.get(kernel, 0.0))
        if setup.commit is not None:
            self.uses.setdefault(f"verify_commit.{setup.commit.rule}")
        if setup.selecting is not None and setup.selecting.selections:
            self.uses |= dict.fromkeys(("page_score", "topk_select"))
        return found

    def extrapolated(self) -> list[str]:
        """Where attention of several tokens left what it was measured on, one phrase each."""
        found = []
        for name, tokens in self.wide.items():
            found += self.profile.kernel(name).outside(tokens=tokens)
        return found

    def _alone_for(self, mode: str, batch: int) -> Callable[[int, int], Timing]:
        def alone(padded: int, rows: int) -> Timing:
            work = self.work(padded, rows)
            timing = self.modes.run(mode, work, batch)
            fetch = fetch_of(self.profile, self.shape, self.setup.weights, self.setup.experts, rows)
            return fetch.timing(timing, layer_seconds(work))

        return alone

    def run(self, mode: str, padded: int, rows: int, batch: int) -> tuple[Pass, Modes, float]:
        """What `step` is made of: stages, modes, and a factor for all but what reads KV."""
        found = self.measured.loop_modes(mode, padded, rows)
        if found is None:
            return self.work(padded, rows), self.modes, 1.0
        modes, edge = found
        if edge is None:
            return self.measured.work(mode, modes, padded, rows)[0], modes, 1.0
        alone = self._alone_for(mode, batch)
        factor = self.measured.factor(mode, modes, edge, batch, alone)
        return self.work(padded, rows), self.modes, factor

    def work(self, requests: int, rows: int) -> Pass:
        """The stages of such a pass, of kernels timed one by one."""
        setup = self.setup
        if setup.selecting is None and setup.commit is None and not setup.extra:
            return self.stages.of(rows, rows)
        return self.stages.wide(self._cache(requests, rows), requests, rows, setup)

    def heads(self, requests: int) -> list[Stage]:
        """What a pass of so many requests runs behind its LM head."""
        return self.stages.heads(requests, self.setup)

    def prefill_seconds(self, chunks: Sequence[Chunk]) -> float:
        """Seconds of a layer's prefill attention over *chunks*, in one launch."""
        form, shape = self.prefill, self.shape
        seconds = form.t0_s
        for tokens, offset in chunks:
            seconds += (
                form.seconds(
                    heads=shape.heads, head_dim=shape.head_dim, chunk=tokens, offset=offset
                )
                - form.t0_s
            )
        return seconds

    def layer(self, requests: int, rows: int) -> Layer:
        """What a layer of it does with the KV."""
        found = self.layers.get((requests, rows))
        if found is None:
            found = self.layers[requests, rows] = self._layer(requests, rows)
        return found

    def _layer(self, requests: int, rows: int) -> Layer:
        _, form = self._attends(requests, rows)
        dense: Curve = attention_of(form, self.shape, requests, rows, self.prefill)
        if self.setup.selecting is None:
            return dense
        return mixed_layer(self.setup.selecting, dense, dense, self._cache(requests, rows))

    def _attends(self, requests: int, rows: int) -> tuple[str, SplitKv]:
        """Name and form of the attention kernel for so many new tokens."""
        name = "verify_attention.bf16"
        if rows > requests and self.setup.kv_dtype == "bf16" and name in self.profile.kernels:
            return name, _split_kv(self.profile.kernel(name).form)
        return f"decode_attention.{self.setup.kv_dtype}", self.split_kv

    def _cache(self, requests: int, rows: int) -> CacheStages:
        setup, shape = self.setup, self.shape
        return CacheStages(
            self.profile, requests, rows / requests, shape.heads, shape.kv_heads, shape.head_dim,
            setup.page_tokens, setup.kv_dtype,
        )  # fmt: skip


def layer_seconds(work: Pass) -> float:
    """Seconds of a layer's stages in *work*, attention left out."""
    body = work.body
    return sum(stage.seconds for stage in body.before + body.after)


def _split_kv(form: Form) -> SplitKv:
    assert isinstance(form, SplitKv)
    return form
