"""Reads the headers of requests for the lane: with h2's own HPACK state, once for each distinct block, and tells
whether they open an ordinary unary call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from h2.connection import _decode_headers
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack import Decoder

from ingestor.errors import Invalid, Unauthenticated
from ingestor.metadata import Value
from ingestor.transport.admission import Admission
from ingestor.transport.bounds import HEADER_BYTES_MAX
from ingestor.transport.grpc.calls import Method
from ingestor.transport.grpc.headers import (
    check_ascii,
    from_grpclib,
    gzips,
    header_bytes,
    not_grpc,
    received_metadata,
    timeout_s,
)

Header: TypeAlias = tuple[bytes, bytes]

_REQUEST_HEADERS = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_TRAILERS = _REQUEST_HEADERS._replace(is_trailer=True)
# What is read of a header block. Beyond HEADER_BYTES_MAX its call alone is refused; beyond this the compression
# state is lost, and with it the connection.
BLOCK_BYTES_MAX = 160 * 1024
# Header blocks that are remembered for a connection, and the longest of them: clients repeat a few.
_BLOCKS_MAX, _BLOCK_BYTES_MAX = 32, 512


@dataclass(slots=True)
class Opening:
    """What the headers of an ordinary unary call say, and what was decided of calls with them, once one came."""

    path: str
    method: Method
    timeout_s: float | None
    from_grpclib: bool
    gzip: bool
    metadata: Mapping[str, Sequence[Value]]
    admission: Admission | None = None


class Request(NamedTuple):
    """Headers as h2 wants them, and what they open in the lane, if anything."""

    headers: list[Header]
    opening: Opening | None


class SharedDecoder(Decoder):
    """h2's decoder, which can be given what was decoded already: `decoded` is what the next `decode` returns.

    `remembered` are requests by their header blocks: those that neither changed the table when they were decoded,
    nor were followed by one that did, and so mean the same again.
    """

    def __init__(self, replaced: Decoder) -> None:
        super().__init__(BLOCK_BYTES_MAX)
        self.max_allowed_table_size = replaced.max_allowed_table_size
        self.decoded: list[Header] | None = None
        self.remembered: dict[bytes, Request] = {}
        self._changed = False

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        if self.decoded is not None:
            headers, self.decoded = self.decoded, None
            return headers
        table = self.header_table
        entries = table.dynamic_entries
        newest, count, size = entries[0] if entries else None, len(entries), table.maxsize
        decoded = super().decode(data, raw)
        entries = table.dynamic_entries
        after = (len(entries), table.maxsize)
        self._changed = (entries[0] if entries else None) is not newest or after != (count, size)
        if self._changed:
            self.remembered.clear()
        return decoded

    def _remember(self, block: bytes, request: Request) -> None:
        """The block that was decoded last means this request."""
        if len(self.remembered) >= _BLOCKS_MAX:
            self.remembered.clear()
        if not self._changed and len(block) <= _BLOCK_BYTES_MAX:
            self.remembered[block] = request

    def request(self, block: bytes, methods: Mapping[str, Method]) -> Request:
        """What this block says. Raises ProtocolError when it can't be read; the connection is broken then."""
        request = self.remembered.get(block)
        if request is None:
            headers = list(_decode_headers(self, block))
            request = Request(headers, _opening(headers, methods))
            self._remember(block, request)
        return request


def valid_trailers(headers: Iterable[Header]) -> bool:
    """Whether a request may end with these."""
    return _valid(headers, _TRAILERS)


def _opening(headers: Collection[Header], methods: Mapping[str, Method]) -> Opening | None:
    """None for whatever is not an ordinary call, be it good or bad: that goes grpclib's way."""
    if header_bytes(headers) > HEADER_BYTES_MAX or not _valid(headers, _REQUEST_HEADERS):
        return None
    try:
        request = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        check_ascii(headers)
        seconds = timeout_s(request)
        metadata = received_metadata((name.decode(), value.decode()) for name, value in headers)
    except (Invalid, Unauthenticated):
        return None
    method = methods.get(request[":path"])
    if method is None or seconds == 0 or not_grpc(request) is not None or "content-length" in request:
        return None
    return Opening(request[":path"], method, seconds, from_grpclib(request), gzips(request), metadata)


def _valid(headers: Iterable[Header], flags: HeaderValidationFlags) -> bool:
    try:
        for _ in validate_headers(headers, flags):
            pass
    except ProtocolError:
        return False
    return True
