"""A point in a process of its own, which it may bring down without harm: `-m sim.sweeping.alone`.

This is how a point that was at work when a worker died is found guilty or innocent.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

from .failure import LOST
from .task import Reply, Task
from .worker import compute, start


def compute_alone(task: Task, scratch: str | None = None) -> Reply:
    """Computes one point in a new process; `lost` with how that ended if it did not come back."""
    command = [sys.executable, "-X", "faulthandler", "-m", __name__]
    paths = [os.environ.get("PYTHONPATH", ""), *(path or os.getcwd() for path in sys.path)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    try:
        sent = pickle.dumps((replace(task, guarded=False, driver=os.getpid()), scratch))
        back, said = child.communicate(sent)
    finally:
        child.kill()
        child.wait()
    if child.returncode == 0:
        reply = pickle.loads(back)
        assert isinstance(reply, Reply)
        return reply
    text = said.decode(errors="replace")
    return Reply(task.id, "lost", LOST, _how(child.returncode), text, losses=1)


def _how(code: int) -> str:
    """How a process ended, by its exit *code*."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    hint = "; does it need more memory than there is?" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"


def main() -> None:
    """Reads a task from stdin and writes the reply to stdout; what else is printed is diverted."""
    start()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task, scratch = pickle.loads(sys.stdin.buffer.read())
    with out:
        out.write(pickle.dumps(compute(task, scratch)))


if __name__ == "__main__":
    main()
