"""The rows of the target table, numbered as in the project's plan.

Bars and references were set before anything was measured here; only the measured column moves.
"""

from __future__ import annotations

from .measures import (
    attention,
    constant,
    disk_reads,
    disturbed,
    gathered,
    gemv,
    read_stream,
    rejection,
    scoring,
    selection,
    single_copy,
    slowest_selection,
    worst_distribution,
)
from .targets import Target, best, public, ratio, said, stated, total

MIB = 1 << 20
EARLIER = "own earlier run:"


def _decode(batch: int, context: int) -> dict[str, float]:
    """A public row's shape at heads 32/8/128."""
    heads = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0}
    return {**heads, "batch": float(batch), "ctx": float(context)}


def _product(m: int, n: int, k: int) -> dict[str, float]:
    return {"m": float(m), "n": float(n), "k": float(k)}


def _row11(number: str, n: int, k: int, bar: float, stretch: float) -> Target:
    return Target(
        number, f"W4A16 product, M 1, {n}x{k}", "us", bar, gemv(n, k, 1, 4),
        public("gemm", _product(1, n, k), dtype="int4_wo"), stretch=stretch,
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
        public("decode_attention", _decode(64, 8192), dtype="bfloat16"),
        stretch=483.0,
    ),
    Target(
        "3", "paged decode bf16, B 1, L 2k, heads 32/8/128", "us", 12.0, attention(1, 2048),
        public("decode_attention", _decode(1, 2048), dtype="bfloat16"),
        stretch=9.0,
    ),
    Target(
        "4", "sparse attention, 2,048 of 32k tokens, B 16, page 16", "us", 41.0, SPARSE_LONG,
        public("decode_attention", _decode(16, 2048), "(dense at L 2k)", dtype="bfloat16"),
        stretch=36.0,
    ),
    Target(
        "4b", "sparse attention over our dense kernel at L 2k: penalty of the gather", "%", 5.0,
        ratio(SPARSE_LONG, attention(16, 2048, page=16), percent=True),
    ),
    Target(
        "5", "page scoring, B 16, L 32k, page 16", "us", 36.0, scoring(16, 2048),
        said("none for this work"), stretch=33.0,
    ),
    Target(
        "6", "page selection, 128 of 2k to 8k, 128 rows, gaussian scores", "us", 4.0,
        stated(slowest_selection, 2.0),
        public("topk_transform", {"batch": 64.0, "ctx": 8192.0}, "(64 rows, k 512 or 1024 of 8k)",
               mode="v2_top_last"),
    ),
    Target("6b", "page selection, slowest over fastest distribution of scores", "x", 2.0,
           worst_distribution, said("public: 82 / 2.8 us = 29x, DSv4 v2, SGLang 0.5.14")),
    Target(
        "7", "score + select + attend, B 16, L 32k", "us", 85.0, CHAIN,
        said("public: about 79 us, put together from public parts"), stretch=75.0,
    ),
    Target(
        "7b", "score + select + attend: speed-up over our dense kernel", "x", 5.5,
        ratio(DENSE_LONG, CHAIN),
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
        public("decode_attention", _decode(16, 32768), "(fp8)", dtype="fp8"),
        stretch=265.0,
    ),
    Target(
        "10", "decode with 4-bit cache, B 16, L 32k", "us", 210.0,
        attention(16, 32768, bits=4), said("none on this GPU"),
    ),
    Target(
        "10b", "4-bit cache: speed-up over our bf16 cache", "x", 2.3,
        ratio(DENSE_LONG, attention(16, 32768, bits=4)),
        better="more",
    ),
    _row11("11", 16384, 4096, 12.0, 10.5),
    _row11("11b", 4096, 12288, 10.0, 8.5),
    _row11("11c", 4096, 4096, 6.5, 5.5),
    Target(
        "12", "W4A16 product, M 16, 16384x4096", "us", 14.0, gemv(16384, 4096, 16, 4),
        public("gemm", _product(16, 16384, 4096), dtype="int4_wo"),
    ),
    Target(
        "13", "bf16 product, M 1, 16384x4096", "us", 33.9, gemv(16384, 4096, 1, 16),
        public("gemm", _product(1, 16384, 4096), dtype="bfloat16"),
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
