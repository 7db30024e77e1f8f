"""The specification is that of every mode of control: `loop_control.reference`."""

from ..loop_control.reference import Reference

__all__ = ["Reference"]
