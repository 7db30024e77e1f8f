"""Slices of columns to Parquet files.

Arrow arrays are made of NumPy's buffers directly: `pyarrow.array` would import pandas, which takes
longer than a short run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .iteration_costs import PATHS
from .iteration_log import KINDS, OF_TIERS
from .metrics import latencies
from .request_log import REASONS, STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .iteration_log import Columns as IterationColumns
    from .memory.transfer_log import Columns as TransferColumns
    from .request_log import Columns as RequestColumns

_NAME = pa.dictionary(pa.int8(), pa.string())

ITERATIONS = pa.schema(
    [("start_s", pa.float64()), ("duration_s", pa.float64()), ("kind", _NAME), ("path", _NAME)]
    + [(name, pa.int32()) for name in ("decode_requests", "padded_requests", "prefill_requests")]
    + [("prefill_tokens", pa.int32()), ("context_tokens", pa.int64())]
    + [(name, pa.int32()) for name in ("output_tokens", "running", "waiting")]
    + [("kv_blocks", pa.int64()), ("gpu_busy_s", pa.float64()), ("gap_s", pa.float64())]
    + [("launches", pa.int32()), ("syncs", pa.int32()), ("tklqt_s", pa.float64())]
)
"""Columns of iterations.parquet, a row an iteration, in order of their commits; those of several
replicas one replica after the other."""

REQUESTS = pa.schema(
    [("request_id", pa.int64()), ("arrival_s", pa.float64())]
    + [("prompt_tokens", pa.int64()), ("output_tokens", pa.int64())]
    + [("status", _NAME), ("reason", _NAME)]
    + [(name, pa.float64()) for name in ("admitted_s", "first_token_s", "finished_s")]
    + [("generated_tokens", pa.int64()), ("preemptions", pa.int64())]
    + [(name, pa.float64()) for name in ("queue_ms", "ttft_ms", "tpot_ms", "e2el_ms")]
    + [("session", pa.string()), ("waited_for", pa.int64()), ("think_s", pa.float64())]
)
"""Columns of requests.parquet, a row a request that was sent, in the order of the trace."""


CACHED = ("cached_hbm", "cached_dram", "cached_ssd", "cached_remote")
_OF_MEMORY = pa.schema(
    [*((f"{name}_tokens", pa.int64()) for name in CACHED), ("load_ms", pa.float64())]
)
DRAFTS = ("drafts", "draft_tokens", "accepted_tokens")


def requests_schema(names: Iterable[str]) -> pa.Schema:
    """`REQUESTS`, and those of *names* that are about cached KV and about drafts."""
    there = set(names)
    of_memory = _OF_MEMORY if CACHED[0] in there else ()
    return pa.schema(
        [*REQUESTS, *of_memory, *((name, pa.int64()) for name in DRAFTS if name in there)]
    )


TRANSFERS = pa.schema(
    [(name, pa.float64()) for name in ("queued_s", "start_s", "end_s")]
    + [("link", _NAME), ("bytes", pa.int64()), ("blocks", pa.int64()), ("reason", _NAME)]
    + [("request_id", pa.int64())]
)
"""Columns of transfers.parquet, a row a transfer between tiers, in order of their ends."""


_KNOWN = (
    "loading", "hbm_cached_blocks", "dram_bytes", "ssd_bytes", "remote_bytes", *OF_TIERS,
    "decode_rows", "drafts", "draft_tokens", "accepted_tokens", "kv_draft_blocks",
    "attended_tokens", "pages_scored", "kv_blocks_selected", "kv_blocks_total",
    "kv_blocks_fetched", "kv_blocks_lower", "refreshing_requests", "refreshed_tokens", "replica",
)  # fmt: skip


REPLICA = ("replica", pa.int64())
"""The column that every file of a run with several replicas has."""


def with_replica(schema: pa.Schema) -> pa.Schema:
    """*schema*, of a run with several replicas."""
    return pa.schema([*schema, REPLICA])


def iterations_schema(names: Iterable[str]) -> pa.Schema:
    """`ITERATIONS`, and those of *names* that are about cached KV, steps of several tokens, or
    several replicas."""
    there = set(names)
    kinds = ((name, pa.float64() if name.endswith("_s") else pa.int64()) for name in _KNOWN)
    return pa.schema([*ITERATIONS, *((name, kind) for name, kind in kinds if name in there)])


class Table:
    """A Parquet file of *schema* that grows slice by slice."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        coded = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        self.schema = schema
        self.writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=coded,
            write_statistics=False,
        )  # fmt: skip

    def write(self, columns: dict[str, pa.Array]) -> None:
        """Appends a row group."""
        table = pa.table(columns, schema=self.schema)
        self.writer.write_table(table, row_group_size=len(table))

    def close(self) -> None:
        """Completes the file, which has no row if none was written."""
        self.writer.close()


