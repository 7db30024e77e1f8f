"""residentsim: a discrete-event simulator of GPU-resident LLM inference with trace replay."""

from __future__ import annotations

__version__ = "0.1.0"
