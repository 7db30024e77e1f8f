"""How close generated workloads are to the traces that they are shaped like.

    python bench/generators.py [--traces DIR] [--out DIR] [--only NAME]

Generates each workload at the length of its real file with several seeds and judges every trace by
the bars of `sim.trace.compare`; files are sought under DIR (default: traces/; the README says where
to get them). Prints tables, and with --out writes them with pictures: the report.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import generator_agents
import generator_pictures as pictures
import numpy as np
from published import AZURE_CODE, MOONCAKE_SYNTHETIC

from sim.trace.chunk import Tally
from sim.trace.compare import CAPACITIES_BLOCKS, DISPERSION_BAR, LRU_BAR, bar_in_words, compare
from sim.trace.generate import generate
from sim.trace.look.inspection import Inspection
from sim.trace.read import read
from sim.trace.transforms.dither import Dither, dither
from sim.trace.workloads import client_files, clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sim.trace.chunk import Chunk

KEYS = (
    "prompt_tokens", "output_tokens", "inter_arrival_s", "index_of_dispersion_1s",
    "index_of_dispersion_10s", "index_of_dispersion_60s", "lru_hit_rate_1000_blocks",
    "lru_hit_rate_10000_blocks", "lru_hit_rate_100000_blocks",
)  # fmt: skip
HALF = "halves"


@dataclass
class Verdicts:
    """What was found of one workload: table rows, and how many seeds are within all bars."""

    title: str
    text: list[str]
    rows: list[list[str]] = field(default_factory=list)
    inside: int = 0
    seeds: int = 0
    picture: str | None = None
    pictures: Callable[[Path], None] | None = None

    @property
    def verdict(self) -> str:
        """In one line."""
        return f"{self.inside} of {self.seeds} seeds within all bars"


def inspect(chunks: Iterable[Chunk], block_tokens: int = 512) -> Inspection:
    """What `trace inspect` keeps of *chunks*."""
    found = Inspection(block_tokens)
    for chunk in chunks:
        found.add(chunk)
    return found


def judge(
    verdicts: Verdicts,
    real: Inspection,
    made: list[Inspection],
    halves: Inspection | None,
    name: str,
    *,
    first: Inspection | None = None,
) -> Verdicts:
    """Fill *verdicts* with the rows of comparisons of all *made* with *real*.

    *first* and *halves* are the two halves of the real file: how far it is from itself.
    """
    found = [compare(real, one)["rows"] for one in made]
    own = compare(first, halves)["rows"] if first is not None and halves is not None else {}
    for key in KEYS:
        rows = [one[key] for one in found if key in one and one[key]["difference"] is not None]
        if not rows:
            continue
        differ = [row["difference"] for row in rows]
        worst = max(differ, key=abs)
        itself = own[key]["difference"] if key in own else None
        verdicts.rows.append([
            rows[0]["figure"], number(rows[0]["a"]), number(np.mean([row["b"] for row in rows])),
            distance(rows[0]["measure"], worst), bar_in_words(rows[0]["measure"], rows[0]["bar"]),
            f"{sum(row['within'] for row in rows)} of {len(rows)}",
            "" if itself is None else distance(rows[0]["measure"], itself),
        ])  # fmt: skip
    good = [all(one[key]["within"] for key in KEYS if key in one) for one in found]
    verdicts.inside, verdicts.seeds = sum(good), len(good)
    verdicts.pictures = lambda folder: draw(folder / f"{name}.png", real, made)
    verdicts.picture = f"{name}.png"
    return verdicts


def draw(path: Path, real: Inspection, made: list[Inspection]) -> None:
    """Distributions, dispersion and hit rates of *real* and *made*."""
    with_ids = real.curve() is not None
    figure, axes = pictures.panels(5 if with_ids else 4)
    pictures.steps(axes[0], "prompt tokens", real.prompt.cdf(), [m.prompt.cdf() for m in made])
    pictures.steps(axes[1], "output tokens", real.output.cdf(), [m.output.cdf() for m in made])
    gaps = [m.gaps.sorted() for m in made]
    pictures.steps(axes[2], "gap between requests, s", real.gaps.sorted(), gaps)
    title = "index of dispersion by window, s"
    pictures.curves(axes[3], title, real.dispersion(8), [m.dispersion(8) for m in made], log_y=True)
    if with_ids:
        sizes = np.geomspace(100, 1e6, 60)
        rates = [hits(m, sizes) for m in (real, *made)]
        pictures.curves(axes[4], "LRU hit rate by blocks", rates[0], rates[1:])
    pictures.save(figure, path, "real trace")


def hits(of: Inspection, sizes: Iterable[float]) -> dict[float, float]:
    """Hit rate by size of an LRU cache in blocks."""
    curve = of.curve()
    assert curve is not None
    return {float(size): curve.hit_rate(float(size)) for size in sizes}


def halved(chunks: list[Chunk]) -> list[Inspection]:
    """The two halves of a trace by time, each from its own start."""
    times = np.concatenate([chunk.arrival_s for chunk in chunks])
    middle = float(times[-1]) / 2
    found = []
    for low, high in ((0.0, middle), (middle, np.inf)):
        inspection, start = Inspection(), None
        for chunk in chunks:
            at = np.searchsorted(chunk.arrival_s, [low, high])
            part = chunk.part(int(at[0]), int(at[1]))
            if len(part):
                start = part.arrival_s[0] if start is None else start
                inspection.add(part.at(part.arrival_s - start))
        found.append(inspection)
    return found


def against_file(
    source: str, path: Path, seeds: int, step_s: float | None, text: list[str]
) -> Verdicts:
    """A workload against its file, whose time stamps lie on a grid of *step_s*."""
    chunks: Iterator[Chunk] = read(path)
    if step_s is not None:
        chunks = dither(chunks, Dither(step_s), 0, Tally())
    held = list(chunks)
    real = inspect(held)
    made = [inspect(generate(source, real.requests, seed)) for seed in range(seeds)]
    first, second = halved(held)
    return judge(Verdicts(f"{source}, {path.name}", text), real, made, second, source, first=first)


def against_statistics(source: str, known: dict[str, Any], seeds: int, text: list[str]) -> Verdicts:
    """A workload against statistics of a file."""
    made = [inspect(generate(source, known["requests"], seed)) for seed in range(seeds)]
    verdicts = Verdicts(f"{source}, statistics of {known['file']}", text)
    good = np.ones(len(made), dtype=bool)

    def row(name: str, real: float, values: list[float], measure: str, bar: float | None) -> None:
        differ = np.array(values) - real if measure == "points" else np.array(values) / real - 1
        worst = float(differ[np.abs(differ).argmax()])
        judged = "" if bar is None else bar_in_words(measure, bar)
        within = np.abs(differ) <= (np.inf if bar is None else bar)
        good[~within] = False
        count = "" if bar is None else f"{int(within.sum())} of {len(made)}"
        mean = float(np.mean(values))
        verdicts.rows.append(
            [name, number(real), number(mean), distance(measure, worst), judged, count, ""]
        )

    for name, key, bar in (
        ("prompt, share below the file's quantiles", "prompt", 0.05),
        ("output, share below the file's quantiles", "output", 0.05),
        ("gaps, share below the file's quantiles", "gaps_s", 0.10 if "empty" in known else 0.05),
    ):
        off = np.array([at_quantiles(one, key, known[key]) for one in made])
        good &= off <= bar
        verdicts.rows.append([
            name, "", "", f"{off.max():.3f}", f"{bar:g}", f"{int((off <= bar).sum())} of {seeds}",
            "",
        ])  # fmt: skip
    for size, real in known["dispersion"].items():
        bar = DISPERSION_BAR if size in (1.0, 10.0, 60.0) else None
        values = [one.dispersion().get(size, np.nan) for one in made]
        row(f"index of dispersion, {size:g} s", real, values, "relative", bar)
    for size, real in known.get("empty", {}).items():
        values = [one.empty_windows()[size] for one in made]
        row(f"empty windows of {size:g} s", real, values, "points", None)
    for size in CAPACITIES_BLOCKS if "lru" in known else ():
        values = [hits(one, [size])[float(size)] for one in made]
        row(f"prefix hits, LRU of {size:,} blocks", known["lru"][size], values, "points", LRU_BAR)
    means = known["means"]
    row("rate", means["rate"], [m.mean_rate_per_s or 0.0 for m in made], "relative", None)
    row("gaps, CV", means["gap_cv"], [m.gaps.cv or 0.0 for m in made], "relative", None)
    for name in ("prompt", "output"):
        values = [getattr(m, name).total / m.requests for m in made]
        row(f"{name}, mean", means[name], values, "relative", None)
    verdicts.inside, verdicts.seeds = int(good.sum()), seeds
    verdicts.picture = f"{source}.png"
    verdicts.pictures = lambda folder: draw_statistics(folder / f"{source}.png", known, made)
    return verdicts


def at_quantiles(of: Inspection, key: str, known: dict[float, float]) -> float:
    """How far the shares below the known quantiles are off; lengths at either side of ties."""
    values, shares = of.gaps.sorted() if key == "gaps_s" else getattr(of, key).cdf()
    shares = np.concatenate([[0.0], shares])
    off = []
    for share, value in known.items():
        below = shares[np.searchsorted(values, value, side="left")]
        up_to = shares[np.searchsorted(values, value, side="right")]
        off.append(max(0.0, below - share, share - up_to))
    return max(off)


def draw_statistics(path: Path, known: dict[str, Any], made: list[Inspection]) -> None:
    """As `draw`, with the quantiles of the file as dots."""
    figure, axes = pictures.panels(5 if "lru" in known else 4)
    pictures.steps(axes[0], "prompt tokens", known["prompt"], [m.prompt.cdf() for m in made])
    pictures.steps(axes[1], "output tokens", known["output"], [m.output.cdf() for m in made])
    gaps = [m.gaps.sorted() for m in made]
    pictures.steps(axes[2], "gap between requests, s", known["gaps_s"], gaps)
    title = "index of dispersion by window, s"
    curves = [m.dispersion(8) for m in made]
    pictures.curves(axes[3], title, known["dispersion"], curves, dots=True, log_y=True)
    if "lru" in known:
        rates = [hits(m, np.geomspace(100, 1e6, 60)) for m in made]
        pictures.curves(axes[4], "LRU hit rate by blocks", known["lru"], rates, dots=True)
    pictures.save(figure, path, "published statistics")


def against_clients(
    source: str,
    path: Path,
    title: str,
    text: list[str],
    *,
    requests: int,
    seeds: int,
    start_day: int = 0,
    rate_per_s: float | None = None,
    **knobs: Any,
) -> Verdicts:
    """A built-in population against requests drawn from the published clients of a day."""
    real_clients = client_files.load(path, None, Tally())
    real = inspect(clients.rows(real_clients, 0, requests, rate_per_s, 86400.0 * start_day))
    if rate_per_s is not None:
        knobs["rate_per_s"] = real.mean_rate_per_s
    made = [inspect(generate(source, requests, seed, **knobs)) for seed in range(seeds)]
    name = f"{source}-{knobs.get('population', 'deepseek-r1')}-{start_day}".removesuffix("-0")
    return judge(Verdicts(title, text), real, made, None, name)


def number(value: float | None) -> str:
    """Four digits."""
    return "" if value is None else f"{value:,.4g}"


def distance(measure: str, value: float) -> str:
    """A difference as people say it."""
    if measure == "ks":
        return f"{value:.3f}"
    return f"{100 * value:+.1f} {'%' if measure == 'relative' else 'points'}"


COLUMNS = ("figure", "real", "generated, mean", "furthest", "bar", "within", "the file's halves")


def table(verdicts: Verdicts) -> list[str]:
    """Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|:--|--:|--:|--:|--:|--:|--:|"]
    return lines + ["| " + " | ".join(row) + " |" for row in verdicts.rows]


