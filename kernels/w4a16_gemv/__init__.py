"""Product of a few tokens with 4-bit or 16-bit weights that are streamed once."""
