"""Which pages of other sites may call us from a browser (https://fetch.spec.whatwg.org/#http-cors-protocol).

Cookies are never asked for, so that `*` gives away no more than any other client gets. Others may not call at all
where that changes something: a browser sends forms of any page to anywhere without asking, and their types are
taken for JSON here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import hdrs

from ingestor.errors import CrossSite
from ingestor.transport.transcoding import printable

ANY_ORIGIN = "*"
_AGE_S = "7200"
_REQUEST_HEADERS = frozenset(
    {"authorization", "content-encoding", "content-type", "grpc-timeout", "x-api-key"}
)
_METADATA = "grpc-metadata-"


_SAFE = ("GET", "HEAD", "OPTIONS")
# What browsers say of a request of our own pages, and of what a person typed.
_NEAR = ("same-origin", "none")


class Cors:
    """The answers to questions of browsers: what pages of `origins` may do."""

    def __init__(self, origins: Iterable[str]) -> None:
        self.origins = frozenset(origins)
        self.any = ANY_ORIGIN in self.origins

    def headers(self, origin: str | None, exposed: Iterable[str]) -> dict[str, str]:
        """What every answer to a page of this origin carries; `exposed` are headers that the page may read."""
        if not self._allows(origin):
            return {}
        assert origin is not None
        headers = {"Access-Control-Allow-Origin": ANY_ORIGIN if self.any else origin}
        if names := ", ".join(exposed):
            headers["Access-Control-Expose-Headers"] = names
        return headers

    def preflight(self, request: Mapping[str, str], allowed: Iterable[str]) -> dict[str, str]:
        """What the answer to a preflight request carries beside those; `allowed` are the path's methods."""
        if not self._allows(request.get("Origin")):
            return {}
        asked = [each.strip() for each in request.get("Access-Control-Request-Headers", "").split(",")]
        names = [name for name in asked if name.lower() in _REQUEST_HEADERS or _is_metadata(name)]
        headers = {"Access-Control-Allow-Methods": ", ".join(allowed), "Access-Control-Max-Age": _AGE_S}
        if names:
            headers["Access-Control-Allow-Headers"] = ", ".join(names)
        return headers

    def refuse(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises CrossSite for a request that may change something and is of another site's page, unless that may
        call. Who is no browser says nothing of an origin."""
        origin = headers.get(hdrs.ORIGIN)
        if origin is None or method in _SAFE or self._allows(origin) or _is_ours(origin, headers):
            return
        msg = f"pages of {printable(origin)} may not call this from a browser (CORS_ORIGINS)"
        raise CrossSite(msg)

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and (self.any or origin in self.origins)


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks if it may send a request."""
    return method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def _is_ours(origin: str, headers: Mapping[str, str]) -> bool:
    """Whether the page is of this server. Of the scheme it can't tell: TLS may have ended before it."""
    if headers.get("Sec-Fetch-Site") in _NEAR:
        return True
    _, scheme_ends, authority = origin.partition("://")
    return bool(scheme_ends) and authority.lower() == headers.get("Host", "").lower()


def _is_metadata(name: str) -> bool:
    return name.lower().startswith(_METADATA) and name.isascii() and name.replace("-", "").isalnum()
