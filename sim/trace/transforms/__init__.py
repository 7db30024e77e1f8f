"""Changes to a trace on its way from a file or generator to whoever uses it.

Each one takes chunks and gives chunks, and enters what it did in `tally.changes`. Without links
they stream; where requests know each other and their order or number changes, the trace is held in
memory, as its reader holds it anyway. What becomes of a request follows from its position and the
seed, never from where chunks end.

The order is fixed, whatever the order in which they are asked for:

1. dither       time stamps off their grid (of each source, before they are merged)
2. merge        several sources by shares
3. window       a stretch of the trace's own clock, which then starts again at 0
4. time_scale   all times and delays
5. rate_scale   the times of those that wait for nobody
6. thin         a random share of the sessions, or of the requests without one
7. replica      one server's part of them
8. clip_prompt  what does not fit into a context
9. limit        the first so many

A limit that a reader or generator takes by itself (`trace.requests`) acts before all of them. All
but `window` leave the clock alone: of a thinned trace the first request may come after 0.
"""

from __future__ import annotations

from .clip import Clip, clip_prompt
from .dither import Dither, dither
from .merge import Source, merge
from .pick import Replica, limit, replica, thin
from .steps import Steps
from .times import rate_scale, time_scale, window

__all__ = [
    "Clip",
    "Dither",
    "Replica",
    "Source",
    "Steps",
    "clip_prompt",
    "dither",
    "limit",
    "merge",
    "rate_scale",
    "replica",
    "thin",
    "time_scale",
    "window",
]
