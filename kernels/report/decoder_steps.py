"""Measured decode steps, by place and rung, with the simulator's predictions beside them.

A *place* is what was asked for (model, batch, context, ...); a *rung* of the ladder is who did it:
a loop mode and a set of kernels. One rule: a place and rung measured again replaces the first, and
the two are kept to tell how well a step repeats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..decoder.account import KV_BITS, WEIGHT_BITS, Account, Ceiling, account
from ..decoder.evidence import verdict
from ..decoder.shape import SHAPES
from ..fit.samples import SamplesError, entries
from .inputs import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

LADDER_CONTEXT = 1024
"""Tokens at which the ladder and the targets stand."""


class Rung(NamedTuple):
    """Who runs a step."""

    mode: str
    kernels: str

    @property
    def name(self) -> str:
        """As tables and pictures write it."""
        return NAMES.get(self, f"{self.mode}, {self.kernels}")


NAMES = {
    Rung("eager", "torch"): "PyTorch, eager",
    Rung("graph", "torch"): "PyTorch, CUDA graph",
    Rung("host-python", "library"): "H1 Python host, library",
    Rung("host-python", "fused"): "H1 Python host, fused",
    Rung("host-c", "library"): "H2 C host, library",
    Rung("host-c", "fused"): "H2 C host, fused",
    Rung("graph", "library"): "G CUDA graph, library",
    Rung("graph", "fused"): "G CUDA graph, fused",
    Rung("control", "library"): "R1 device re-launch, library",
    Rung("control", "fused"): "R1 device re-launch, fused",
    Rung("resident", "fused"): "R2 resident kernel, fused",
}
"""All rungs from the bottom of the ladder to its top."""
RESIDENT, FUSED_GRAPH = Rung("resident", "fused"), Rung("graph", "fused")
TORCH_GRAPH = Rung("graph", "torch")


class Place(NamedTuple):
    """What a step has to do."""

    model: str
    weights: str
    kv: str
    tokens: int
    page: int
    batch: int
    context: int
    budget: int
    """Tokens kept by the selection; 0 where all are attended to."""

    @property
    def plain(self) -> bool:
        """Whether weights, cache and new tokens are those of the main tables."""
        return self[1:5] == ("bf16", "bf16", 1, 16)

    @property
    def text(self) -> str:
        """In words, without what is the same in all main tables."""
        words = [self.model.upper(), f"batch {self.batch}", f"context {self.context:,}"]
        words += [f"{self.budget:,} selected"] if self.budget else []
        return ", ".join([*words, *self.variant.split(", ")] if self.variant else words)

    @property
    def variant(self) -> str:
        """What differs from the main tables; empty if nothing does."""
        words = [f"{self.weights} weights"] if self.weights != "bf16" else []
        words += [f"{self.kv} KV"] if self.kv != "bf16" else []
        words += [f"{self.tokens} new tokens"] if self.tokens != 1 else []
        words += [f"pages of {self.page}"] if self.page != 16 else []
        return ", ".join(words)


class Prediction(NamedTuple):
    """What the simulator says of a measured step."""

    place: Place
    rung: Rung
    measured: float
    predicted: float
    held: bool | None
    """Whether nothing was fitted to this step; None if nobody says."""
    blind: float | None
    """Predicted with all left out that was fitted to any decode step."""

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1.0


class Steps:
    """All measured steps with what else the records hold."""

    def __init__(self, ceiling: Ceiling) -> None:
        self.ceiling = ceiling
        self.cells: dict[Place, dict[Rung, Account]] = {}
        self.accounts: dict[Place, dict[Rung, Account]] = {}
        """Steps with stage times, from any record; those that `decode` wrote say where time goes,
        and stand for the step itself only where no other record does."""
        self.again: list[tuple[Place, Rung, float, bool]] = []
        """Second measurements of one commit: median over the first's, less one, and whether
        another machine took them."""
        self._machine = ""
        self._taken: dict[tuple[Place, Rung], str] = {}
        self.headers: list[dict[str, Any]] = []
        self.others: dict[str, list[dict[str, Any]]] = {}
        """Lines of other kinds: `soak`, `agreement`, and whatever else there is."""
        self.predicted: dict[tuple[Place, Rung], tuple[float, bool | None, float | None]] = {}
        """Seconds, whether held out, seconds without what was fitted to decode steps."""

    # -------------------------------------------------------------------------- filling
    def add(self, entry: Mapping[str, Any]) -> None:
        """One line of a records file; raises `KeyError`, `TypeError` or `ValueError`."""
        kind = str(entry["kind"])
        if kind == "header":
            self.headers.append(dict(entry))
            self._machine = str((entry.get("facts") or {}).get("id", ""))
        elif kind == "step":
            place, rung = place_of(entry), Rung(str(entry["mode"]), str(entry["kernels"]))
            cell, mine = account(entry, self.ceiling), self.cells.setdefault(place, {})
            if cell.stages:
                self.accounts.setdefault(place, {})[rung] = cell
            if "account" in entry and rung in mine:
                return
            if rung in mine and mine[rung].record.get("sha") == entry.get("sha"):
                other = self._taken[place, rung] != self._machine
                self.again.append((place, rung, cell.wall / mine[rung].wall - 1.0, other))
            mine[rung] = cell
            self._taken[place, rung] = self._machine
        else:
            why = verdict(str(entry["why"])) if kind == "agreement" and "why" in entry else {}
            self.others.setdefault(kind, []).append({**entry, **why})

    def predict(self, row: Mapping[str, Any]) -> None:
        """One predicted step; raises as `add` does."""
        rung = Rung(str(row["mode"]), str(row["kernels"]))
        held = row.get("held_out", not row["train"] if "train" in row else None)
        seconds, blind = float(row["predicted_s"]), row.get("blind_s")
        if not (math.isfinite(seconds) and seconds > 0.0):
            raise ValueError(f"predicted_s {seconds}, expected seconds")
        self.predicted[place_of(row), rung] = (
            seconds, None if held is None else bool(held), float(blind) if blind else None,
        )  # fmt: skip

    # -------------------------------------------------------------------------- asking
    @property
    def models(self) -> list[str]:
        """Models that have steps."""
        return sorted({place.model for place in self.cells})

    def rungs(self, places: Iterable[Place] | None = None) -> list[Rung]:
        """Those that have steps (at *places*), from the bottom of the ladder to its top."""
        chosen = self.cells if places is None else places
        seen = {rung for place in chosen for rung in self.cells.get(place, {})}
        known = [rung for rung in NAMES if rung in seen]
        return known + sorted(seen - set(known))

    def places(self, model: str, sparse: bool) -> list[Place]:
        """The main table's places of *model*, by batch and context."""
        return sorted(
            p for p in self.cells if p.model == model and p.plain and (p.budget > 0) == sparse
        )

    def ladder_place(self, model: str) -> Place | None:
        """Batch 1, dense, at the context with the most rungs, of these the nearest to 1k."""
        mine = [place for place in self.places(model, False) if place.batch == 1]
        return max(
            mine,
            key=lambda p: (len(self.cells[p]), -abs(math.log(p.context / LADDER_CONTEXT))),
            default=None,
        )

    def cell(self, place: Place | None, rung: Rung) -> Account | None:
        """A step, if it was measured."""
        return self.cells.get(place, {}).get(rung) if place else None

    def accounted(self, place: Place | None, rung: Rung) -> Account | None:
        """A step with stage times, if there is one."""
        return self.accounts.get(place, {}).get(rung) if place else None

    def winner(self, place: Place) -> tuple[Rung, float] | None:
        """The fastest and how much longer the second takes, as a ratio less one."""
        order = sorted(self.cells[place].items(), key=lambda item: item[1].wall)
        if len(order) < 2:
            return None
        return order[0][0], order[1][1].wall / order[0][1].wall - 1.0

    def errors(self) -> list[Prediction]:
        """Each step that was measured and predicted."""
        return [
            Prediction(place, rung, self.cells[place][rung].wall, *found)
            for (place, rung), found in self.predicted.items()
            if rung in self.cells.get(place, {})
        ]


