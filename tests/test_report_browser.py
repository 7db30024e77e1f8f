"""The page in a real browser: it opens from disk, asks for nothing, and is dark where asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.report.write import write_report
from sim.study import load_study
from sim.sweeping import run_study

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if
     (found := shutil.which(name))), None,
)  # fmt: skip
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
DARK = "--blink-settings=preferredColorScheme=0"
STUDY = """# Do resident loops pay?
trace: {source: synthetic, requests: 40, rate: 20 /s, prompt_tokens: 128, output_tokens: 20}
model: llama-3.2-1b
sweep: {trace.rate_scale: [1, 2, 4], loop.mode: [host, resident]}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a page & its folder")
    (folder / "loops.yaml").write_text(STUDY)
    run_study(load_study(folder / "loops.yaml"), folder / "out", quiet=True)
    write_report(folder / "out", folder / "out" / "report.html", folder / "out" / "figures")
    return folder / "out" / "report.html"


def browse(page: Path, tmp_path: Path, *flags: str) -> tuple[str, str]:
    """What the browser prints about *page*: on stdout, and in its log."""
    log = tmp_path / "chrome.log"
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
        f"--log-net-log={tmp_path / 'net.json'}", "--enable-logging", f"--log-file={log}",
        *flags, page.as_uri(),
    ]  # fmt: skip
    environment = os.environ | {"CHROME_LOG_FILE": str(log)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    return done.stdout, log.read_text(errors="replace") if log.is_file() else ""


def pixels(path: Path) -> np.ndarray:
    """The picture at *path* as [rows, columns, 3], from 0 to 1."""
    from matplotlib.image import imread

    return np.asarray(imread(path))[..., :3]


def test_it_opens_from_disk_and_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    dom, log = browse(page, tmp_path, "--dump-dom")
    text = re.sub(r"<[^>]*>", " ", dom)
    for said in ("p99 TTFT with", "resident", "Comparison", "Figures", "Environment"):
        assert said in text
    assert dom.count("<svg") == page.read_text().count("<svg")
    assert "CONSOLE" not in log, log
    net = (tmp_path / "net.json").read_text()
    asked = set(re.findall(r'"url":"([a-z]+:[^"]*)"', net))
    outside = {url for url in asked if url.startswith(("http", "ws")) and "google" not in url}
    assert outside == set()


def test_a_page_that_breaks_the_rules_would_be_noticed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    policy = "default-src 'none'"
    bad.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<script>document.title = 1</script><p>text"
    )
    _, log = browse(bad, tmp_path, "--dump-dom")
    assert "Content Security Policy" in log


@pytest.mark.parametrize("width", [1240, 500])
def test_light_and_dark_are_the_readers(page: Path, tmp_path: Path, width: int) -> None:
    shots = []
    for name, flags in (("light", ()), ("dark", (DARK,))):
        shot = tmp_path / f"{name}.png"
        size = f"--window-size={width},1600"
        browse(page, tmp_path, f"--screenshot={shot}", size, *flags)
        shots.append(pixels(shot))
    light, dark = shots
    assert light.shape == dark.shape == (1600, width, 3)
    assert np.median(light) > 0.97
    assert np.median(dark) < 0.15
    # Ink in either: letters, axes and lines are on the page and stand out from the paper.
    assert (light.min(axis=2) < 0.4).mean() > 0.01
    assert (dark.max(axis=2) > 0.6).mean() > 0.01
    # No card of a figure stays white in the dark.
    assert (dark.min(axis=2) > 0.95).mean() < 0.02


def test_nothing_is_wider_than_a_narrow_screen(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "narrow.png"
    browse(page, tmp_path, f"--screenshot={shot}", "--window-size=500,3000")
    edge = pixels(shot)[:, -12:, :]
    assert edge.min() > 0.8  # the margin of the page is empty: what is wide scrolls in its place


def test_it_prints(page: Path, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    browse(page, tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer", DARK)
    data = printed.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(data) > 30_000
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) < 20
