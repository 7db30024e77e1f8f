"""NumPy columns as Arrow arrays and back.

Arrow arrays are made of NumPy's buffers directly: `pyarrow.array` would import pandas, which takes
longer than a small file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def numbers(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Any:
    """*values* as an Arrow array, null where not *valid*; they share memory."""
    mask = None
    if valid is not None and not valid.all():
        mask = pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [mask, buffer])


def lists(rows: Ragged, values: Any | None = None) -> Any:
    """*rows* as an Arrow array of lists, of *values* in place of their own if given."""
    flat = numbers(rows.values) if values is None else values
    return pa.ListArray.from_arrays(numbers(rows.offsets.astype(np.int32)), flat)


def ragged(column: Any) -> Ragged:
    """An Arrow array of lists without nulls, in it or in the lists, as rows."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return Ragged(values[offsets[0] : offsets[-1]], offsets - offsets[0])


def texts(values: Sequence[str]) -> Any:
    """*values* as an Arrow array of strings, of less than 2 GiB together."""
    data = [value.encode(errors="replace") for value in values]
    ends = np.zeros(len(data) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in data], out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.string(), len(data), buffers)


def joined(rows: Ragged, mark: str) -> Any:
    """The numbers of each row as text, *mark* between them, as an Arrow array of strings."""
    import pyarrow.compute as pc

    return pc.binary_join(lists(rows, digits(rows.values)), texts([mark])[0])


def digits(values: NDArray[np.int64]) -> Any:
    """*values* as an Arrow array of strings."""
    import pyarrow.compute as pc

    return pc.cast(numbers(values), pa.string())


def woven(*cells: Any) -> bytes:
    """Arrow arrays of strings, and strings that stand in every row, row by row as one text."""
    import pyarrow.compute as pc

    parts = [texts([cell])[0] if isinstance(cell, str) else cell for cell in (*cells, "")]
    return _flat(pc.binary_join_element_wise(*parts))


def _flat(strings: Any) -> bytes:
    """All strings of an Arrow array without nulls, one after another."""
    if not len(strings):
        return b""
    _, ends, data = strings.buffers()
    offsets = np.frombuffer(ends, dtype=np.int32)[strings.offset :]
    return bytes(data[int(offsets[0]) : int(offsets[len(strings)])])
