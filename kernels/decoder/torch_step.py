"""The same step in plain PyTorch, over contiguous keys and values: the yardstick.

Every request stands at one context, which no step changes, so that a graph can be captured for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache_layout import unpack
from ..element import encode

if TYPE_CHECKING:
    from ..backend import Array
    from .state import DecoderState
    from .weights import Weights


class TorchStep:
    """One decode step of *batch* requests of *context* committed tokens and *tokens* new ones.

    `keys` and `values` bf16 [layers, batch, Hkv, context + tokens, D] start random, or as `load`
    gathers them from a state's pages. `inputs` int64 [batch, tokens]. `step` leaves `logits` bf16
    [batch * tokens, V] and `best` int64 [batch * tokens].
    """

    def __init__(self, weights: Weights, batch: int, context: int, tokens: int = 1) -> None:
        import torch

        shape = weights.shape
        self.torch, self.shape, self.weights = torch, shape, weights
        self.batch, self.context, self.tokens = batch, context, tokens
        bf16: Any = {"device": "cuda", "dtype": torch.bfloat16}
        size = (shape.layers, batch, shape.kv_heads, context + tokens, shape.head_dim)
        self.keys, self.values = torch.randn(size, **bf16), torch.randn(size, **bf16)
        self.inputs = torch.randint(shape.vocabulary, (batch, tokens), device="cuda")
        self.logits: Any = torch.empty(batch * tokens, shape.vocabulary, **bf16)
        self.best = torch.empty(batch * tokens, device="cuda", dtype=torch.int64)
        self.matrices = {
            "embedding": self._view(weights.embedding),
            "head": self._view(weights.head),
            "norm": self._view(weights.final_norm),
        }
        names = ("qkv", "out", "gate_up", "down", "attention_norm", "mlp_norm")
        self.layers = [
            {name: self._view(getattr(layer, name)) for name in names} for layer in weights.layers
        ]
        half = shape.head_dim // 2
        turn = shape.theta ** (-torch.arange(half, device="cuda", dtype=torch.float64) / half)
        at = torch.arange(context, context + tokens, device="cuda", dtype=torch.float64)
        angle = (at[:, None] * turn)[:, None]  # [tokens, 1, D / 2]
        sine = angle.sin()
        self.cosine = torch.cat((angle.cos(), angle.cos()), dim=-1).to(torch.bfloat16)
        self.sine = torch.cat((-sine, sine), dim=-1).to(torch.bfloat16)
        self.mask: Any = None
        if tokens > 1:
            last = torch.arange(context + tokens, device="cuda")
            self.mask = last <= torch.arange(context, context + tokens, device="cuda")[:, None]

    def load(self, state: DecoderState) -> None:
        """Inputs, keys and values of *state*, whose requests all stand at `context`."""
        torch, shape, slots = self.torch, self.shape, state.slots
        first = self.context
        text = state.text[:, first : first + self.tokens].astype(np.int64)
        self.inputs.copy_(torch.from_dlpack(text))
        pages = -(-first // state.page_tokens)
        for layer in range(shape.layers):
            for b in range(self.batch):
                packed = state.cache[layer][slots.table[b, :pages]]
                for target, part in zip(
                    (self.keys, self.values),
                    unpack(packed, state.page_tokens, shape.head_dim, state.kv_bits),
                    strict=True,
                ):
                    rows = self._bf16(part).transpose(1, 0, 2, 3)
                    rows = rows.reshape(shape.kv_heads, -1, shape.head_dim)[:, :first]
                    target[layer, b, :, :first] = self._view(state.backend.xp.array(rows))

    def step(self) -> None:
        """One step, by eager operations on PyTorch's current stream."""
        torch, shape = self.torch, self.shape
        linear, norm = torch.nn.functional.linear, torch.nn.functional.rms_norm
        size, epsilon = (shape.hidden,), shape.epsilon
        h = torch.nn.functional.embedding(self.inputs.view(-1), self.matrices["embedding"])
        for i, layer in enumerate(self.layers):
            x = norm(h, size, layer["attention_norm"], epsilon)
            attended = self._attend(i, linear(x, layer["qkv"]))
            h = torch.addmm(h, attended, layer["out"].T)
            x = norm(h, size, layer["mlp_norm"], epsilon)
            gate, up = linear(x, layer["gate_up"]).chunk(2, dim=-1)
            h = torch.addmm(h, torch.nn.functional.silu(gate) * up, layer["down"].T)
        x = norm(h, size, self.matrices["norm"], epsilon)
        torch.matmul(x, self.matrices["head"].T, out=self.logits)
        torch.argmax(self.logits, dim=-1, out=self.best)

    def _attend(self, i: int, qkv: Any) -> Any:
        torch, shape, first = self.torch, self.shape, self.context
        heads = qkv.view(self.batch, self.tokens, -1, shape.head_dim)
        turning, v = heads.split([shape.q_heads + shape.kv_heads, shape.kv_heads], dim=2)
        other = turning.roll(shape.head_dim // 2, -1)
        turned = torch.addcmul(turning * self.cosine, other, self.sine)
        q, k = turned.split([shape.q_heads, shape.kv_heads], dim=2)
        self.keys[i, :, :, first:] = k.transpose(1, 2)
        self.values[i, :, :, first:] = v.transpose(1, 2)
        out = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), self.keys[i], self.values[i], attn_mask=self.mask, enable_gqa=True
        )
        return out.transpose(1, 2).reshape(-1, shape.q_width)

    def _view(self, array: Array) -> Any:
        return self.torch.from_dlpack(array).view(self.torch.bfloat16)

    @staticmethod
    def _bf16(array: Array) -> Array:
        return array if array.dtype == np.uint16 else encode(array, "bf16")


class TorchMode:
    """Runs a `TorchStep` eagerly, or captured as a CUDA graph; tokens are copied back each step."""

    nodes: int | None = None

    def __init__(self, step: TorchStep, graph: bool) -> None:
        torch = step.torch
        self.step, self.torch, self.name = step, torch, "graph" if graph else "eager"
        self.host = torch.empty(step.best.shape, dtype=torch.int64, pin_memory=True)
        self.stream = torch.cuda.Stream()
        self.graph: Any = None
        with torch.no_grad(), torch.cuda.stream(self.stream):
            for _ in range(2):
                step.step()
            self.stream.synchronize()
            if graph:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, stream=self.stream):
                    step.step()

    def run(self, steps: int) -> list[float]:
        """See `modes.Mode.run`."""
        torch, seconds = self.torch, []
        torch.cuda.synchronize()
        with torch.no_grad(), torch.cuda.stream(self.stream):
            for _ in range(steps):
                begin = time.perf_counter()
                if self.graph is None:
                    self.step.step()
                else:
                    self.graph.replay()
                self.host.copy_(self.step.best, non_blocking=True)
                self.stream.synchronize()
                seconds.append(time.perf_counter() - begin)
        return seconds

    def close(self) -> None:
        """Drops the graph."""
        self.graph = None
