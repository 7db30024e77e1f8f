"""Makes decode steps of either kernel set over a state; weights and tapes are made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..backend import Array, Backend
    from ..decoder.modes import Step
    from ..decoder.state import DecoderState
    from ..decoder.weights import Weights
    from .device import Setup

KERNELS = ("library", "fused")


class StepMaker:
    """Steps of *weights* on *backend*."""

    def __init__(self, backend: Backend, weights: Weights) -> None:
        self.backend, self.weights = backend, weights
        self._model: Any = None

    def make(self, setup: Setup, state: DecoderState, script: Array | None = None) -> Step:
        """The step of *setup* over *state*; raises `ValueError` for what the kernels do not do.

        *script* uint8 [slots, text size] tells how many tokens a step emits, by length.
        """
        step: Step
        more: Any = {"budget_pages": setup.budget_pages, "script": script}
        if setup.kernels == "fused":
            from ..fused_step.launch import FusedStep, Model

            self._model = self._model or Model(self.backend, self.weights)
            step = FusedStep(self.backend, self._model, state, **more)
        else:
            from ..decoder.library import LibraryStep

            step = LibraryStep(self.backend, self.weights, state, **more)
        return step


def most_requests(kernels: str, model: str, new_tokens: int) -> int:
    """Requests that the kernels take in a step at most."""
    rows = {"1b": 16, "tiny": 16, "8b": 8}[model] if kernels == "fused" else 64 * new_tokens
    return rows // new_tokens
