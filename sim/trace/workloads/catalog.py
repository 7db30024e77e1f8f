"""The names of generated workloads, what they are, and the knobs that each takes.

Nothing heavy is imported, since every scenario and every command line is checked against these.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting: its name in a scenario, its option of `trace generate`, and what it is."""

    key: str
    option: str
    what: str
    example: str


@dataclass(frozen=True, slots=True)
class Workload:
    """One named workload: the knobs that it needs, and those that it takes besides."""

    what: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    @property
    def knobs(self) -> tuple[str, ...]:
        """All that mean something to it."""
        return self.needs + self.takes


KNOBS = {
    "rate_per_s": Knob("rate", "--rate", "requests a second (agent-like: sessions)", "6 /s"),
    "arrivals": Knob("arrivals", "--arrivals", "poisson, gamma or constant", "gamma"),
    "burstiness": Knob(
        "burstiness", "--burstiness", "shape of gamma gaps: 1 is Poisson, less is burstier", "0.5"
    ),
    "on_s": Knob("on_period", "--on", "mean seconds of a period with traffic", "20 s"),
    "off_s": Knob("off_period", "--off", "mean seconds of a period without", "40 s"),
    "prompt": Knob("prompt_tokens", "--prompt", "lengths of prompts", "1024"),
    "output": Knob("output_tokens", "--output", "lengths of answers", "200"),
    "rank_correlation": Knob(
        "rank_correlation",
        "--rank-correlation",
        "Spearman's, of prompt and answer lengths, -1 to 1",
        "0.3",
    ),
    "diurnal": Knob(
        "diurnal",
        "--diurnal",
        "rate by hour of day: a profile's name, an amplitude from 0 to 1, or 24 numbers",
        "servegen-m-large",
    ),
    "start_hour": Knob(
        "start_hour", "--start-hour", "hour of day (servegen: of the files) at the start", "8"
    ),
    "clients": Knob(
        "clients", "--clients", "ServeGen's files: a folder, or its clients CSV", "servegen/"
    ),
    "population": Knob(
        "population", "--population", "built-in clients where no files are given", "m-large"
    ),
    "sub_agents": Knob(
        "sub_agents", "--sub-agents", "share of turns that send sub-agents off", "0.01"
    ),
    "shared_prefix": Knob(
        "shared_prefix", "--shared-prefix", "tools and system prompt are the same for all", "true"
    ),
}
"""By the name that `generate` takes."""

_DAY = ("diurnal", "start_hour")
_LENGTHS = ("prompt", "output")
_PAIR = ("rank_correlation", *_DAY)

WORKLOADS = {
    "azure-conv-like": Workload(
        "chat of the Azure 2023 trace: a slow rate profile, short prompts", takes=_DAY
    ),
    "azure-code-like": Workload(
        "code completion of the Azure 2023 trace: on/off bursts, few output tokens", takes=_DAY
    ),
    "mooncake-conversation-like": Workload(
        "Kimi chat of the Mooncake trace: long prompts that share prefixes, 512-token blocks",
        takes=_DAY,
    ),
    "mooncake-synthetic-like": Workload(
        "the Mooncake authors' mix of data sets: documents asked about again and again",
        takes=_DAY,
    ),
    "agent-like": Workload(
        "coding agents of the Weka sessions, closed loop: think times, tools, compaction, "
        "sub-agents, 96 % prefix reuse, 64-token blocks",
        takes=("rate_per_s", "arrivals", "burstiness", "sub_agents", "shared_prefix", *_DAY),
    ),
    "reasoning-like": Workload(
        "a reasoning model of ServeGen (deepseek-r1): long outputs of two kinds",
        takes=("rate_per_s", "start_hour"),
    ),
    "servegen": Workload(
        "ServeGen's superposed clients, each with its rate, burstiness and lengths by time",
        takes=("clients", "population", "rate_per_s", "start_hour", *_LENGTHS),
    ),
    "poisson": Workload("exponential gaps", ("rate_per_s", *_LENGTHS), _PAIR),
    "gamma": Workload("gamma gaps", ("rate_per_s", "burstiness", *_LENGTHS), _PAIR),
    "constant": Workload("equal gaps", ("rate_per_s", *_LENGTHS), _PAIR),
    "on-off": Workload(
        "periods with traffic and without in turn, exponentially long",
        ("rate_per_s", "on_s", "off_s", *_LENGTHS),
        ("burstiness", *_PAIR),
    ),
    "synthetic": Workload(
        "poisson, gamma or constant gaps by `arrivals`",
        ("rate_per_s", *_LENGTHS),
        ("arrivals", "burstiness", *_PAIR),
    ),
}
"""By name, in the order in which they are listed."""

POPULATIONS = ("m-large", "m-mid", "m-small", "deepseek-r1", "mm-image")
"""Built-in populations of ServeGen clients."""

PROFILES = (
    "servegen-m-large",
    "servegen-m-mid",
    "servegen-m-small",
    "servegen-deepseek-r1",
    "servegen-mm-image",
    "burstgpt",
)
"""Built-in rates by hour of day."""