def place_of(row: Mapping[str, Any]) -> Place:
    """The place of a record; raises `ValueError` for a model or format that nobody knows."""
    context, budget = int(row["context"]), int(row.get("budget_tokens") or 0)
    place = Place(
        str(row["model"]), str(row.get("weights", "bf16")), str(row.get("kv", "bf16")),
        int(row.get("tokens", 1)), int(row.get("page_tokens") or 16),
        int(row["batch"]), context, budget if budget < context else 0,
    )  # fmt: skip
    for what, name, known in (
        ("model", place.model, SHAPES), ("weights", place.weights, WEIGHT_BITS),
        ("kv", place.kv, KV_BITS),
    ):  # fmt: skip
        if name not in known:
            raise ValueError(f"{what} {name!r}, expected one of {', '.join(known)}")
    if min(place.tokens, place.batch, place.context) < 1:
        raise ValueError("tokens, batch and context must be at least 1")
    return place


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 90th percentile and largest of the absolute *values*."""
    sizes = np.abs(np.array(values))
    return float(np.median(sizes)), float(np.percentile(sizes, 90)), float(sizes.max())


# ------------------------------------------------------------------------------ reading
def read_steps(files: Sequence[Path], ceiling: Ceiling, predicted: Path | None = None) -> Steps:
    """What *files* hold (JSON lines, plain or gzip); raises `SamplesError` in one line."""
    found = Steps(ceiling)
    for path in files:
        for number, entry in entries(path):
            try:
                found.add(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
                raise SamplesError(f"{path}:{number}: no record of a step: {what[:160]}") from None
    if not found.cells:
        raise SamplesError(f"{', '.join(map(str, files))}: no measured steps in it")
    for row in _rows(predicted) if predicted else ():
        try:
            found.predict(row)
        except (KeyError, TypeError, ValueError) as error:
            raise SamplesError(f"{predicted}: predicted step: {str(error)[:160]}") from None
    return found


def _rows(path: Path) -> list[Mapping[str, Any]]:
    found = read_json(path, "a list of predicted steps")
    rows = found.get("records", found.get("rows")) if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SamplesError(f"{path}: no list of predicted steps")
    return rows
