"""Reads what gRPC says in a request's headers. Pure; a refusal is raised before anything was done.

Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Requests".
"""

from __future__ import annotations

from collections.abc import Mapping

from ingestor.errors import Invalid
from ingestor.transport.timeouts import seconds_of

_GRPCLIB = "grpc-python-grpclib/"


def not_grpc(headers: Mapping[str, str]) -> tuple[int, str] | None:
    """HTTP status and message for a request that no gRPC client would send; None for one of gRPC."""
    if headers.get(":method") != "POST":
        return 405, "gRPC requests are POST"
    if headers.get("content-type") not in ("application/grpc", "application/grpc+proto"):
        return 415, "the content-type must be application/grpc or application/grpc+proto"
    if headers.get("te") != "trailers":
        return 400, "the header te: trailers is missing"
    return None


def check_ascii(headers: Mapping[str, str]) -> None:
    """Raises Invalid when a name or value is not ASCII, which gRPC does not allow."""
    if not all(name.isascii() and value.isascii() for name, value in headers.items()):
        msg = "a header is not ASCII: send its value in base64, under a name that ends in -bin"
        raise Invalid(msg)


def timeout_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that the client gives the call, if it says so. Raises Invalid for what is not a timeout."""
    text = headers.get("grpc-timeout")
    return None if text is None else seconds_of(text)


def from_grpclib(headers: Mapping[str, str]) -> bool:
    """Whether the client is grpclib's, and so betterproto2's."""
    return headers.get("user-agent", "").startswith(_GRPCLIB)
