"""How long computing a part of a prompt will take: what loading it competes with.

One rule: an estimate in a few operations, from the cost model's own iterations; asking changes
nothing in the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.cost import Chunk
from sim.steps import NOTHING

if TYPE_CHECKING:
    from sim.cost import Cost
    from sim.steps import Load


class Prefill:
    """Seconds of prefill with *cost*, in full iterations of *tokens* tokens."""

    def __init__(self, cost: Cost, tokens: int) -> None:
        self._cost = apart = cost.apart()  # what it is asked about is not what the run did
        self._tokens = tokens
        far = 16 * tokens
        near_s = apart.mixed(0, 0, [Chunk(tokens, 0)], 1).seconds
        far_s = apart.mixed(0, 0, [Chunk(tokens, far)], 1).seconds
        # Model: an iteration grows in a straight line with the context before its chunk, and a
        # prompt's last chunk, which is not full, takes its share of a full one.
        self._per_token = near_s / tokens
        self._per_pair = max(0.0, far_s - near_s) / (far * tokens)
        self._half = self._per_pair / 2.0

    def seconds(self, first: int, last: int) -> float:
        """Computing the tokens from *first* to before *last* of a prompt alone on the GPU."""
        return self._per_token * (last - first) + self._half * (last * last - first * first)

    def taken_s(self, first: int, last: int, batch: int, load: Load) -> float:
        """What *batch* requests that decode with *load* lose meanwhile.

        A loop that leaves for prefill gives them nothing until it is back; beside a partition they
        are slower; in mixed iterations they wait for what an iteration is longer with the chunk.
        """
        cost, loop = self._cost, self._cost.loop
        if loop.leaves:
            return self._chunks_s(first, last, 0, NOTHING) + cost.modes.exit + cost.modes.relaunch
        alone = self._decode_s(batch, load) if batch else 0.0
        if loop.mode != "resident":
            return self._chunks_s(first, last, batch, load, alone)
        beside = self._decode_s(batch, load, beside=True) if batch else 0.0
        share = 1.0 - alone / beside if beside else 0.0
        return share * self.seconds(first, last) / loop.prefill_share

    def _decode_s(self, batch: int, load: Load, beside: bool = False) -> float:
        decode = self._cost.decode(batch, load.rows, load.depth, beside_prefill=beside)
        return decode.seconds(load.context, *load[3:6])

    def _chunks_s(self, first: int, last: int, batch: int, load: Load, less: float = 0.0) -> float:
        """All iterations with the chunks, each *less* so many seconds."""
        rows = load.rows
        room = max(1, self._tokens - rows)
        full = (last - first - 1) // room

        def mixed_s(chunk: Chunk, logits: int) -> float:
            charge = self._cost.mixed(
                batch, load.context, [chunk], rows + logits, 1.0, rows, *load[2:]
            )
            return charge.seconds - less

        total = mixed_s(Chunk(last - first - full * room, first + full * room), 1)
        if full:
            # Model: iterations grow in a straight line with what is before their chunk, so the
            # middle one stands for all.
            total += full * mixed_s(Chunk(room, first + room * (full - 1) // 2), 0)
        return max(0.0, total)
