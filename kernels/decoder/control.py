"""R1: the device decides after each step whether it runs again; the host only reads tokens.

The step is captured as mode G captures it, into a loop in the hands of `graph_control`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph_control.launch import Control
from ..loop_control.host_c import HostError, read_outputs
from ..loop_control.mailbox import Mailbox
from .modes import launch_of, new_stream, on_stream, warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from .modes import Step

HOST_S = 0.1
"""How long a launch waits for a host that does not read."""
PATIENCE_S = 2.0


class ResidentControl:
    """R1: *step* in a loop on the device, by a WHILE node (*way* `while`) or by relaunching itself.

    `mailbox` takes requests and the wish to leave while `launch` runs.
    """

    name = "control"

    def __init__(
        self,
        step: Step,
        way: str = "while",
        mailbox: Mailbox | None = None,
        launch: Callable[[], None] | None = None,
    ) -> None:
        """*launch* does what `step.launch` would, with other launch attributes perhaps."""
        slots = step.state.slots
        self.step, self.stream = step, new_stream(step.backend)
        self.mailbox = mailbox or Mailbox(step.backend, slots.slots, slots.new_tokens)
        with on_stream(self.stream):
            warm(step)
        self.control: Control | None = Control(
            step.backend,
            launch or launch_of(step, self.stream),
            slots,
            self.mailbox,
            way=way,
            stream=self.stream,
            host_s=HOST_S,
        )
        self.nodes: int | None = None

    def launch(self, most: int) -> None:
        """Starts the loop for *most* steps at most, and returns at once on a GPU."""
        assert self.control is not None
        self.step.backend.synchronize()
        self.control.launch(most)

    def run(self, steps: int) -> list[float]:
        """See `modes.Mode.run`; the first step's seconds hold the launch of the loop.

        Raises `HostError` with the reason if the loop leaves before it has sent *steps* rows.
        """
        self.launch(steps)
        try:
            seconds = read_outputs(self.mailbox, steps, patience_s=PATIENCE_S)[0]
        except HostError as error:
            raise HostError(f"{error}; left because of {self.mailbox.reason()!r}") from error
        finally:
            if self.stream is not None:
                self.stream.synchronize()
        return [float(one) for one in seconds]

    def close(self) -> None:
        """Drops the graphs."""
        self.control = None
