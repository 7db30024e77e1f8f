"""A profile for a GPU that nobody here has measured: another's, scaled by two data sheets.

The one rule: everything in a derived profile is estimated, whatever it was in the measured one, and
says by which factor it was scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InputError, shown
from .sheets import Sheet, sheet_of, shipped_sheet

if TYPE_CHECKING:
    from collections.abc import Mapping

# Model: what a kernel streams from memory takes the ratio of the peak bandwidths, what it computes
# on tensor cores that of the dense peak rates, what it does in every SM that of their number. So a
# kernel is taken to reach the same share of the peak on both GPUs, and an SM to be as fast; clocks
# and generations differ more than that. Times of launches, hosts, barriers and latencies stay.
BYTES, TENSOR, SMS, PER_SM, RING, L2, PCIE = (
    "bandwidth", "tensor rate", "SMs", "1/SMs", "SMs x shared memory", "L2 size", "PCIe",
)  # fmt: skip
_BY_PARAMETER = {
    "bytes_per_s": BYTES,
    "gemv_bytes_per_s": BYTES,
    "flops_per_s": TENSOR,
    "cached_flops_per_s": TENSOR,
    "gemv_flops_per_s": SMS,
    "l2_bytes_per_s": SMS,
    "consume_bytes_per_s": SMS,
    "slots": SMS,
    "score_s": PER_SM,
    "cached_score_s": PER_SM,
    "cta_s": PER_SM,
    "l2_bytes": L2,
    "ring_bytes": RING,
}
_BY_CONSTANT = {
    "hbm_read_bytes_per_s": BYTES,
    "hbm_copy_bytes_per_s": BYTES,
    "l2_read_bytes_per_s": SMS,
    "prefetch_ring_bytes": RING,
}


def derived(document: dict[str, Any], base: dict[str, Any], place: str) -> dict[str, Any]:
    """The profile of the data sheet in *document*, scaled from the checked profile *base*.

    Both are JSON documents, the second of schema 1. `InputError` about the sheet in the file
    *place*, and if *base* has no data sheet of its own or is derived itself.
    """
    sheet = sheet_of(document, place)
    if base["status"] != "measured":
        raise InputError(f"{place}: {base['name']} is {base['status']}; derive from a measured one")
    if sheet.name == base["name"]:
        raise InputError(f"{place}: name: {sheet.name} is the measured profile's; choose another")
    known = shipped_sheet(base["name"])
    ratios = _ratios(known, sheet)
    source = {"data-sheet": sheet.source, "base-sheet": known.source}
    return {
        "schema": 1,
        "name": sheet.name,
        "status": "estimated",
        "date": base["date"],
        "commit": base["commit"],
        "device": _device(sheet, base["name"]),
        "sources": {**source, "derived": _rule(base["name"])},
        "constants": {
            name: _entry(entry, "value", ratios, _constant_rule(name))
            for name, entry in base["constants"].items()
        },
        "kernels": _kernels(base["kernels"], ratios),
        "in_step": _kernels(base.get("in_step", {}), ratios),
        "checks": [],
        "loops": {name: _parameters(e, ratios, name) for name, e in base.get("loops", {}).items()},
    }


def _rule(name: str) -> str:
    return (
        f"scaled from the measured profile {name} by the ratio of the data sheets: bandwidth,"
        " dense tensor rate of the format, SMs, L2, PCIe; all other times as they are there"
    )


def _device(sheet: Sheet, base: str) -> dict[str, Any]:
    return {
        "name": sheet.gpu,
        "sms": int(sheet.sms),
        "hbm_bytes": sheet.hbm_bytes,
        "l2_bytes": sheet.l2_bytes,
        "kinds": dict.fromkeys(("sms", "hbm_bytes", "l2_bytes"), "estimated"),
        "derived_from": base,
        "note": "from the data sheet; what the driver leaves of the memory may be less",
    }


def _ratios(base: Sheet, sheet: Sheet) -> dict[str, float]:
    """The factor of each rule; tensor rates also by format, and none for one it does not have."""
    sms = sheet.sms / base.sms
    tensor = sheet.bf16_flops_per_s / base.bf16_flops_per_s
    ratios = {
        BYTES: sheet.hbm_bytes_per_s / base.hbm_bytes_per_s,
        TENSOR: tensor,
        SMS: sms,
        PER_SM: 1.0 / sms,
        RING: sms * sheet.shared_bytes_per_sm / base.shared_bytes_per_sm,
        L2: sheet.l2_bytes / base.l2_bytes,
        PCIE: sheet.pcie_bytes_per_s / base.pcie_bytes_per_s,
    }
    if sheet.fp8_flops_per_s is not None and base.fp8_flops_per_s is not None:
        ratios[f"{TENSOR} of fp8"] = sheet.fp8_flops_per_s / base.fp8_flops_per_s
    return ratios


def _constant_rule(name: str) -> str | None:
    if name.startswith(("h2d_", "d2h_")) and name.endswith("_bytes_per_s"):
        return PCIE
    return _BY_CONSTANT.get(name)


def _kernels(table: Mapping[str, Any], ratios: Mapping[str, float]) -> dict[str, Any]:
    """The kernels of a section; products in fp8 only where the GPU has tensor cores for them."""
    fp8 = f"{TENSOR} of fp8" in ratios
    return {
        name: _parameters(entry, ratios, name)
        for name, entry in table.items()
        if fp8 or not name.startswith("gemm.fp8")
    }


def _parameters(entry: Mapping[str, Any], ratios: Mapping[str, float], name: str) -> dict[str, Any]:
    """One kernel or loop with scaled parameters and no residuals, for nobody has checked it.

    # Model: products with int8 and int4 weights unpack them and multiply in bf16.
    """
    scaled, said = {}, []
    for key, value in entry["parameters"].items():
        rule = _BY_PARAMETER.get(key)
        if rule == TENSOR and name.startswith("gemm.fp8"):
            rule = f"{TENSOR} of fp8"
        if rule is None:
            scaled[key] = value
            continue
        scaled[key] = value * ratios[rule]
        said.append(f"{key} x {ratios[rule]:.4g} ({rule})")
    made = {
        **{key: entry[key] for key in ("form", "domain", "includes_node_gap") if key in entry},
        "parameters": scaled,
        "kind": "estimated",
        "source": "derived",
        "residuals": {},
        "note": "; ".join(said) or "as measured on the other GPU",
    }
    if "leaving" in entry:
        made["leaving"] = entry["leaving"]
    return made


def _entry(
    entry: Mapping[str, Any], key: str, ratios: Mapping[str, float], rule: str | None
) -> dict[str, Any]:
    """One constant, scaled by *rule* or as it is."""
    value = entry[key] if rule is None else entry[key] * ratios[rule]
    note = "as measured on the other GPU" if rule is None else f"x {ratios[rule]:.4g} ({rule})"
    made = {"unit": entry["unit"], "kind": "estimated", "source": "derived", "note": note}
    return {key: value, **made}


def base_name(document: Mapping[str, Any], place: str) -> str | None:
    """Name of the profile that *document* is derived from; None for one that stands alone."""
    if "derived_from" not in document or "kernels" in document:
        return None
    name = document["derived_from"]
    if not isinstance(name, str) or not name:
        raise InputError(f"{place}: derived_from: {shown(name)} is no profile's name")
    return name
