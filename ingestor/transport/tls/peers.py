"""Who the other side of a connection is, by the certificate that it has proved to own.

Only a verified certificate counts; without one there are no names.
"""

from __future__ import annotations

import asyncio

_NAMED_BY = ("DNS", "URI")


def peer_names(transport: asyncio.BaseTransport | None) -> frozenset[str]:
    """The DNS names and URIs among the alternative names of the client's certificate. Its common name only where it
    has no alternative names at all: a CA that vouches for those need not have looked at it (RFC 6125, 6.4.4)."""
    certificate = None if transport is None else transport.get_extra_info("peercert")
    if not certificate:
        return frozenset()
    if alternative := certificate.get("subjectAltName"):
        return frozenset(value for kind, value in alternative if kind in _NAMED_BY)
    return frozenset(
        value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
    )