def found(folder: Path, name: str) -> Path | None:
    """The first file of this name somewhere under *folder*."""
    return next(iter(sorted(folder.rglob(name))), None)


def subjects(folder: Path, seeds: int) -> Iterator[tuple[str, Callable[[], Verdicts] | str]]:
    """Each workload: how to judge it, or why it cannot be judged."""
    for source, name, step_s, text in FILES:
        path = found(folder, name)
        if path is None:
            yield source, f"no {name} at hand"
        else:
            yield source, lambda s=source, p=path, g=step_s, t=text: against_file(s, p, seeds, g, t)
    for source, known, text in STATISTICS:
        yield source, lambda s=source, k=known, t=text: against_statistics(s, k, seeds, t)
        path = found(folder, known["file"])
        if path is None:
            yield source, f"no {known['file']} at hand: judged by its statistics only"
        else:
            yield source, lambda s=source, p=path, t=text: against_file(s, p, seeds, None, t)
    path = found(folder, "kv_cache_tester_sessions.jsonl.xz")
    if path is None:
        yield "agent-like", "no kv_cache_tester_sessions.jsonl.xz at hand"
    else:
        yield "agent-like", lambda: generator_agents.verdicts(path, Verdicts, number)
    for source, name, title, text, options in CLIENTS:
        path = found(folder, name)
        if path is None:
            yield source, f"no {name} at hand"
        else:
            yield (
                source,
                lambda s=source, p=path, t=title, x=text, o=options: against_clients(
                    s, p, t, x, **o
                ),
            )


