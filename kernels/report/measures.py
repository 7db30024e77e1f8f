"""What the rows of the target table measure: which points, records or constants.

One rule: where several settings could be meant, the row names the one it took.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .draw_copies import SINGLES, grid_label, rate, records, singles, slowdown
from .targets import Found, best, of_point

if TYPE_CHECKING:
    from collections.abc import Callable

    from .inputs import Evidence


def read_stream(evidence: Evidence) -> Found | None:
    """The best read-only stream, in TB/s, against the data sheet."""
    if not evidence.read.measured:
        return None
    rate_tb = evidence.read.bytes_per_s / 1e12
    return Found(rate_tb, floor=4.8, floor_kind="data sheet", is_rate=True,
                 note="the read ceiling of this report")  # fmt: skip


def attention(requests: int, length: int, **axes: Any) -> Callable[[Evidence], Found | None]:
    """Decode attention at heads 32/8/128, bf16, dense, one new token, equal lengths."""
    usual = {"heads": "32/8/128", "bits": 16, "tokens": 1, "budget": 0, "skew": "none"}
    pick = "" if "page" in axes else "page"
    return best("paged_attention", pick, requests=requests, length=length, **{**usual, **axes})


def scoring(batch: int, pages: int) -> Callable[[Evidence], Found | None]:
    """Page scores at heads 32/8/128, 16 tokens a page."""
    return best(
        "page_score", batch=batch, pages=pages, kv_heads=8, group=4, head_dim=128, tokens=1,
        page_tokens=16, lengths="even", element="bf16",
    )  # fmt: skip


def selection(pages: int) -> Callable[[Evidence], Found | None]:
    """Selection of 128 pages in 128 rows, gaussian scores warm in L2."""
    return best("topk_select", rows=128, pages=pages, budget=128, scores="gaussian", cold=False)


def slowest_selection(evidence: Evidence) -> Found | None:
    """The slowest target shape with benign scores: 2k to 8k pages."""
    found = [selection(pages)(evidence) for pages in (2048, 4096, 8192)]
    known = [one for one in found if one is not None]
    if len(known) < 3:
        return None
    text = " / ".join(f"{one.value:.2f}" for one in known)
    slowest = max(known, key=lambda one: one.value)
    return replace(slowest, note=f"{slowest.note}; 2k / 4k / 8k pages: {text}")


def worst_distribution(evidence: Evidence) -> Found | None:
    """The slowest distribution over the fastest, at the worst of the target shapes."""
    worst: Found | None = None
    for pages in (2048, 4096, 8192):
        points = evidence.find("topk_select", rows=128, pages=pages, budget=128, cold=False)
        if len({point.axes["scores"] for point in points}) < 2:
            continue
        fast, slow = points[0], points[-1]
        value = slow.median / fast.median
        note = f"{pages} pages: {slow.axes['scores']} {slow.median * 1e6:.2f}, "
        note += f"{fast.axes['scores']} {fast.median * 1e6:.2f} us"
        if worst is None or value > worst.value:
            worst = Found(value, note=note)
    return worst


def gemv(n: int, k: int, m: int, bits: int) -> Callable[[Evidence], Found | None]:
    """Our product of few tokens."""
    return best("w4a16_gemv", n=n, k=k, m=m, bits=bits)


def rejection(evidence: Evidence) -> Found | None:
    """Rejection sampling on probabilities: the slowest acceptance."""
    points = evidence.find(
        "verify_commit", batch=32, drafts=4, vocabulary=128256, element="fp32",
        mode="probabilities", q=True,
    )  # fmt: skip
    if not points:
        return None
    found = of_point(evidence, points[-1])
    shares = ", ".join(f"{p.axes['acceptance']:g}: {p.median * 1e6:.1f}" for p in points)
    return replace(found, note=f"{found.note}; slowest acceptance; us by acceptance: {shares}")


def constant(name: str, scale: float = 1e6) -> Callable[[Evidence], Found | None]:
    """A constant of the profile, if it was measured or fitted."""

    def measure(evidence: Evidence) -> Found | None:
        entry = evidence.constant(name)
        if entry is None or entry["kind"] == "estimated":
            return None
        if entry.get("source", "run") != "run":
            return None
        return Found(float(entry["value"]) * scale, note=str(entry["note"]), kind=entry["kind"])

    return measure


def single_copy(nbytes: int) -> Callable[[Evidence], Found | None]:
    """GB/s of one copy into HBM by the copy engine."""

    def measure(evidence: Evidence) -> Found | None:
        rates = {
            words: rate(record) / 1e9
            for calls, held, words in SINGLES
            for record in singles(evidence, "h2d", calls, held)
            if record["bytes"] == nbytes
        }
        alone = [value for words, value in rates.items() if words.startswith("alone")]
        if not alone:
            return None
        note = ", ".join(f"{words} {value:.1f}" for words, value in rates.items())
        return replace(_moved(evidence, 1e9 * max(alone), nbytes), note=f"GB/s {note}")

    return measure


def gathered(page_bytes: int) -> Callable[[Evidence], Found | None]:
    """GB/s of the gather kernel into HBM with eight blocks, most pages."""

    def measure(evidence: Evidence) -> Found | None:
        found = records(evidence, "gather", direction="h2d", page_bytes=page_bytes, blocks=8)
        if not found:
            return None
        most = max(found, key=lambda record: (float(record["bytes"]), rate(record)))
        return replace(_moved(evidence, rate(most), most["bytes"]), note=grid_label(most))

    return measure


def _moved(evidence: Evidence, bytes_per_s: float, nbytes: float) -> Found:
    """A rate under the best single copy into HBM of this run."""
    link = max((rate(r) / 1e9 for r in records(evidence, "copy_engine", direction="h2d")),
               default=None)  # fmt: skip
    return Found(bytes_per_s / 1e9, float(nbytes), link, "link", is_rate=True)


def disturbed(mover: str, blocks: int) -> Callable[[Evidence], Found | None]:
    """Percent by which decode work grows beside *mover* at full rate into HBM."""

    def measure(evidence: Evidence) -> Found | None:
        found = records(evidence, "interference", mover=mover, direction="h2d", blocks=blocks)
        if not found:
            return None
        named = [record for record in found if record["victim"] == "paged_attention"]
        # At full rate: of several launches of the mover the one that moves most.
        record = max(named or found, key=lambda one: float(one.get("mover_bytes_s", 0.0)))
        return Found(slowdown(record), note="; ".join(_disturbance(one) for one in found))

    return measure


def _disturbance(record: dict[str, Any]) -> str:
    launch = f", {grid_label(record)}" if record.get("blocks") else ""
    speed = record.get("mover_bytes_s", 0.0) / 1e9
    return f"{record['victim']}{launch} {slowdown(record):+.1f} % at {speed:.0f} GB/s"


def disk_reads(evidence: Evidence) -> Found | None:
    """GB/s of the best reads, with the latency of a small one."""
    found = [
        record
        for record in records(evidence, "file_read")
        if record.get("wall_seconds") and record.get("operations")
    ]
    if not found:
        return None
    top = max(found, key=_file_rate)
    note = f"{top.get('disk', 'disk')}, {top['depth']} at once, {top['bytes'] >> 10} KiB each"
    single = [r for r in found if r["depth"] == 1 and r["bytes"] == 131072]
    if single:
        note += f"; 128 KiB alone: {statistics.median(single[0]['seconds']) * 1e6:.0f} us"
    return Found(_file_rate(top) / 1e9, bytes=float(top["bytes"]), note=note, is_rate=True)


def _file_rate(record: dict[str, Any]) -> float:
    return float(record["bytes"] * record["operations"] / record["wall_seconds"])
