"""Belady's bound beside the LRU curve of `trace inspect`: what no policy beats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.trace.chunk import Chunk, Tally
from sim.trace.generate import generate
from sim.trace.look import curve
from sim.trace.look.curve import References
from sim.trace.look.inspection import Inspection
from sim.trace.look.panels import panels
from sim.trace.look.summary import summary
from sim.trace.ragged import Ragged
from sim.trace.write import write

if TYPE_CHECKING:
    from pathlib import Path


def inspected(rows: list[list[int]]) -> Inspection:
    ids = Ragged.of(rows)
    lengths = ids.lengths * 512
    found = Inspection()
    arrival = np.arange(len(rows), dtype=float)
    found.add(Chunk(arrival, lengths, np.ones(len(rows), np.int64), ids))
    return found


def test_it_is_never_below_lru_and_reaches_the_top() -> None:
    found = Inspection()
    for chunk in generate("mooncake-conversation-like", 800, 1):
        found.add(chunk)
    prefix = summary(found, Tally())["prefix"]
    lru = prefix["lru"]["hit_rate_by_capacity_blocks"]
    best = prefix["belady"]["hit_rate_by_capacity_blocks"]
    assert prefix["belady"]["method"] == "exact"
    assert list(lru) == list(best)
    assert all(best[size] >= lru[size] for size in lru)
    assert any(best[size] > lru[size] + 0.01 for size in lru)
    assert best[list(best)[-1]] == pytest.approx(prefix["infinite_cache_hit_rate"])


def test_by_hand() -> None:
    references = References()
    rows = Ragged.of([[1], [2], [3], [1], [2], [3]])
    references.add(rows, np.arange(6.0))
    assert references.bound([1, 2, 3]) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_chunks_do_not_matter() -> None:
    rows = [[1, 2], [1, 3], [], [1, 2, 4], [1, 3]]
    once, parts = References(), References()
    once.add(Ragged.of(rows), np.arange(5.0))
    for at, row in enumerate(rows):
        parts.add(Ragged.of([row]), np.array([float(at)]))
    assert once.bound([1, 2, 3]) == parts.bound([1, 2, 3])


def test_many_references_are_said_to_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "MOST_FOR_BOUND", 3)
    found = summary(inspected([[1, 2], [1, 2]]), Tally())
    assert found["prefix"]["belady"]["hit_rate_by_capacity_blocks"] is None
    assert any("Belady's bound" in note and "these are 4" in note for note in found["notes"])
    monkeypatch.undo()
    assert not any("Belady" in note for note in summary(inspected([[1, 2]]), Tally())["notes"])


def test_pictures_have_it_as_dots() -> None:
    rows = [[1, 2, 3], [1, 2, 4], [1, 2, 3]]
    panel = next(p for p in panels([("trace", inspected(rows))]) if "by cache size" in p.title)
    line = next(line for line in panel.lines if line.label == "Belady's bound")
    assert line.dots
    assert line.y[-1] == pytest.approx(100 * 5 / 9)


def test_terminal_and_json_have_it(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(generate("mooncake-conversation-like", 200, 1), path, "mooncake")
    said = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    assert "Belady's bound" in said
    found = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout)
    assert set(found["prefix"]["belady"]["hit_rate_by_capacity_blocks"]) >= {"1000", "10000"}
