"""Sparse KV: what a decode step selects and reads, and what it has to fetch for that."""
