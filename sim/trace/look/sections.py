"""The figures of an inspected trace in words: the same sections on a terminal and on a page."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING, Any

from .words import number, numbers, share, short, span, spans

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table; without `heads` its rows are pairs of a name and a value."""

    title: str
    rows: Sequence[tuple[str, ...]]
    heads: tuple[str, ...] = ()


def sections(summary: dict[str, Any]) -> dict[str, Section]:
    """The tables of one trace by name, from `summary` plus file, format and format_why."""
    found = {
        "traffic": _traffic(summary), "arrivals": _arrivals(summary), "lengths": _lengths(summary),
    }  # fmt: skip
    if summary["prefix"]:
        found |= {"prefix": _prefix(summary["prefix"]), "sizes": _sizes(summary["prefix"])}
    if summary["sessions"]:
        found["sessions"] = _sessions(summary["sessions"])
    return found


def _traffic(summary: dict[str, Any]) -> Section:
    duration_s = summary["duration_s"]
    rows = [
        ("format told by", summary["format_why"]),
        ("requests", number(summary["requests"])),
        ("bad rows left out", number(summary["bad_rows"]["skipped"])),
        ("duration", f"{number(duration_s)} s" + _also(duration_s)),
        ("mean rate", number(summary["mean_rate_per_s"], "requests/s")),
    ]
    for kind in ("prompt", "output"):
        total = summary[f"total_{kind}_tokens"]
        rate = short(total / duration_s, "tokens/s") if duration_s else "-"
        rows.append((f"{kind} tokens", f"{number(total)}, {rate}"))
    rows += [
        ("busiest second", number(summary["peak_requests_in_1s"], "requests")),
        ("busiest 60 s", number(summary["peak_requests_in_60s"], "requests")),
    ]
    return Section("traffic", rows)


def _also(duration_s: float) -> str:
    return f" ({span(duration_s)})" if duration_s >= 180 else ""


def _arrivals(summary: dict[str, Any]) -> Section:
    gaps, dispersion = summary["inter_arrival_s"], summary["index_of_dispersion"]
    empty = summary["empty_windows_share"]
    windows = ", ".join(name.rstrip("s") for name in dispersion)
    return Section(
        "arrivals",
        [
            ("gap CV (Poisson 1)", number(summary["inter_arrival_cv"])),
            ("gap p50, p90, p99, max", spans(gaps, ("p50", "p90", "p99", "max"))),
            ("gaps measured", summary["inter_arrival_method"]),
            (
                f"index of dispersion, {windows} s",
                ", ".join(short(value, digits=4) for value in dispersion.values()),
            ),
            (f"empty windows, {windows} s", ", ".join(share(value) for value in empty.values())),
            ("on/off traffic", "yes" if summary["on_off_traffic"] else "no"),
            ("same time as the one before", share(summary["duplicate_times_share"], 2)),
        ],
    )


def _lengths(summary: dict[str, Any]) -> Section:
    rows = []
    for kind in ("prompt", "output"):
        values = summary[f"{kind}_tokens"].values()
        rows.append((kind, *(number(value) for value in values)))
    correlation = summary["prompt_output_spearman"]
    said = "-" if correlation is None else f"{correlation:.3f}"
    return Section(
        f"lengths, tokens (rank correlation of prompt and output {said})",
        rows,
        ("", *summary["prompt_tokens"]),
    )


def _prefix(prefix: dict[str, Any]) -> Section:
    needed = prefix["lru"]["blocks_for_share_of_infinite"]
    rows = [
        ("tokens a block", number(prefix["block_tokens"])),
        ("block references", number(prefix["blocks"])),
        ("distinct blocks", number(prefix["distinct_blocks"])),
        ("blocks used once", share(prefix["used_once_blocks_share"])),
        (
            "references to the top 1 %",
            share(prefix["references_to_top_1pct_blocks_share"]),
        ),
        ("time to reuse p50, p90, p99", spans(prefix["reuse_time_s"], ("p50", "p90", "p99"))),
        (
            "hits of an infinite cache",
            f"{share(prefix['infinite_cache_hit_rate'], 2)} of all blocks, "
            f"{share(prefix['infinite_cache_whole_block_hit_rate'], 2)} of whole ones",
        ),
        ("prefill saved at most", _tokens_saved(prefix, "saved_prompt")),
        ("the same in whole blocks", _tokens_saved(prefix, "saved_in_whole_blocks")),
        ("blocks for 50, 90, 99 % of hits", numbers(needed, ("p50", "p90", "p99"))),
    ]
    return Section("prefix reuse", rows)


def _tokens_saved(prefix: dict[str, Any], key: str) -> str:
    return f"{number(prefix[f'{key}_tokens'])} tokens, {share(prefix[f'{key}_share'])} of all"


