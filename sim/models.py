"""The shape of a language model: its weights, the bytes they take, and the KV of one token.

The one rule: a shape holds what a public `config.json` says and nothing that was measured. The
parameter counts are those of the published checkpoints, to the last weight.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .node import Flag, Node, refuse

Dimension = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Experts = Annotated[int, Field(strict=True, ge=0, le=65_536)]


class ModelShape(Node):
    """Dimensions of a decoder-only transformer with gated feed-forward (SwiGLU) layers."""

    name: Annotated[str, Field(strict=True, min_length=1, max_length=100)]
    """How reports call the model."""
    layers: Dimension
    """Transformer layers (`num_hidden_layers`)."""
    hidden: Dimension
    """Width of the residual stream (`hidden_size`)."""
    heads: Dimension
    """Query heads (`num_attention_heads`)."""
    kv_heads: Dimension
    """Key/value heads, a divisor of `heads` (`num_key_value_heads`)."""
    head_dim: Dimension
    """Width of one head (`head_dim`, else `hidden_size / num_attention_heads`)."""
    ffn: Dimension
    """Feed-forward width; of one expert with MoE (`intermediate_size`, `moe_intermediate_size`)."""
    vocab: Dimension
    """Rows of the embedding table (`vocab_size`)."""
    tied_embeddings: Flag = False
    """Whether the embedding table is also the LM head (`tie_word_embeddings`)."""
    max_context: Dimension
    """Tokens of prompt and output together (`max_position_embeddings`)."""
    experts: Experts = 0
    """Experts of a layer; 0 for a dense model (`num_experts`)."""
    experts_per_token: Experts = 0
    """Experts that one token passes through (`num_experts_per_tok`)."""
    qk_norm: Flag = False
    """Whether query and key heads are normalised (Qwen3)."""
    qkv_bias: Flag = False
    """Whether the query, key and value projections have a bias (`attention_bias`, Qwen2)."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelShape:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        if self.heads % self.kv_heads:
            faults.append((("kv_heads",), f"{self.kv_heads} does not divide heads ({self.heads})"))
        if self.experts_per_token > self.experts:
            what = f"{self.experts_per_token} is more than experts ({self.experts})"
            faults.append((("experts_per_token",), what))
        if self.experts and not self.experts_per_token:
            faults.append((("experts_per_token",), "missing; a model with experts needs it"))
        refuse(faults)
        return self

    @property
    def embedding_params(self) -> int:
        """Weights of the embedding table; an untied LM head has as many again."""
        return self.vocab * self.hidden

    @property
    def attention_params(self) -> int:
        """Weights of the four projections of one layer, biases included and norms left out."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (q + 2 * kv) + q * self.hidden + (q + 2 * kv) * self.qkv_bias

    @property
    def router_params(self) -> int:
        """Weights of one layer's expert router; 0 for a dense model."""
        return self.hidden * self.experts

    @property
    def expert_params(self) -> int:
        """Weights of one gated feed-forward block (gate, up, down): one expert, or the layer's."""
        return 3 * self.hidden * self.ffn

    @property
    def ffn_params(self) -> int:
        """Feed-forward weights of one layer: all experts and the router."""
        return self.expert_params * max(1, self.experts) + self.router_params

    @property
    def norm_params(self) -> int:
        """Norm weights of one layer."""
        return 2 * self.hidden + 2 * self.head_dim * self.qk_norm

    @property
    def params(self) -> int:
        """All weights of the model."""
        tables = self.embedding_params * (1 if self.tied_embeddings else 2)
        layer = self.attention_params + self.ffn_params + self.norm_params
        return tables + self.layers * layer + self.hidden

    @property
    def active_params(self) -> int:
        """Weights that take part in one token: of the experts, those that it is routed to."""
        idle = max(0, self.experts - self.experts_per_token)
        return self.params - self.layers * idle * self.expert_params

    def weight_bytes(self, weight_bits: float) -> float:
        """Bytes of the resident weights with linear layers at *weight_bits*.

        Pass 4.25 instead of 4 to count a 16-bit scale for every group of 64.
        """
        # Model: only projections and experts are quantised; the embedding table, the LM head,
        # norms, biases and routers stay at 16 bits, as in the public FP8 and AWQ checkpoints
        # (`modules_to_not_convert` of Qwen/Qwen3-30B-A3B-FP8). Scale factors are not counted.
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim * self.qkv_bias
        linear = self.attention_params - bias + self.ffn_params - self.router_params
        kept = self.params - self.layers * linear
        return self.layers * linear * weight_bits / 8.0 + kept * 2.0

    def streamed_bytes(self, weight_bits: float) -> float:
        """Bytes of weights that one iteration reads if it reads every expert.

        All but the embedding table, of which an iteration reads a few rows; a tied table is read
        as the LM head.
        """
        table = 0.0 if self.tied_embeddings else self.embedding_params * 2.0
        return self.weight_bytes(weight_bits) - table

    def kv_bytes_per_token(self, kv_bits: float) -> float:
        """Bytes of keys and values of one token over all layers, scale factors not counted."""
        return 2.0 * self.layers * self.kv_heads * self.head_dim * kv_bits / 8.0


# Dimensions as in `config.json` of the Hugging Face repositories named beside each entry; the
# config's field names are in the docstrings of `ModelShape`.
_SHAPES = (
    ModelShape(  # meta-llama/Llama-3.2-1B: head_dim 64, tie_word_embeddings true
        name="llama-3.2-1b",
        layers=16,
        hidden=2048,
        heads=32,
        kv_heads=8,
        head_dim=64,
        ffn=8192,
        vocab=128_256,
        tied_embeddings=True,
        max_context=131_072,
    ),
    ModelShape(  # meta-llama/Meta-Llama-3-8B: max_position_embeddings 8192
        name="llama-3-8b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=14_336,
        vocab=128_256,
        max_context=8192,
    ),
    ModelShape(  # meta-llama/Llama-3.1-8B: as Llama 3, with scaled rotary positions
        name="llama-3.1-8b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=14_336,
        vocab=128_256,
        max_context=131_072,
    ),
    ModelShape(  # meta-llama/Llama-3.1-70B
        name="llama-3.1-70b",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        ffn=28_672,
        vocab=128_256,
        max_context=131_072,
    ),
    ModelShape(  # Qwen/Qwen3-30B-A3B: num_experts 128, num_experts_per_tok 8, norm of q and k
        name="qwen3-30b-a3b",
        layers=48,
        hidden=2048,
        heads=32,
        kv_heads=4,
        head_dim=128,
        ffn=768,
        vocab=151_936,
        max_context=40_960,
        experts=128,
        experts_per_token=8,
        qk_norm=True,
    ),
)

PRESETS: dict[str, ModelShape] = {shape.name: shape for shape in _SHAPES}
"""The models that a scenario may name."""
