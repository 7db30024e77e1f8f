"""Which pictures a report has, and writing all of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .document import build
from .draw_control import draw_control, part
from .draw_copies import draw_copies, draw_disk, draw_interference, mover_count
from .draw_kernels import draw_family, draw_streams
from .draw_loop import draw_errors, draw_gaps, draw_steps
from .draw_topk import draw_topk
from .families import FAMILIES
from .loops import Loops, parts
from .style import save
from .target_list import TARGETS
from .targets import judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

    from .inputs import Evidence


def write(evidence: Evidence, out: Path) -> list[Path]:
    """Draws what there is into *out* and writes the text; returns the files."""
    files = []
    for name, size, draw in _pictures(evidence):
        path = out / f"{name}.png"
        save(path, size, draw)
        files.append(path)
    rows = judge(TARGETS, evidence)
    text = build(evidence, rows, Loops(evidence), {file.name for file in files})
    document = out / "README.md"
    document.write_text(text, encoding="utf-8")
    return [document, *files]


def _pictures(
    evidence: Evidence,
) -> list[tuple[str, tuple[float, float], Callable[[Figure], None]]]:
    """(name, inches, drawing) of the pictures for which there are samples."""
    samples = evidence.samples
    found: list[tuple[str, tuple[float, float], Callable[[Figure], None]]] = [
        (family.name, (12.0, 4.6), partial(draw_family, family=family, evidence=evidence))
        for family in FAMILIES
        if family.points(evidence)
    ]
    if any(not point.axes.get("cold") for point in samples.of("topk_select")):
        found.append(("topk", (14.0, 4.6), lambda figure: draw_topk(figure, evidence)))
    if samples.named("tier_copy", "copy_engine") or samples.named("tier_copy", "gather"):
        found.append(("copies", (11.0, 7.0), lambda figure: draw_copies(figure, evidence)))
    movers = mover_count(evidence)
    if movers:
        size = (9.0, 1.5 + 0.45 * movers)
        found.append(("interference", size, lambda figure: draw_interference(figure, evidence)))
    if samples.named("tier_copy", "file_read"):
        found.append(("disk", (7.0, 4.0), lambda figure: draw_disk(figure, evidence)))
    loops = Loops(evidence)
    for sparse in sorted({place[0] for place in loops.cells}):
        kind = "sparse" if sparse else "dense"
        draw = partial(draw_steps, loops=loops, sparse=sparse)
        found.append((f"loop-{kind}", (15.0, 3.8), draw))
        if loops.predicted:
            errors = partial(draw_errors, loops=loops, sparse=sparse)
            found.append((f"loop-predicted-{kind}", (13.0, 3.8), errors))
    if any(parts(loops, cell) for mine in loops.cells.values() for cell in mine.values()):
        found.append(("loop-gaps", (12.0, 5.5), lambda figure: draw_gaps(figure, loops)))
    if any(part(evidence, name) for name in ("nodes", "barrier", "control", "launch")):
        found.append(("control", (15.0, 4.2), lambda figure: draw_control(figure, evidence)))
    if samples.of("streams"):
        found.append(("streams", (13.0, 4.0), lambda figure: draw_streams(figure, evidence)))
    return found
