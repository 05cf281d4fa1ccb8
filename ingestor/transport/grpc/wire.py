"""HTTP/2 frames and header blocks as bytes, for what goes around h2. Pure.

Formats: RFC 9113, 4.1 and 6 (frames), RFC 7541, 6.2.2 (literal header fields without indexing, which leave the
compression state as it is, so that such a block may be sent at any time).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hpack.hpack import encode_integer

DATA, HEADERS, RST_STREAM, PING, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x3, 0x6, 0x8, 0x9
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
PREFACE_BYTES = 24
FRAME_HEADER_BYTES = 9
PRIORITY_BYTES = 5
PING_BYTES = 8
NUMBER_BYTES = 4  # the payload of RST_STREAM and WINDOW_UPDATE
WINDOW_MAX = 2**31 - 1

# The length's 24 bits and the type, the flags, a reserved bit and the stream.
_START = struct.Struct(">IBI")
_STREAM_ID = 2**31 - 1


class Start(NamedTuple):
    """A frame's header. `length` is that of its payload in bytes."""

    length: int
    type: int
    flags: int
    stream_id: int


def read_start(data: bytes, at: int) -> Start:
    """The frame header at this place, where `FRAME_HEADER_BYTES` must lie."""
    start, flags, stream_id = _START.unpack_from(data, at)
    return Start(start >> 8, start & 0xFF, flags, stream_id & _STREAM_ID)


def frame(type_: int, flags: int, stream_id: int, payload: bytes | memoryview) -> bytes:
    """One frame."""
    return b"".join((_START.pack(len(payload) << 8 | type_, flags, stream_id), payload))


def number_frame(type_: int, stream_id: int, number: int) -> bytes:
    """A RST_STREAM with its error code, or a WINDOW_UPDATE with its increment."""
    return _START.pack(NUMBER_BYTES << 8 | type_, 0, stream_id) + number.to_bytes(NUMBER_BYTES)


def literals(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literal fields without indexing, as Latin-1."""
    return b"".join(_literal(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)


def header_frames(stream_id: int, block: bytes, frame_bytes_max: int, *, end_stream: bool) -> Sequence[bytes]:
    """A header block as HEADERS and, where it is too long for one frame, CONTINUATIONs."""
    type_, flags = HEADERS, END_STREAM if end_stream else 0
    if len(block) <= frame_bytes_max:
        return (frame(type_, flags | END_HEADERS, stream_id, block),)
    frames = []
    while len(block) > frame_bytes_max:
        frames.append(frame(type_, flags, stream_id, block[:frame_bytes_max]))
        block, type_, flags = block[frame_bytes_max:], CONTINUATION, 0
    frames.append(frame(type_, flags | END_HEADERS, stream_id, block))
    return frames


def _literal(name: bytes, value: bytes) -> bytes:
    return b"".join((b"\0", encode_integer(len(name), 7), name, encode_integer(len(value), 7), value))
