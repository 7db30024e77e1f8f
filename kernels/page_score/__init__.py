"""Scores of KV pages by the channel minima and maxima of their keys, for sparse attention."""
