"""Who computes when: the part of a scenario that says how a scheduler orders prefill and decode.

The one rule: what is not given is vLLM V1's order over whole-prompt reservations, and leaves no
mark on the hash. `SCHEDULER.md` has the rules in words, `planner` in code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from .node import Flag, Node
from .tiers import memory_options
from .units import Seconds

if TYPE_CHECKING:
    from .node import Place
    from .scenario import Scenario

Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Delay = Annotated[Seconds, Field(le=3600.0)]


ANY = 1 << 62
"""So many are no limit."""


class Limits(NamedTuple):
    """What a scheduler says of the prompts of an iteration beside its token budget."""

    chunk: int = ANY
    """Tokens of one prompt."""
    partial: int = ANY
    """Prompts that are left unfinished."""
    prompts: int = ANY
    """Prompts of which anything is computed."""
    chunked: bool = True
    """Whether prompts are cut at all."""


NO_LIMITS = Limits()


class Schedule(Node):
    """In which order an iteration is filled, what is kept back, and what lies around the loop."""

    order: Literal["decode_first", "prefill_first", "prefill_alone"] = "decode_first"
    """decode_first: every decoding request, then prompts with what is left of the token budget;
    prefill_first: prompts that have begun, then decoding requests, then new prompts;
    prefill_alone: an iteration with prompts decodes nothing."""
    prefill_budget: Count | None = None
    """Token budget of iterations that decode nobody; not given: `loop.token_budget`."""
    chunked: Flag = True
    """Whether a prompt may be cut; false: it waits until the budget has room for all of it."""
    long_prefill: Count | None = None
    """Tokens that an iteration computes of one prompt at most."""
    partial_prefills: Count | None = None
    """Prompts that an iteration may leave unfinished."""
    max_prompts: Count | None = None
    """Prompts of which an iteration computes anything."""
    free_margin: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    """Share of HBM's KV blocks: with fewer free, no prompt is admitted beside running requests."""
    reserve: Literal["prompt", "chunk", "chunk_if_fits"] = "prompt"
    """Blocks that a prompt takes: for all of it when it is admitted, or chunk by chunk; if_fits:
    it is admitted only where there are blocks for all of it at that time."""
    blocked_prompt: Literal["wait", "preempt"] = "wait"
    """What a prompt does whose next chunk finds no blocks: it waits for them, or the youngest
    running request gives its own away."""
    output_reserve: Share = 0.0
    """Share of the tokens still to be made whose blocks must be free when a request is admitted,
    its own and those of all that run; 1: nobody is ever preempted."""
    asynchronous: Flag = False
    """Whether an iteration is planned while the one before it runs: the CPU's work is hidden, and
    what arrives or is freed during an iteration counts one iteration later."""
    freed_late: Flag = False
    """Whether what an iteration without prompts frees is given away one iteration later: a loop on
    the device goes on for a step before the host sees who has finished, and wishes it to leave."""
    arrival_delay: Delay = 0.0
    """From a client's send until the engine knows the request: network, HTTP, tokenisation, IPC."""
    token_delay: Delay = 0.0
    """From the end of the iteration that makes a token until the client has it: detokenisation,
    IPC, streaming."""

    @property
    def limits(self) -> Limits:
        """What is said of the prompts of an iteration."""
        chunk, partial, prompts = self.long_prefill, self.partial_prefills, self.max_prompts
        return Limits(chunk or ANY, partial or ANY, prompts or ANY, self.chunked)


OF_PROMPTS = (
    "prefill_budget", "chunked", "long_prefill", "partial_prefills", "max_prompts",
    "blocked_prompt", "output_reserve",
)  # fmt: skip
"""Keys that bear on who is admitted and how prompts are cut."""
OF_WHOLE_REQUESTS = ("chunked", "partial_prefills", "output_reserve")
"""Those that must know, before a request is admitted, all that it will compute or hold."""


def faults(scenario: Scenario) -> list[tuple[Place, str]]:
    """What does not go together with a scenario's schedule."""
    keys, loop = scenario.schedule, scenario.loop
    found: list[tuple[Place, str]] = []

    def fault(key: str, what: str) -> None:
        found.append((("schedule", key), what))

    given = [key for key in OF_PROMPTS if getattr(keys, key) != _default(key)]
    if keys.asynchronous and loop.mode not in ("host", "graph", "engine"):
        what = f"a loop on the device plans by itself; remove it, or loop.mode: {loop.mode}"
        fault("asynchronous", what)
    options = memory_options(scenario.hardware, scenario.kv)
    alone = "needs kv.prefix_cache: false and no tiers below HBM"
    shares = bool(options.sizes) or scenario.kv.prefix_cache
    if keys.asynchronous and shares:
        fault("asynchronous", f"{alone}; give these, or remove it")
    if keys.freed_late and shares:
        fault("freed_late", f"{alone}; give these, or remove it")
    partition = loop.mode == "resident" and loop.prefill == "partition"
    if keys.freed_late and partition:
        fault("freed_late", "does not go with loop.prefill: partition; remove it")
    if keys.reserve != "prompt":
        if shares:
            fault("reserve", f"{keys.reserve} {alone}; give prompt")
        if partition:
            what = f"{keys.reserve} does not go with loop.prefill: partition; give prompt"
            fault("reserve", what)
    for key in given:
        if partition:
            fault(key, "does not go with loop.prefill: partition; remove it")
        elif key in OF_WHOLE_REQUESTS and shares:
            fault(key, f"{alone}; give these, or remove it")
        elif key in ("chunked", "output_reserve"):
            for section in ("speculation", "sparse", "block_decode"):
                if getattr(scenario, section) is not None:
                    fault(key, f"does not go with {section}; remove it")
    if not keys.chunked:
        for key in ("long_prefill", "partial_prefills"):
            if key in given:
                fault(key, "cuts prompts, and schedule.chunked is false; remove one of the two")
    return found


def _default(key: str) -> object:
    return Schedule.model_fields[key].default


def warnings(scenario: Scenario) -> list[str]:
    """One line for every key of the schedule that was given and has no effect."""
    keys, loop = scenario.schedule, scenario.loop
    given, idle = keys.model_fields_set, dict[str, str]()
    if "order" in given:
        if loop.leaves and keys.order != "prefill_alone":
            idle["order"] = "this loop leaves the GPU for every prefill"
        elif loop.mode == "resident" and loop.prefill == "partition":
            idle["order"] = "prefill runs beside the loop"
    most = max(loop.token_budget, keys.prefill_budget or 0)
    if keys.long_prefill is not None and keys.long_prefill >= most:
        idle["long_prefill"] = f"no iteration has more than {most:,} tokens"
    if keys.partial_prefills is not None and (keys.long_prefill is None or "long_prefill" in idle):
        idle["partial_prefills"] = "without schedule.long_prefill only one prompt is cut at a time"
    if keys.blocked_prompt != "wait" and keys.reserve == "prompt":
        idle["blocked_prompt"] = "only with schedule.reserve: chunk or chunk_if_fits"
    if keys.reserve != "prompt" and not keys.chunked:
        idle["reserve"] = "schedule.chunked is false, so every chunk is a whole prompt"
    if keys.max_prompts is not None and keys.max_prompts >= loop.max_batch:
        idle["max_prompts"] = f"no more than loop.max_batch ({loop.max_batch}) run"
    return [f"schedule.{key}: has no effect here; {why}" for key, why in idle.items()]
