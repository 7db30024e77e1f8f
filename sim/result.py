"""A run's folder: written beside its place and renamed, so a folder that exists is complete."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError, shown
from .iteration_log import KINDS, PATHS
from .iteration_log import Columns as IterationColumns
from .metrics import latencies
from .request_log import STATUSES
from .request_log import Columns as RequestColumns

if TYPE_CHECKING:
    from collections.abc import Iterator

ITERATION_COLUMNS = (
    "start_s", "duration_s", "kind", "path", "decode_requests", "padded_requests",
    "prefill_requests", "prefill_tokens", "context_tokens", "output_tokens", "running", "waiting",
    "kv_blocks", "gpu_busy_s", "gap_s", "launches", "syncs", "tklqt_s",
)  # fmt: skip


@contextmanager
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which takes the place *path* when all went well and vanishes otherwise.

    Raises `InputError` if *path* exists, unless it is a run to *replace*.
    """
    if path.exists() and not (replace and (path / "summary.json").is_file()):
        remedy = "choose another --out" if not replace else "it is not a run's folder"
        raise InputError(f"{path}: exists already; {remedy}, or remove it, or add --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """*data* as indented JSON; `nan` and infinities are defects of ours."""
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in *path*; `InputError` if it is missing or no JSON object."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: is not JSON; was it made by `residentsim run`?") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: {shown(data)} is no run's summary")
    return data


def environment(wall_s: float, events: int) -> dict[str, Any]:
    """Wall-clock facts of a run, which two equal runs do not share."""
    from importlib.metadata import version

    names = ("residentsim", "simpy", "numpy", "pyarrow")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except ImportError:
            versions[name] = "from a checkout"
    return {
        "wall_s": wall_s,
        "simpy_events": events,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "versions": versions,
    }


class Table:
    """A Parquet file that grows slice by slice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None

    def write(self, columns: dict[str, pa.Array]) -> None:
        """Appends a row group."""
        table = pa.table(columns)
        if self.writer is None:
            coded = [f.name for f in table.schema if not pa.types.is_floating(f.type)]
            self.writer = pq.ParquetWriter(
                self.path, table.schema, compression="zstd", compression_level=1,
                use_dictionary=coded, write_statistics=False,
            )  # fmt: skip
        self.writer.write_table(table, row_group_size=len(table))

    def close(self) -> None:
        """Completes the file; without a row there is none."""
        if self.writer is not None:
            self.writer.close()


def iteration_table(columns: IterationColumns) -> dict[str, pa.Array]:
    """The published columns of a slice of iterations."""
    table = {name: columns[name] for name in ITERATION_COLUMNS}
    arrays = {name: pa.array(values) for name, values in table.items()}
    arrays["kind"] = _named(columns["kind"], KINDS)
    arrays["path"] = _named(columns["path"], PATHS)
    return arrays


def request_table(columns: RequestColumns) -> dict[str, pa.Array]:
    """The published columns of a slice of requests; times a request never reached are null."""
    measures = latencies(columns)
    return {
        "request_id": pa.array(columns["id"]),
        "arrival_s": pa.array(columns["arrival"]),
        "prompt_tokens": pa.array(columns["prompt_tokens"]),
        "output_tokens": pa.array(columns["output_tokens"]),
        "status": _named(columns["status"], STATUSES),
        "reason": pa.array(columns["reason"], pa.string()),
        "admitted_s": _or_null(columns["admitted"]),
        "first_token_s": _or_null(columns["first_token"]),
        "finished_s": _or_null(columns["finished"]),
        "generated_tokens": pa.array(columns["generated"]),
        "preemptions": pa.array(columns["preemptions"]),
        "queue_ms": _or_null(measures["queue"] * 1e3),
        "ttft_ms": _or_null(measures["ttft"] * 1e3),
        "tpot_ms": _or_null(measures["tpot"] * 1e3),
        "e2el_ms": _or_null(measures["e2el"] * 1e3),
    }


def _named(codes: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))


def _or_null(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
