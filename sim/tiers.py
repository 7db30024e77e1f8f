"""Where KV may live beside HBM and what moves it there: parts of `hardware` and `kv`.

The one rule: what is not asked for leaves no mark on a scenario's hash, and a key without effect is
named in a warning. What the keys mean for a run is `MemoryOptions`, made here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from .dtypes import BITS
from .memory.movers import Given
from .memory.options import MemoryOptions
from .node import Flag, Node, Place, refuse
from .units import Bytes, BytesPerSecond, Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenario import Hardware

Format = Literal["bf16", "fp8", "int8", "int4"]
Capacity = Annotated[Bytes, Field(gt=0)]
Bandwidth = Annotated[BytesPerSecond, Field(ge=1)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]

TIERS = ("dram", "ssd", "remote")
"""Keys of `hardware` that are tiers below HBM, from the nearest to the farthest."""
LINKS = {"dram": ("h2d", "d2h"), "ssd": ("ssd_read", "ssd_write")}
"""Keys of `hardware.links`, by the tier without which they do not exist."""


class Link(Node):
    """What is known better than the profile knows it about a link; the profile says the rest."""

    bandwidth: Bandwidth | None = None
    """Of all transfers on it together."""
    latency: Seconds | None = None
    """Of every transfer, before its bytes flow."""
    at_once: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    """Transfers that share it; further ones wait."""
    slowdown: Annotated[float, Field(strict=True, ge=1, le=100)] | None = None
    """How many times longer the GPU takes while it is busy."""


class Links(Node):
    """The links of the host, by name."""

    h2d: Link | None = None
    """From DRAM to HBM."""
    d2h: Link | None = None
    """From HBM to DRAM."""
    ssd_read: Link | None = None
    """From SSD to DRAM."""
    ssd_write: Link | None = None
    """From DRAM to SSD."""


class Tier(Node):
    """Memory below HBM."""

    capacity: Capacity
    """Bytes of the whole host."""
    share: Share = 1.0
    """The part of them that the KV of this run may fill, of all `replicas` together; the rest is
    for other GPUs and programs."""


class Remote(Tier):
    """A further tier: a pool of memory in the network, reached through DRAM, or a peer GPU's."""

    latency: Seconds
    """Of every transfer, in either direction."""
    bandwidth: Bandwidth
    """In each direction."""
    at_once: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    """Transfers in each direction that share it; further ones wait."""
    direct: Flag = False
    """Whether it is reached from HBM over its own link alone, as a peer GPU is over NVLink; it may
    then be there without DRAM."""


class TierDtypes(Node):
    """Formats of keys and values below HBM; where none is given, that of the tier above."""

    dram: Format | None = None
    """In DRAM."""
    ssd: Format | None = None
    """On SSD."""
    remote: Format | None = None
    """In the further tier."""


class Kv(Node):
    """Keys and values."""

    block_tokens: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 16
    """Tokens of a block."""
    dtype: Format = "bf16"
    """Format of a key or value in HBM."""
    hbm_blocks: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None
    """Blocks that HBM has room for, as an engine says at its start; not given: what the memory
    holds beside the weights."""
    prefix_cache: Flag = True
    """Whether prompts share what they have in common by the trace's block ids, and what they leave
    behind is kept for later ones; without ids nothing is shared."""
    eviction: Literal["lru", "draft_first_lru", "lfu", "cost_aware", "h2o", "streaming"] = "lru"
    """Which cached KV goes first when a tier is full."""
    promotion: Literal["always", "cost_aware"] = "cost_aware"
    """Whether cached KV below HBM is always loaded, or as much as is sooner there than computed."""
    prefetch: Literal["none", "next_block", "lookahead", "session"] = "none"
    """What is loaded before it is asked for: what follows a hit, prompts of the queue, or the next
    turn of a session."""
    lookahead: Annotated[int, Field(strict=True, ge=1, le=4096)] = 8
    """How many a prefetch looks at: requests at the head of the queue, or the turns that come next,
    or units that followed a hit."""
    write_back: Literal["on_evict", "eager"] = "on_evict"
    """When KV is copied down: when HBM runs short, or as soon as it is computed."""
    reserve: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.05
    """Share of a tier that is kept free or ready to be dropped, by copying down before."""
    queue_limit: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 32
    """Transfers that may wait for a link before nothing more is loaded over it."""
    layout: Literal["contiguous", "paged"] = "contiguous"
    """Whether a block of all layers is one piece of memory, or keys and values of each layer lie
    apart, so that a copy has many pieces."""
    preemption: Literal["recompute", "swap", "cheaper"] = "recompute"
    """What becomes of the KV of a request that has to make room: computed again, moved to DRAM and
    back, or what takes less time."""
    tier_dtypes: TierDtypes = TierDtypes()

    @property
    def bits(self) -> int:
        """Bits of a key or value in HBM."""
        return BITS[self.dtype]

    @model_validator(mode="after")
    def _narrower(self) -> Kv:
        faults: list[tuple[Place, str]] = []
        above, named = self.dtype, "kv.dtype"
        for tier in TIERS:
            format = getattr(self.tier_dtypes, tier)
            if format is None:
                continue
            if BITS[format] > BITS[above]:
                what = f"{format} is wider than {above} ({named}), from which it is made"
                faults.append((("tier_dtypes", tier), f"{what}; take {above} or a narrower one"))
            above, named = format, f"kv.tier_dtypes.{tier}"
        refuse(faults)
        return self


