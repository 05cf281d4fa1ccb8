"""Attacks by requests: too large, growing as they are read, or never whole."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from contextlib import suppress

from ingestor.transport.grpc import wire
from tests.hostile.sockets import POST, Became, connected, grpc_status_within, status
from tests.hostile.wire_client import Frames, block, streams

GIB = 2**30


def prefix(grpc_port: int, http_port: int, size: int) -> Became:
    """A gigabyte is announced, over and over, and begun."""
    client, headers = Frames(grpc_port), block()
    begun = b"\0" + GIB.to_bytes(4) + bytes(1000)
    for stream in streams(size):
        client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, headers))
        client.send(wire.frame(wire.DATA, 0, stream, begun))
    return {"statuses": Counter(client.statuses(size))}


def bomb() -> bytes:
    """A gibibyte of zeros in gzip: a mebibyte."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    zeros = bytes(2**20)
    first = deflater.compress(zeros) + deflater.flush(zlib.Z_FULL_FLUSH)
    second = deflater.compress(zeros) + deflater.flush(zlib.Z_FULL_FLUSH)
    # What follows a full flush can be repeated; the checksum at the end is never reached.
    return first + second * 1023 + bytes(8)


def gzip_bombs(grpc_port: int, http_port: int, size: int) -> Became:
    """Over gRPC, one after another."""
    deflated, answers = bomb(), []
    message = b"\1" + len(deflated).to_bytes(4) + deflated
    for _ in range(size):
        client = Frames(grpc_port)
        client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block(extra=[("grpc-encoding", "gzip")])))
        pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
        # What the first window allows, then what is credited once the size is known.
        for piece in pieces[:-1]:
            client.send(wire.frame(wire.DATA, 0, 1, piece))
        client.send(wire.frame(wire.DATA, wire.END_STREAM, 1, pieces[-1]))
        answers += client.statuses(1)
    return {"statuses": Counter(answers)}


def gzip_bombs_over_http(grpc_port: int, http_port: int, size: int) -> Became:
    """The same as bodies, all at once."""
    deflated, clients = bomb(), []
    head = POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(deflated)
    for _ in range(size):
        clients.append(connected(http_port))
        clients[-1].sendall(head + deflated)
    return {"statuses": Counter(status(client) for client in clients)}


def large_headers(grpc_port: int, http_port: int, size: int) -> Became:
    """120 kB of them, `size` times over either protocol."""
    large = [(f"h-{number}", "x" * 4000) for number in range(30)]
    client, answers = Frames(grpc_port), []
    for stream in streams(size):
        for frame in wire.header_frames(stream, block(extra=large), 16_384, end_stream=True):
            client.send(frame)
    headers = "".join(f"{name}: {value}\r\n" for name, value in large).encode()
    for _ in range(size):
        over_http = connected(http_port)
        with suppress(ConnectionError):
            over_http.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        answers.append(status(over_http))
    return {"statuses": Counter(client.statuses(size)), "http": Counter(answers)}


def slow_writers(grpc_port: int, http_port: int, size: int) -> Became:
    """Requests that come byte by byte, and never whole: heads and bodies, over either protocol."""
    slow = []
    for _ in range(size):
        grpc = Frames(grpc_port)
        grpc.send(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block()))
        slow.append((grpc.socket, wire.frame(wire.DATA, 0, 1, b"\0\0\0\1\0" + bytes(20)), b""))
        slow.append((connected(http_port), POST + b"Content-Length: 1000\r\n\r\n", b" "))
        slow.append((connected(http_port), POST, b"a: b\r\n"))
    for client, first, _ in slow:
        client.sendall(first)
    for _ in range(20):
        time.sleep(0.1)
        for client, _, drop in slow:
            with suppress(OSError):
                client.sendall(drop)
    half = [client for number, (client, _, _) in enumerate(slow) if number % 3]
    grpc_answers = Counter(grpc_status_within(client) for client, _, drop in slow if not drop)
    return {"http": Counter(status(client) for client in half), "statuses": grpc_answers}


def half_requests(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` connections, of each a hundred requests of 4 MiB less a byte: together far more than is taken."""
    message, clients = b"\0" + (4 * 2**20).to_bytes(4) + bytes(16_379), []
    taken = 0
    for _ in range(size):
        client = Frames(grpc_port)
        clients.append(client)
        client.socket.settimeout(0.5)
        for stream in streams(100):
            client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, block()))
        for number in range(255):
            piece = message if not number else bytes(16_384)
            sent = [client.send(wire.frame(wire.DATA, 0, stream, piece)) for stream in streams(100)]
            if not all(sent):
                break
            taken += 100
    answers = [status for client in clients for status in client.statuses(100)]
    return {"mebibytes": taken // 64, "statuses": Counter(answers)}
