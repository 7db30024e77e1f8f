"""Runs of the engine on a machine with GPUs: a worker a GPU takes the next that time allows.

Travels inside the script that `python bench/blind.py commands` prints, so it needs nothing but
Python. What is finished lies in $OUT at once, a tar or more a GPU, so that a killed call loses only
what was under way; what is not run, or fails, is said.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 14_000_000
"""Of a tar; larger files might not come back."""
LEFT_BEHIND = ("tokens.parquet", "iterations.parquet", "requests.parquet")
"""Files of a run that its other files tell, too."""
SPARE_S = 20.0


@dataclass(frozen=True)
class Run:
    """A run of the engine that takes about *need* seconds, its start included."""

    need: float
    name: str
    options: str


@dataclass
class Queue:
    """Runs in the order in which they matter, until *end* on the monotonic clock."""

    runs: list[Run]
    end: float
    begin: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "FAILED": 0, "left out": 0})

    def take(self) -> Run | None:
        """The next run that ends in time; those that would not are left out, and said so."""
        with self.lock:
            while self.runs:
                run, left = self.runs.pop(0), self.end - time.monotonic()
                if run.need <= left:
                    return run
                self.say("left out", f"{run.name}: needs {run.need:.0f} s, {left:.0f} s are left")
        return None

    def say(self, what: str, text: str) -> None:
        """A line, with the time; counts by the word that it begins with."""
        self.counts[what] = self.counts.get(what, 0) + 1
        print(f"{time.monotonic() - self.begin:6.1f} s  {what}: {text}", flush=True)


@dataclass
class Worker:
    """A GPU with cores of its own."""

    gpu: str
    cores: str
    commit: str
    out: Path
    part: int = 1

    def work(self, queue: Queue) -> None:
        """Takes runs until there are none."""
        while (run := queue.take()) is not None:
            try:
                self._one(run, queue)
            except Exception as error:  # the next run may do better
                queue.say("FAILED", f"{run.name} on GPU {self.gpu}: {error!r}")

    def _one(self, run: Run, queue: Queue) -> None:
        begin = time.monotonic()
        folder = Path("running") / run.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        limit = max(1.0, min(2.0 * run.need + SPARE_S, queue.end + SPARE_S - begin))
        rc, text = self.serve(run, folder, limit)
        with queue.lock, (self.out / "log.txt").open("a") as log:
            log.write(f"==== {run.name}, GPU {self.gpu}, rc {rc}\n{text}\n")
        if rc != 0 or not (folder / "steps.jsonl.gz").is_file():
            end = "\n".join(text.strip().splitlines()[-5:])
            with queue.lock:
                queue.say("FAILED", f"{run.name} on GPU {self.gpu}, rc {rc}:\n{end}")
            return
        self.keep(folder)
        took, last = time.monotonic() - begin, (text.strip().splitlines() or [""])[-1]
        with queue.lock:
            queue.say("done", f"{run.name} on GPU {self.gpu} in {took:.0f} of {run.need:.0f} s "
                      f"| {last}")  # fmt: skip

    def serve(self, run: Run, folder: Path, limit: float) -> tuple[int, str]:
        """Return code (124: too slow, and ended) and what the engine printed."""
        words = [*os.environ.get("ENGINE", "python3 -m kernels serve").split(),
                 *run.options.split(), "--commit", self.commit, "--out", str(folder)]  # fmt: skip
        if shutil.which("taskset"):
            words = ["taskset", "-c", self.cores, *words]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": self.gpu}
        child = subprocess.Popen(
            words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            text, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            text, _ = child.communicate()
            return 124, text
        return child.returncode, text

    def keep(self, folder: Path) -> None:
        """Appends a finished run to this GPU's tar, or to a next one if that would be too large."""
        for name in LEFT_BEHIND:
            if name != "requests.parquet" or (folder / "requests.jsonl.gz").is_file():
                (folder / name).unlink(missing_ok=True)
        more = sum(file.stat().st_size + 2048 for file in folder.iterdir())
        if self._tar.is_file() and self._tar.stat().st_size + more > MOST_BYTES:
            self.part += 1
        with tarfile.open(self._tar, "a") as tar:
            tar.add(folder, folder.name)
        shutil.rmtree(folder)

    @property
    def _tar(self) -> Path:
        return self.out / f"runs-{self.gpu}-{self.part}.tar"


def read(queue: Path, done: Path | None) -> list[Run]:
    """The runs of a *queue*, without those that *done* names."""
    known = set(done.read_text().split()) if done else set()
    runs = []
    for line in queue.read_text().splitlines():
        need, name, options = line.split("\t")
        if name in known:
            print(f"done before: {name}", flush=True)
        else:
            runs.append(Run(float(need), name, options))
    return runs


def cores(parts: int) -> list[str]:
    """This process's cores in so many equal parts, as taskset takes them.

    Two threads of one physical core have numbers side by side, or half of all apart: a part is a
    piece of the lower half and the piece of the upper half above it, so that none is shared. With
    less than two cores a part, a part is one.
    """
    own = sorted(os.sched_getaffinity(0))
    half = len(own) // 2
    each = half // parts
    if not each:
        return [str(own[i % len(own)]) for i in range(parts)]
    pieces = [slice(i * each, (i + 1) * each) for i in range(parts)]
    found = [[*own[:half][piece], *own[half:][piece]] for piece in pieces]
    return [",".join(map(str, some)) for some in found]


def gpus() -> list[str]:
    """The GPUs to use: GPUS (0,1), or all that there are."""
    if given := os.environ.get("GPUS"):
        return given.split(",")
    listed = subprocess.check_output(["nvidia-smi", "--list-gpus"], text=True)
    return [str(number) for number, _ in enumerate(listed.splitlines())]


def main() -> int:
    """QUEUE COMMIT SECONDS [DONE]; 1 if a run failed."""
    queue_file, commit, limit, *done = sys.argv[1:]
    out = Path(os.environ.get("OUT", "out"))
    out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    queue = Queue(read(Path(queue_file), Path(done[0]) if done else None), begin + float(limit))
    devices = gpus()
    workers = [
        Worker(gpu, own, commit, out) for gpu, own in zip(devices, cores(len(devices)), strict=True)
    ]
    threads = [threading.Thread(target=worker.work, args=(queue,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = ", ".join(f"{number} {what}" for what, number in queue.counts.items())
    print(f"{time.monotonic() - begin:6.1f} s  {counts}")
    files = sorted(out.iterdir())
    print(", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in files))
    if len(files) > 8:
        print(f"{len(files)} files: more than come back")
    return 1 if queue.counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
