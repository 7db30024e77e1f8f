"""From samples and a profile to a calibration report: Markdown, tables and pictures.

`inputs` reads, `targets` and `loops` judge, the `draw_*` modules make the pictures, `words` and
`document` write.
"""
