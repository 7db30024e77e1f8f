"""Figures as elements of the page: matplotlib's SVG with the page's colours and names of its own.

One rule: what is drawn stays as it is. Colours become variables of the page, so that dark and print
are the reader's; ids carry the figure's name, so that no two figures share one; nothing is fetched.
"""

from __future__ import annotations

import re
from html import escape

from sim.panels import DIM, INK, PAPER

_THEMED = {
    PAPER: ("--card", None, None),
    INK: ("--ink", None, None),
    DIM: ("--dim", None, None),
    "#000000": ("--ink", None, None),
    "#b0b0b0": ("--grey", None, None),
    "#0072b2": ("--c0", "#0072b2", "#4ea5e6"),
    "#d55e00": ("--c1", "#d55e00", "#ff8b45"),
    "#009e73": ("--c2", "#009e73", "#2fc899"),
    "#cc79a7": ("--c3", "#cc79a7", "#e69ac4"),
    "#e69f00": ("--c4", "#e69f00", "#f0b429"),
    "#56b4e9": ("--c5", "#56b4e9", "#7cc9f5"),
    "#999999": ("--c6", "#8a8a8a", "#a8a8a8"),
    "#595959": ("--c7", "#595959", "#b5b5b5"),
    "#8c8c8c": ("--c8", "#8c8c8c", "#9a9a9a"),
    "#e0e0e0": ("--c9", "#e0e0e0", "#3d4147"),
    "#d0d0d0": ("--c10", "#d0d0d0", "#6a6f76"),
    "#7a0000": ("--c11", "#7a0000", "#c9605c"),
    "#8fd3b6": ("--c12", "#8fd3b6", "#8fd3b6"),
    "#5b2a86": ("--c13", "#5b2a86", "#a983d3"),
    "#f0e442": ("--c14", "#f0e442", "#f0e442"),
}
"""A figure's colour, the page's variable for it, and what that is in light and dark; None where
all pages have it."""
LIGHT = ";".join(f"{name}:{light}" for name, light, _ in _THEMED.values() if light)
DARK = ";".join(f"{name}:{dark}" for name, _, dark in _THEMED.values() if dark)
STYLE = """
.plot{background:var(--card)}
.plot text{font-family:"DejaVu Sans",Verdana,Arial,sans-serif}
.plot *{stroke-linejoin:round;stroke-linecap:butt}
"""


def inline(svg: str, name: str, label: str) -> str:
    """The `svg` element of a figure called *name*, which must be unique on the page.

    *label* is what a reader who cannot see it is told.
    """
    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None, "matplotlib writes a viewBox"
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = _tags(body, name)
    return (
        f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{escape(label)}">'
        f"{body.rstrip()}"
    )


def _tags(body: str, name: str) -> str:
    """*body* with its tags rewritten and its text, which may say anything, as it was."""
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([\w.-]+)', body))
    return re.sub(r"<[^<>]*>", lambda tag: _tag(tag[0], name, used), body)


def _tag(tag: str, name: str, used: set[str]) -> str:
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", tag)
    tag = re.sub(r"(?<=\d\.\d\d)\d+", "", tag)
    tag = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _coloured, tag)
    return re.sub(r" ?\n", " ", tag).replace(' "', '"')


def _coloured(match: re.Match[str]) -> str:
    themed = _THEMED.get(match[2])
    return f"{match[1]}: var({themed[0]})" if themed else match[0]
