"""Seconds for an iteration, from the profile: the only module the loop asks for time.

An iteration of b decode requests over c KV entries costs the same whichever requests they are, so
`Cost.decode(b)` is worked out once for each b and then evaluated at c, for one iteration or for
many at once with results equal to the last bit.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import cost_trust
from .accounting import Accounts, Charge, Extra, account
from .cost_table import CostTable
from .curve import Read
from .decode_cost import DecodeCost, awaited, layer_time
from .forms import Prompts
from .model_cost import ModelCost, layer_seconds
from .modes import Modes
from .moe import fetch_of
from .timing import slowed
from .widening import Widening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .drafting import Drafting
    from .profile import Profile
    from .scenario import Scenario
    from .stages import Pass
    from .steps import Load
    from .timing import LaunchQueue

NOBODY = Prompts(0, 0, 0)
DEPTHS = 1024
"""More than there are drafting levels."""


class Chunk(NamedTuple):
    """A piece of one prompt: *tokens* to prefill after *offset* tokens that have KV already."""

    tokens: int
    offset: int


class Cost:
    """The cost model of one scenario."""

    def __init__(self, scenario: Scenario, profile: Profile) -> None:
        loop, model = scenario.loop, scenario.model
        self._made_of = scenario, profile
        self.shape = model.shape
        self.loop = loop
        self.profile = profile
        self.modes = Modes(profile, loop.host, scenario.schedule.asynchronous)
        self.wide = Widening(scenario, profile)
        self.model = ModelCost(self.wide.setup, self.modes)
        self.model.measured.leave_as_measured()
        self.stages = self.model.stages
        self.headed = self.model
        if self.wide.drafting_setup.extra:
            self.headed = ModelCost(self.wide.drafting_setup, self.modes)
        self.drafting = self.wide.drafting(self.modes)
        self.weights = model.weights
        self.kv_dtype = scenario.kv.dtype
        self.memory_of_profile = scenario.hardware.hbm.capacity is None
        self.captured = loop.captures if loop.mode in ("graph", "control") else ()
        self.by_load: dict[tuple[int, int, int, bool, float], DecodeCost] = {}
        self.table = CostTable()
        self.places: dict[tuple[int, bool, float], dict[int, int]] = {}
        """Where the table has batches, by rows and depth."""
        blocks = scenario.block_decode
        self.both_ways = blocks is not None and blocks.refresh is not None
        self.most_tokens = 0
        self.most_batch = 0
        self.most_context = 0
        self.least_context = 1 << 62

    def apart(self) -> Cost:
        """Another one that nobody has asked anything yet; what it is asked leaves no mark here."""
        other = type(self)(*self._made_of)
        for own, same in zip(self.models, other.models, strict=True):
            same.measured.works = own.measured.works  # steps' stages, the same for both
        return other

    @property
    def models(self) -> list[ModelCost]:
        """The model that serves, with heads that draft or without, and one that drafts."""
        drafter = None if self.drafting is None else self.drafting.model
        headed = [] if self.headed is self.model else [self.headed]
        return [self.model, *headed, *([] if drafter is None else [drafter])]

    def decode(
        self,
        batch: int,
        rows: int | None = None,
        depth: int = 0,
        *,
        beside_prefill: bool = False,
        slow: float = 1.0,
    ) -> DecodeCost:
        """The cost of decoding *batch* requests, on fewer SMs when *beside_prefill*.

        *rows* tokens go through the model, not given: one a request; the request that drafts most
        drafts *depth* levels. The GPU takes *slow* times longer, because KV is moved meanwhile.
        """
        key = (batch, batch if rows is None else rows, depth, beside_prefill, slow)
        found = self.by_load.get(key)
        if found is None:
            if slow == 1.0:
                found = self._decode(batch, key[1], depth, beside_prefill)
            else:
                alone = self.decode(batch, rows, depth, beside_prefill=beside_prefill)
                draft = alone.draft and alone.draft.slowed(slow)
                found = replace(alone, timing=slowed(alone.timing, slow), draft=draft)
            self.by_load[key] = found
        return found

    def durations(
        self, batch: int, load: Load, beside_prefill: bool = False, slow: float = 1.0
    ) -> np.ndarray:
        """Seconds of each of several iterations of *batch* requests; *load* holds arrays."""
        places = self.places.setdefault((batch, beside_prefill, slow), {})
        keys = (load.rows * DEPTHS + load.depth).tolist()
        for key in keys:
            if key not in places:
                one = self.decode(
                    batch, *divmod(key, DEPTHS), beside_prefill=beside_prefill, slow=slow
                )
                places[key] = self.table.add(one)
        read = Read(load.context, load.attended, load.pages)
        seconds = self.table.seconds([places[key] for key in keys], read)
        if self.wide.fetch is not None and load.fetched is not None:
            seconds = np.maximum(seconds, awaited(self.wide.fetch, load.fetched))
        if load.refreshed is not None:
            for number in np.flatnonzero(load.refreshed.requests).tolist():
                seconds[number] = self.refresh(batch, load.at(number), slow).seconds
        return seconds

    def _decode(self, batch: int, rows: int, depth: int, beside_prefill: bool) -> DecodeCost:
        mode, padded, rows = self.run_as(batch, rows)
        model = self.headed if depth else self.model
        timing, layer = model.step(mode, padded, rows, batch)
        draft = None
        if self.drafting is not None:
            draft = self.drafting.of(mode, padded, batch, depth)
        if beside_prefill:
            share = self.loop.prefill_share
            timing = self.modes.beside_prefill(timing, share)
            draft = draft and draft.changed(lambda one: self.modes.beside_prefill(one, share))
        self.most_batch = max(self.most_batch, padded)
        self.most_tokens = max(self.most_tokens, rows)
        return DecodeCost(padded, rows, timing, layer, draft, self.wide.fetch)

    def run_as(self, batch: int, rows: int) -> tuple[str, int, int]:
        """The mode in which *batch* requests decode *rows* tokens, and both as they are padded."""
        if self.loop.mode == "resident":
            return "resident", batch, rows
        padded = next((size for size in self.captured if size >= batch), None)
        if padded is None:
            return "host", batch, rows
        # Model: graphs are captured for every batch size and number of tokens a request. As the
        # tokens of all requests are padded together, the mean number is rounded up.
        return self.loop.mode, padded, padded * ceil(rows / batch)

    def mixed(
        self,
        batch: int,
        context: int,
        chunks: Sequence[Chunk],
        logits: int,
        slow: float = 1.0,
        rows: int | None = None,
        depth: int = 0,
        attended: int | None = None,
        pages: int | None = None,
        fetched: int | None = None,
        refreshed: Prompts | None = None,
    ) -> Charge:
        """Decode of *batch* requests over *context* KV entries together with prefill *chunks*.

        *logits* of all tokens are sampled from. Runs as single launches in every mode: no graph
        is captured for it, and a resident loop has left before. The GPU takes *slow* times longer.
        The rest as in `decode` and `DecodeCost.seconds`. Of decoding requests, *refreshed* are
        what is computed again.
        """
        tokens = batch if rows is None else rows
        again = refreshed or NOBODY
        work = self._pass(tokens + again.tokens, chunks, logits)
        queue = self.modes.queue(work, batch > 0, self._prefill(chunks, again))
        x = layer_time(self.model.layer(batch, tokens), context, attended, pages) if batch else 0.0
        lines = queue.lines()
        if slow != 1.0:
            const, slope = lines[0]
            const += (slow - 1.0) * self._busy(queue)
            lines = ((const, slope * slow), *lines[1:])
        requests = batch + len(chunks) + again.requests
        if self.modes.asynchronous:
            launched = self.modes.launched(lines, requests)
            seconds = max(const + slope * x for const, slope in launched)
        else:
            seconds = max(const + slope * x for const, slope in lines)
            seconds += self.modes.host_overhead(requests)
        if self.wide.offloads:
            seconds += self._awaited(work, queue, x)
        extra = None
        if self.drafting is not None:
            extra = self._drafts(self.drafting, batch, context, depth, chunks)
            seconds += extra.seconds + (slow - 1.0) * extra.busy
        if fetched and self.wide.fetch is not None:
            latency, each = self.wide.fetch
            seconds = max(seconds, latency + each * fetched)
        return Charge(seconds, "host", queue, x, slow, extra)

    def _awaited(self, work: Pass, queue: LaunchQueue, x: float) -> float:
        """Seconds that a pass waits for experts that are not in HBM."""
        experts = self.wide.setup.experts
        fetch = fetch_of(self.profile, self.shape, self.weights, experts, work.body.tokens)
        return fetch.wait(layer_seconds(work) + (queue.prefill or 0.0) + x)

    def _drafts(
        self, drafting: Drafting, batch: int, context: int, depth: int, chunks: Sequence[Chunk]
    ) -> Extra:
        """What drafting adds: drafts of *batch* requests, and the drafter's own prefill."""
        found = Extra(0.0, 0.0, 0)
        model = drafting.model
        if model is not None and chunks:
            # Model: what a prompt leaves behind in the drafter is computed like the prompt's own
            # KV, without an LM head.
            work = model.stages.of(sum(chunk.tokens for chunk in chunks), 0)
            seconds = model.prefill_seconds(chunks)
            queue = model.modes.queue(work, False, seconds)
            alone = max(line[0] for line in queue.lines())
            found = Extra(alone, self._busy(queue), queue.launches, queue)
        draft = drafting.of("host", batch, batch, depth) if batch else None
        if draft is not None:
            now = float(context)
            seconds, busy = draft.both(now)
            found = Extra(
                found.seconds + seconds, found.busy + busy,
                found.launches + draft.launches, found.prefill, draft, now,
            )  # fmt: skip
        if self.headed is not self.model and batch and depth:
            # Model: the launches of heads wait for nothing; they end an iteration that is long.
            times = [stage.seconds for stage in self.headed.heads(batch)]
            found = found._replace(
                seconds=found.seconds + sum(times),
                busy=found.busy + sum(times) - len(times) * self.modes.node,
                launches=found.launches + len(times),
            )
        return found

    def _busy(self, queue: LaunchQueue) -> float:
        """Seconds of all kernels but decode attention."""
        return queue.kernel_seconds() - queue.launches * self.modes.node

    def partition(self, chunks: Sequence[Chunk], logits: int, slow: float = 1.0) -> Charge:
        """Prefill *chunks* on their share of the SMs, beside the resident loop.

        The GPU takes *slow* times longer.
        """
        work = self._pass(0, chunks, logits)
        queue = self.modes.queue(work, False, self._prefill(chunks))
        seconds = self.modes.partition_seconds(queue, self.loop.prefill_share)
        if slow != 1.0:
            seconds += (slow - 1.0) * self._busy(queue) / self.loop.prefill_share
        extra = None
        if self.drafting is not None:
            extra = self._drafts(self.drafting, 0, 0, 0, chunks)._replace(launches=0, prefill=None)
            seconds += slow * extra.busy / self.loop.prefill_share
        return Charge(seconds, "partition", queue, 0.0, slow, extra)

    def _pass(self, batch: int, chunks: Sequence[Chunk], logits: int) -> Pass:
        tokens = batch + sum(chunk.tokens for chunk in chunks)
        self.most_tokens = max(self.most_tokens, tokens)
        return self.stages.of(tokens, logits)

    def refresh(self, batch: int, load: Load, slow: float = 1.0) -> Charge:
        """A step of block-parallel decode in which some requests compute their cached KV again.

        All *batch* requests refine their blocks; what is computed again is in *load*. A step in
        which nobody refreshes is `decode`.
        """
        # Model: tokens of a block attend to the cache and, in both directions, to each other: the
        # products of a verification without its mask. What is refreshed attends to all of itself.
        return self.mixed(batch, load.context, (), load.rows, slow, load.rows, *load[2:])

    def _prefill(self, chunks: Sequence[Chunk], again: Prompts = NOBODY) -> float:
        """Seconds of one layer's prefill attention: all chunks, and all *again*, in one launch."""
        for tokens, offset in chunks:
            self.most_context = max(self.most_context, tokens + offset)
            self.least_context = min(self.least_context, tokens + offset)
        seconds = self.model.prefill_seconds(chunks)
        form, shape = self.model.prefill, self.shape
        # Model: attention without a causal mask takes twice the scores.
        if self.both_ways:
            seconds += seconds - form.t0_s
        if again.requests:
            mean = again.tokens // again.requests
            self.most_context = max(self.most_context, mean)
            self.least_context = min(self.least_context, mean)
            seconds += 2.0 * (form.together(shape.heads, shape.head_dim, again) - form.t0_s)
        return seconds

    def account(self, charges: Sequence[Charge]) -> Accounts:
        """Busy and queueing seconds, launches and syncs of single iterations, in bulk."""
        return account(charges, self.modes.node)

    def estimated(self) -> list[str]:
        """Names of the estimated constants and kernels that this scenario's loop depends on."""
        return cost_trust.estimated(self)

    def extrapolated(self) -> list[str]:
        """Where the run left the domain in which a kernel's form was fitted, one phrase each."""
        return cost_trust.extrapolated(self)
