"""What a recipe is: which points make a kernel of the profile, its form, and where a fit starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .samples import Point

REPLAY = "Times come from CUDA-graph replay with rotating buffers, so t0 includes the gap between "
REPLAY += "nodes and the data is cold in L2. "
"""What every note begins with."""
Axes = Mapping[str, Any]
Inputs = dict[str, float]
Fitted = Mapping[str, Mapping[str, float]]
"""Parameters by kernel."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kernel of the profile, fitted on the points of one folder."""

    name: str
    folder: str
    form: str
    where: Callable[[Axes], bool]
    """Which points of the folder belong to it."""
    inputs: Callable[[Point], Inputs]
    """What the form takes for a point, and whatever else the domain names."""
    start: Mapping[str, float]
    free: tuple[str, ...]
    shape: Callable[[Axes], str]
    """The shape that leave-one-shape-out leaves out together."""
    domain: tuple[str, ...]
    """Inputs whose span is the kernel's domain."""
    note: str
    groups: Mapping[str, Callable[[Axes], str]] = field(default_factory=dict)
    """Residuals of the hold-out are also given for each value of these."""
    fixed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Kind and note of each parameter that is not fitted."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outside: Callable[[Axes], bool] | None = None
    """Further points of the folder, which no fit uses and which are judged apart."""
    least: int = 8
    """Fewer training points than this make no kernel."""
    borrow: Callable[[Fitted], Mapping[str, float]] | None = None
    """Parameters that follow from kernels fitted before this one; they replace those of `start`."""


def lent_by(kernel: str, *names: str) -> Callable[[Fitted], Mapping[str, float]]:
    """What takes the parameters *names* of *kernel*, if that is fitted."""
    return lambda found: {name: found[kernel][name] for name in names if kernel in found}


def by_threshold(axis: str, *edges: float) -> Callable[[Axes], str]:
    """A group's label from a number: `to 4`, `5 to 64`, `from 65`."""

    def label(axes: Axes) -> str:
        value = float(axes[axis])
        low = max((edge for edge in edges if edge < value), default=None)
        high = min((edge for edge in edges if edge >= value), default=None)
        if low is None:
            return f"to {high:g}"
        return f"above {low:g}" if high is None else f"above {low:g} to {high:g}"

    return label
