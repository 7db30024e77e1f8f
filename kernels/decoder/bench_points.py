"""Which decode steps are measured: one point is one line of the samples file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from .shape import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_KV_BYTES = 100e9
MOST_TORCH_BYTES = 30e9
"""PyTorch's own contiguous cache stands beside the pool."""
MOST_FUSED_ROWS = 16
CONTEXTS = tuple(512 << i for i in range(7))
BATCHES = tuple(1 << i for i in range(7))
LIBRARY_MODES = ("host-python", "host-c", "graph", "control")
FUSED_MODES = ("host-c", "graph", "control", "resident")
TORCH_MODES = ("eager", "graph")
KERNELS = ("library", "torch", "fused")
MODES = ("host-python", "eager", "host-c", "graph", "control", "resident")
"""In the order of measuring: what may hang or fault comes last."""
BUDGET_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration to time; the names are those of the record."""

    model: str = "1b"
    weights: str = "bf16"
    kv: str = "bf16"
    kernels: str = "library"
    mode: str = "graph"
    batch: int = 1
    tokens: int = 1
    context: int = 1024
    budget_tokens: int = 0
    page_tokens: int = 16

    @property
    def weight_bits(self) -> int:
        """Bits of a weight."""
        return 4 if self.weights == "w4a16" else 16

    @property
    def kv_bits(self) -> int:
        """Bits of a cached value."""
        return 8 if self.kv == "int8" else 16

    @property
    def rows(self) -> int:
        """Token rows of a step."""
        return self.batch * self.tokens

    @property
    def possible(self) -> bool:
        """Whether the kernels take it and the cache fits."""
        bytes_ = SHAPES[self.model].kv_bytes(self.batch * self.context, self.kv_bits)
        plain = (self.weights, self.kv) == ("bf16", "bf16")
        if bytes_ > MOST_KV_BYTES or (self.weights == "w4a16" and self.rows > 16):
            return False
        if self.kernels == "torch":
            return plain and not self.budget_tokens and bytes_ <= MOST_TORCH_BYTES
        if self.kernels == "fused":
            most = MOST_FUSED_ROWS if SHAPES[self.model].hidden <= 2048 else 8
            return plain and self.rows <= most and self.page_tokens == 16
        return self.budget_tokens < self.context

    @staticmethod
    def of(record: Mapping[str, Any]) -> Point:
        """The point that *record* was measured at."""
        return Point(**{field.name: record[field.name] for field in fields(Point)})

    def record(self) -> dict[str, Any]:
        """Its fields, for a record."""
        return asdict(self)


def grid() -> Iterator[Point]:
    """Every point, the main table of 1B first; some may be impossible twice over."""
    seen: set[Point] = set()
    for point in _all():
        if point not in seen and point.possible and point.budget_tokens < point.context:
            seen.add(point)
            yield point


def _all() -> Iterator[Point]:
    for batch in BATCHES:
        for context in CONTEXTS:
            for budget in (0, BUDGET_TOKENS):
                yield from _modes(batch=batch, context=context, budget_tokens=budget)
    for batch in (1, 4):  # drafts
        for tokens in (2, 4, 8):
            for context in (1024, 8192):
                yield from _modes(batch=batch, context=context, tokens=tokens, torch=False)
    for weights, kv in (("w4a16", "bf16"), ("bf16", "int8"), ("w4a16", "int8")):
        for batch in (1, 8, 16, 64):
            for context in (1024, 8192, 32768):
                for mode in ("host-python", "graph"):
                    yield Point(weights=weights, kv=kv, batch=batch, context=context, mode=mode)
    for batch in (1, 8, 32, 64):
        for context in (512, 2048, 8192):
            for budget in (0, BUDGET_TOKENS):
                common: Any = {"model": "8b", "batch": batch, "context": context}
                for mode in LIBRARY_MODES[:3]:
                    yield Point(**common, mode=mode, budget_tokens=budget)
                for mode in FUSED_MODES:
                    yield Point(**common, mode=mode, budget_tokens=budget, kernels="fused")
                for mode in TORCH_MODES:
                    yield Point(**common, mode=mode, kernels="torch")


def _modes(torch: bool = True, **common: Any) -> Iterator[Point]:
    for mode in LIBRARY_MODES:
        yield Point(**common, mode=mode)
    for mode in FUSED_MODES:
        yield Point(**common, mode=mode, kernels="fused")
    for mode in TORCH_MODES if torch and not common["budget_tokens"] else ():
        yield Point(**common, mode=mode, kernels="torch")
