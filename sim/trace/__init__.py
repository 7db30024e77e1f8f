"""Traces: requests read from files of known formats, generated, measured and written."""

from .chunk import FORMATS, Chunk, Tally
from .detect import detect
from .generate import SOURCES, generate
from .lengths import Length
from .read import read
from .write import write

__all__ = [
    "FORMATS",
    "SOURCES",
    "Chunk",
    "Length",
    "Tally",
    "detect",
    "generate",
    "read",
    "write",
]
