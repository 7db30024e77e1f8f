"""A run as a timeline for ui.perfetto.dev and chrome://tracing, in the trace event format.

The one rule: what is drawn was recorded, or follows from the scenario and the profile of the run
and adds up to what was recorded; each slice's category says which.
"""

from __future__ import annotations

from .document import write

__all__ = ["write"]
