"""Verification of drafted tokens against target logits, fused with commit and page release."""
