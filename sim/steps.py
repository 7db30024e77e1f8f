"""Steps of several tokens: what a request does in one decode iteration, and who says so.

The one rule: a request's steps are a function of the request, its draws and a cap, the same one by
one and as arrays, and never depend on the order of events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from .forms import Prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .request import Request

    Counts = NDArray[np.int64]

Whole = TypeVar("Whole", int, "NDArray[np.int64]")


class Step(NamedTuple):
    """One step: *rows* tokens go through the model, *commits* of them become output.

    Of these, *accepted* are drafts, of *proposed*; the rest is the model's own.
    """

    rows: int
    commits: int
    proposed: int = 0
    accepted: int = 0


class Course(NamedTuple):
    """All steps of a request until its output is complete, the columns of `Step`."""

    rows: Counts
    commits: Counts
    proposed: Counts
    accepted: Counts


class Speculator(Protocol):
    """Says what steps requests take; a function of the request, its draws and a width cap."""

    most_rows: int
    """Most tokens that a step puts through the model."""
    overhang: int
    """Most KV entries that a step holds beyond those of the complete output."""
    max_depth: int
    """Most drafting levels one after the other; 0: nothing is drafted."""
    stalls: bool
    """Whether a step may commit no token."""

    def begin(self, request: Request) -> Any:
        """The state of *request*, which decodes for the first time."""

    def step(self, state: Any, generated: int, output_tokens: int, cap: int) -> Step:
        """The next step after *generated* tokens; moves *state* on."""

    def course(self, state: Any, generated: int, output_tokens: int, cap: int) -> Course:
        """All steps from here on, those of `step`; leaves *state* as it is."""

    def advance(self, state: Any, course: Course, steps: int) -> None:
        """Moves *state* on by *steps* steps of *course*."""

    def cap(self, batch: int, mean_context: float, pressure: float) -> int:
        """The widest draft for *batch* requests; *pressure* is the used share of KV memory."""

    def depth(self, proposed: Whole) -> Whole:
        """Drafting levels of a step that proposes so many tokens."""


class Selection(Protocol):
    """Says how much of its KV a request reads and keeps; elementwise.

    *context* counts the KV entries of a request, those that the step appends included; *rows* of
    them are the step's own.
    """

    offload: bool
    """Whether KV lies in DRAM beyond what HBM keeps."""
    drop: bool
    """Whether KV that is not selected is given back."""

    def attended(self, context: Any, rows: Any) -> Any:
        """KV entries that a layer that selects reads."""

    def pages(self, context: Any, rows: Any) -> Any:
        """Pages that are scored."""

    def chosen(self, context: Any, rows: Any) -> Any:
        """Blocks that a layer that selects reads."""

    def resident(self, context: Any, rows: Any) -> Any:
        """Blocks of HBM that the request holds."""

    def offloaded(self, context: Any, rows: Any) -> Any:
        """Blocks of DRAM that it holds beyond these."""

    def fetched(self, context: Any, rows: Any, advance: Any) -> Any:
        """Blocks that have to come from DRAM, *advance* tokens after the selection before."""

    def recall(self, context: Any, rows: Any) -> Any:
        """Share of attention mass that is kept, as assumed."""


class OneToken:
    """Plain decoding as a `Speculator`: a token a step."""

    most_rows = 1
    overhang = 0
    max_depth = 0
    stalls = False

    def begin(self, request: Request) -> None:
        """Nothing to remember."""

    def step(self, state: None, generated: int, output_tokens: int, cap: int) -> Step:
        """One token."""
        return Step(1, 1)

    def course(self, state: None, generated: int, output_tokens: int, cap: int) -> Course:
        """One token a step."""
        steps = output_tokens - generated
        ones, none = np.ones(steps, np.int64), np.zeros(steps, np.int64)
        return Course(ones, ones, none, none)

    def advance(self, state: None, course: Course, steps: int) -> None:
        """Nothing to remember."""

    def cap(self, batch: int, mean_context: float, pressure: float) -> int:
        """No drafts."""
        return 0

    def depth(self, proposed: Whole) -> Whole:
        """No drafts."""
        return proposed


class Load(NamedTuple):
    """What an iteration's cost depends on beside its batch, summed over requests.

    Each is a number, or an array with an element an iteration.
    """

    rows: Any
    """Tokens that go through the model."""
    context: Any
    """KV entries of all requests, those appended in the iteration included."""
    depth: Any = 0
    """Drafting levels of the request that drafts most of them."""
    attended: Any = None
    """KV entries that attention reads; None: all."""
    pages: Any = None
    """Pages that are scored; None: nothing is selected."""
    fetched: Any = None
    """Blocks that come from DRAM."""
    refreshed: Prompts | None = None
    """What is computed again of KV that is cached; None: nothing ever is."""

    def at(self, iteration: int) -> Load:
        """The numbers of one of several iterations."""
        sums: list[Any] = list(self)
        for place, one in enumerate(sums[:-1]):
            sums[place] = None if one is None else int(one[iteration])
        if self.refreshed is not None:
            sums[-1] = Prompts(*(int(one[iteration]) for one in sums[-1]))
        return Load(*sums)


NOTHING = Load(0, 0)
