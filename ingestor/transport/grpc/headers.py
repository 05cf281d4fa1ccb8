"""Reads what gRPC says in a request's headers, and writes metadata into an answer's. Pure; a refusal is raised
before anything was done.

Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Requests" and "Custom-Metadata".
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from loguru import logger

from ingestor.errors import Invalid, TooLarge
from ingestor.metadata import Value
from ingestor.transport.admission import KEY_NAMES, not_ascii
from ingestor.transport.bounds import HEADER_BYTES_MAX
from ingestor.transport.timeouts import seconds_of

_GRPCLIB = "grpc-python-grpclib/"
_OF_THE_PROTOCOL = frozenset(("te", "content-type", "user-agent"))
_BINARY = "-bin"
_ENTRY_BYTES = 32
_NAME, _TEXT = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[ -~]+")
NO_METADATA: Mapping[str, Sequence[Value]] = MappingProxyType({})


def header_bytes(headers: Iterable[tuple[str | bytes, str | bytes]]) -> int:
    """What they take, as RFC 9113 counts it (6.5.2)."""
    return sum(len(name) + len(value) + _ENTRY_BYTES for name, value in headers)


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Raises TooLarge when they take more than HEADER_BYTES_MAX."""
    if (size := header_bytes(headers)) > HEADER_BYTES_MAX:
        msg = f"the headers take {size} bytes, {HEADER_BYTES_MAX} at most"
        raise TooLarge(msg)


def not_grpc(headers: Mapping[str, str]) -> tuple[int, str] | None:
    """HTTP status and message for a request that no gRPC client would send; None for one of gRPC."""
    if headers.get(":method") != "POST":
        return 405, "gRPC requests are POST"
    if headers.get("content-type") not in ("application/grpc", "application/grpc+proto"):
        return 415, "the content-type must be application/grpc or application/grpc+proto"
    if headers.get("te") != "trailers":
        return 400, "the header te: trailers is missing"
    return None


def check_ascii(headers: Iterable[tuple[str | bytes, str | bytes]]) -> None:
    """Raises Invalid when a name or any value of it is not ASCII, which gRPC does not allow; Unauthenticated where
    the value should be a key."""
    for name, value in headers:
        if name.isascii() and value.isascii():
            continue
        text = name if isinstance(name, str) else name.decode("latin-1")
        if text in KEY_NAMES:
            raise not_ascii(text)
        msg = "a header is not ASCII: send its value in base64, under a name that ends in -bin"
        raise Invalid(msg)


def timeout_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that the client gives the call, if it says so. Raises Invalid for what is not a timeout."""
    text = headers.get("grpc-timeout")
    return None if text is None else seconds_of(text)


def gzips(headers: Mapping[str, str]) -> bool:
    """Whether the request's messages may be in gzip."""
    return headers.get("grpc-encoding") == "gzip"


def from_grpclib(headers: Mapping[str, str]) -> bool:
    """Whether the client is grpclib's, and so betterproto2's."""
    return headers.get("user-agent", "").startswith(_GRPCLIB)


def received_metadata(headers: Iterable[tuple[str, str]]) -> Mapping[str, Sequence[Value]]:
    """The custom metadata of a call: what is not the protocol's own. What should be base64 and is not, is left out:
    most methods read none of it."""
    found: dict[str, list[Value]] = {}
    for name, value in headers:
        if name.startswith((":", "grpc-")) or name in _OF_THE_PROTOCOL:
            continue
        if values := _decoded(value) if name.endswith(_BINARY) else (value,):
            found.setdefault(name, []).extend(values)
    return MappingProxyType({name: tuple(values) for name, values in found.items()}) if found else NO_METADATA


def _decoded(value: str) -> Sequence[bytes]:
    """Values of one name may have been joined on the way; padding may be missing."""
    parts = [part.strip().rstrip("=") for part in value.split(",")]
    try:
        return [b64decode(part + "=" * (-len(part) % 4), validate=True) for part in parts]
    except ValueError:
        return []


def sendable(sent: Iterable[tuple[str, Value]]) -> list[tuple[str, Value]]:
    """Metadata for an answer. What gRPC can't carry is left out and logged: the method has done its work by now."""
    good = []
    for name, value in sent:
        if _is_ours(name) and _is_value(name, value):
            good.append((name, value))
        else:
            logger.error("metadata that gRPC can't carry was not sent: {!r}", name)
    return good


def encoded(metadata: Iterable[tuple[str, Value]]) -> list[tuple[str, str]]:
    """As headers."""
    return [
        (name, value if isinstance(value, str) else b64encode(value).rstrip(b"=").decode())
        for name, value in metadata
    ]


def _is_ours(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not name.startswith("grpc-") and name not in _OF_THE_PROTOCOL


def _is_value(name: str, value: Value) -> bool:
    if name.endswith(_BINARY):
        return isinstance(value, bytes)
    return isinstance(value, str) and bool(_TEXT.fullmatch(value))
