"""azure-code-like: code completion of the Azure LLM inference trace 2023, on/off traffic.

Shaped like `AzureLLMInferenceTrace_code.csv` (Microsoft, CC BY 4.0; Patel et al., Splitwise, ISCA
2024): 8,819 requests in 3,435.95 s. Its rows were not at hand. All was fitted to statistics of the
file: quantiles, the parameters and distances of families fitted to it, dispersion, empty windows,
most common lengths. Where these leave room, a table keeps to the middle of it.

Requests come in runs, with silence of over a second between. A run has its own pace, and so has
each stretch of 16 gaps within it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.rng import stream
from sim.trace.lengths import knots_of
from sim.trace.normal import normal_quantile

from .arrivals import Batches
from .open_loop import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "azure-code-like"

# fmt: off
# Gaps within a run, s, and the share of all gaps below each. The statistics fix the share at the
# quantiles (p1 to p95 of the file) and within 0.093 at any gap: 0.18 of the gaps lie close together
# somewhere from 76 to 102 ms, and the half of them stands at either end here. The tables of both
# kinds of gaps have the file's mean, variance, mean logarithm and its variance to 1 %.
_WITHIN = (
    (6e-6, 0.0), (2.217e-5, 0.01), (8.8e-5, 0.05), (2.09e-4, 0.1), (5e-4, 0.158), (1e-3, 0.185),
    (1.5e-3, 0.192), (2.07725e-3, 0.25), (3e-3, 0.28), (5e-3, 0.315), (0.01, 0.341), (0.015, 0.376),
    (0.02, 0.408), (0.03, 0.44), (0.04, 0.465), (0.05, 0.483), (0.063798, 0.5), (0.07, 0.52),
    (0.074, 0.5427), (0.078, 0.613), (0.082, 0.6225), (0.09, 0.6365), (0.098, 0.651),
    (0.102, 0.658), (0.103995, 0.75), (0.11, 0.758), (0.13, 0.785), (0.15, 0.803), (0.17, 0.818),
    (0.2, 0.832), (0.23, 0.841), (0.26, 0.853), (0.272856, 0.9), (0.3, 0.922), (0.35, 0.942),
    (0.400776, 0.95), (0.5, 0.968), (0.7, 0.981), (1.0, 0.98526),
)
# Gaps between runs, s, and how many of the hour's 130 are longer: by p99, p99.9 and the largest gap
# of the file, and by its empty windows of 1, 10 and 60 s.
_BETWEEN = (
    (1.0, 130.0), (1.5, 106.0), (2.20507, 88.0), (3.0, 75.7), (5.0, 62.0), (7.0, 54.5),
    (10.0, 47.0), (15.0, 38.7), (20.0, 33.0), (30.0, 25.2), (40.0, 19.8), (60.0, 13.0),
    (79.2325, 9.0), (100.0, 6.7), (150.0, 3.2), (200.0, 0.7), (217.169, 0.0),
)
# Tokens and the share of lengths below. Exact at the file's quantiles and most common lengths
# (a service limit of 7,437 prompt tokens, answers of 6 to 13 tokens), smooth in between.
_PROMPT = (
    (3, 0.0), (8, 0.00592), (17, 0.01017), (27, 0.02274), (40, 0.03333), (56, 0.04236),
    (75, 0.05017), (92, 0.06511), (113, 0.08014), (162, 0.10642), (200, 0.12179), (239, 0.13477),
    (333, 0.15893), (424, 0.19732), (493, 0.22273), (556, 0.243), (627, 0.26325), (823, 0.31033),
    (986, 0.36216), (1181, 0.41501), (1333, 0.46137), (1459, 0.49744), (1597, 0.53353),
    (1748, 0.56961), (2033, 0.62993), (2364, 0.69016), (2745, 0.74983), (3101, 0.78927),
    (3499, 0.82833), (3716, 0.84779), (3947, 0.8596), (4731, 0.88626), (5501, 0.90845),
    (6396, 0.93063), (7304, 0.95017), (7434, 0.96179), (7435, 0.96349), (7436, 0.97517),
    (7437, 0.99796), (7438, 1.0),
)
_OUTPUT = (
    (6, 0.0), (7, 0.08266), (8, 0.15365), (9, 0.21148), (10, 0.30344), (11, 0.36489),
    (12, 0.41535), (13, 0.46921), (14, 0.52013), (15, 0.5522), (17, 0.6102), (19, 0.66156),
    (21, 0.70764), (23, 0.73663), (26, 0.7756), (28, 0.79912), (29, 0.80543), (35, 0.83249),
    (41, 0.8552), (48, 0.87778), (56, 0.89983), (72, 0.92573), (89, 0.94754), (109, 0.95883),
    (142, 0.97201), (221, 0.98602), (252, 0.99), (322, 0.9953), (826, 0.999), (1900, 1.0),
)
# fmt: on

# Model: runs are drawn an hour's worth at a time, and each hour has all gaps of the tables once,
# in random order: the statistics are of one hour, and say nothing about how hours differ.
_RUNS = 130
_EVEN = 26
# Model: sizes of runs are log-normal; large runs are a little faster. These five were fitted to the
# index of dispersion at 1, 10, 60 and 300 s (13.2, 71.6, 164, 138), the correlation of neighbouring
# windows of 1 and 10 s (0.76, 0.47) and the busiest windows (67, 327 and 632 requests in 1, 10 and
# 60 s): part of the rank of a gap within the hour that ...
_SIZE_SIGMA = 1.15
_BY_RUN = 0.25  # ... its run has,
_BY_SIZE = -0.18  # ... comes from the size of its run,
_BY_STRETCH = 0.4  # ... its stretch has; the rest is its own
_STRETCH = 16
_ON, _ON_SHARE = (np.array(column) for column in zip(*_WITHIN, strict=True))
_OFF, _LONGER = (np.array(column) for column in zip(*_BETWEEN, strict=True))


def recipe(seed: int) -> Recipe:
    """Prompt and output lengths are independent (rank correlation -0.02 in the file)."""
    return Recipe(Batches(lambda number: _hour(seed, number)), knots_of(_PROMPT), knots_of(_OUTPUT))


def _hour(seed: int, number: int) -> NDArray[np.float64]:
    """The gaps of hour *number*, in order; each run is followed by silence."""
    rng = stream(seed, f"trace.{NAME}.gaps", number)
    z = normal_quantile(_spread(rng))
    sizes = np.exp(_SIZE_SIGMA * z)
    sizes = np.maximum(1, np.rint(sizes / sizes.mean() / (1.0 - _ON_SHARE[-1]))).astype(np.int64)
    ends = np.cumsum(sizes) - 1
    silent = np.zeros(int(sizes.sum()), dtype=bool)
    silent[ends] = True
    gaps = np.empty(len(silent))
    gaps[silent] = np.exp(np.interp(_spread(rng), 1 - _LONGER / _RUNS, np.log(_OFF)))
    gaps[~silent] = _within(rng, np.repeat(np.arange(_RUNS), sizes - 1), z)
    return gaps


def _within(
    rng: np.random.Generator, run: NDArray[np.int64], size: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gaps within runs: *run* the run of each, *size* the normal score of each run's size."""
    n = len(run)
    own = (1.0 - _BY_RUN**2 - _BY_SIZE**2 - _BY_STRETCH**2) ** 0.5
    score = (_BY_RUN * normal_quantile(_spread(rng)) + _BY_SIZE * size)[run]
    score += _BY_STRETCH * np.repeat(rng.standard_normal(n // _STRETCH + 1), _STRETCH)[:n]
    score += own * rng.standard_normal(n)
    share = np.empty(n)
    share[np.argsort(score, kind="stable")] = (np.arange(n) + rng.random(n)) / n
    gaps = np.exp(np.interp(share * _ON_SHARE[-1], _ON_SHARE, np.log(_ON)))
    return np.asarray(gaps, dtype=np.float64)


def _spread(rng: np.random.Generator) -> NDArray[np.float64]:
    """The middles of 130 parts of 0 to 1 in random order, but one of each tenth in ten runs."""
    ranks = np.arange(_RUNS).reshape(_EVEN, -1)
    return (rng.permuted(rng.permuted(ranks, axis=1), axis=0).T.ravel() + 0.5) / _RUNS
