"""The checks of a profile: predicted decode steps beside steps measured on the same machine.

The one rule: nothing is fitted here. The kernel models are summed over a whole model's step and the
difference to the measured step is written into the profile, whatever it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fit import six
from .forms import LinearBytes, Roofline, SplitKv, gemm_bytes, gemm_flops
from .profile import build_form

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# layers, width, (heads, kv_heads, head_dim), feed-forward width; vocabulary of both.
SHAPES = {
    "llama-1b": (16, 2048, (32, 8, 64), 8192),
    "llama-8b": (32, 4096, (32, 8, 128), 14336),
}
VOCABULARY = 128_256


def checks(
    kernels: Mapping[str, Any], graph_launch_s: float, torch: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """Predicted decode steps beside the measured ones: the kernels against a whole model."""
    forms = {
        name: build_form(entry["form"], entry["parameters"]) for name, entry in kernels.items()
    }
    gemm, attention = forms["gemm.bf16"], forms["decode_attention.bf16"]
    small = forms["elementwise"]
    assert isinstance(gemm, Roofline)
    assert isinstance(attention, SplitKv)
    assert isinstance(small, LinearBytes)
    found = []
    for row in torch:
        if row["name"] != "decode_step":
            continue
        step = step_seconds(gemm, attention, small, row["model"], row["B"], row["S"])
        measured, predicted = six(row["value"] * 1e-6), six(graph_launch_s + step)
        found.append(
            {
                "name": f"decode step {row['model']} batch {row['B']} context {row['S']}",
                "measured_s": measured,
                "predicted_s": predicted,
                "relative_error": round(predicted / measured - 1.0, 4),
                "source": "torch",
            }
        )
    return found


def step_seconds(
    gemm: Roofline, attention: SplitKv, small: LinearBytes, model: str, batch: int, context: int
) -> float:
    """Kernel time of one bf16 decode step: sums over layers, no overlap, node gaps included."""
    layers, width, (heads, kv_heads, head_dim), wide = SHAPES[model]
    query, key = heads * head_dim, kv_heads * head_dim

    def product(n: int, k: int) -> float:
        return gemm.seconds(gemm_bytes(batch, n, k, "bf16"), gemm_flops(batch, n, k))

    matrices = product(query + 2 * key, width) + product(width, query)
    matrices += product(2 * wide, width) + product(width, wide)
    # norm, split, rotary q and k, append, add, norm, activation, add: elements read and written.
    sizes = (
        2 * width, 2 * (query + 2 * key), 2 * query, 2 * key, 4 * key,
        3 * width, 2 * width, 3 * wide, 3 * width,
    )  # fmt: skip
    nodes = sum(small.seconds(2.0 * batch * size) for size in sizes)
    attended = attention.seconds(batch, float(batch * context), heads, kv_heads, head_dim)
    # LM head, then arg-max in two nodes; the measured step has no embedding and no final norm.
    tail = product(VOCABULARY, width) + small.seconds(2.0 * batch * VOCABULARY) + small.seconds(0.0)
    return layers * (matrices + attended + nodes) + tail
