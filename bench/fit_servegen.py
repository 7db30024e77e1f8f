"""Measures ServeGen's published client parameters: the tables of the built-in populations.

    python bench/fit_servegen.py [--traces DIR] [--out sim/trace/workloads]

Reads the consolidated files `servegen_*_clients.csv.xz` and `..._length_pmf.json.xz` under DIR
(default: traces/) and writes population_clients.py and population_lengths.py. Of the models with 14
days the rates and shapes are those of the first seven, so that the other seven can judge them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import lzma
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {
    "m-large": ("language_m-large", 7, 1),
    "m-mid": ("language_m-mid", 7, 1),
    "m-small": ("language_m-small", 7, 1),
    "deepseek-r1": ("reason_deepseek-r1", 1, 4),
    "mm-image": ("multimodal_mm-image", 1, 1),
}
"""Name, then: name of the files, days to measure, length tables a day."""
TOP = 10  # clients with a row of their own
PARTS = ("00-06", "06-12", "12-18", "18-24")
WINDOW_S = 600.0
CLIENTS = '''"""Built-in clients of ServeGen: how much they send, and how evenly, measured.

Written by bench/fit_servegen.py from the consolidated files of ServeGen (Alibaba Cloud Model
Studio, Apache-2.0; Xiang et al., arXiv 2505.09999); do not edit by hand. For each model:

- `rates`: requests a second of all clients in each ten minutes of a day, from midnight: of the
  days measured the one whose rate varies as usual. Days:
  {days}.
- `clients`: the ten with most requests, then the rest as one. Of each, by quarter of the day, its
  share of all requests, and the shape of its gaps: the geometric mean over its windows, weighted
  with their requests, of the shape of a gamma distribution with the same CV. The rest, whose many
  clients come together to a Poisson process, has shape 1.
"""

from __future__ import annotations

from typing import Any

# fmt: off
CLIENTS: dict[str, dict[str, Any]] = {{
'''
LENGTHS = '''"""Built-in clients of ServeGen: how long their prompts and answers are, measured.

Written by bench/fit_servegen.py from the consolidated files of ServeGen (Alibaba Cloud Model
Studio, Apache-2.0; Xiang et al., arXiv 2505.09999); do not edit by hand. For each model `prompt`
and `output`: tables of (edge, share of lengths below it), straight lines in between, nowhere
further than 0.006 from the published distribution, by quarter of the day or for all of it; of
mm-image the tokens of text and image added, as if independent.
"""

from __future__ import annotations

from typing import Any

# fmt: off
LENGTHS: dict[str, dict[str, Any]] = {
'''


def windows(path: Path, days: int) -> list[tuple[str, float, float, float]]:
    """Client, start in s, rate and squared CV implied by family and shape, of the first *days*."""
    rows = []
    with lzma.open(path, "rt") as file:
        for row in csv.DictReader(file):
            start_s = float(row["window_start_s"])
            if start_s >= days * 86400:
                continue
            shape = float(row["shape"])
            squared = 1.0 / shape
            if row["iat_family"] == "Weibull":
                log = math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape)
                squared = math.expm1(min(log, 20.0))
            rows.append((row["client_id"], start_s, float(row["rate_rps"]), min(squared, 200.0)))
    return rows


def clients(rows: list[tuple[str, float, float, float]]) -> list[tuple[list[float], list[float]]]:
    """By client: shares and shapes in each quarter of the day."""
    whole: dict[str, float] = defaultdict(float)
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    totals = [0.0] * 4
    for client, start_s, rate, squared in rows:
        part = int(start_s % 86400 // 21600)
        whole[client] += rate
        totals[part] += rate
        sums[client, part][0] += rate
        sums[client, part][1] += rate * math.log(max(squared, 1e-3))
    top = sorted(whole, key=lambda name: -whole[name])[:TOP]
    found = []
    for client in top:
        of = [sums.get((client, part), [0.0, 0.0]) for part in range(4)]
        shares = [round(rate / total, 4) for (rate, _), total in zip(of, totals, strict=True)]
        shapes = [round(math.exp(-logs / rate), 4) if rate else 1.0 for rate, logs in of]
        found.append((shares, shapes))
    rest = [round(1.0 - sum(shares[part] for shares, _ in found), 4) for part in range(4)]
    return [*found, (rest, [1.0] * 4)]


def rates(rows: list[tuple[str, float, float, float]], days: int) -> list[float]:
    """Requests a second of all clients in each window of the day whose rate varies as usual.

    That is the day with the median ratio of the rate's standard deviation and mean.
    """
    sums = np.zeros((days, int(86400 / WINDOW_S)))
    for _, start_s, rate, _ in rows:
        sums[int(start_s // 86400), int(start_s % 86400 // WINDOW_S)] += rate
    usual = np.argsort(sums.std(axis=1) / sums.mean(axis=1))[days // 2]
    return [float(f"{value:.4g}") for value in sums[usual]]


def added(parts: list[dict[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Values and shares of a sum of independent lengths."""
    total = np.ones(1)
    for part in parts:
        values = np.array([int(float(value)) for value in part])
        dense = np.zeros(int(values.max()) + 1)
        np.add.at(dense, values, np.array(list(part.values())))
        size = len(total) + len(dense) - 1
        total = np.fft.irfft(np.fft.rfft(total, size) * np.fft.rfft(dense, size), size)
    total[total < 1e-9] = 0.0
    values = np.flatnonzero(total)
    return values, total[values]


