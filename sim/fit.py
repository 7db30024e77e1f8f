"""Fitting the functional forms to timings, with residuals on points the fit has not seen.

The one rule: rows are split before anything is fitted. A parameter set is fitted on 80 % of the
rows and judged on the other 20 %; a second, throw-away fit without the largest 20 % of bytes
says how the form extrapolates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError
from .forms import FloatArray, Roofline, SplitKv
from .profile import build_form

HOLD_OUT = 0.2  # share of rows, both at random and at the frontier
SEED = "residentsim-1"  # of the random split
IDENTITY = ("op", "impl", "dtype", "heads", "kv_heads", "head_dim", "batch", "ctx", "m", "n", "k")
NUMBERS = ("heads", "kv_heads", "head_dim", "batch", "ctx", "m", "n", "k", "bytes", "us")
AXES = {"gemm": ("m", "n", "k"), "decode_attention": IDENTITY[3:8]}
AXIS_NAMES = {"ctx": "context"}  # in the domain, where the column is called otherwise
PLATEAU_SPREAD, PLATEAU_BYTES = 2.0, 8.0

Row = Mapping[str, Any]


def least_squares(
    predict: Callable[[FloatArray], FloatArray], observed: FloatArray, start: FloatArray
) -> FloatArray:
    """Positive parameters that minimise the sum of squares of log(predict(p) / observed).

    Levenberg-Marquardt on the logarithms of the parameters, central differences for the Jacobian.
    """
    target = np.log(observed)

    def error(logs: FloatArray) -> FloatArray:
        residual: FloatArray = np.log(predict(np.exp(logs))) - target
        return residual

    logs = np.log(start)
    residual, damping = error(logs), 1e-3
    for _ in range(500):
        jacobian = _jacobian(error, logs)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ residual
        improved = False
        while damping < 1e12 and not improved:
            scaled = normal + damping * (np.diag(np.diag(normal)) + 1e-12 * np.eye(len(logs)))
            step = np.clip(np.linalg.solve(scaled, -gradient), -2.0, 2.0)
            candidate = error(logs + step)
            improved = bool(candidate @ candidate < residual @ residual)
            damping = damping / 5.0 if improved else damping * 4.0
        if not improved:
            break
        logs, residual = logs + step, candidate
        if float(np.max(np.abs(step))) < 1e-10:
            break
    return np.exp(logs)


def _jacobian(error: Callable[[FloatArray], FloatArray], logs: FloatArray) -> FloatArray:
    """Derivatives of *error* by each of *logs*, one column a parameter."""
    width = 1e-6
    columns = []
    for index in range(len(logs)):
        shift = np.zeros_like(logs)
        shift[index] = width
        columns.append((error(logs + shift) - error(logs - shift)) / (2.0 * width))
    return np.stack(columns, axis=1)


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(fitted, held out): which is which depends on a row's identity alone, not on its order."""
    ordered = sorted(rows, key=_digest)
    held = round(HOLD_OUT * len(ordered))
    return ordered[held:], ordered[:held]


