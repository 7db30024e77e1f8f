"""Compiles a kernel folder's `kernel.cu`: a cubin for a GPU, or a library for the CPU.

One rule: what was compiled is kept under a name that holds the digest of everything that went in,
so that a second build is a look at the disk and a changed header is never missed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
CPU_FLAGS = ("-std=c++17", "-Og", "-w", "-fPIC", "-shared", "-pthread")
"""-Og: the fused step compiles in a fifth of -O2's time and runs a tenth slower."""
GPU_FLAGS = ("-std=c++17", "-O3", "-Xptxas", "-v", "-cubin")
LINK_FLAGS = ("-rdc=true", "-dlink", "-lcudadevrt")
"""For a source with the line `// link: cudadevrt`: it calls CUDA's device runtime."""
C_FLAGS = ("-O2", "-shared", "-fPIC")


class BuildError(RuntimeError):
    """A source did not compile or no compiler was found; the text is the compiler's."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the assembler reports of one kernel: registers a thread and bytes."""

    registers: int
    shared_bytes: int
    """Static shared memory; a launch may add dynamic shared memory."""
    stack_bytes: int
    spill_bytes: int


def cubin(folder: str, arch: str = "sm_90", defines: Iterable[str] = ()) -> Path:
    """The compiled `kernel.cu` of *folder* for *arch*; *defines* are `-D` macros (`TILE=16`).

    Raises `BuildError` with the compiler's words.
    """
    source = HERE / folder / "kernel.cu"
    macros = [f"-D{macro}" for macro in defines]
    linked = "\n// link: cudadevrt\n" in source.read_text()
    flags = [*GPU_FLAGS, *(LINK_FLAGS if linked else ()), f"-arch={arch}", f"-I{HERE}", *macros]
    target = _cache() / f"{folder}-{arch}-{_digest(folder, flags[:-1] + macros)}.cubin"
    if not target.exists():
        log = _compile([str(toolkit() / "bin" / "nvcc"), *flags, str(source)], target)
        target.with_suffix(".log").write_text(log)
    return target


def resources(
    folder: str, arch: str = "sm_90", defines: Iterable[str] = ()
) -> dict[str, Resources]:
    """Registers, shared memory, stack and spills of each kernel in *folder*, from the assembler."""
    log = cubin(folder, arch, defines).with_suffix(".log").read_text()
    found = {}
    parts = re.split(r"Compiling entry function '([^']+)'", log)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):

        def figure(pattern: str, text: str = text) -> int:
            match = re.search(pattern, text)
            return int(match[1]) if match else 0

        found[name] = Resources(
            figure(r"Used (\d+) registers"),
            figure(r"(\d+) bytes smem"),
            figure(r"(\d+) bytes stack frame"),
            figure(r"(\d+) bytes spill stores") + figure(r"(\d+) bytes spill loads"),
        )
    return found


def cpu_library(folder: str, defines: Iterable[str] = ()) -> Path:
    """`kernel.cu` of *folder* as a shared library that runs on the CPU; raises `BuildError`."""
    source = HERE / folder / "kernel.cu"
    names = kernel_names(source)
    include = toolkit() / "include"
    exports = "\n".join(f"CPU_KERNEL({name})" for name in names)
    macros = [f"-D{macro}" for macro in defines]
    includes = [f"-I{folder}" for folder in (HERE, include, include / "cccl")]
    target = _cache() / f"{folder}-cpu-{_digest(folder, [*CPU_FLAGS, *macros])}.so"
    if not target.exists():
        entry = target.with_suffix(f".{os.getpid()}.cpp")
        entry.write_text(f'#include "{source}"\n{exports}\n')
        header = ["-include", str(_cpu_header(includes))]
        try:
            _compile(["g++", *CPU_FLAGS, *macros, *includes, *header, str(entry)], target)
        finally:
            entry.unlink()
    return target