def knots(values: np.ndarray, shares: np.ndarray, most: float = 0.006) -> list[tuple[int, float]]:
    """Edges and shares below, straight in between, nowhere off by more than *most*."""
    values = np.maximum(values, 1)
    edges, below = [float(values[0])], [0.0]
    ends = np.cumsum(shares) / shares.sum()
    for value, end in zip(values.tolist(), ends.tolist(), strict=True):
        if value > edges[-1]:
            edges.append(float(value))
            below.append(below[-1])
        if value + 1 > edges[-1]:
            edges.append(value + 1.0)
            below.append(end)
        else:
            below[-1] = end
    x, y = np.array(edges), np.array(below)
    kept = {0, len(x) - 1, *np.searchsorted(y, [0.99, 0.995, 0.998, 0.9995]).tolist()}
    while True:
        at = sorted(kept)
        off = np.abs(np.interp(x, x[at], y[at]) - y)
        if off.max() < most:
            return [(int(x[i]), round(float(y[i]), 5)) for i in at]
        kept.add(int(off.argmax()))


def lengths(path: Path, parts: int) -> dict[str, list[list[tuple[int, float]]]]:
    """Tables of prompt and output lengths, *parts* of each."""
    with lzma.open(path, "rt") as file:
        pmf = json.load(file)["pmf"]
    found: dict[str, list[list[tuple[int, float]]]] = {"prompt": [], "output": []}
    for part in PARTS if parts == 4 else ("all",):
        fields = pmf[part]
        prompt = ["input_tokens"] if "input_tokens" in fields else ["text_tokens", "image_tokens"]
        found["prompt"].append(knots(*added([fields[name] for name in prompt])))
        found["output"].append(knots(*added([fields["output_tokens"]])))
    return found


def written(name: str, value: Any, depth: int) -> str:
    """*value* as Python source in lines of at most 100 characters."""
    pad = "    " * depth
    text = f"{pad}{name}{tuple(value) if isinstance(value, list) else value!r},"
    if len(text) <= 100 or not isinstance(value, list):
        return text
    if isinstance(value[0], list):
        inner = "\n".join(written("", item, depth + 1) for item in value)
        return f"{pad}{name}(\n{inner}\n{pad}),"
    lines, line = [], ""
    for item in value:
        word = f"{item!r}, "
        if len(line) + len(word) + 4 * depth + 4 > 100:
            lines.append(line.rstrip())
            line = ""
        line += word
    inner = "\n".join(f"{pad}    {each}" for each in (*lines, line.rstrip()))
    return f"{pad}{name}(\n{inner}\n{pad}),"


def main() -> None:
    """Write the modules."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, default=Path("traces"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("sim/trace/workloads"), metavar="DIR")
    options = parser.parse_args()
    out = [io.StringIO(), io.StringIO()]
    days = ", ".join(f"{name} {row[1]}" for name, row in MODELS.items())
    out[0].write(CLIENTS.format(days=days))
    out[1].write(LENGTHS)
    for name, (stem, days_, parts) in MODELS.items():
        path = next(iter(sorted(options.traces.rglob(f"servegen_{stem}_clients.csv.xz"))))
        rows = windows(path, days_)
        for file in out:
            file.write(f'    "{name}": {{\n')
        out[0].write(written('"rates": ', rates(rows, days_), 2) + "\n")
        out[0].write('        "clients": (\n')
        for shares, shapes in clients(rows):
            out[0].write(f"            ({tuple(shares)}, {tuple(shapes)}),\n")
        out[0].write("        ),\n")
        pmf = path.with_name(path.name.replace("_clients.csv", "_length_pmf.json"))
        for key, tables in lengths(pmf, parts).items():
            out[1].write(written(f'"{key}": ', [list(table) for table in tables], 2) + "\n")
        for file in out:
            file.write("    },\n")
    for file, of in zip(out, ("clients", "lengths"), strict=True):
        (options.out / f"population_{of}.py").write_text(file.getvalue() + "}\n# fmt: on\n")


if __name__ == "__main__":
    main()