def append(table: Table, part: Path) -> None:
    """Moves the rows of the file *part*, with the same columns, to the end of *table*."""
    with pq.ParquetFile(part) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group).cast(table.schema)
            table.writer.write_table(rows, row_group_size=len(rows))
    part.unlink()


def iteration_table(
    columns: IterationColumns, schema: pa.Schema = ITERATIONS
) -> dict[str, pa.Array]:
    """The columns of *schema* of a slice of iterations."""
    names = {"kind": KINDS, "path": PATHS}
    return {
        name: _named(columns[name], names[name]) if name in names else _numbers(columns[name])
        for name in schema.names
    }


def request_table(columns: RequestColumns) -> dict[str, pa.Array]:
    """The published columns of a slice of requests; times a request never reached are null."""
    measures = latencies(columns)
    cached = {f"{name}_tokens": _numbers(columns[name]) for name in CACHED if name in columns}
    if cached:
        cached["load_ms"] = _numbers(columns["load"] * 1e3)
    cached |= {name: _numbers(columns[name]) for name in DRAFTS if name in columns}
    if "replica" in columns:
        cached["replica"] = _numbers(columns["replica"])
    return cached | {
        "request_id": _numbers(columns["id"]),
        "arrival_s": _numbers(columns["arrival"]),
        "prompt_tokens": _numbers(columns["prompt_tokens"]),
        "output_tokens": _numbers(columns["output_tokens"]),
        "status": _named(columns["status"], STATUSES),
        "reason": _named(columns["reason"], REASONS),
        "admitted_s": _or_null(columns["admitted"]),
        "first_token_s": _or_null(columns["first_token"]),
        "finished_s": _or_null(columns["finished"]),
        "generated_tokens": _numbers(columns["generated"]),
        "preemptions": _numbers(columns["preemptions"]),
        "queue_ms": _or_null(measures["queue"] * 1e3),
        "ttft_ms": _or_null(measures["ttft"] * 1e3),
        "tpot_ms": _or_null(measures["tpot"] * 1e3),
        "e2el_ms": _or_null(measures["e2el"] * 1e3),
        "session": _texts(columns["session"].tolist()),
        "waited_for": _numbers(columns["waits_for"]),
        "think_s": _numbers(columns["think"], columns["waits_for"] > 0),
    }


def transfer_table(columns: TransferColumns, schema: pa.Schema = TRANSFERS) -> dict[str, pa.Array]:
    """The columns of *schema* of a slice of transfers."""
    return {
        name: _words(columns[name]) if pa.types.is_dictionary(kind) else _numbers(columns[name])
        for name, kind in zip(schema.names, schema.types, strict=True)
    }


def _words(values: np.ndarray) -> pa.Array:
    """Words as dictionary-coded strings."""
    names, codes = np.unique(values, return_inverse=True)
    return _named(codes.astype(np.int8), names.tolist())


def _numbers(values: np.ndarray, valid: np.ndarray | None = None) -> pa.Array:
    """*values* as an Arrow array, null where not *valid*."""
    kind = pa.from_numpy_dtype(values.dtype)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [_mask(valid), buffer])


def _mask(valid: np.ndarray | None) -> pa.Buffer | None:
    """Arrow's bits of what is *valid*; None if all is."""
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _or_null(values: np.ndarray) -> pa.Array:
    return _numbers(values, ~np.isnan(values))


def _named(codes: np.ndarray, names: Sequence[str]) -> pa.Array:
    """Dictionary-coded strings; a negative code is null."""
    return pa.DictionaryArray.from_arrays(_numbers(codes, codes >= 0), _strings(names))


def _texts(texts: Sequence[str]) -> pa.Array:
    """*texts*, null where empty."""
    if not any(texts):
        return pa.nulls(len(texts), pa.string())
    return _strings(texts, np.array([bool(text) for text in texts]))


def _strings(texts: Sequence[str], valid: np.ndarray | None = None) -> pa.Array:
    """*texts* as an Arrow array, null where not *valid*."""
    data = [text.encode(errors="replace") for text in texts]
    ends = np.cumsum([0, *map(len, data)], dtype=np.int32)
    buffers = [_mask(valid), pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.string(), len(data), buffers)
