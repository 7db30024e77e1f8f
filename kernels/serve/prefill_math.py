"""Products, attention and head of a prefill step: PyTorch on a GPU, NumPy on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..element import decode, encode

if TYPE_CHECKING:
    from .launch import Layout
    from .prefill import Host, Prefill

PRODUCTS = {"qkv": ("x", "qkv"), "gate_up": ("x", "gate_up"), "down": ("activated", "product")}
"""A layer's matrices -> the buffers that each reads and writes; `out` follows attention."""


class Math(Protocol):
    """What a `Prefill` has multiplied for it."""

    def begin(self, tokens: int, keys: int, prompts: int, host: Host, at: Layout) -> None:
        """A step of so many *tokens*, *keys* and *prompts*, whose lengths *host* holds."""

    def product(self, name: str, layer: int) -> None:
        """One of `PRODUCTS`."""

    def attend(self, layer: int) -> None:
        """Attention of every chunk to its request's keys, and the product `out`."""

    def head(self, count: int) -> None:
        """The best tokens after the *count* rows that `meta` names."""

    def tokens(self, count: int) -> list[int]:
        """What `head` found, once the stream has ended."""

    def warm(self) -> None:
        """Has the libraries load what any step may need."""


ROWS = 16
"""Products run over whole multiples of so many rows, all of which are tried beforehand: cuBLAS
keeps the host waiting at the first step with a number of rows that it has not met."""


