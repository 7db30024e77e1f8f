"""How far a run's costs can be trusted: what was estimated, and where forms left their domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .profile import decode_kernel

if TYPE_CHECKING:
    from .cost import Cost


def estimated(cost: Cost) -> list[str]:
    """Names of the estimated constants and kernels that the loop of *cost* depends on."""
    profile, models = cost.profile, cost.models
    used = set(cost.modes.uses(cost.loop.mode, cost.loop.prefill))
    used |= {f"gemm.{cost.weights}", "gemm.bf16", "elementwise", "prefill_attention.bf16"}
    used.add(decode_kernel(cost.kv_dtype))
    for model in models:
        used |= set(model.uses) | {f"gemm.{model.setup.weights}"}
    found = [
        name for name in profile.estimated() if name in used or name.rpartition(".")[0] in used
    ]
    attention = f"decode_attention.{cost.kv_dtype}"
    if profile.kind(attention) == "estimated" and attention not in found:
        found.append(attention)
    for model in models:
        found += model.measured.unmeasured
    kinds = profile.device.get("kinds", {})
    if cost.memory_of_profile and kinds.get("hbm_bytes") == "estimated":
        found.append("hbm_bytes")
    return list(dict.fromkeys(found + cost.wide.estimated()))


def extrapolated(cost: Cost) -> list[str]:
    """Where the run left the domain in which a kernel's form was fitted, one phrase each."""
    profile, shape = cost.profile, cost.shape
    attention = profile.kernel(decode_kernel(cost.kv_dtype))
    prefill = profile.kernel("prefill_attention.bf16")
    found = profile.kernel(f"gemm.{cost.weights}").outside(m=cost.most_tokens)
    for model in cost.models:
        found += model.measured.extrapolated()
        for weights, k, n in sorted(model.stages.products):
            found += profile.kernel(f"gemm.{weights}").outside(k=k, n=n)
        found += model.extrapolated()
    if cost.most_batch:
        found += attention.outside(
            batch=cost.most_batch, heads=shape.heads, kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
        )  # fmt: skip
    if cost.most_context:
        found += prefill.outside(context=cost.least_context)
        found += prefill.outside(context=cost.most_context)
    return list(dict.fromkeys(found))
