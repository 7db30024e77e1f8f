"""A Llama-shaped decode step with random weights: kernels, state, and ways to drive it."""