def frontier(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(fitted, held out): the rows with the most bytes are held out."""
    ordered = sorted(rows, key=lambda row: (row["bytes"], _digest(row)))
    held = round(HOLD_OUT * len(ordered))
    return ordered[: len(ordered) - held], ordered[len(ordered) - held :]


def _digest(row: Row) -> bytes:
    text = "|".join(str(row[key]) for key in (*IDENTITY, "kernel"))
    return hashlib.blake2b(f"{SEED}|{text}".encode(), digest_size=16).digest()


def predict(form: str, parameters: Mapping[str, float], rows: Sequence[Row]) -> FloatArray:
    """Seconds that the *form* with these *parameters* gives for each of *rows*."""
    model = build_form(form, parameters)
    if isinstance(model, Roofline):
        m, n, k, moved = (column(rows, key) for key in ("m", "n", "k", "bytes"))
        return model.array(moved, 2.0 * m * n * k)
    if isinstance(model, SplitKv):
        batch, heads, kv_heads, dim = (
            column(rows, key) for key in ("batch", "heads", "kv_heads", "head_dim")
        )
        return model.array(batch, batch * column(rows, "ctx"), heads, kv_heads, dim)
    raise InputError(f"{form}: no rows are fitted to this form; use roofline or split_kv")


def column(rows: Sequence[Row], key: str) -> FloatArray:
    """The numbers under *key*, one a row."""
    return np.array([row[key] for row in rows], dtype=np.float64)


def fit(recipe: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, float]:
    """All parameters of the recipe's form, its free ones fitted to *rows*, six digits kept."""
    form, free, given = recipe["form"], recipe["free"], recipe["start"]

    def model(values: FloatArray) -> FloatArray:
        return predict(form, {**given, **dict(zip(free, values, strict=True))}, rows)

    start = np.array([given[key] for key in free], dtype=np.float64)
    found = least_squares(model, column(rows, "us") * 1e-6, start)
    best = dict(zip(free, found.tolist(), strict=True))
    return {key: six(value) for key, value in {**given, **best}.items()}


def six(value: float) -> float:
    """*value* to six significant digits: more would only record rounding of the machine."""
    return float(f"{value:.6g}")


def residuals(predicted: FloatArray, measured: FloatArray) -> dict[str, float]:
    """n, median, p90 and max of |predicted / measured - 1|, and its signed median."""
    error = predicted / measured - 1.0
    size = np.abs(error)
    figures = {
        "median": np.median(size),
        "p90": np.quantile(size, 0.9),
        "max": np.max(size),
        "signed_median": np.median(error),
    }
    return {"n": len(error), **{key: round(float(value), 4) for key, value in figures.items()}}


def judged(form: str, parameters: Mapping[str, float], rows: Sequence[Row]) -> dict[str, float]:
    """Residuals of these *parameters* on *rows*."""
    return residuals(predict(form, parameters, rows), column(rows, "us") * 1e-6)


def is_plateau(rows: Sequence[Row]) -> bool:
    """Whether the times hardly move though the bytes do: a launch-bound artefact, not a kernel.

    The rule: the largest time is less than twice the smallest while the bytes span a factor of
    more than eight. Public tables hold such rows (block-scaled fp8, flat at 50 to 85 us).
    """
    times, moved = column(rows, "us"), column(rows, "bytes")
    flat = bool(times.max() < PLATEAU_SPREAD * times.min())
    return flat and bool(moved.max() > PLATEAU_BYTES * moved.min())


def chosen(recipe: Mapping[str, Any], rows: Sequence[Row], impl: str) -> list[Row]:
    """The rows of one implementation that the *recipe* may use, plateaus and fp8_block left out."""
    picked = [
        row
        for row in rows
        if (row["op"], row["dtype"], row["impl"]) == (recipe["op"], recipe["dtype"], impl)
        and "fp8_block" not in row["kernel"]
    ]
    kernels = {row["kernel"] for row in picked}
    flat = {name for name in kernels if is_plateau([r for r in picked if r["kernel"] == name])}
    return [row for row in picked if row["kernel"] not in flat]


def fit_kernel(recipe: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Parameters, domain and residuals of one kernel, ready for the profile."""
    form, mine = recipe["form"], chosen(recipe, rows, recipe["impl"])
    inside = [row for row in mine if _within(row, recipe["where"])]
    outside = [row for row in mine if not _within(row, recipe["where"])]
    fitted, held = split(inside)
    parameters = fit(recipe, fitted)
    near, far = frontier(inside)
    groups = {label: judged(form, parameters, part) for label, part in _groups(recipe, held)}
    if outside:
        groups["outside the domain"] = judged(form, parameters, outside)
    found = {
        "holdout": judged(form, parameters, held),
        "frontier": judged(form, fit(recipe, near), far),
        "groups": groups,
        "others": _others(recipe, rows),
    }
    axes = AXES[recipe["op"]]
    spans = {axis: column(inside, axis) for axis in axes}
    domain = {
        AXIS_NAMES.get(axis, axis): [float(span.min()), float(span.max())]
        for axis, span in spans.items()
    }
    return {"parameters": parameters, "domain": domain, "residuals": found}


def _within(row: Row, where: Mapping[str, Sequence[float]]) -> bool:
    return all(low <= row[key] <= high for key, (low, high) in where.items())


def _groups(recipe: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """(label, rows) by the ranges that the recipe names, and by head geometry if it asks so."""
    found: dict[str, list[Row]] = {}
    for key, ranges in recipe["groups"].items():
        for row in rows:
            if key == "geometry":
                heads = "/".join(f"{row[axis]:g}" for axis in ("heads", "kv_heads", "head_dim"))
                found.setdefault(f"heads {heads}", []).append(row)
                continue
            for low, high in ranges:
                if low <= row[key] <= high:
                    found.setdefault(f"{key} {low:g} to {high:g}", []).append(row)
                    break
    return sorted(found.items())


def _others(recipe: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Held-out residuals of the other implementations, each with parameters of its own."""
    names = {row["impl"] for row in rows if row["op"] == recipe["op"]} - {recipe["impl"]}
    found = {}
    for impl in sorted(names):
        mine = [row for row in chosen(recipe, rows, impl) if _within(row, recipe["where"])]
        if mine:
            fitted, held = split(mine)
            found[impl] = judged(recipe["form"], fit(recipe, fitted), held)
    return found
