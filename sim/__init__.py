"""residentsim: a discrete-event simulator of GPU-resident LLM inference with trace replay.

>>> from sim import run
>>> chat = {"trace": {"source": "azure-conv-like", "requests": 50}, "model": "llama-3.2-1b"}
>>> run(chat, {"loop.mode": "resident"}).summary["completed"]
50
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import run, sweep
    from .scenario import Scenario

__version__ = "0.1.0"
__all__ = ["Scenario", "__version__", "run", "sweep"]


def __getattr__(name: str) -> Any:
    """What is public, imported when it is first asked for, so that `import sim` stays fast."""
    if name == "Scenario":
        from .scenario import Scenario

        return Scenario
    if name in ("run", "sweep"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
