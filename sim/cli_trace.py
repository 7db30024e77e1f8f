"""`residentsim trace`: look at a trace, change it, make one up, or fetch one.

Thin: one file a command, and the work is in `sim.trace`.
"""

from __future__ import annotations

import typer

from .cli_trace_convert import convert_trace
from .cli_trace_fetch import fetch_trace
from .cli_trace_generate import generate_trace
from .cli_trace_inspect import inspect_trace
from .cli_trace_requests import requests_trace

app = typer.Typer(
    name="trace",
    help="Look at request traces, convert, generate or fetch them.",
    no_args_is_help=True,
)
app.command("inspect")(inspect_trace)
app.command("convert")(convert_trace)
app.command("requests")(requests_trace)
app.command("generate")(generate_trace)
app.command("fetch")(fetch_trace)
