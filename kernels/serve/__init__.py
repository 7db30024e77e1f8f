"""A small real engine around the decoder: a trace's requests served on one GPU, in real time."""
