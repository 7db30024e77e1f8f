"""KV over several tiers: what is where, how it moves, what has to go when a tier is full."""
