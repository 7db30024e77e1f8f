"""What the attention kernels mean together: sparse against dense, the chain of three, skew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .words import NONE, fixed, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..fit.samples import Point
    from .inputs import Evidence

HEADS = "32/8/128"
LENGTHS = (8192, 32768, 131072)
BUDGET, PAGE = 2048, 16


def dense(evidence: Evidence, requests: int, length: int, page: int, bits: int) -> Point | None:
    """Dense attention over equal lengths, one new token."""
    return _one(evidence, requests, length, page, bits, 0, "none")


def _one(
    evidence: Evidence, requests: int, length: int, page: int, bits: int, budget: int, skew: str
) -> Point | None:
    found = evidence.find(
        "paged_attention", heads=HEADS, tokens=1, requests=requests, length=length, page=page,
        bits=bits, budget=budget, skew=skew,
    )  # fmt: skip
    return found[0] if found else None


def sparse(evidence: Evidence) -> list[str]:
    """Attention over selected pages alone: us and speed-up over dense, by budget."""
    mine = evidence.find("paged_attention", lambda axes: axes["budget"] > 0, heads=HEADS, tokens=1)
    budgets = sorted({int(point.axes["budget"]) for point in mine})
    shapes = sorted({
        (int(p.axes["length"]), int(p.axes["page"]), int(p.axes["bits"]), int(p.axes["requests"]))
        for p in mine
    })  # fmt: skip
    rows = []
    for length, page, bits, requests in shapes:
        whole = dense(evidence, requests, length, page, bits)
        row = [f"{length:,}", f"{page}", f"{bits}", f"{requests}", _us(whole)]
        for budget in budgets:
            point = _one(evidence, requests, length, page, bits, budget, "none")
            cell = _us(point)
            if point and whole:
                cell += f" ({whole.median / point.median:.1f}x of {whole.bytes / point.bytes:.1f}x)"
            row.append(cell)
        rows.append(row)
    head = ("context", "page", "bits", "batch", "all tokens", *(f"{n:,}" for n in budgets))
    return table(head, rows, "r" * len(head)) if rows else []


def chain(evidence: Evidence) -> list[str]:
    """Score, select and attend to 2,048 tokens, each timed alone, against dense attention."""
    rows = []
    for length in LENGTHS:
        for requests in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            parts = _chain(evidence, requests, length)
            whole = dense(evidence, requests, length, PAGE, 16)
            if whole is None or parts is None:
                continue
            total = sum(point.median for point in parts)
            moved = sum(point.bytes for point in parts)
            cells = [f"{length:,}", f"{requests}", *(_us(point) for point in parts)]
            cells += [fixed(total * 1e6, 1), _us(whole), f"{whole.median / total:.2f}x"]
            rows.append([*cells, f"{whole.bytes / moved:.1f}x"])
    head = ("context", "batch", "score", "select", "attend", "sum", "dense", "speed-up", "of bytes")
    return table(head, rows, "r" * len(head)) if rows else []


def _chain(evidence: Evidence, requests: int, length: int) -> list[Point] | None:
    pages = length // PAGE
    found: Sequence[Sequence[Point]] = (
        evidence.find(
            "page_score", batch=requests, pages=pages, kv_heads=8, group=4, head_dim=128, tokens=1,
            page_tokens=PAGE, lengths="even", element="bf16",
        ),
        evidence.find(
            "topk_select", rows=8 * requests, pages=pages, budget=BUDGET // PAGE,
            scores="gaussian", cold=False,
        ),
        [p for p in (_one(evidence, requests, length, PAGE, 16, BUDGET, "none"),) if p],
    )  # fmt: skip
    return [mine[0] for mine in found] if all(found) else None


def skew(evidence: Evidence) -> list[str]:
    """Unequal lengths against equal ones of the same mean."""
    rows = []
    mine = evidence.find("paged_attention", lambda axes: axes["skew"] != "none")
    mine.sort(key=lambda p: (p.axes["bits"], p.axes["requests"], str(p.axes["skew"])))
    for point in mine:
        axes = point.axes
        where = (int(axes[key]) for key in ("requests", "length", "page", "bits"))
        even = _even(evidence, *where)
        share = NONE if even is None else f"{100.0 * (point.median / even - 1.0):+.1f} %"
        rows.append([
            str(axes["skew"]), f"{axes['bits']}", f"{axes['requests']}", f"{axes['length']:,}",
            _us(point), NONE if even is None else fixed(even * 1e6, 1), share,
            f"{100.0 * evidence.floor(point.bytes) / point.median:.0f} %",
        ])  # fmt: skip
    head = ("lengths", "bits", "batch", "mean", "us", "equal lengths, us", "longer by", "of floor")
    return table(head, rows, "lrrrrrrr") if rows else []


def _even(evidence: Evidence, requests: int, length: int, page: int, bits: int) -> float | None:
    """Seconds at equal lengths: measured, or between half and twice the length, linear in it."""
    point = dense(evidence, requests, length, page, bits)
    if point is not None:
        return point.median
    short, long = (dense(evidence, requests, n, page, bits) for n in (length // 2, 2 * length))
    if short is None or long is None:
        return None
    return short.median + (long.median - short.median) / 3.0


def _us(point: Point | None) -> str:
    return NONE if point is None else fixed(point.median * 1e6, 1)
