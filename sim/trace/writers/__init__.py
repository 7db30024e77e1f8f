"""One file a format that is written; `sim.trace.write` chooses among them."""
