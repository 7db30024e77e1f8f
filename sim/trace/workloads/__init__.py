"""Generated workloads: one module a named workload, and what they share.

`catalog` lists the names and their knobs and imports nothing heavy.
"""
