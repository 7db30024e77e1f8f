"""Makes points sleep, fail or kill their process, in every process that has this on its path.

What befalls the point of a seed stands in the JSON file that POINT_STORIES names: `{"3": {"kill":
2}}` kills the process of the first two tries at seed 3. Tries are counted in a file beside it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path


def told(run):
    """*run* of `sim.simulate`, after what the stories say of its seed."""

    def wrapped(scenario, folder, *rest):
        stories = Path(os.environ["POINT_STORIES"])
        story = json.loads(stories.read_text()).get(str(scenario.seed), {})
        tries = stories.with_name(f"tries-{scenario.seed}")
        with tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(story.get("sleep", 0))
        if len(tries.read_text().split()) <= story.get("kill", 0):
            (folder / "half").write_text("done")
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in story:
            os._exit(story["exit"])
        return run(scenario, folder, *rest)

    return wrapped


class Hook(importlib.abc.MetaPathFinder):
    """Waits for the import of `sim.simulate`."""

    def find_spec(self, name, path, target=None):
        if name != "sim.simulate":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def patched(module):
            execute(module)
            module.run = told(module.run)

        spec.loader.exec_module = patched
        return spec


if "POINT_STORIES" in os.environ:
    sys.meta_path.insert(0, Hook())
