"""What a measurement ran on: device, driver, versions, and the SM clock while it was timed."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import Gpu

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "cupy", "numpy", "scipy", "torch", "triton")
CLOCK_EVERY_S = 4e-3
SETTLE_S, SETTLED = 0.25, 0.97


def facts(gpu: Gpu) -> dict[str, Any]:
    """Device, driver, CUDA and package versions, CPU, kind of machine; JSON scalars and maps."""
    runtime = gpu.xp.cuda.runtime
    device = gpu.xp.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    code = int(runtime.runtimeGetVersion())
    return {
        "name": properties["name"].decode(),
        "sms": gpu.sms,
        "hbm_bytes": int(device.mem_info[1]),
        "l2_bytes": int(properties["l2CacheSize"]),
        "id": hashlib.blake2b(bytes(properties.get("uuid", b"")), digest_size=4).hexdigest(),
        "driver": driver(),
        "cuda": f"{code // 1000}.{code % 1000 // 10}",
        "packages": packages(),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
    }


def packages() -> dict[str, str]:
    """Versions of those of `PACKAGES` that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(folder: Path) -> str | None:
    """The commit of the checkout in *folder*, with `+` if files differ; None without git."""
    try:
        lines = [
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[0] + ("+" if lines[1] else "")


def _cpu() -> str:
    """The processor's name, and `virtual` where a hypervisor shows itself."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    kind = ", virtual" if " hypervisor " in f"{text} ".replace("\n", " ") else ""
    return (names[0] if names else platform.machine()) + kind


def _nvml() -> Any:
    """NVIDIA's management library, initialised; None where there is none."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def driver() -> str | None:
    """The driver's version."""
    library, text = _nvml(), ctypes.create_string_buffer(96)
    if library is None or library.nvmlSystemGetDriverVersion(text, 96):
        return None
    return text.value.decode()


class Clocks:
    """Samples the SM clock in a thread while a `with` block runs; MHz in `seen`."""

    def __init__(self, gpu: Gpu) -> None:
        self.library = _nvml()
        self.handle = ctypes.c_void_p()
        self.seen: list[int] = []
        self.highest = 0
        if self.library is not None:
            address = str(gpu.xp.cuda.Device().pci_bus_id).encode()
            found = self.library.nvmlDeviceGetHandleByPciBusId_v2(
                address, ctypes.byref(self.handle)
            )
            self.library = None if found else self.library

    def now(self) -> int:
        """The SM clock in MHz; 0 if nobody tells."""
        clock = ctypes.c_uint()
        sm = 1  # NVML_CLOCK_SM
        if self.library is None:
            return 0
        wrong = self.library.nvmlDeviceGetClockInfo(self.handle, sm, ctypes.byref(clock))
        return 0 if wrong else int(clock.value)

    def settle(self) -> None:
        """Waits until the clock is as high as it was, or `SETTLE_S` have passed.

        A large product draws so much power that the clock falls, and stays low for the next point.
        """
        end = time.monotonic() + SETTLE_S
        while (clock := self.now()) < SETTLED * self.highest and time.monotonic() < end:
            time.sleep(CLOCK_EVERY_S)
        self.highest = max(self.highest, clock)

    def __enter__(self) -> Clocks:
        self.seen = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while clock := self.now():
            self.seen.append(clock)
            self.highest = max(self.highest, clock)
            if self._stop.wait(CLOCK_EVERY_S):
                return
