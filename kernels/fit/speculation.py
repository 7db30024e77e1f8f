"""Recipes of verification and commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recipe import REPLAY, Axes, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable


def verify(name: str, where: Callable[[Axes], bool], what: str, every_row: bool = True) -> Recipe:
    """Verification of drafted tokens and commit: rows of the vocabulary, or requests."""
    return Recipe(
        name=name,
        folder="verify_commit",
        form="stream_rows",
        where=where,
        inputs=lambda point: {
            "bytes": point.bytes,
            "rows": float(point.axes["batch"] * (point.axes["drafts"] + 1 if every_row else 1)),
            "batch": float(point.axes["batch"]),
            "drafts": float(point.axes["drafts"]),
            "vocabulary": float(point.axes["vocabulary"]),
        },
        start={"t0_s": 4e-6, "bytes_per_s": 4e12, "ramp_s": 1e-6, "row_s": 1e-9},
        free=("t0_s", "bytes_per_s", "ramp_s", "row_s"),
        shape=lambda axes: f"{axes['vocabulary']} {axes['element']}",
        domain=("batch", "drafts", "vocabulary", "bytes"),
        least=6,
        note=REPLAY
        + f"{what}; commit and page release are in it. Rows of the vocabulary are cold.",
    )


VERIFY = (
    verify("verify_commit.greedy", lambda axes: axes["mode"] == "greedy", "Arg-max of each row"),
    verify(
        "verify_commit.rejection",
        lambda axes: axes["mode"] == "logits",
        "Rejection sampling from logits, with the draft's probabilities or without",
    ),
    verify(
        "verify_commit.probabilities",
        lambda axes: axes["mode"] == "probabilities",
        "Rejection sampling from fp32 probabilities of target and draft, one row a request read",
        every_row=False,
    ),
)