# ---------------------------------------------------------------- what the keys have to do
def faults(hardware: Hardware) -> list[tuple[Place, str]]:
    """What is wrong with the tiers beside one another."""
    what = "needs hardware.dram, which it is filled from; add e.g. `dram: {capacity: 64 GiB}`"
    other = {"remote": ", or `direct: true` for a tier with a link of its own"}
    return [
        ((tier,), what + other.get(tier, ""))
        for tier in TIERS[1:]
        if (store := getattr(hardware, tier)) is not None and hardware.dram is None
        if not (isinstance(store, Remote) and store.direct)
    ]


def warnings(
    hardware: Hardware, kv: Kv, offloads: bool = False, experts: bool = False
) -> Iterator[str]:
    """One line for every key that was given and has no effect beside the others.

    *offloads*: whether decode steps fetch from DRAM what they select (`sparse.offload`), *experts*:
    whether they fetch experts (`moe.offload`), for which DRAM needs no size.
    """
    swaps = kv.preemption != "recompute"
    moves = swaps or offloads
    lower, caches = hardware.dram is not None, kv.prefix_cache
    no_dram, no_cache = "only with hardware.dram", "only with kv.prefix_cache: true"
    tiers = lower or hardware.remote is not None
    cold, why_cold = not (caches and tiers), no_dram if caches else no_cache
    idle: list[tuple[str, bool, str]] = [
        ("hardware.dram", not (caches or moves), f"{no_cache}, or kv.preemption: swap or cheaper"),
        ("hardware.ssd", not caches, no_cache),
        ("hardware.remote", not caches, no_cache),
        ("hardware.mover", not lower, no_dram),
        ("kv.eviction", not caches, no_cache),
        ("kv.promotion", cold, why_cold),
        ("kv.prefetch", cold, why_cold),
        ("kv.lookahead", cold, why_cold),
        ("kv.lookahead", kv.prefetch == "none", "only with kv.prefetch"),
        ("kv.write_back", cold, why_cold),
        ("kv.reserve", cold, why_cold),
        ("kv.queue_limit", cold, why_cold),
        ("kv.layout", not lower, no_dram),
        ("kv.preemption", swaps and not lower, f"{no_dram}; what is preempted is computed again"),
    ]
    said = set()
    for path, useless, why in idle:
        section, _, key = path.partition(".")
        node: Node = kv if section == "kv" else hardware
        given = key in node.model_fields_set and getattr(node, key) not in (None, "none")
        if useless and given and path not in said:
            said.add(path)
            yield f"{path}: has no effect here; {why}"
    for tier, names in LINKS.items():
        for name in names:
            if experts and name == "h2d":
                continue
            if getattr(hardware.links, name) is not None and getattr(hardware, tier) is None:
                yield f"hardware.links.{name}: has no effect here; only with hardware.{tier}"
    for tier in TIERS:
        if getattr(kv.tier_dtypes, tier) is not None and getattr(hardware, tier) is None:
            yield f"kv.tier_dtypes.{tier}: has no effect here; only with hardware.{tier}"


def memory_options(hardware: Hardware, kv: Kv) -> MemoryOptions:
    """What the keys say to the simulator, in SI; a tier's format goes on to those below it."""
    sizes, bits, format = {}, {}, kv.dtype
    for tier in TIERS:
        store: Tier | None = getattr(hardware, tier)
        format = getattr(kv.tier_dtypes, tier) or format
        if store is not None:
            sizes[f"{tier}_bytes"] = store.capacity * store.share
            bits[tier] = BITS[format]
    return MemoryOptions(
        prefix_cache=kv.prefix_cache, eviction=kv.eviction, promotion=kv.promotion,
        prefetch=kv.prefetch, lookahead=kv.lookahead, write_back=kv.write_back,
        reserve=kv.reserve, queue_limit=kv.queue_limit, preemption=kv.preemption,
        layout=kv.layout, mover=hardware.mover, bits=bits, links=_links(hardware),
        remote_direct=hardware.remote is not None and hardware.remote.direct, **sizes,
    )  # fmt: skip


def _links(hardware: Hardware) -> dict[str, Given]:
    """What is given about links that exist, by their names."""
    found = {}
    for tier, names in LINKS.items():
        for name in names:
            link: Link | None = getattr(hardware.links, name)
            if link is not None and getattr(hardware, tier) is not None:
                found[name] = Given(link.latency, link.bandwidth, link.at_once, link.slowdown)
    if (remote := hardware.remote) is not None:
        given = Given(remote.latency, remote.bandwidth, remote.at_once)
        found |= {"remote_read": given, "remote_write": given}
    return found


def without_defaults(node: Node, data: dict[str, Any], always: tuple[str, ...]) -> dict[str, Any]:
    """*data*, which is *node* as plain data, without keys that are as if they had not been given.

    Those in *always* stay. Maps below lose what is None, and go if nothing is left.
    """
    kept = {}
    for key, value in data.items():
        if key in always or getattr(node, key) != type(node).model_fields[key].default:
            value = _given(value) if key not in always else value
            if value != {}:
                kept[key] = value
    return kept


def _given(value: Any) -> Any:
    """*value* without what is None in its maps, and without maps that are empty then."""
    if not isinstance(value, dict):
        return value
    inner = {key: _given(entry) for key, entry in value.items() if entry is not None}
    return {key: entry for key, entry in inner.items() if entry != {}}
