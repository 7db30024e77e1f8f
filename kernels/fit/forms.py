"""How long a kernel takes as a function of its work, over arrays; what the fit varies.

The simulator states the same formulas once more, for one call at a time; a test holds the two
against each other. All quantities are SI. Each form takes its parameters as a map and the axes of
many points as float64 arrays, and returns seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Parameters = Mapping[str, float]
Axes = Mapping[str, FloatArray]


def roofline(p: Parameters, x: Axes) -> FloatArray:
    """t0 + ((bytes/bw)^q + (flops/F)^q)^(1/q): matrix products."""
    memory = (x["bytes"] / p["bytes_per_s"]) ** p["q"]
    compute = (x["flops"] / p["flops_per_s"]) ** p["q"]
    time: FloatArray = p["t0_s"] + (memory + compute) ** (1.0 / p["q"])
    return time


def roofline_gemv(p: Parameters, x: Axes) -> FloatArray:
    """The faster of two rooflines that share q."""
    gemv = {key.removeprefix("gemv_"): value for key, value in p.items() if "gemv_" in key}
    return np.minimum(roofline(p, x), roofline({**gemv, "q": p["q"]}, x))


def ramped_gemv(p: Parameters, x: Axes) -> FloatArray:
    """The faster of a roofline and of one that takes ramp and input more.

    ramp * bytes / (bytes + half_bytes): what filling the SMs and the last, uneven wave cost.
    input * inputs: every SM reads all m * k activations, from L2.
    """
    gemv = {key.removeprefix("gemv_"): value for key, value in p.items() if "gemv_" in key}
    ramp = gemv["ramp_s"] * (x["bytes"] / (x["bytes"] + gemv["half_bytes"]))
    memory = (x["bytes"] / gemv["bytes_per_s"]) ** p["q"]
    compute = (x["flops"] / gemv["flops_per_s"]) ** p["q"]
    ramp = ramp + gemv["input_s"] * x["inputs"]
    own = gemv["t0_s"] + ramp + (memory + compute) ** (1.0 / p["q"])
    return np.minimum(roofline(p, x), own)


def split_kv(p: Parameters, x: Axes) -> FloatArray:
    """t0 + sqrt((bytes/bw + ramp)^2 + (cta * batch * kv_heads)^2): decode attention."""
    per_token = 2.0 * x["kv_heads"] * x["head_dim"] * p["kv_bytes"]
    fixed = 4.0 * x["batch"] * x["heads"] * x["head_dim"]
    stream = (x["total_context"] * per_token + fixed) / p["bytes_per_s"] + p["ramp_s"]
    pairs = p["cta_s"] * (x["batch"] * x["kv_heads"])
    time: FloatArray = p["t0_s"] + np.sqrt(stream * stream + pairs * pairs)
    return time


def split_kv_columns(p: Parameters, x: Axes) -> FloatArray:
    """split_kv, + column for every doubling of a KV head's query rows beyond eight."""
    columns = np.log2(np.ceil(x["heads"] / x["kv_heads"] / 8.0))
    time: FloatArray = split_kv(p, x) + p["column_s"] * columns
    return time


def ramped_flops(p: Parameters, x: Axes) -> FloatArray:
    """t0 + flops * (1 + half_tokens/context) / F: causal prefill attention of one chunk."""
    chunk, offset = x["chunk"], x["offset"]
    flops = 4.0 * x["heads"] * x["head_dim"] * (chunk * offset + chunk * (chunk + 1.0) / 2.0)
    ramp = 1.0 + p["half_tokens"] / (chunk + offset)
    time: FloatArray = p["t0_s"] + flops * ramp / p["flops_per_s"]
    return time


def chunked_prefill(p: Parameters, x: Axes) -> FloatArray:
    """t0 + scores * (4 head_dim/F + score) * (1 + half_tokens/context), one set for offset 0.

    The other set, `cached_*`, is for a chunk behind cached tokens, where libraries run another
    kernel. *score_s* is the exponential and its company, whatever the head size.
    """
    cached = {key.removeprefix("cached_"): value for key, value in p.items() if "cached_" in key}
    return np.where(x["offset"] > 0.0, _scores(cached, x), _scores(p, x))


def _scores(p: Parameters, x: Axes) -> FloatArray:
    chunk, offset = x["chunk"], x["offset"]
    scores = x["heads"] * (chunk * offset + chunk * (chunk + 1.0) / 2.0)
    each = 4.0 * x["head_dim"] / p["flops_per_s"] + p["score_s"]
    ramp = 1.0 + p["half_tokens"] / (chunk + offset)
    time: FloatArray = p["t0_s"] + scores * each * ramp
    return time


def linear_bytes(p: Parameters, x: Axes) -> FloatArray:
    """t0 + bytes/bw: small stages."""
    time: FloatArray = p["t0_s"] + x["bytes"] / p["bytes_per_s"]
    return time


def cached_bytes(p: Parameters, x: Axes) -> FloatArray:
    """t0 + bytes/bw, where a share of the bytes that falls to 0 at *l2_bytes* comes from L2."""
    moved = x["bytes"]
    hits = np.maximum(0.0, 1.0 - moved / p["l2_bytes"])
    time: FloatArray = p["t0_s"] + moved * (
        hits / p["l2_bytes_per_s"] + (1.0 - hits) / p["bytes_per_s"]
    )
    return time


def stream_rows(p: Parameters, x: Axes) -> FloatArray:
    """t0 + sqrt((bytes/bw + ramp)^2 + (row * rows)^2): one pass over memory, *rows* results."""
    stream = x["bytes"] / p["bytes_per_s"] + p["ramp_s"]
    rows = p["row_s"] * x["rows"]
    time: FloatArray = p["t0_s"] + np.sqrt(stream * stream + rows * rows)
    return time


def waves(p: Parameters, x: Axes) -> FloatArray:
    """t0 + ceil(rows/slots) * (row + entry * entries): rows that a block works through each."""
    rounds = np.ceil(x["rows"] / p["slots"])
    time: FloatArray = p["t0_s"] + rounds * (p["row_s"] + p["entry_s"] * x["entries"])
    return time


FORMS: dict[str, Callable[[Parameters, Axes], FloatArray]] = {
    "roofline": roofline,
    "roofline_gemv": roofline_gemv,
    "ramped_gemv": ramped_gemv,
    "split_kv": split_kv,
    "split_kv_columns": split_kv_columns,
    "ramped_flops": ramped_flops,
    "chunked_prefill": chunked_prefill,
    "linear_bytes": linear_bytes,
    "cached_bytes": cached_bytes,
    "stream_rows": stream_rows,
    "waves": waves,
}
"""Every form by its name in a profile."""
