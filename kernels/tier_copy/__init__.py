"""Moves of pages between HBM and pinned DRAM, and of blocks between DRAM and a disk."""
