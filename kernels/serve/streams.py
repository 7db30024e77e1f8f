"""The engine's one stream, for CuPy and PyTorch alike."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..decoder.modes import new_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

_KEPT: list[Any] = []
"""Streams live as long as the process: PyTorch marks an event on a stream when it frees pinned
memory that was copied to there, whenever that may be."""


@contextlib.contextmanager
def engine_stream(backend: Backend) -> Iterator[Any]:
    """A stream of its own as the current one, without gradients; None on the CPU."""
    stream = new_stream(backend)
    if stream is None:
        yield None
        return
    import torch

    _KEPT.append(stream)
    outer = torch.cuda.ExternalStream(stream.ptr)
    with stream, torch.inference_mode(), torch.cuda.stream(outer):
        yield stream
