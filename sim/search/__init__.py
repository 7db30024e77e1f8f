"""Search beyond grids: capacity by bisection, successive halving, GPUs for a rate.

Every probe is a point of the study like any other, stored in a folder of its own, so that a search
that was killed goes on where it was. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from .settings import Search

__all__ = ["Search"]
