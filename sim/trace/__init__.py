"""Traces: requests read from files of known formats, generated, measured and written."""
