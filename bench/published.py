"""Statistics of two public traces whose rows were not at hand: what generators were fitted to.

Measured on the files by others than these generators; quantiles are NumPy's linear ones, windows
are whole and consecutive from the first request.
"""

from __future__ import annotations

from typing import Any

AZURE_CODE: dict[str, Any] = {
    "requests": 8819,
    "file": "AzureLLMInferenceTrace_code.csv",
    "gaps_s": {
        0.01: 2.217e-05, 0.05: 8.8e-05, 0.1: 0.000209, 0.25: 0.00207725, 0.5: 0.063798,
        0.75: 0.103995, 0.9: 0.272856, 0.95: 0.400776, 0.99: 2.20507, 0.999: 79.2325,
    },
    "prompt": {
        0.01: 17, 0.05: 75, 0.1: 147, 0.25: 578, 0.5: 1469, 0.75: 2744.5, 0.9: 5187.6,
        0.95: 7303.3, 0.99: 7436, 0.999: 7437,
    },
    "output": {
        0.01: 6, 0.05: 6, 0.1: 7, 0.25: 9, 0.5: 13, 0.75: 24, 0.9: 55, 0.95: 90, 0.99: 251.46,
        0.999: 825.274,
    },
    "dispersion": {1.0: 13.1864, 10.0: 71.6415, 60.0: 163.965, 300.0: 137.841},
    "means": {"rate": 2.5664, "prompt": 2047.85, "output": 27.8825, "gap_cv": 13.1513},
    "empty": {1.0: 0.733916, 10.0: 0.562682, 60.0: 0.210526},
}  # fmt: skip
MOONCAKE_SYNTHETIC: dict[str, Any] = {
    "requests": 3993,
    "file": "synthetic_trace.jsonl",
    "gaps_s": {
        0.01: 0.003, 0.05: 0.013, 0.1: 0.026, 0.25: 0.072, 0.5: 0.175, 0.75: 0.354, 0.9: 0.584,
        0.95: 0.78335, 0.99: 1.215, 0.999: 1.84241,
    },
    "prompt": {
        0.01: 16, 0.05: 22, 0.1: 30, 0.25: 277, 0.5: 11587, 0.75: 23175, 0.9: 38611.2,
        0.95: 48904.6, 0.99: 66456.2, 0.999: 191373,
    },
    "output": {
        0.01: 2, 0.05: 2, 0.1: 4, 0.25: 11, 0.5: 69, 0.75: 250, 0.9: 389, 0.95: 519, 0.99: 768.08,
        0.999: 813.096,
    },
    "dispersion": {1.0: 1.0889, 10.0: 1.17776, 60.0: 1.19163},
    "means": {"rate": 3.90597, "prompt": 15325.5, "output": 149.119, "gap_cv": 1.01131},
    "lru": {1_000: 0.0841176, 10_000: 0.423944, 100_000: 0.639604},
}  # fmt: skip