def _cpu_header(includes: list[str]) -> Path:
    """A header that includes `cpu/cuda_on_cpu.h`, and beside it the same one precompiled.

    Reading CUDA's headers is most of a small kernel's time. A compiler that cannot use what
    another has left there reads the header itself.
    """
    digest = hashlib.blake2b("\0".join([*CPU_FLAGS, *includes]).encode(), digest_size=6)
    for path in sorted(_sources(HERE / "cpu" / "cuda_on_cpu.h", set())):
        digest.update(path.relative_to(HERE).as_posix().encode() + path.read_bytes())
    target = _cache() / f"cuda_on_cpu-{digest.hexdigest()}.h"
    precompiled = target.with_name(f"{target.name}.gch")
    if not precompiled.exists():
        draft = target.with_suffix(f".{os.getpid()}.h")
        draft.write_text('#include "cpu/cuda_on_cpu.h"\n')
        draft.replace(target)
        flags = [flag for flag in CPU_FLAGS if flag != "-shared"]
        _compile(["g++", *flags, *includes, "-x", "c++-header", str(target)], precompiled)
    return target


def host_library(source: Path) -> Path:
    """The C file *source* as a shared library, with the toolkit's headers; raises `BuildError`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BuildError("no C compiler: install gcc")
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(_sources(source, set())):
        digest.update(path.relative_to(HERE).as_posix().encode() + path.read_bytes())
    target = _cache() / f"{source.stem}-{digest.hexdigest()}.so"
    if not target.exists():
        includes = [f"-I{HERE}", f"-I{toolkit() / 'include'}"]
        _compile([compiler, *C_FLAGS, *includes, str(source), "-ldl"], target)
    return target


def kernel_names(source: Path) -> list[str]:
    """Names of the `extern "C" __global__` kernels in *source*, in order."""
    pattern = r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\('
    return re.findall(pattern, source.read_text())


def folders() -> list[str]:
    """Every folder with a `kernel.cu`, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/kernel.cu"))


def toolkit() -> Path:
    """CUDA's toolkit: `CUDA_HOME`, the usual place, around an nvcc on the path, or from pip."""
    home = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc")
    places = [Path(home)] if home else []
    places += [Path("/usr/local/cuda")]
    places += [Path(found).resolve().parent.parent] if found else []
    places += [Path(sysconfig.get_path("purelib"), "nvidia", "cu13")]
    for place in places:
        if (place / "bin" / "nvcc").exists() and (place / "include" / "cuda_bf16.h").exists():
            return place
    raise BuildError("no CUDA toolkit: pip install 'residentsim[dev]', or set CUDA_HOME")


def _compile(command: list[str], target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run([*command, "-o", str(draft)], capture_output=True, text=True)
    if done.returncode:
        draft.unlink(missing_ok=True)
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    draft.replace(target)
    return done.stdout + done.stderr


def _digest(folder: str, flags: list[str]) -> str:
    """Digest of *flags* (paths left out) and of the sources that a kernel includes."""
    digest = hashlib.blake2b(digest_size=6)
    for flag in flags:
        if not flag.startswith("-I"):
            digest.update(flag.encode() + b"\0")
    for path in sorted(_sources(HERE / folder / "kernel.cu", {HERE / "cpu" / "cuda_on_cpu.h"})):
        digest.update(path.relative_to(HERE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _sources(path: Path, seen: set[Path]) -> set[Path]:
    """*seen* with *path* and every file of this package that it includes, however deep."""
    seen.add(path)
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
        for found in (HERE / name, path.parent / name):
            if found.exists() and found not in seen:
                _sources(found, seen)
    return seen


def _cache() -> Path:
    """Where the results stay: `KERNEL_CACHE`, a checkout's `build/kernels`, or ~/.cache."""
    named = os.environ.get("KERNEL_CACHE")
    if named:
        folder = Path(named)
    elif (HERE.parent / "pyproject.toml").exists():
        folder = HERE.parent / "build" / "kernels"
    else:
        folder = Path.home() / ".cache" / "residentsim" / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