FILES: tuple[tuple[str, str, float | None, list[str]], ...] = (
    ("azure-conv-like", "AzureLLMInferenceTrace_conv.csv", None, [
        "Tuned on the whole file: lengths, minute by minute the rate, and one shape of the gaps. "
        "No part of it is held out; the last column says how far its second half is from its "
        "first, which is what a fit to the first half alone would be off by.",
    ]),
    ("mooncake-conversation-like", "conversation_trace.jsonl", 3.0, [
        "Tuned on the whole file, whose time stamps (a grid of 3 s) are spread within their step "
        "before it is measured.",
    ]),
)  # fmt: skip
STATISTICS: tuple[tuple[str, dict[str, Any], list[str]], ...] = (
    ("azure-code-like", AZURE_CODE, [
        "**The rows of this file were not at hand**: fitted to its published statistics, and "
        "judged by the same. They leave the gaps' distribution open: by linear programs over all "
        "distributions with the file's quantiles, moments and distances to fitted families, the "
        "generator's is at most 0.093 from the file's at any gap, whatever the rows are. It is the "
        "most at 74 to 104 ms, where 0.18 of the gaps lie close together at a place that the "
        "statistics do not tell. The lengths are within 0.03.",
    ]),
    ("mooncake-synthetic-like", MOONCAKE_SYNTHETIC, [
        "**The rows of this file were not at hand** either: fitted to its published statistics and "
        "judged by the same. They leave the prompt lengths open by up to 0.05 in share. Arrivals "
        "are Poisson, as the authors made them: with 102 windows of 10 s and 17 of 60 s chance "
        "alone moves the dispersion by 14 and 35 % (standard deviation), so that few seeds are "
        "within 25 % of what chance made of the file.",
    ]),
)  # fmt: skip
_DAYS = (
    "Tuned on the first seven days (rates: the one with the usual variation; lengths: all 14 days, "
    "which the consolidated files do not tell apart), judged on {}, which was held out, at 8 "
    "requests a second. Lengths and gaps come out, bursts too small: a built-in population has ten "
    "clients with a rate of their own and none that comes and goes within a day. Days differ: "
    "their own dispersion at 60 s goes from 20 to 150. With the publisher's files (--clients) "
    "bursts are as they were measured."
)
CLIENTS: tuple[tuple[str, str, str, list[str], dict[str, Any]], ...] = (
    ("reasoning-like", "servegen_reason_deepseek-r1_clients.csv.xz",
     "reasoning-like, clients of deepseek-r1", [
         "Against 1,383,000 requests drawn from all 73 published clients of the only day. Tuned on "
         "that day: ten clients and the rest, by quarter of the day.",
     ], {"requests": 1_383_000, "seeds": 3}),
    ("servegen", "servegen_multimodal_mm-image_clients.csv.xz",
     "servegen, population mm-image", ["As above, for the clients of mm-image."],
     {"requests": 818_000, "seeds": 3, "population": "mm-image"}),
    *(
        ("servegen", f"servegen_language_{model}_clients.csv.xz",
         f"servegen, population {model}, day {day + 1}",
         [_DAYS.format(f"day {day + 1}")],
         {"requests": 691_200, "seeds": 1, "population": model, "start_day": day,
          "rate_per_s": 8.0})
        for model in ("m-large", "m-small")
        for day in (8, 10)
    ),
)  # fmt: skip


