"""Attacks by frames that cost the server work and ask it for nothing."""

from __future__ import annotations

from ingestor.transport.grpc import wire
from tests.hostile.sockets import Became
from tests.hostile.wire_client import SETTINGS, STREAM_METRICS, Frames, block, streams


def rapid_resets(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` thousand calls, each given up at once."""
    client, headers = Frames(grpc_port), block()
    sent = 0
    for begun in range(0, size * 1000, 500):
        pieces = bytearray()
        for stream in streams(500, 1 + 2 * begun):
            pieces += wire.frame(wire.HEADERS, wire.END_HEADERS, stream, headers)
            pieces += wire.number_frame(wire.RST_STREAM, stream, 8)
        if not client.send(bytes(pieces)):
            break
        sent += 500
    return {"goaway": client.goaway(), "all": sent == size * 1000}


def rapid_resets_of_streams(grpc_port: int, http_port: int, size: int) -> Became:
    """The same with calls that stream, each of which has got a task by then."""
    client, headers = Frames(grpc_port), block(STREAM_METRICS)
    for stream in streams(size * 100):
        begun = wire.frame(wire.HEADERS, wire.END_HEADERS, stream, headers)
        if not client.send(begun + wire.number_frame(wire.RST_STREAM, stream, 8)):
            break
    return {"goaway": client.goaway()}


def resets_by_us(grpc_port: int, http_port: int, size: int) -> Became:
    """Calls whose clients break a rule, so that the server resets them."""
    client, headers = Frames(grpc_port), block()
    for stream in streams(size * 100):
        begun = wire.frame(wire.HEADERS, wire.END_HEADERS, stream, headers)
        if not client.send(begun + wire.number_frame(wire.WINDOW_UPDATE, stream, 0)):
            break
    return {"goaway": client.goaway()}


def _flood(port: int, frame: bytes, size: int) -> Became:
    """A mebibyte for each of `size`, of which no answer is read meanwhile."""
    client, piece, sent = Frames(port), frame * (2**20 // len(frame)), 0
    while sent < size and client.send(piece):
        sent += 1
    return {"goaway": client.goaway(), "all": sent == size}


def pings(grpc_port: int, http_port: int, size: int) -> Became:
    """PING after PING."""
    return _flood(grpc_port, wire.frame(wire.PING, 0, 0, bytes(8)), size)


def settings(grpc_port: int, http_port: int, size: int) -> Became:
    """SETTINGS after SETTINGS, each of which has to be acknowledged."""
    return _flood(grpc_port, wire.frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff"), size)


def empty_data(grpc_port: int, http_port: int, size: int) -> Became:
    """DATA without data, for a call that goes on."""
    client = Frames(grpc_port)
    client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block()))
    piece, sent = wire.frame(wire.DATA, 0, 1, b"") * 100_000, 0
    while sent < size and client.send(piece):
        sent += 1
    return {"goaway": client.goaway()}


def continuations(grpc_port: int, http_port: int, size: int) -> Became:
    """A header block that does not end."""
    client = Frames(grpc_port)
    client.send(wire.frame(wire.HEADERS, 0, 1, block()))
    for _ in range(size * 100):
        if not client.send(wire.frame(wire.CONTINUATION, 0, 1, bytes(16_384))):
            break
    return {"goaway": client.goaway()}
