"""From a profile to links: how fast each mover is, and how much it disturbs decode.

One rule: every number is one of the profile's or the user's, and what nobody has measured on the
profile's machine is named in `Moving.estimated`.

Movers between DRAM and HBM: `copy_engine` (a call for each piece), `batched` (one call for many
pieces) and `gather` (a kernel reads and writes pages).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Literal

from sim.errors import InputError

from .links import LinkSpec, Slowdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sim.profile import Profile

Mover = Literal["copy_engine", "batched", "gather"]
MOVERS: tuple[Mover, ...] = ("copy_engine", "batched", "gather")
PCIE = ("h2d", "d2h")
DISK = ("ssd_read", "ssd_write")
REMOTE = ("remote_read", "remote_write")
LINKS = (*PCIE, *DISK, *REMOTE)
GATHER_BLOCKS = 32
"""Thread blocks of the gather kernel whose speed the profile has."""

_PAGES = {4096: "4k", 16384: "16k", 65536: "64k"}
_DISK_CONSTANTS = {"ssd_read": "file_read", "ssd_write": "file_write"}
_AT_ONCE = dict.fromkeys(PCIE, 4) | dict.fromkeys(DISK, 16) | dict.fromkeys(REMOTE, 4)
# Model: a call of the copy engine right behind another costs 3.3 us into HBM and 2.4 us out of it,
# whatever its size; in a batched copy a page costs 0.11 us on top of its bytes
# (calibration/h200-run2.jsonl.gz: copy_engine with 16 calls of 4 KiB; copy_batch of 4 KiB, 16 and
# 256 pages). The profile may have its own as h2d_piece_s, h2d_batch_piece_s and so on.
_PIECE_S = {
    "h2d_piece_s": 3.3e-6,
    "d2h_piece_s": 2.4e-6,
    "h2d_batch_piece_s": 0.11e-6,
    "d2h_batch_piece_s": 0.11e-6,
}


# Model: a mover is as fast beside decode as alone, and in both directions at once as in one. The
# copy engine is (55.0 and 54.6 GB/s beside attention; 101 GB/s both ways); a gather kernel that
# shares the SMs with attention has been seen at half its speed (notes of slowdown_gather_*).


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says about a link, in SI; None where the profile shall speak.

    *slowdown* is how many times longer decode takes while the link is busy.
    """

    latency_s: float | None = None
    bytes_per_s: float | None = None
    at_most: int | None = None
    slowdown: float | None = None


@dataclass(frozen=True, slots=True)
class Moving:
    """Links of a host and their effect on decode.

    `uses` names the constants of the profile they rest on, `estimated` what nobody has measured:
    constants of that kind, stand-ins, and what the user gave (`links.h2d.bytes_per_s`).
    """

    specs: tuple[LinkSpec, ...]
    slowdown: Slowdown
    uses: tuple[str, ...]
    estimated: tuple[str, ...]

    def spec(self, link: str) -> LinkSpec:
        """The link of that name; `KeyError` if there is none."""
        for spec in self.specs:
            if spec.name == link:
                return spec
        raise KeyError(link)


def moving(
    profile: Profile,
    links: Sequence[str] = (*PCIE, *DISK),
    *,
    mover: Mover = "copy_engine",
    page_bytes: int = 65536,
    gather_blocks: int = GATHER_BLOCKS,
    given: Mapping[str, Given] | None = None,
) -> Moving:
    """The *links* (names of `LINKS`) with what *profile* has measured of *mover*.

    *page_bytes* of contiguous memory is what the gather kernel moves at a time, with
    *gather_blocks* thread blocks. What is *given* for a link goes before the profile; a remote
    link needs latency and bandwidth. Raises `InputError` for what neither has, for a link, mover
    or number of blocks that is not known, and for numbers that make no sense.
    """
    if mover not in MOVERS:
        raise InputError(f"mover {mover!r}: no such mover; choose one of: {', '.join(MOVERS)}")
    given = given or {}
    for name in (*links, *given):
        if name not in LINKS:
            raise InputError(f"links.{name}: no such link; there are: {', '.join(LINKS)}")
    reader = _Reader(profile)
    specs = tuple(
        _spec(reader, link, mover, page_bytes, given.get(link, Given())) for link in links
    )
    slowdown = _slowdown(reader, links, mover, gather_blocks, given)
    return Moving(specs, slowdown, tuple(reader.uses), tuple(reader.estimated))