class TorchMath:
    """cuBLAS and the flash attention that PyTorch ships, on views of the decoder's weights."""

    def __init__(self, of: Prefill) -> None:
        import torch

        self.torch, self.of = torch, of
        shape, weights, at = of.shape, of.weights, of.at

        def view(array: Any) -> Any:
            return torch.from_dlpack(array).view(torch.bfloat16)

        names = ("x", "qkv", "q", "k", "v", "gate_up", "activated", "product")
        self.buffers = {name: view(getattr(of, name)) for name in names}
        self.matrices = [
            {name: view(getattr(layer, name)).T for name in ("qkv", "out", "gate_up", "down")}
            for layer in weights.layers
        ]
        self.head_matrix = view(weights.head).T
        meta = torch.from_dlpack(of.meta)
        self.last = meta[at.last : at.last + at.prompts]
        self.query_ends = meta[at.query_ends : at.query_ends + at.prompts + 1]
        self.key_ends = meta[at.key_ends : at.key_ends + at.prompts + 1]
        bf16: Any = {"device": "cuda", "dtype": torch.bfloat16}
        self.rows = torch.empty((at.prompts, shape.hidden), **bf16)
        self.logits = torch.empty((at.prompts, shape.vocabulary), **bf16)
        self.found = torch.empty(at.prompts, dtype=torch.int64, pin_memory=True)
        self.scale = shape.head_dim**-0.5
        self.cut: dict[str, Any] = {}

    def begin(self, tokens: int, keys: int, prompts: int, host: Host, at: Layout) -> None:
        """See `Math.begin`."""
        rows = min(-(-tokens // ROWS) * ROWS, len(self.buffers["x"]))
        self.cut = {
            name: buffer[: keys if name in ("k", "v") else rows]
            for name, buffer in self.buffers.items()
        }
        queries = host[at.query_ends : at.query_ends + prompts + 1]
        lengths = host[at.key_ends : at.key_ends + prompts + 1]
        # For queries of a single token each, flash attention would have no row behind the last.
        self.longest = max(2, int(np.diff(queries).max())), int(np.diff(lengths).max())
        self.ends = self.query_ends[: prompts + 1], self.key_ends[: prompts + 1]

    def product(self, name: str, layer: int) -> None:
        """See `Math.product`."""
        x, y = PRODUCTS[name]
        self.torch.mm(self.cut[x], self.matrices[layer][name], out=self.cut[y])

    def attend(self, layer: int) -> None:
        """See `Math.attend`."""
        cut = self.cut
        # Rows behind the last query belong to nobody: no row of a product looks at another. A
        # causal mask of a chunk shorter than its keys is aligned with their ends.
        out = self.torch.ops.aten._flash_attention_forward(
            cut["q"], cut["k"], cut["v"], *self.ends, *self.longest, 0.0, True, False,
            scale=self.scale,
        )[0]  # fmt: skip
        rows = out.reshape(len(out), -1)
        self.torch.mm(rows, self.matrices[layer]["out"], out=cut["product"])

    def head(self, count: int) -> None:
        """See `Math.head`."""
        torch = self.torch
        rows, logits = self.rows[:count], self.logits[:count]
        torch.index_select(self.cut["x"], 0, self.last[:count], out=rows)
        torch.mm(rows, self.head_matrix, out=logits)
        self.found[:count].copy_(torch.argmax(logits, dim=-1), non_blocking=True)

    def tokens(self, count: int) -> list[int]:
        """See `Math.tokens`."""
        found: list[int] = self.found[:count].tolist()
        return found

    def warm(self) -> None:
        """See `Math.warm`."""
        mm, buffers, matrices = self.torch.mm, self.buffers, self.matrices[0]
        attended = buffers["q"].view(len(buffers["q"]), -1)
        for rows in {*range(ROWS, len(attended) + 1, ROWS), len(attended)}:
            for name, (x, y) in PRODUCTS.items():
                mm(buffers[x][:rows], matrices[name], out=buffers[y][:rows])
            mm(attended[:rows], matrices["out"], out=buffers["product"][:rows])
        for rows in range(1, len(self.rows) + 1):
            mm(self.rows[:rows], self.head_matrix, out=self.logits[:rows])


class NumpyMath:
    """The same in float32, rounded where the device rounds; for small models."""

    def __init__(self, of: Prefill) -> None:
        self.of = of
        names = ("qkv", "out", "gate_up", "down")
        self.matrices = [
            {name: decode(getattr(layer, name), "bf16").T for name in names}
            for layer in of.weights.layers
        ]
        self.head_matrix = decode(of.weights.head, "bf16").T
        self.rows = self.prompts = 0
        self.best: list[int] = []

    def begin(self, tokens: int, keys: int, prompts: int, host: Host, at: Layout) -> None:
        """See `Math.begin`."""
        self.rows, self.prompts = tokens, prompts

    def product(self, name: str, layer: int) -> None:
        """See `Math.product`."""
        x, y = (getattr(self.of, buffer)[: self.rows] for buffer in PRODUCTS[name])
        y[...] = encode(decode(x, "bf16") @ self.matrices[layer][name], "bf16")

    def attend(self, layer: int) -> None:
        """See `Math.attend`."""
        of, at = self.of, self.of.at
        shape, host = of.shape, of.host
        queries = host[at.query_ends :][: self.prompts + 1]
        keys = host[at.key_ends :][: self.prompts + 1]
        out = np.zeros((self.rows, shape.q_heads, shape.head_dim), np.float32)
        for i in range(self.prompts):
            q = decode(of.q[queries[i] : queries[i + 1]], "bf16")
            k, v = (decode(one[keys[i] : keys[i + 1]], "bf16") for one in (of.k, of.v))
            places = np.arange(len(k))
            ahead = places > (places[len(k) - len(q) :])[:, None]
            for head in range(shape.q_heads):
                logits = q[:, head] @ k[:, head // shape.group].T * shape.head_dim**-0.5
                logits[ahead] = -np.inf
                weights = np.exp(logits - logits.max(axis=1, keepdims=True))
                sums = weights.sum(axis=1, keepdims=True)
                out[queries[i] : queries[i + 1], head] = weights @ v[:, head // shape.group] / sums
        rows = decode(encode(out.reshape(self.rows, -1), "bf16"), "bf16")
        of.product[: self.rows] = encode(rows @ self.matrices[layer]["out"], "bf16")

    def head(self, count: int) -> None:
        """See `Math.head`."""
        rows = decode(self.of.x[self.of.host[self.of.at.last :][:count]], "bf16")
        logits = decode(encode(rows @ self.head_matrix, "bf16"), "bf16")
        self.best = [int(one) for one in logits.argmax(axis=1)]

    def tokens(self, count: int) -> list[int]:
        """See `Math.tokens`."""
        return self.best[:count]

    def warm(self) -> None:
        """See `Math.warm`."""


def make_math(of: Prefill) -> Math:
    """The products of *of*'s backend."""
    return TorchMath(of) if of.backend.name == "gpu" else NumpyMath(of)
