"""Checks of a profile file before anything is built from it.

The one rule: findings are collected, one line each (`file: path.in.json: what; how to mend`), and
raised together.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import InputError, shown
from .profile_loops import check_loops

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
KINDS = ("measured", "fitted", "estimated")
ROOFLINE = ("t0_s", "bytes_per_s", "flops_per_s", "q")
SCORES = ("t0_s", "flops_per_s", "score_s", "half_tokens")
FORMS = {
    "roofline": ROOFLINE,
    "roofline_gemv": (*ROOFLINE, "gemv_t0_s", "gemv_bytes_per_s", "gemv_flops_per_s"),
    "ramped_gemv": (
        *ROOFLINE,
        *(f"gemv_{key}" for key in (*ROOFLINE[:3], "ramp_s", "half_bytes", "input_s")),
    ),
    "split_kv": ("t0_s", "bytes_per_s", "ramp_s", "cta_s", "kv_bytes"),
    "split_kv_columns": ("t0_s", "bytes_per_s", "ramp_s", "cta_s", "kv_bytes", "column_s"),
    "ramped_flops": ("t0_s", "flops_per_s", "half_tokens"),
    "chunked_prefill": (*SCORES, *(f"cached_{key}" for key in SCORES)),
    "linear_bytes": ("t0_s", "bytes_per_s"),
    "cached_bytes": ("t0_s", "bytes_per_s", "l2_bytes_per_s", "l2_bytes"),
    "stream_rows": ("t0_s", "bytes_per_s", "ramp_s", "row_s"),
    "waves": ("t0_s", "row_s", "entry_s", "slots"),
}
# Which forms a kernel may have, by the part of its name before the dot.
FAMILIES = {
    "gemm": ("roofline", "roofline_gemv", "ramped_gemv"),
    "gemv": ("roofline",),
    "decode_attention": ("split_kv", "split_kv_columns"),
    "prefill_attention": ("ramped_flops", "chunked_prefill"),
    "elementwise": ("linear_bytes", "cached_bytes"),
    "page_score": ("stream_rows",),
    "topk_select": ("waves",),
    "verify_commit": ("stream_rows",),
    "kv_append": ("stream_rows",),
}
CONSTANTS = (
    "host_python_submit_s",
    "host_c_submit_s",
    "host_sync_s",
    "host_copyback_s",
    "launch_latency_s",
    "graph_launch_s",
    "graph_node_s",
    "grid_barrier_s",
    "mailbox_round_trip_s",
    "hbm_read_bytes_per_s",
    "hbm_copy_bytes_per_s",
    "h2d_latency_s",
    "h2d_bytes_per_s",
    "d2h_latency_s",
    "d2h_bytes_per_s",
    "resident_exit_s",
    "resident_relaunch_s",
    "prefetch_ring_bytes",
    "host_python_schedule_s",
    "host_python_schedule_per_request_s",
    "host_c_schedule_s",
    "host_c_schedule_per_request_s",
    "device_schedule_s",
    "device_schedule_per_request_s",
)
POSITIVE = ("q", "kv_bytes", "slots", "l2_bytes", "half_bytes", "ring_bytes")
KERNELS = ("gemm.bf16", "decode_attention.bf16", "prefill_attention.bf16", "elementwise")


_SLOWEST = 1.0  # of a rate in bytes/s or flop/s: its powers stay finite
_LONGEST = 1e6  # of a time in seconds
_EXPONENT = (1.0, 12.0)


class Finder:
    """Walks a document that may hold anything and collects what is wrong with it."""

    LIMIT = 4 << 20  # bytes of a profile file; the shipped one has under 64 KiB

    def __init__(self, place: str) -> None:
        self.place = place
        self.lines: list[str] = []

    def add(self, path: str, what: str) -> None:
        """Note that *what* (fault; remedy) is wrong at *path*."""
        self.lines.append(f"{self.place}: {path}: {what}")

    def raise_if_any(self) -> None:
        """Raise all findings as one `InputError`; the first fifty are enough to start with."""
        if self.lines:
            raise InputError(self.lines[:50])

    def document(self, text: bytes) -> dict[str, Any]:
        """The JSON object in *text*; `InputError` at once if there is none."""
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._stop(f"not JSON ({shown(str(error))}); write it with 'python -m kernels bench'")
        if not isinstance(loaded, dict):
            self._stop("not a JSON object; write it with 'python -m kernels bench'")
        for found in _texts(loaded):
            if not found.isprintable():
                self._stop(f"{shown(found)} holds characters that cannot be printed; remove them")
        return loaded

    def _stop(self, what: str) -> NoReturn:
        raise InputError(f"{self.place}: {what}")

    def profile(self, document: dict[str, Any]) -> None:
        """Check the whole *document* against schema 1."""
        if document.get("schema") is True or document.get("schema") != SCHEMA:
            self.add("schema", f"{shown(document.get('schema'))}; this version reads {SCHEMA}")
            return
        for key in ("name", "status", "date"):
            self.text(document, key, key)
        if not isinstance(document.get("commit", 0), str | None):
            self.add("commit", "neither a text nor null; write null if there is none")
        device = self.table(document, "device", "device")
        self.text(device, "name", "device.name")
        for key in ("sms", "hbm_bytes", "l2_bytes"):
            self.number(device, key, f"device.{key}", positive=True)
        for key in self.table(document, "sources", "sources"):
            self.text(document["sources"], key, f"sources.{key}")
        self.constants(self.table(document, "constants", "constants"))
        kernels = self.table(document, "kernels", "kernels")
        for name in KERNELS:
            if name not in kernels:
                self.add(f"kernels.{name}", "missing; add form, parameters, kind, domain, source")
        self.kernels(kernels, "kernels")
        if "in_step" in document:
            self.kernels(self.table(document, "in_step", "in_step"), "in_step")
        check_loops(self, document)
        self.checks(document.get("checks"))

    def constants(self, table: dict[str, Any]) -> None:
        """Check that each required constant is there and that all are finite and marked."""
        for name in CONSTANTS:
            if name not in table:
                self.add(f"constants.{name}", "missing; add value, unit, kind, source, note")
        for name in table:
            path = f"constants.{name}"
            entry = self.table(table, name, path)
            if isinstance(table[name], dict):
                self.number(entry, "value", f"{path}.value", positive="bytes" in name)
                self.range(entry.get("value"), name, f"{path}.value")
                self.described(entry, path)
                self.text(entry, "unit", f"{path}.unit")

    def kernels(self, table: dict[str, Any], section: str) -> None:
        """Check that the forms of all kernels of a *section* are complete."""
        for name in table:
            path = f"{section}.{name}"
            entry = self.table(table, name, path)
            if isinstance(table[name], dict):
                self.described(entry, path)
                self.form(name, entry, path)
                self.domain(self.table(entry, "domain", f"{path}.domain"), f"{path}.domain")
                self.table(entry, "residuals", f"{path}.residuals")
                if not isinstance(entry.get("includes_node_gap"), bool):
                    self.add(f"{path}.includes_node_gap", "not a boolean; write true or false")
                if "fixed" in entry:
                    self.fixed(self.table(entry, "fixed", f"{path}.fixed"), f"{path}.fixed")

    def form(self, name: str, entry: dict[str, Any], path: str) -> None:
        """Check form and parameters of one kernel."""
        form, allowed = entry.get("form"), FAMILIES.get(name.split(".")[0], tuple(FORMS))
        if form not in allowed:
            self.add(f"{path}.form", f"{shown(form)} is unknown here; use {' or '.join(allowed)}")
            return
        self.parameters(form, FORMS[form], entry, path)

    def parameters(
        self, form: str, keys: tuple[str, ...], entry: dict[str, Any], path: str
    ) -> None:
        """Check that an entry has the parameters *keys* of *form* and no other."""
        parameters = self.table(entry, "parameters", f"{path}.parameters")
        for key in keys:
            place = f"{path}.parameters.{key}"
            name = key.removeprefix("gemv_").removeprefix("cached_")
            positive = name.endswith("_per_s") or name in POSITIVE
            self.number(parameters, key, place, positive=positive)
            self.range(parameters.get(key), name, place)
        for key in parameters.keys() - set(keys):
            self.add(f"{path}.parameters.{shown(key)}", f"no parameter of {form}; remove it")

    def fixed(self, table: dict[str, Any], path: str) -> None:
        """Check kind and note of the parameters that a fit left alone."""
        for key in table:
            entry = self.table(table, key, f"{path}.{shown(key)}")
            self.kind(entry, f"{path}.{shown(key)}")
            self.text(entry, "note", f"{path}.{shown(key)}.note")

    def domain(self, table: dict[str, Any], path: str) -> None:
        """Check that each axis of a domain is a pair of finite numbers in order."""
        for axis, pair in table.items():
            good = isinstance(pair, list) and len(pair) == 2 and all(map(finite, pair))
            if not good or pair[0] > pair[1]:
                self.add(f"{path}.{shown(axis)}", f"{shown(pair)}; write [low, high]")

    def checks(self, entries: Any) -> None:
        """Check the list of comparisons with measured figures."""
        if not isinstance(entries, list):
            self.add("checks", "not a list; write [] if there is none")
            return
        for index, entry in enumerate(entries):
            path = f"checks[{index}]"
            if not isinstance(entry, dict):
                self.add(path, "not an object; write name, measured_s, predicted_s, source")
                continue
            self.text(entry, "name", f"{path}.name")
            for key in ("measured_s", "predicted_s"):
                self.number(entry, key, f"{path}.{key}")
            if not finite(entry.get("relative_error")):
                self.add(f"{path}.relative_error", "not a finite number; predicted / measured - 1")

    def described(self, entry: dict[str, Any], path: str) -> None:
        """Check kind, source and note, which every value carries."""
        self.kind(entry, path)
        for key in ("source", "note"):
            self.text(entry, key, f"{path}.{key}")

    def kind(self, entry: dict[str, Any], path: str) -> None:
        """Check that the kind is one of the three."""
        if entry.get("kind") not in KINDS:
            self.add(f"{path}.kind", f"{shown(entry.get('kind'))}; use {', '.join(KINDS)}")

    def table(self, parent: dict[str, Any], key: str, path: str) -> dict[str, Any]:
        """The object under *key*, empty (with a finding) if it is none."""
        value = parent.get(key)
        if isinstance(value, dict):
            return value
        self.add(path, "missing or not an object; see the shipped profile")
        return {}

    def text(self, parent: dict[str, Any], key: str, path: str) -> None:
        """Check that a text stands under *key*."""
        if not isinstance(parent.get(key), str):
            self.add(path, "missing or not a text; see the shipped profile")

    def number(
        self, parent: dict[str, Any], key: str, path: str, *, positive: bool = False
    ) -> None:
        """Check that a finite number >= 0 (> 0 if *positive*) stands under *key*."""
        value: Any = parent.get(key)
        if not finite(value):
            self.add(path, f"{shown(value)} is no finite number; write it in SI units")
        elif value < 0 or (positive and value == 0):
            self.add(path, f"{shown(value)} is too small; it must be {'>' if positive else '>='} 0")

    def range(self, value: Any, key: str, path: str) -> None:
        """Check that what the forms divide by or raise to a power stays within a float."""
        if not finite(value) or value <= 0:
            return  # said already, or a time of 0
        if key == "q":
            low, high = _EXPONENT
        elif key.endswith("_per_s") or key in ("slots", "l2_bytes", "half_bytes"):
            low, high = _SLOWEST, math.inf
        elif key.endswith("_s"):
            low, high = 0.0, _LONGEST
        else:
            return
        if not low <= value <= high:
            self.add(path, f"{shown(value)} is not in {low:g} to {high:g}; write it in SI units")


def _texts(document: Any) -> Iterator[str]:
    """All texts of a document, keys too, however deep it is."""
    nodes = [document]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            yield from node
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)


def finite(value: Any) -> bool:
    """Whether *value* is a number (no boolean) that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