class _Reader:
    """Reads constants of *profile* and remembers which, and which of them are estimated."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.uses: dict[str, None] = {}
        self.estimated: dict[str, None] = {}

    def constant(self, name: str) -> float:
        value = self.profile.constant(name)
        self.uses[name] = None
        if self.profile.kind(name) == "estimated":
            self.estimated[name] = None
        return value

    def optional(self, name: str, stand_in: float) -> float:
        """The constant *name*, or *stand_in*, which then counts as estimated."""
        if name in self.profile.constants:
            return self.constant(name)
        self.estimated[name] = None
        return stand_in


def _spec(reader: _Reader, link: str, mover: Mover, page_bytes: int, given: Given) -> LinkSpec:
    """The link of that name."""
    latency, bandwidth = _checked(reader, link, given)
    piece, alone = 0.0, inf
    if link in PCIE:
        base = link
        if mover == "gather":
            base = f"{link}_gather_{_page(reader.profile, link, page_bytes)}"
        elif mover == "batched":
            # Model: one batched call starts as a single copy does; the profile's own line of it,
            # if there is one, is h2d_batch_latency_s and h2d_batch_bytes_per_s.
            if f"{link}_batch_latency_s" in reader.profile.constants:
                base = f"{link}_batch"
            piece = _piece(reader, f"{link}_batch_piece_s")
        else:
            piece = _piece(reader, f"{link}_piece_s")
        if latency is None:
            latency = reader.constant(f"{base}_latency_s")
        if bandwidth is None:
            bandwidth = reader.constant(f"{base}_bytes_per_s")
    elif link in DISK:
        base = _DISK_CONSTANTS[link]
        if latency is None:
            latency = reader.constant(f"{base}_latency_s")
        if bandwidth is None:
            # Model: one operation at a time leaves the disk partly idle; several share what it
            # does at best.
            alone = bandwidth = reader.constant(f"{base}_bytes_per_s")
            if f"{base}_best_bytes_per_s" in reader.profile.constants:
                bandwidth = max(alone, reader.constant(f"{base}_best_bytes_per_s"))
    assert latency is not None
    assert bandwidth is not None
    at_most = given.at_most if given.at_most is not None else _AT_ONCE[link]
    return LinkSpec(link, latency, bandwidth, at_most, piece, alone)


def _checked(reader: _Reader, link: str, given: Given) -> tuple[float | None, float | None]:
    """Latency and bandwidth that the user gave; `InputError` if they cannot be."""
    for name, value, least in (
        ("latency_s", given.latency_s, 0.0),
        ("bytes_per_s", given.bytes_per_s, 1.0),
        ("at_most", given.at_most, 1),
        ("slowdown", given.slowdown, 1.0),
    ):
        if value is None:
            continue
        if not isfinite(value) or value < least:
            raise InputError(f"links.{link}.{name}: {value} is out of range; from {least} on")
        if name != "at_most":
            reader.estimated[f"links.{link}.{name}"] = None
    if link in REMOTE and (given.latency_s is None or given.bytes_per_s is None):
        raise InputError(f"links.{link}: no profile knows it; give its latency and bandwidth")
    return given.latency_s, given.bytes_per_s


def _piece(reader: _Reader, name: str) -> float:
    return reader.optional(name, _PIECE_S[name])


def _page(profile: Profile, link: str, page_bytes: int) -> str:
    """The largest measured page that is not larger than *page_bytes*, else the smallest."""
    # Model: larger pages than 64 KiB move no faster (calibration/h200-run2.jsonl.gz: 51.2 GB/s of
    # 256 KiB and 1 MiB); smaller ones than 4 KiB are taken as 4 KiB, which flatters them.
    measured = {
        size: word
        for size, word in _PAGES.items()
        if f"{link}_gather_{word}_latency_s" in profile.constants
    }
    if not measured:
        raise InputError(
            f"{profile.name}: constants.{link}_gather_*: missing; the profile has no gather "
            f"kernel, choose another mover"
        )
    fitting = [size for size in measured if size <= page_bytes]
    return measured[max(fitting) if fitting else min(measured)]


def _slowdown(
    reader: _Reader,
    links: Sequence[str],
    mover: Mover,
    blocks: int,
    given: Mapping[str, Given],
) -> Slowdown:
    """How the links disturb decode."""
    factors = {link: _given_factor(given, link) for link in LINKS}
    into, out, both = factors["h2d"], factors["d2h"], None
    if into is None and "h2d" in links:
        into = reader.constant(_factor_name(reader, mover, "h2d", blocks))
    if out is None and "d2h" in links:
        out = reader.constant(_factor_name(reader, mover, "d2h", blocks))
    into, out = into or 1.0, out or 1.0
    if mover != "gather" and factors["h2d"] is None and factors["d2h"] is None and (
        "h2d" in links and "d2h" in links
    ):  # fmt: skip
        both = reader.constant("slowdown_copy_engine_both")
    # Model: two gather kernels at once, and links whose factor the user gave, disturb
    # independently of one another.
    # Model: disk and network do not disturb decode unless the user says so.
    others = {
        link: factor for link in (*DISK, *REMOTE) if link in links and (factor := factors[link])
    }
    return Slowdown(into, out, both if both is not None else into * out, others)


def _given_factor(given: Mapping[str, Given], link: str) -> float | None:
    return given[link].slowdown if link in given else None


def _factor_name(reader: _Reader, mover: Mover, way: str, blocks: int) -> str:
    """The constant with the slowdown by *mover* in direction *way*."""
    if mover != "gather":
        # Model: batched copies are work for the same engines, and disturb as those do.
        return f"slowdown_copy_engine_{way}"
    start = f"slowdown_gather_{way}_"
    have = sorted(
        int(name.removeprefix(start))
        for name in reader.profile.constants
        if name.startswith(start) and name.removeprefix(start).isdigit()
    )
    if blocks not in have:
        raise InputError(
            f"{reader.profile.name}: gather kernel of {blocks} blocks, {way}: not measured; "
            f"choose one of: {', '.join(map(str, have)) or 'another mover'}"
        )
    return f"{start}{blocks}"
