"""What a wheel puts into site-packages: `sim`, with `kernels` and the shipped profile inside it."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_one_top_level_name_and_all_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sim"}
    assert "sim/profiles/nvidia-h200.json" in names
    assert "sim/py.typed" in names
    for scenario in (ROOT / "sim" / "seeds").glob("*.yaml"):
        assert f"sim/seeds/{scenario.name}" in names
    assert "sim/kernels/__main__.py" in names
    for source in (ROOT / "kernels").rglob("*.cu"):
        assert f"sim/kernels/{source.relative_to(ROOT / 'kernels')}" in names


def test_sim_and_kernels_do_not_import_each_other() -> None:
    for package, other in (("sim", "kernels"), ("kernels", "sim")):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules = [node.module or ""]
                else:
                    continue
                assert not any(module.split(".")[0] == other for module in modules), path


def test_no_module_outgrows_a_pleasant_read() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / "sim").rglob("*.py")}
    largest = sorted(lines, key=lambda path: -lines[path])[:3]
    print(*(f"{lines[path]} {path.relative_to(ROOT)}" for path in largest), sep="\n")
    assert lines[largest[0]] <= 320