def main() -> None:
    """Judge all, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, default=Path("traces"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write README.md and pictures")
    parser.add_argument("--only", metavar="NAME", help="only this workload")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    report: list[str] = []
    summary: list[str] = []
    for source, how in subjects(options.traces, options.seeds):
        if options.only not in (None, source):
            continue
        if isinstance(how, str):
            print(f"{source}: skipped, {how}")
            summary.append(f"| {source} | not judged: {how} |")
            continue
        verdicts = how()
        print(f"{verdicts.title}: {verdicts.verdict}")
        print("\n".join(table(verdicts)) + "\n", flush=True)
        summary.append(f"| {verdicts.title} | {verdicts.verdict} |")
        report += [f"## {verdicts.title}", "", *verdicts.text, ""]
        report += [f"{verdicts.verdict}.", "", *table(verdicts), ""]
        if options.out and verdicts.pictures and verdicts.picture:
            options.out.mkdir(parents=True, exist_ok=True)
            verdicts.pictures(options.out)
            report += [f"![{verdicts.title}]({verdicts.picture})", ""]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        text = [HEAD, "| workload | verdict |", "|:--|:--|", *summary, "", *report]
        (options.out / "README.md").write_text("\n".join(text).rstrip() + "\n")


HEAD = """# Generated workloads against the traces that they are shaped like

Written by `python bench/generators.py --traces DIR --out reports/generators`. Each workload is
generated at the length of its real trace with several seeds, and every single trace is judged, not
their mean: Kolmogorov-Smirnov distance of prompt lengths, output lengths and gaps at most 0.05
(gaps of on/off traffic: 0.10), index of dispersion in windows of 1, 10 and 60 s within 25 %, prefix
hit rate of LRU caches of 1,000, 10,000 and 100,000 blocks within 3 points.

*Furthest* is the difference of the worst seed. *The file's halves*: the second half of the real
file against its first, by the same measure; what is smaller than that no file can tell.
"""


if __name__ == "__main__":
    main()
