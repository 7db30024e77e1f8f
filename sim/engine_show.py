"""An engine over a profile of kernels, in tables: terms, errors with and without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import TERMS
from .step_show import residual_table, value_of

if TYPE_CHECKING:
    from rich.console import Console

    from .profile import Profile


def show(console: Console, profile: Profile) -> None:
    """What *profile* says of its engine."""
    from rich.table import Table

    engine = profile.engine
    assert engine is not None

    def said(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    said(f"profile {profile.name} ({profile.hash}): an engine over {engine.over}")
    said(f"  {engine.words()}; fitted to {engine.log.get('steps')} steps")
    way = "a pass of their own behind the decode step" if engine.apart else "one pass with decode"
    said(f"  prompts: {way}, {engine.prefill_kernels} kernels")
    if engine.captured:
        said(f"  decode batches are padded to {', '.join(map(str, engine.captured))}")
    table = Table(title="Terms, measured on its log", title_justify="left")
    for column in ("term", "value", "unit"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, unit in TERMS.items():
        if name in engine.terms:
            table.add_row(name, *value_of(engine.terms[name], unit))
    console.print(table)
    console.print(residual_table(engine.residuals))
    if engine.noise_floor is not None:
        said(f"noise floor: {engine.noise_floor:.2%} (median, from alike steps)")
    for line in (*engine.seams, *(f"note: {note}" for note in engine.notes)):
        said(line)
