"""Speculative decoding: drafters, trees, acceptance, controllers, and the steps they lead to."""
