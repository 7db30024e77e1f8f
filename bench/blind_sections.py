"""Further sections of the report: steps, distributions, residence, schedule, ablation, others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.blind_figures import NAMES, engines
from bench.blind_judge import BARS
from bench.blind_words import STEP_BARS, paragraph, share, summary, table

if TYPE_CHECKING:
    from collections.abc import Sequence

PEERS = (
    ("Vidur", "< 9 % latency", "MLSys'24, arXiv 2405.05465"),
    ("LLMServingSim 2.0", "3-5 % on average", "arXiv 2602.23036"),
    ("LLMServingSim 2.0, results in its repository: TTFT / TPOT / latency",
     "+0.6 / +0.2 / +0.5 % to -13.6 / -1.7 / -2.2 % by machine and model", "bench/examples"),
    ("BLIS", "6.7 % median E2E of 36 experiments; 15.7 % across GPUs",
     "docs/blog/posts/how-blis-learns-latency.md"),
    ("Frontier", "throughput < 4 %; E2E 6.4 % colocated, 2.6 % disaggregated", "arXiv 2605.21312"),
    ("TokenSim", "< 1 %", "arXiv 2503.08415"),
    ("APEX", "10.7 % on average", "arXiv 2411.17651"),
    ("SGLang simulator", "TTFT 2.4-6.1 %, TPOT 0.6-4.05 %", "sglang PR #33010"),
    ("Revati", "< 5 %", "arXiv 2601.00397"),
    ("sched-sim", "3.3-15.4 % on one RTX 3050", "its README"),
    ("vllm-vcr", "ITL about 1 %, TTFT up to 36 %", "docs/trace-replay/arrival-replay.md"),
    ("InferSim", "prefill +4.6 to +15 %, decode -4 to +15 %", "table in its README"),
    ("38 vLLM 0.15.1 experiments by the BLIS team, median MAPE of E2E / ITL / TTFT",
     "blis-evolved 17.2 / 19.9 / 12.4 %, LLMServingSim 18.8 / 21.8 / 72.5 %, "
     "aiconfigurator 11.8 / 25.4 / 653 %, vidur (4 experiments) 2.4 / 4.0 / 13.6 %",
     "inference-sim/sim-to-real-accuracy-validation dcec3fd"),
)  # fmt: skip
"""Published errors: who, what, where; claims of theirs, not verified here."""


def comparison(found: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> str:
    """This round beside *earlier* ones, at promised loads."""
    if not earlier:
        return ""
    rows: list[list[str]] = []
    for one in (*earlier, found):
        told, this = summary(one), one is found
        number = one["round"]
        link = f"{number}" if this else f"[{number}](round-{number}/README.md)"
        typical = [share(told["typical"][m]) if told["typical"] else "-" for m in BARS]
        right = f"{told['orders']['right']} of {sum(told['orders'].values())}"
        good = f"{told['good']} of {told['cells']}"
        within = f"{told['within']} of {told['figures']}"
        if told["figures"]:
            within += f" ({share(told['within'] / told['figures'])})"
        kept = "{} of {}".format(*told["steps"])
        rows.append([link, f"{told['runs']}", within, good, *typical, right, kept])
    names = ["round", "runs", "figures within bars", "cells with all six",
             *(NAMES[m] for m in BARS), "order right", "steps within bars"]  # fmt: skip
    return f"""## Beside the rounds before

Runs at loads up to 0.8; by figure the median of |error|.

{table(names, rows)}"""


def steps(found: dict[str, Any]) -> str:
    """Teacher-forced errors of single steps."""
    rows = []
    for name, one in found["forced"].items():
        words = [
            share(one[k]) if one[k] <= bar else f"**{share(one[k])}**"
            for k, bar in STEP_BARS.items()
        ]
        words.append(share(one["signed_median"], "+"))
        parts = (f"{part} median" for part in ("decode only", "with prefill"))
        words += [share(one[part]) if part in one else "-" for part in parts]
        rows.append([name, f"{one['n']:,}", *words])
    met, count = summary(found)["steps"]
    return f"""## Single steps, teacher-forced

