"""The specification is that of every kernel set of a decode step: `decoder.reference`."""

from ..decoder.reference import Reference, Result, check_tokens, snapshot

__all__ = ["Reference", "Result", "check_tokens", "snapshot"]
