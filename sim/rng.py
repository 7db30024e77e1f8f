"""Named random streams from one seed.

Each draw belongs to a name and to a key (a request's index, say), never to the order of events:
one draw more in one stream shifts no other, and both engines see the same numbers.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, name: str, *key: int) -> np.random.Generator:
    """The generator of *name* and *key* under the scenario's *seed* (a whole number >= 0)."""
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode()), *key]))
    )