The composition of every logged step through the fitted profile, without noise; bars 3 % (median)
and 7 % (p90). {met} of {count} recorded runs keep both.

{table(["run", "steps", "median", "p90", "bias", "decode only", "with prefill"], rows)}"""


def distributions(found: dict[str, Any]) -> str:
    """Distances, errors of single requests and intervals."""
    own = found.get("distributions")
    if not own:
        return ""
    distances, intervals = [], []
    for name, one in own.items():
        ks, each, ends = one["ks"], one["per_request"], one["intervals"]
        words = [
            "-" if ends.get(m, [None])[0] is None else
            f"{100 * ends[m][0]:+.1f} to {100 * ends[m][1]:+.1f}"
            for m in ("tpot_mean", "itl_p99", "ttft_p50", "ttft_p90", "ttft_p99")
        ]  # fmt: skip
        single = (f"{100 * each['ttft'][key]:.0f}" for key in ("median", "p90"))
        far = (f"{ks[q]:.3f}" if q in ks else "-" for q in ("ttft", "tpot", "itl", "e2el"))
        distances.append([name, *far, *single])
        intervals.append([name, *words])
    different = [name for name, one in own.items() if not one["as_committed"]]
    said = "give the committed figures"
    if different:
        said = f"give the committed figures but for {len(different)} of {len(own)} runs: the "
        said += "simulator has changed since"
    pictures = "\n".join(
        f"![{name}: measured and simulated](cdf-{name}.png)" for name in engines(found, own)
    )
    text = (
        "Recorded runs only, beside one simulation each (the first, where a prediction is a mean). "
        f"Run again from the committed profiles, they {said}. The largest distance of the two "
        "distributions (KS), and the error of the TTFT of single requests in per cent:"
    )
    between = (
        "Bootstrap 95 % intervals of the errors above, in per cent (requests drawn in pairs; they "
        "say how much so many requests leave open, not how much machines differ):"
    )
    names = ["run", "TTFT", "TPOT", "ITL", "E2EL", "a request's TTFT, median", "p90"]
    metrics = ["run", "TPOT mean", "ITL p99", "TTFT p50", "TTFT p90", "TTFT p99"]
    beside = (
        "Of each configuration three loads at most: the least, the most that carries a promise, "
        "and the most."
    )
    return f"""## Distributions

{paragraph(text)}

{table(names, distances)}

{paragraph(between)}

{table(metrics, intervals)}

{paragraph(beside)}

{pictures}

Single requests, a dot each, of a run of every configuration (that a mean is right does not make a
request right: who meets a long prompt changes with every run):

![TTFT of single requests](requests.png)"""


def residence(found: dict[str, Any]) -> str:
    """What entering and leaving a loop on the device cost."""
    rows = []
    for name, one in found["residence"].items():
        if one is None:
            continue
        waited = found.get("distributions", {}).get(name, {}).get("queue_p50_ms")
        words = ["-", "-"] if waited is None else [f"{value:.2f}" for value in waited]
        late = f"{one['late_ms']:.2f}" if one["late"] else "-"
        rows.append([name, f"{one['entered']:,}", f"{one['late']:,}", late,
                     f"{one['entering_ms']:.2f}", *words])  # fmt: skip
    if not rows:
        return ""
    names = ["run", "entered", "late steps", "a late step (ms)", "entering (ms)",
             "wait for admission, p50 (ms)", "simulated"]  # fmt: skip
    return f"""## Loops on the device

How often they were entered; steps that they ran on after they were asked to leave, in which nobody
is admitted, and how long one of them took (p50); how much longer than a usual step of its batch the
first one of a residence took (p50).

