"""A measured run beside the simulated one of the same requests: errors, intervals, verdict."""
