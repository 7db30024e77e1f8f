"""The CUDA kernels behind the cost model; imports nothing of the simulator."""