{table(names, rows)}"""


def replay(runs: Sequence[dict[str, Any]]) -> str:
    """How far the simulator's planner plans logged steps alike."""
    tried = [run for run in runs if not run.get("refused")]
    if not tried:
        return ""
    count, alike = (sum(run[key] for run in tried) for key in ("steps", "alike"))
    exact = sum(run["difference"] is None for run in tried)
    modes = {f"{run.get('model', '1b')} {run['mode']} {run['kernels']}" for run in tried}
    gpus = len({run["gpu"] for run in tried})
    refused = len(runs) - len(tried)
    said = f" {refused} more are of a kind that it does not replay." if refused else ""
    differ = [f"- {run['run']}: {run['difference']}" for run in tried if run["difference"]]
    listing = "\n".join(["", "", *differ]) if differ else ""
    text = (
        f"Logs of served traces ({len(tried)}: {len(modes)} combinations of model, mode and "
        f"kernels, {gpus} GPUs), replayed through the simulator's planner with logged arrivals and "
        f"times: **{alike:,} of {count:,} steps have the same requests and the same chunks; "
        f"{exact} of {len(tried)} logs are exact**.{said} Steps of the control and resident loops "
        "inside a residence are taken as decode only, as the log says "
        "(`sim/validation/replay.py`), since the device does not ask the planner there."
    )
    return f"""## Schedule

{paragraph(text)}{listing}"""


def ablation(found: dict[str, Any]) -> str:
    """Errors with parts of the model removed."""
    own: dict[str, dict[str, list[float]]] = found["ablation"]
    if not own:
        return ""
    rows = [
        [name, *(f"{100 * figures[m][0]:.1f}, {100 * figures[m][1]:.1f}" for m in BARS)]
        for name, figures in own.items()
    ]
    seeds = max(len(cell.get("by_seed", ())) for cell in found["cells"])
    one = " One simulation each, with the first seed." if seeds > 1 else ""
    text = (
        "The same cells with one part of the model removed: median and largest |error| in per cent "
        "over all runs at loads up to 0.8; parts that only some profiles have stand below the "
        "errors of their runs as predicted. "
        f"A part is removed by setting it to nothing, without a new fit.{one}"
    )
    return f"""## Ablation

{paragraph(text)}

{table(["without", *(NAMES[m] for m in BARS)], rows)}"""


def terms(found: dict[str, Any]) -> str:
    """Errors by the kernels' own profile in the engine, and without each of its terms."""
    from bench.ablate_terms import markdown, skew_markdown

    if not found["terms"]:
        return ""
    first = found["terms"][0]
    text = (
        "`residentsim profile engine` fits what the engine takes around its kernels to the same "
        "training logs, over the shipped profile of kernels, which has seen no log of the engine. "
        "What it says of cells at loads up to 0.8 was compared once their runs were known, so this "
        f"is **not blind**: {first['cells']} cells, {first['runs']} runs; in per cent, single "
        "steps as median and p90 of |error| (median over runs), figures as median and largest; "
        "without a term, over the cells that have it. The last row is the kernels' profile alone."
    )
    beside = (
        "Interference does not occur in these runs: nothing was copied to or from DRAM, and "
        "prompts run behind decode steps, not beside them."
    )
    skew = ""
    if found.get("skew"):
        said = (
            "The model has no term for skew: a decode step costs what the sum of its contexts "
            "says. Median |error| of decode steps in per cent, with a term for it fitted on top, "
            "and with every request as long as the longest:"
        )
        skew = f"\n\n{paragraph(said)}\n\n{skew_markdown(found['skew'])}".rstrip()
    return f"""## A kernel profile in the engine (not blind)

{paragraph(text)}

{markdown(found["terms"]).rstrip()}

{paragraph(beside)}{skew}"""


def peers() -> str:
    """Published errors of other simulators."""
    return f"""## Beside others' errors

As published by them or about them, not verified here, on other machines, models and loads, often
saturated and on data that was fitted to; so no comparison in the strict sense.

{table(["who", "error", "source"], PEERS)}"""


def usage(found: dict[str, Any]) -> str:
    """How all of this is made again."""
    number = found["round"]
    return f"""## Made again

    python bench/blind.py cut --round {number} --trace azure.csv --out windows
    python bench/blind.py fit --round {number} --out DIR            # profiles from the fitted logs
    python bench/blind.py predict --round {number} --windows windows --out predictions.json
    python bench/blind.py commands --round {number}                 # the engine's runs, for a GPU
    python bench/blind.py judge --round {number} --windows windows  # this page

`calibration/serve/round-{number}/measured` holds, per request, times from its arrival, and per step
the totals; lengths and arrivals are the trace's and are not repeated."""
