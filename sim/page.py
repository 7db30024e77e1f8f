"""One file that a browser opens from disk: the frame and the style that all pages share.

One rule: nothing is fetched and nothing runs, which the page says to the browser as well; light and
dark follow the reader's settings, and print is light.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .errors import InputError
from .trace.naming import said
from .trace.write import replacing

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = (".html", ".htm")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LIGHT = "--ink:#1c1c1c;--dim:#5c5c5c;--paper:#fff;--card:#fff;--rule:#d9d9d9;--grid:#e6e6e6;" \
    "--a:#1f5fa8;--b:#c65a10;--grey:#7a7a7a;--good:#1a7f37;--bad:#b42318"  # fmt: skip
DARK = "--ink:#e8e8e8;--dim:#a6a6a6;--paper:#15171a;--card:#1b1e22;--rule:#3a3d42;" \
    "--grid:#2b2e33;--a:#6cabf0;--b:#f09a55;--grey:#9a9a9a;--good:#57c26e;" \
    "--bad:#ff8477"  # fmt: skip
_BASE = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem;max-width:70rem;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.35rem;margin:0 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1rem;margin:0 0 .4rem}
p{margin:.2rem 0}.dim{color:var(--dim)}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));
gap:1.4rem 2rem;margin:1.2rem 0}
section.wide{margin:1.2rem 0}section{min-width:0;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:right;padding:.16rem .5rem;border-bottom:1px solid var(--rule);
font-variant-numeric:tabular-nums;font-weight:400;vertical-align:top;overflow-wrap:anywhere}
th{color:var(--dim)}td:first-child,th:first-child,.words{text-align:left}
td:first-child{color:var(--dim);white-space:nowrap}td:first-child,th:first-child{padding-left:0}
figure{margin:0;min-width:0}figcaption{font-weight:600;margin-bottom:.1rem}
svg{width:100%;height:auto;display:block}
"""


def document(title: str, body: str, style: str, light: str = "", dark: str = "") -> str:
    """The page of *body*, which is HTML, under the plain text *title*.

    *style* comes after the style of all pages; *light* and *dark* are further variables of it.
    """
    themes = (
        f"\n:root{{color-scheme:light dark;{LIGHT};{light}}}"
        f"\n@media (prefers-color-scheme:dark){{:root{{{DARK};{dark}}}}}"
        f"\n@media print{{:root{{color-scheme:light;{LIGHT};{light}}}"
        "figure,section{break-inside:avoid}}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{themes}{_BASE}{style}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def check_page(path: Path) -> None:
    """Raise `InputError` unless *path* ends as a page."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{said(path)}: not a page's name; end it with {' or '.join(ENDINGS)}")


def write(path: Path, page: str) -> None:
    """Write *page* to *path*, whole or not at all; raises `InputError` if it cannot be."""
    with replacing(path) as file:
        file.write(page.encode(errors="backslashreplace"))
