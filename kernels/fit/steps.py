"""Checks of a profile: predicted decode steps beside steps of another engine, measured whole.

The one rule: nothing is fitted here. The kernel models are summed over a whole model's step and the
difference to the measured step is written into the profile, whatever it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .forms import FORMS
from .samples import SamplesError
from .solve import six

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# layers, width, (heads, kv_heads, head_dim), feed-forward width; vocabulary of both.
SHAPES = {
    "llama-1b": (16, 2048, (32, 8, 64), 8192),
    "llama-8b": (32, 4096, (32, 8, 128), 14336),
}
VOCABULARY = 128_256


def checks(file: Path, kernels: Mapping[str, Any], graph_launch_s: float) -> list[dict[str, Any]]:
    """Predicted beside measured for the `decode_step` lines of *file* (JSON lines, in us)."""
    found = []
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            if row["name"] != "decode_step":
                continue
            step = step_seconds(kernels, row["model"], int(row["B"]), int(row["S"]))
            measured, predicted = six(float(row["value"]) * 1e-6), six(graph_launch_s + step)
            found.append(
                {
                    "name": f"decode step {row['model']} batch {row['B']} context {row['S']}",
                    "measured_s": measured,
                    "predicted_s": predicted,
                    "relative_error": round(predicted / measured - 1.0, 4),
                    "source": "steps",
                }
            )
    except OSError as error:
        raise SamplesError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise SamplesError(f"{file}: no measured steps ({type(error).__name__}: {error})") from None
    return found


def step_seconds(kernels: Mapping[str, Any], model: str, batch: int, context: int) -> float:
    """Kernel time of one bf16 decode step: sums over layers, no overlap, node gaps included."""
    layers, width, (heads, kv_heads, head_dim), wide = SHAPES[model]
    query, key = heads * head_dim, kv_heads * head_dim

    def seconds(kernel: str, **axes: float) -> float:
        entry = kernels[kernel]
        inputs = {name: np.array([float(value)]) for name, value in axes.items()}
        return float(FORMS[entry["form"]](entry["parameters"], inputs)[0])

    def product(n: int, k: int) -> float:
        moved = 2.0 * n * k + 2.0 * batch * (n + k)
        return seconds("gemm.bf16", bytes=moved, flops=2.0 * batch * n * k)

    def small(elements: int) -> float:
        return seconds("elementwise", bytes=2.0 * batch * elements)

    matrices = product(query + 2 * key, width) + product(width, query)
    matrices += product(2 * wide, width) + product(width, wide)
    # norm, split, rotary q and k, append, add, norm, activation, add: elements read and written.
    sizes = (
        2 * width, 2 * (query + 2 * key), 2 * query, 2 * key, 4 * key,
        3 * width, 2 * width, 3 * wide, 3 * width,
    )  # fmt: skip
    nodes = sum(small(size) for size in sizes)
    attended = seconds(
        "decode_attention.bf16", batch=batch, total_context=batch * context, heads=heads,
        kv_heads=kv_heads, head_dim=head_dim,
    )  # fmt: skip
    # LM head, then arg-max in two nodes; the measured step has no embedding and no final norm.
    tail = product(VOCABULARY, width) + small(VOCABULARY) + small(0)
    return layers * (matrices + attended + nodes) + tail
