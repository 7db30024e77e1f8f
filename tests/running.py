"""A loop over a small state in a thread of its own, which a test talks to through the mailbox."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.backend import Cpu
from kernels.loop_control.mailbox import Mailbox
from kernels.loop_control.state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from kernels.loop_control.mailbox import Reason

PATIENCE_S = 20.0


class Running:
    """A state of *lengths* whose every step emits a token a slot; a subclass launches the loop."""

    def __init__(self, lengths: list[int], *, blocks: int, sets: int, outputs: int) -> None:
        slots = len(lengths)
        self.state = State(
            Cpu(blocks), slots=slots, new_tokens=2, max_pages=4, pages=12, page_tokens=16, sets=sets
        )
        self.state.fill(lengths, [99] * slots, np.random.default_rng(7))
        self.state.emitted[...] = 1
        self.state.tokens[...] = np.arange(self.state.tokens.size).reshape(sets, slots, 2)
        self.box = Mailbox(self.state.backend, slots, 2, queue=4, outputs=outputs)
        self.rows: list[Any] = []
        self.thread = threading.Thread()

    def launch(self, steps: int) -> None:
        """Runs the loop for *steps* steps at most; returns when it has ended."""
        raise NotImplementedError

    def start(self, steps: int = 10**6) -> Self:
        self.thread = threading.Thread(target=self.launch, args=(steps,), daemon=True)
        self.thread.start()
        return self

    def read_until(self, done: Callable[[Any], bool]) -> Any:
        """Reads rows until *done* says so of one, and returns that."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            row = self.box.read()
            if row is not None:
                self.rows.append(row)
                if done(row):
                    return row
        raise AssertionError(f"nothing after {len(self.rows)} steps")

    def end(self) -> Reason | None:
        """Reads on until the launch has ended; why it did."""
        while self.thread.is_alive():
            self.rows += self.box.read_all()
        self.thread.join()
        self.rows += self.box.read_all()
        return self.box.reason()
