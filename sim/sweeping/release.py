"""Whether two processes compute the same bytes: the code of the simulator and what it stands on."""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sim.errors import InputError

_STANDS_ON = ("numpy", "pyarrow", "simpy", "pydantic")


@lru_cache(maxsize=1)
def release() -> tuple[str, ...]:
    """What has to be equal in the driver and in every worker, each as `NAME VERSION`."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] != "kernels":  # in a wheel only, and no part of a simulation
            digest.update(str(place).encode() + b"\0" + path.read_bytes())
    names = [f"residentsim with code {digest.hexdigest()}"]
    names.append(f"python {sys.version_info[0]}.{sys.version_info[1]}")
    for name in _STANDS_ON:
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"{name} of no version")
    return tuple(names)


def check_release(wanted: tuple[str, ...], host: str) -> None:
    """Raises `InputError` if this process would not compute what the driver's *wanted* would."""
    for theirs, ours in zip(wanted, release(), strict=True):
        if theirs != ours:
            what = f"runs {ours}, but the sweep was started with {theirs}"
            raise InputError(f"worker {host}: {what}; install the same on both")
