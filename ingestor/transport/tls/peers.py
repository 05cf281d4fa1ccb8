"""Who the other side of a connection is, by the certificate that it has proved to own.

Only a verified certificate counts; without one there are no names.
"""

from __future__ import annotations

import asyncio

_NAMED_BY = ("DNS", "URI")


def peer_names(transport: asyncio.BaseTransport | None) -> frozenset[str]:
    """The common name, and the DNS names and URIs among the alternative names, of the client's certificate."""
    certificate = None if transport is None else transport.get_extra_info("peercert")
    if not certificate:
        return frozenset()
    common = {
        value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
    }
    other = {value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAMED_BY}
    return frozenset(common | other)
