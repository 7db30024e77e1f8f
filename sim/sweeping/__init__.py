"""The points of a study, computed: here, in processes, on a cluster; then in folders for good.

`run_points` takes points and a backend and leaves `points/ID` or `failures/ID.json` of each. The
way of a point: `driver` makes a `task` of it, a backend (`backend`, `local`, `dask_cluster`,
`ray_cluster`) brings that to a `worker`, which writes the folder or sends its files, and `lease`
says which half-done folders are at work and which are left from the dead.
"""

from __future__ import annotations

from .backend import Backend, Here
from .driver import Outcome, run_points, run_study
from .failure import Failure
from .local import Local
from .point import is_done, point_id, read_records

__all__ = [
    "Backend", "Failure", "Here", "Local", "Outcome", "is_done", "point_id", "read_records",
    "run_points", "run_study",
]  # fmt: skip
