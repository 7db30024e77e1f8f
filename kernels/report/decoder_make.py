"""Which pictures the decoder's report has, and writing all of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..decoder.timeline import write as timeline_file
from .decoder_document import TIMELINE, build
from .decoder_draw_ladder import draw_ladder, draw_scaling, has_scaling, ladder_places, ladder_size
from .decoder_draw_lost import draw_lost, draw_timeline
from .decoder_draw_maps import draw_map, map_size
from .decoder_draw_predicted import draw_predicted
from .decoder_lost import resident_places, stage_place
from .style import save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

    from .decoder_steps import Steps

    Picture = tuple[str, tuple[float, float], Callable[[Figure], None]]


def write(steps: Steps, timeline: Mapping[str, Any] | None, out: Path) -> list[Path]:
    """Draws what there is into *out* and writes the text; returns the files."""
    files = []
    if timeline:
        files.append(out / TIMELINE)
        timeline_file(timeline, files[0])
    for name, size, draw in pictures(steps, timeline):
        path = out / f"{name}.png"
        save(path, size, draw)
        files.append(path)
    document = out / "README.md"
    text = build(steps, timeline, {file.name for file in files})
    document.write_text(text, encoding="utf-8")
    return [document, *files]


def pictures(steps: Steps, timeline: Mapping[str, Any] | None) -> list[Picture]:
    """(name, inches, drawing) of the pictures for which there are steps."""
    found: list[Picture] = []
    if ladder_places(steps):
        found.append(("ladder", ladder_size(steps), partial(draw_ladder, steps=steps)))
    for model in steps.models:
        if any(steps.winner(p) for sparse in (0, 1) for p in steps.places(model, bool(sparse))):
            draw = partial(draw_map, steps=steps, model=model)
            found.append((f"map-{model}", map_size(steps, model), draw))
        if has_scaling(steps, model):
            draw = partial(draw_scaling, steps=steps, model=model)
            found.append((f"batch-{model}", (13.0, 4.4), draw))
        if stage_place(steps, model):
            draw = partial(draw_lost, steps=steps, model=model)
            rows = max(7, len(resident_places(steps, model)) + 2)
            found.append((f"lost-{model}", (14.0, 2.0 + 0.38 * rows), draw))
    if timeline:
        draw = partial(draw_timeline, document=timeline)
        found.append(("timeline", (14.0, 5.6), draw))
    if steps.errors():
        found.append(("predicted", (13.0, 4.4), partial(draw_predicted, steps=steps)))
    return found
