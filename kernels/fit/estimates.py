"""What nobody has measured on this GPU yet: value, unit, source, reason to believe it.

One rule: a measurement of the same name replaces an entry here, and whatever stays is marked
`estimated` in the profile and in every report that uses it.
"""

from __future__ import annotations

from typing import Any

SOURCES = {
    "data-sheet": "NVIDIA H200 data sheet: 4.8 TB/s, dense tensor rates bf16 989 and fp8 1979 "
    "TFLOP/s",
    "derived": "follows from measured entries of this profile by the rule in its note",
    "public-prefill": "three points of the public FlashAttention-3 prefill tables of "
    "ai-dynamo/aiconfigurator, commit 095f58a, heads 32/8/128, bf16: 393 TFLOP/s at 2,048 tokens, "
    "586 at 8,192, 652 at 16,384",
    "placeholder": "placeholder until an engine is measured",
}

_PLACEHOLDER = "placeholder until an engine is measured"
CONSTANTS: dict[str, tuple[float, str, str, str]] = {
    "prefetch_ring_bytes": (
        200 * 1024 * 132,
        "bytes",
        "data-sheet",
        "200 KiB of the 227 KiB of shared memory that a block may use, times 132 SMs. What a stage "
        "loses without it, the ramp at its start, is in t0_s of the products and in ramp_s of "
        "decode attention",
    ),
    "host_python_schedule_s": (
        2e-5, "s", "placeholder", f"bookkeeping of a Python loop between iterations; {_PLACEHOLDER}"
    ),
    "host_python_schedule_per_request_s": (5e-7, "s/request", "placeholder", _PLACEHOLDER),
    "host_c_schedule_s": (2e-6, "s", "placeholder", f"the same in a C loop; {_PLACEHOLDER}"),
    "host_c_schedule_per_request_s": (5e-8, "s/request", "placeholder", _PLACEHOLDER),
    "device_schedule_s": (
        1e-6, "s", "placeholder", f"the same on the device, in the resident loop; {_PLACEHOLDER}"
    ),
    "device_schedule_per_request_s": (1e-8, "s/request", "placeholder", _PLACEHOLDER),
}  # fmt: skip
"""(value, unit, source, note)"""

PREFILL = {"flops_per_s": 6.92e14, "half_tokens": 1540.0}
"""Rate and ramp through the three points of `public-prefill`."""


def kernels(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries that stand in for kernels which are not in *found*, from those that are."""
    made: dict[str, dict[str, Any]] = {}
    bf16 = found.get("gemm.bf16")
    if bf16 is not None:
        p = bf16["parameters"]
        made["gemm.fp8"] = _entry(
            "roofline",
            {**_own(p), "flops_per_s": 2.0 * p["flops_per_s"]},
            "the measured bf16 product's fixed cost and bandwidth at half the weight bytes, twice "
            "its flop rate (the ratio of the data sheet's dense rates); not measured",
        )
        made["gemm.int8"] = _entry(
            "roofline",
            _own(p),
            "weight-only int8: the measured bf16 product's fixed cost, bandwidth and flop rate at "
            "half the weight bytes; not measured",
        )
    attention = found.get("decode_attention.bf16")
    if attention is not None:
        made["prefill_attention.bf16"] = _entry(
            "ramped_flops",
            {"t0_s": attention["parameters"]["t0_s"], **PREFILL},
            "rate and ramp through three public points, fixed cost of decode attention; not "
            "measured on this machine",
            "public-prefill",
        )
    return {name: entry for name, entry in made.items() if name not in found}


def _own(p: dict[str, float]) -> dict[str, float]:
    return {key: p[key] for key in ("t0_s", "bytes_per_s", "flops_per_s", "q")}


def _entry(
    form: str, parameters: dict[str, float], note: str, source: str = "derived"
) -> dict[str, Any]:
    return {
        "form": form,
        "parameters": parameters,
        "kind": "estimated",
        "domain": {},
        "source": source,
        "includes_node_gap": True,
        "residuals": {},
        "note": note,
    }
