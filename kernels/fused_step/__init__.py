"""A decode step in five stages a layer, as kernels of their own or inside one persistent kernel."""
