"""A sweep on a Ray cluster that it starts for itself, where Ray is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sweeps import bad_point, environment, litter, points, written

from sim.errors import InputError
from sim.sweeping import run_points
from sim.sweeping.ray_cluster import Ray

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ray", reason="needs `pip install 'residentsim[ray]'`")


@pytest.mark.slow
@pytest.mark.parametrize("gather", [False, True])
def test_a_ray_cluster_computes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gather: bool
) -> None:
    """The worker of seed 2 dies once; a bad point is recorded."""
    for name, value in environment(tmp_path / "told", {2: {"kill": 1}}).items():
        monkeypatch.setenv(name, value)
    wanted = points(tmp_path, [1, 2, 3])
    run_points(wanted, tmp_path / "here", quiet=True)
    with_bad = [*wanted, bad_point(tmp_path)]
    outcome = run_points(with_bad, tmp_path / "out", backend=Ray(gather=gather), quiet=True)
    assert len(outcome.done) == 3
    assert outcome.exit_code == 2
    assert written(tmp_path / "out") == written(tmp_path / "here")
    assert litter(tmp_path / "out") == []


@pytest.mark.slow
def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        run_points(points(tmp_path, [1]), tmp_path / "out", backend=Ray("auto"))
    (line,) = told.value.lines
    assert line.startswith("--ray 'auto': no cluster answers there (")
