"""What drafting runs and holds: the numbers from which the cost side makes its stages.

The one rule: a drafter is shapes and counts, from public descriptions of the method and the two
models; no time is in it but the host's look-up of an n-gram drafter, which the scenario gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.models import ModelShape

    from .trees import Tree


@dataclass(frozen=True, slots=True)
class Product:
    """Matrix products of a pass beside its transformer layers: *count* of depth k and width n."""

    k: int
    n: int
    count: int = 1

    @property
    def params(self) -> int:
        """Weights of all of them."""
        return self.k * self.n * self.count


@dataclass(frozen=True, slots=True)
class Drafter:
    """What one pass of a drafter is made of, and what it adds to HBM."""

    kind: str
    """model, mtp, eagle, medusa or ngram."""
    shape: ModelShape | None
    """Transformer layers that a pass runs, with LM head and sampling after them; None for none.
    Its `layers` is their number and its `vocab` that of the LM head that drafts."""
    products: tuple[Product, ...]
    """What a pass multiplies besides: the projection into the layers, or Medusa's heads."""
    own_tables: int
    """Tables of vocabulary by width beside the model's: embeddings and LM head; 0 if shared."""
    weight_bits: int
    """Of the drafter's linear layers."""
    kv_bits: int
    """Of the drafter's keys and values."""
    autoregressive: bool
    """Whether a level needs a pass of its own; else one pass drafts all levels."""
    lookup_s: float = 0.0
    """Seconds on the host, of every step, before it is launched."""

    def passes(self, tree: Tree, levels: int) -> tuple[int, ...]:
        """Rows a request of each pass, in order, for a draft of *levels* levels of *tree*."""
        # Model: the first pass has one row. Tokens that the last step accepted go through the
        # drafter in it as well (at most its width), which weights that are read once hide.
        if levels < 1 or self.kind == "ngram":
            return ()
        if not self.autoregressive:
            return (1,)
        return (1, *tree.nodes_of_level[: levels - 1])

    @property
    def prefills(self) -> bool:
        """Whether a prompt goes through the drafter too, to fill its KV."""
        return self.shape is not None

    @property
    def weight_bytes(self) -> float:
        """Bytes that the drafter's weights take in HBM."""
        layers = 0.0
        if self.shape is not None:
            tables = self.own_tables - (1 if self.shape.tied_embeddings else 2)
            layers = self.shape.weight_bytes(self.weight_bits)
            layers += 2.0 * tables * self.shape.embedding_params
        products = sum(product.params for product in self.products)
        return layers + products * self.weight_bits / 8.0

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that the drafter's KV of one token takes in HBM."""
        return 0.0 if self.shape is None else self.shape.kv_bytes_per_token(self.kv_bits)


def separate_model(shape: ModelShape, weight_bits: int, kv_bits: int) -> Drafter:
    """A smaller model of its own (Leviathan et al. 2023): one pass a level, KV and tables apart."""
    tables = 1 if shape.tied_embeddings else 2
    return Drafter("model", shape, (), tables, weight_bits, kv_bits, True)


def mtp(model: ModelShape, layers: int, weight_bits: int, kv_bits: int) -> Drafter:
    """A multi-token prediction head (DeepSeek-V3 2024, section 2.2).

    A projection of embedding and hidden state together, and *layers* layers like the model's own,
    experts included; embeddings and LM head are the model's. One pass a level, the same head again
    and again, as vLLM does with more draft tokens than heads.
    """
    shape = model.model_copy(update={"layers": layers})
    joined = (Product(2 * model.hidden, model.hidden),)
    return Drafter("mtp", shape, joined, 0, weight_bits, kv_bits, True)


def eagle(
    model: ModelShape, layers: int, vocab: int | None, weight_bits: int, kv_bits: int
) -> Drafter:
    """An EAGLE head (Li et al. 2024): drafts features, one dense layer, one pass a level.

    With *vocab* it has an LM head of its own over so many frequent tokens, as EAGLE-3 has.
    """
    # Model: beside a model of experts the layer is dense, with as much feed-forward width as one
    # token passes through there.
    ffn = model.ffn * max(1, model.experts_per_token)
    dense = {"layers": layers, "experts": 0, "experts_per_token": 0, "ffn": ffn}
    shape = model.model_copy(update=dense | {"vocab": model.vocab if vocab is None else vocab})
    joined = (Product(2 * model.hidden, model.hidden),)
    return Drafter("eagle", shape, joined, int(vocab is not None), weight_bits, kv_bits, True)


def medusa(model: ModelShape, heads: int) -> Drafter:
    """Medusa heads (Cai et al. 2024): head i drafts level i from the last hidden state, at once.

    Each is a residual block (hidden x hidden) and an LM head of its own.
    """
    # Model: the heads stay at 16 bits beside a quantised model, as in the published checkpoints.
    products = (
        Product(model.hidden, model.hidden, heads),
        Product(model.hidden, model.vocab, heads),
    )
    return Drafter("medusa", None, products, 0, 16, 16, False)


def ngram(lookup_s: float) -> Drafter:
    """Prompt look-up: drafts what followed the last tokens before; nothing runs on the GPU."""
    # Model: it always finds something to draft; where it would not, put that into the rate.
    return Drafter("ngram", None, (), 0, 16, 16, False, lookup_s)
