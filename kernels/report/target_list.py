"""The rows of the target table, numbered as in the project's plan.

Bars and references were set before anything was measured here; only the measured column moves.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .draw_copies import rate, records, slowdown
from .targets import Found, Target, best, of_point, public, ratio, said, stated, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from .inputs import Evidence

MIB = 1 << 20
EARLIER = "own earlier run:"


# ------------------------------------------------------------------------------ measures
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
    return best(
        "topk_select", rows=128, pages=pages, budget=128, scores="gaussian", cold=False
    )


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
        found = records(evidence, "copy_engine", direction="h2d", calls=1, bytes=nbytes)
        return _moved(evidence, rate(found[0]), nbytes) if found else None

    return measure


def gathered(page_bytes: int) -> Callable[[Evidence], Found | None]:
    """GB/s of the gather kernel into HBM with eight blocks, most pages."""

    def measure(evidence: Evidence) -> Found | None:
        found = records(evidence, "gather", direction="h2d", page_bytes=page_bytes, blocks=8)
        if not found:
            return None
        most = max(found, key=lambda record: float(record["bytes"]))
        return replace(_moved(evidence, rate(most), most["bytes"]), note="8 blocks")

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
        record = (named or found)[0]
        text = ", ".join(f"{one['victim']} {slowdown(one):+.1f} %" for one in found)
        text += f"; the mover did {record.get('mover_bytes_s', 0.0) / 1e9:.0f} GB/s"
        return Found(slowdown(record), note=text)

    return measure


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


# ------------------------------------------------------------------------------ the rows
ATTENTION = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0}


def _row11(number: str, n: int, k: int, bar: float, stretch: float) -> Target:
    return Target(
        number, f"W4A16 product, M 1, {n}x{k}", "us", bar, gemv(n, k, 1, 4),
        public("gemm", dtype="int4_wo", m=1.0, n=float(n), k=float(k)), stretch=stretch,
    )  # fmt: skip


DENSE_LONG = attention(16, 32768, page=16)
SPARSE_LONG = attention(16, 32768, page=16, budget=2048)
CHAIN = total(scoring(16, 2048), selection(2048), SPARSE_LONG)
TARGETS: tuple[Target, ...] = (
    Target(
        "1", "read stream", "TB/s", 4.61, read_stream, said(f"4.8 data sheet; {EARLIER} 4.61"),
        better="more",
    ),
    Target(
        "2", "paged decode bf16, B 64, L 8k, heads 32/8/128", "us", 495.0,
        attention(64, 8192),
        public("decode_attention", dtype="bfloat16", batch=64.0, ctx=8192.0, **ATTENTION),
        stretch=483.0,
    ),
    Target(
        "3", "the same, B 1, L 2k", "us", 12.0, attention(1, 2048),
        public("decode_attention", dtype="bfloat16", batch=1.0, ctx=2048.0, **ATTENTION),
        stretch=9.0,
    ),
    Target(
        "4", "sparse attention, 2,048 of 32k tokens, B 16, page 16", "us", 41.0, SPARSE_LONG,
        public("decode_attention", "(dense at L 2k)", dtype="bfloat16", batch=16.0, ctx=2048.0,
               **ATTENTION),
        stretch=36.0,
    ),
    Target(
        "4b", "the same over our dense kernel at L 2k: penalty of the gather", "%", 5.0,
        ratio(SPARSE_LONG, attention(16, 2048, page=16), percent=True),
    ),
    Target(
        "5", "page scoring, B 16, L 32k, page 16", "us", 36.0, scoring(16, 2048),
        said("none for this work"), stretch=33.0,
    ),
    Target(
        "6", "128 of 2k to 8k pages, 128 rows, gaussian scores", "us", 4.0,
        stated(slowest_selection, 2.0),
        public("topk_transform", "(k 512 or 1024 of 8k)", mode="v2_top_last", batch=128.0,
               ctx=8192.0),
    ),
    Target("6b", "the same, slowest over fastest distribution", "x", 2.0, worst_distribution,
           said("public: 82 / 2.8 us = 29x, DSv4 v2, SGLang 0.5.14")),
    Target(
        "7", "score + select + attend, B 16, L 32k", "us", 85.0, CHAIN,
        said("public: about 79 us, put together from public parts"), stretch=75.0,
    ),
    Target(
        "7b", "the same: speed-up over our dense kernel", "x", 5.5, ratio(DENSE_LONG, CHAIN),
        said("public: 6.2x, put together from public parts"), better="more", stretch=6.5,
    ),
    Target(
        "8", "append with page minima and maxima, B 64", "us", 3.0,
        stated(best("kv_append", batch=64, tokens=1, bits=16, page_tokens=16, head_dim=128,
                    element="bf16"), 2.0),
        said("none"),
    ),
    Target(
        "9", "decode with 8-bit cache, B 16, L 32k", "us", 300.0,
        attention(16, 32768, bits=8),
        public("decode_attention", "(fp8)", dtype="fp8", batch=16.0, ctx=32768.0, **ATTENTION),
        stretch=265.0,
    ),
    Target(
        "10", "decode with 4-bit cache, B 16, L 32k", "us", 210.0,
        attention(16, 32768, bits=4), said("none on this GPU"),
    ),
    Target(
        "10b", "the same: speed-up over our bf16 cache", "x", 2.3,
        ratio(DENSE_LONG, attention(16, 32768, bits=4)),
        better="more",
    ),
    _row11("11", 16384, 4096, 12.0, 10.5),
    _row11("11b", 4096, 12288, 10.0, 8.5),
    _row11("11c", 4096, 4096, 6.5, 5.5),
    Target(
        "12", "W4A16 product, M 16, 16384x4096", "us", 14.0, gemv(16384, 4096, 16, 4),
        public("gemm", dtype="int4_wo", m=16.0, n=16384.0, k=4096.0),
    ),
    Target(
        "13", "bf16 product, M 1, 16384x4096", "us", 33.9, gemv(16384, 4096, 1, 16),
        public("gemm", dtype="bfloat16", m=1.0, n=16384.0, k=4096.0),
    ),
    Target(
        "14", "greedy verification, B 32, 4 drafted, V 128k, bf16", "us", 13.0,
        best("verify_commit", batch=32, drafts=4, vocabulary=128256, element="bf16",
             mode="greedy"),
        said("none; torch arg-max beside it"),
    ),
    Target("15", "rejection verification, fp32 probabilities, B 32", "us", 15.0, rejection,
           said("none on this GPU")),
    Target("16", "commit and page release, B 256", "us", 3.0,
           stated(best("verify_commit", batch=256, mode="commit"), 2.0), said("none")),
    Target("17", "grid barrier, a block an SM", "us", 1.0,
           stated(constant("grid_barrier_s"), 0.6), said(f"{EARLIER} 0.99")),
    Target("18", "graph, each node", "us", None, constant("graph_node_s"),
           said(f"{EARLIER} 1.11; public: 1.3 on H100")),
    Target("18b", "graph, launch and synchronise", "us", None, constant("graph_launch_s"),
           said(f"{EARLIER} 6.5")),
    Target("19", "mailbox round trip", "us", None,
           stated(constant("mailbox_round_trip_s"), 1.2), said(f"{EARLIER} 1.82")),
    Target("23", "copy engine into HBM, 1 MiB", "GB/s", 45.1 * 0.97, single_copy(MIB),
           said(f"{EARLIER} 45.1; the bar is 3 % below"), better="more"),
    Target("23b", "copy engine into HBM, 16 MiB", "GB/s", 54.7 * 0.97, single_copy(16 * MIB),
           said(f"{EARLIER} 54.7; the bar is 3 % below"), better="more"),
    Target("24", "gather kernel into HBM, 4 KiB pages", "GB/s", 42.0, gathered(4096),
           said(f"{EARLIER} 51.3 contiguous zero-copy"), better="more"),
    Target("24b", "gather kernel into HBM, 16 KiB pages", "GB/s", 48.0, gathered(16384),
           said(f"{EARLIER} 51.3 contiguous zero-copy"), better="more"),
    Target("25", "decode beside the copy engine at full rate", "%", 3.0,
           disturbed("copy_engine", 0), said("none")),
    Target("25b", "decode beside the gather kernel, 8 blocks", "%", 8.0,
           disturbed("gather", 8), said("none")),
    Target("26", "file reads past the page cache", "GB/s", None, disk_reads,
           said(f"{EARLIER} 2.8, virtual disk"), better="more"),
)  # fmt: skip
