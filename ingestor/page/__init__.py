"""The page at `/`, where people look at what goes on: its files, with the headers that they are served with.

It is a client of the public API like any other, and knows nothing of the server; browsers are told to ask no other
origin. The charts are drawn by uPlot, whose files come with a package that is pinned and never imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_START = "index.html"
_CHARTS = "youplot"
_CHART_FILES = {"uplot.js": "youplot/vendor/uplot.iife.min.js", "uplot.css": "youplot/vendor/uplot.min.css"}


class File(NamedTuple):
    """One file of the page: where it is served, as what, and its bytes."""

    path: str
    content_type: str
    body: bytes


def files() -> Iterator[File]:
    """All of them; `/` is the page itself, the others lie below `/page/`."""
    ours = {each.name: each for each in sorted((Path(__file__).parent / "static").iterdir())}
    theirs = distribution(_CHARTS)
    charts = {name: Path(str(theirs.locate_file(file))) for name, file in _CHART_FILES.items()}
    for name, file in {**ours, **charts}.items():
        path = "/" if name == _START else f"/page/{name}"
        yield File(path, _KINDS[file.suffix], file.read_bytes())