def _sizes(prefix: dict[str, Any]) -> Section:
    lru, bound = prefix["lru"], prefix["belady"]["hit_rate_by_capacity_blocks"]
    top = share(prefix["infinite_cache_hit_rate"], 2)
    rows = []
    for blocks, rate in lru["hit_rate_by_capacity_blocks"].items():
        tokens = short(int(blocks) * prefix["block_tokens"])
        best = "-" if bound is None else share(bound[blocks], 2)
        rows.append((number(int(blocks)), tokens, share(rate, 2), best))
        if rows[-1][2] == top:  # larger ones are no better
            break
    rows.append(("any size", "", top, top))
    how = lru["method"]
    if how != "exact":
        how += f", 1/{round(1 / lru['sampled_blocks_share'])}, standard error at most "
        how += f"{100 * lru['standard_error_at_most']:.2f} points"
    heads = ("blocks", "tokens", "hit rate", "Belady's bound")
    return Section(f"hits of an LRU prefix cache ({how})", rows, heads)


def _sessions(found: dict[str, Any]) -> Section:
    middle = ("p50", "p90", "p99", "max")
    extends = found["extends"] or {}
    rows = [
        ("sessions", number(found["sessions"])),
        ("requests in them, outside", _two(found)),
        (
            "turns p50, mean, p90, max",
            numbers(found["turns_per_session"], ("p50", "mean", "p90", "max")),
        ),
        ("sessions of one turn", share(found["one_turn_share"])),
        ("session span p50, p90, p99, max", spans(found["session_span_s"], middle)),
        (
            "open at once, mean, most",
            f"{number(found['mean_concurrent_sessions'])}, "
            f"{number(found['peak_concurrent_sessions'])}",
        ),
        ("between turns p50, p90, p99, max", spans(found["gap_between_turns_s"], middle)),
        ("wait for an answer", share(found["waiting_share"])),
        ("delay after it p50, p90, p99, max", spans(found["delay_after_completion_s"], middle)),
        ("wait for several (join)", share(found["join_share"], 2)),
        ("awaited by several (fork)", share(found["fork_share"], 2)),
        ("prompt growth a turn p50, p90, max", _tokens(found["prompt_growth_tokens"])),
        ("prompt shrinks", share(found["prompt_shrinks_share"])),
        ("of later prompts, known from before", share(extends.get("blocks_share"))),
        ("the same of one prompt p10, p50", _pair(extends)),
        ("hold the whole prompt before", share(extends.get("whole_prompt_before_share"))),
        ("turns compared with the one before", share(found["prompts_compared_share"])),
    ]
    return Section("sessions", rows)


def _two(found: dict[str, Any]) -> str:
    return f"{number(found['requests_in_sessions'])}, {number(found['requests_outside_sessions'])}"


def _tokens(values: dict[str, float] | None) -> str:
    text = numbers(values, ("p50", "p90", "max"))
    return text if values is None else f"{text} tokens"


def _pair(extends: dict[str, float]) -> str:
    if not extends:
        return "-"
    return f"{share(extends['prompt_share_p10'])}, {share(extends['prompt_share_p50'])}"


def bad_rows(summary: dict[str, Any], name: str = "") -> list[Section]:
    """Rows left out, by reason, and the first of them; nothing where there are none."""
    bad, found = summary["bad_rows"], []
    if bad["reasons"]:
        rows = sorted(bad["reasons"].items(), key=lambda item: (-item[1], item[0]))
        found.append(
            Section(f"rows left out{name}", [(reason, number(count)) for reason, count in rows])
        )
    if bad["examples"]:
        rows = [(str(at), line) for at, line in enumerate(bad["examples"], 1)]
        found.append(Section(f"the first of them{name}", rows))
    return found


def comparison(found: dict[str, Any], names: tuple[str, str]) -> Section:
    """What `compare` found as one table."""
    rows = []
    for row in found["rows"].values():
        sides = (_side(row, row[key]) for key in ("a", "b"))
        rows.append((row["figure"], *sides, _difference(row), row["verdict"]))
    kind = "A stops at times (on/off), so gaps have a wider bar; " if found["on_off"] else ""
    judged = "all that is judged is within" if found["within"] else "not all is within"
    title = f"A {names[0]}, B {names[1]}: {kind}{judged}"
    return Section(title, rows, ("figure", "A", "B", "difference", "verdict"))


def _side(row: dict[str, Any], value: float | None) -> str:
    if row["unit"] == "share":
        return share(value, 2)
    if row["unit"] == "s":
        return "-" if value is None else f"{number(float(f'{value:.4g}'))} s"
    return number(value if value is None or isinstance(value, int) else float(f"{value:.4g}"))


def _difference(row: dict[str, Any]) -> str:
    value = row["difference"]
    if value is None or isinf(value):
        return "-"
    if row["measure"] == "ks":
        return f"KS {value:.4f}"
    if row["measure"] == "points":
        return f"{100 * value:+.2f} points" if row["unit"] == "share" else f"{value:+.3f}"
    return f"{100 * value:+.1f} %" if value < 2 else f"x {short(value + 1)}"
