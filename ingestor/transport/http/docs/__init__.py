"""The pages that tell what is served: `/openapi.json`, and `/docs`, where it can be read and tried.

They need nothing from elsewhere: Swagger UI's files come with a package, and browsers are told to ask no other
origin. Each file has a fixed path; there is none to be made up.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ingestor.transport.http.answers import JSON
from ingestor.transport.http.pages import Page, fixed_page

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HTML, _CSS, _JS = (f"text/{kind}; charset=utf-8" for kind in ("html", "css", "javascript"))


def documentation(document: dict[str, Any]) -> dict[str, Page]:
    """The pages by their paths; `document` is the OpenAPI document."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    ours = Path(__file__).parent
    theirs = _folder_of("offapi")
    files = {
        "/docs": (ours / "index.html", _HTML),
        "/docs/start.js": (ours / "start.js", _JS),
        "/docs/swagger-ui.js": (theirs / "swagger_bundle.js", _JS),
        "/docs/swagger-ui.css": (theirs / "swagger_style.css", _CSS),
    }
    pages = {path: fixed_page(kind, file.read_bytes(), _HEADERS) for path, (file, kind) in files.items()}
    return {"/openapi.json": fixed_page(JSON, text), **pages}


def _folder_of(package: str) -> Path:
    """Where a package is, without importing it: that would read all of its files."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
