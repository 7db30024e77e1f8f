"""Where a run's iterations lie beside what a log covers, for costs that come from a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .step_domain import Visits
from .step_form import Load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .step_domain import Domain
    from .step_ratios import Ratios


class Visited:
    """Part of a cost model that is asked about iterations after the fact."""

    ratios: Mapping[str, Ratios] | None = None
    """How much longer than predicted iterations of a kind take, if they are to vary."""
    visits: Visits | None = None

    def watch(self, domain: Domain) -> None:
        """From now on remembers where iterations leave *domain*."""
        self.visits = Visits(domain)

    def saw(self, columns: dict[str, np.ndarray], busy: np.ndarray) -> None:
        """Takes note of where iterations lie; the GPU is busy for as long as they last at most."""
        np.minimum(busy, columns["duration_s"], out=busy)
        if self.visits is None:
            return
        decode = columns["decode_requests"].astype(np.float64)
        load = Load(
            decode, decode, columns["context_tokens"].astype(np.float64),
            columns["prefill_requests"].astype(np.float64),
            columns["prefill_tokens"].astype(np.float64), np.zeros(len(decode)),
        )  # fmt: skip
        self.visits.add(load, columns["duration_s"])

    def outside(self) -> list[str]:
        """Where the run left what the step log covers, one phrase each."""
        return [] if self.visits is None else self.visits.outside()
