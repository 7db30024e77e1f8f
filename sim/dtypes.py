"""Number formats of weights and KV, by the names that scenarios and profiles use."""

from __future__ import annotations

BITS = {"bf16": 16, "fp8": 8, "int8": 8, "int4": 4}
