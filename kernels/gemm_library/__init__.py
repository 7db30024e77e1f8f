"""Products and attention by PyTorch's libraries: yardsticks, and times for what we do not write."""
