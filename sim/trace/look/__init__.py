"""Looking at a trace: one pass that keeps figures only, then tables, a picture and a page."""
