"""Streams that set the ceilings: reads and copies with nothing else to do."""
