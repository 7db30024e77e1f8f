"""Sentences of the report that no figure enters, but for the read ceiling."""

from __future__ import annotations

MARKS = """**Words and marks.** *Measured*: median of the samples of this run, filled marks. *Held
out*: measured too, but never seen by the fit that is shown, open marks. *Fitted*: a model's
prediction, lines. *Estimated*: nobody measured it; it says so wherever it stands. *Public*: others'
published times for this GPU, not measured by us, crosses. *Library*: PyTorch or cuBLAS, timed by us
in the same run, triangles. *Floor*: the bytes that a call needs at least, at the read ceiling
({ceiling}), unless marked `est.` (a latency, estimated), `link` (the best copy of this run) or
`sheet` (the data sheet). *SOL score*: 1/(1 + (T - floor)/(library - floor)): 0.5 is the library,
1 the floor."""

LOOP = """Every kind of control runs the same stages on the same inputs and gives the same tokens.
*resident*: one kernel that stays on the GPU, a grid barrier after each stage, tokens through pinned
memory. *graph*: one captured CUDA graph a step, synchronisation and copy-back. *host-c* and
*host-python*: a launch a stage from C and from Python, synchronisation and copy-back. A step is one
layer: append, with *sparse* page scores and selection, attention, verification with commit. *Graph,
nobody waits*: the same graphs without synchronisation and copy-back, which is what the stages take
and no way to serve. `(L2)`: all that the rotating inputs touch fits into the L2 cache."""

RESIDUALS = """Median / 90th percentile of |predicted / measured - 1|. *Held out*: a random fifth
that the shipped parameters have not seen. *Shape left out*: each shape predicted by a fit without
it. *Largest fifth*: the points with the most bytes, predicted by a fit without them. *Outside its
domain*: points that the model does not claim to cover, with how many. *Measured twice*: the same
point again in the same run, the least that any model can reach."""

STAGES = """The stages one by one, microseconds. *Alone*: one launch among many in a graph, the gap
to the next node included, as its own launcher would launch it, and with the blocks and threads of
the loop. *Inside the loop*: by the clock of one block; the wait after the last stage holds the
control."""

GAPS = """Parts of *resident* are measured by the clock of one block: its stages, its waits for the
others, and what follows the last stage (commit, output, messages). The other parts are put together
from measured constants: *stages* are the stages timed one by one, or the graph that nobody waits
for, less the node gaps; *host and rest* is what remains, negative where the constants overlap."""

CHECKS = """Whole decode steps that PyTorch's CUDA graphs took on another machine of the kind,
beside the sum of the kernel models; nothing is fitted to them:"""
