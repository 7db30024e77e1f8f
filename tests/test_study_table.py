"""What a study says on the console."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from sim.cli import main
from sim.runs import read_study
from sim.study_table import print_cells, verdicts
from sim.tables import provenance

if TYPE_CHECKING:
    from pathlib import Path

STUDY = """\
trace: {source: synthetic, requests: 60, rate: 40 /s, prompt_tokens: 64, output_tokens: 20}
model: llama-3.2-1b
sweep:
  loop.mode: [graph, host]
  trace.rate_scale: [1, 2]
  seeds: 3
"""


def test_points_with_seeds_have_a_row_each_with_half_widths_and_a_verdict(tmp_path: Path) -> None:
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(STUDY)
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", str(path), "--out", str(out), "--no-plots", "--quiet", "--jobs", "1"])
    assert stopped.value.code == 0
    results = read_study(out)
    text = io.StringIO()
    print_cells(results, 3, lambda run: run.summary, Console(file=text, width=160))
    lines = text.getvalue().splitlines()
    rows = [line for line in lines if re.search(r"│ (graph|host) ", line)]
    assert len(rows) == 3  # of four points
    assert all(line.count("±") >= 5 for line in rows)
    assert "± is half of a 95 % confidence interval over the seeds" in lines
    said = verdicts(results)
    assert [line.partition(":")[0] for line in said] == ["rate_scale 1", "rate_scale 2"]
    assert all("Against graph, host is" in line and "worse at mean TPOT" in line for line in said)


def test_places_outside_a_domain_are_said_together() -> None:
    summary = {
        "cost_profile": "p", "cost_profile_status": "measured", "cost_estimated": [],
        "cost_extrapolated": ["a: context 7 outside 128 to 200", "b: batch 2 outside 4 to 8"],
    }  # fmt: skip
    other = summary | {"cost_extrapolated": ["a: context 3 outside 128 to 200", "c: no domain"]}
    assert provenance(summary, other)[1:] == [
        "extrapolated: a: context 3 to 7 outside 128 to 200; b: batch 2 outside 4 to 8; "
        "c: no domain"
    ]
