"""Attacks by holding on to what a server has few of: connections, streams, answers that are not read."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections import Counter
from contextlib import suppress

from ingestor.transport.grpc import wire
from tests.hostile.sockets import Became, connected, cut_off, ended
from tests.hostile.wire_client import LOG_METRICS, Frames, block, streams

# One metric to be taken and 4,000 to be rejected, each with its reason: the answer is ten times as large.
_METRICS = b"\x0a\x0f\x0a\1s\x12\1m\x19" + bytes(8) + b"\x0a\0" * 4000
MANY_BAD = b"\0" + len(_METRICS).to_bytes(4) + _METRICS
# The same with far more of them, and an answer of 4.5 MB.
_MOSTLY_BAD = _METRICS[:17] + b"\x0a\0" * 49_990
MOSTLY_BAD = b"\0" + len(_MOSTLY_BAD).to_bytes(4) + _MOSTLY_BAD
HEALTH_CHECK, HEALTH_WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


def many_streams(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` calls at once on a connection, none of which comes to its end until all have begun."""
    client, headers = Frames(grpc_port), block()
    for stream in streams(size):
        client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, headers))
    for stream in streams(100):
        client.send(wire.frame(wire.DATA, wire.END_STREAM, stream, b"\0\0\0\0\0"))
    return {"statuses": Counter(client.statuses(size))}


def silent(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` sockets on each port that say nothing, and some that say only half of a beginning."""
    clients = []
    for number in range(size):
        for port, begun in ((grpc_port, b"PRI * HTTP/2.0\r\n"), (http_port, b"GET / HT")):
            clients.append(connected(port))
            if number % 2:
                clients[-1].sendall(begun)
    return {"ended": Counter(ended(client) for client in clients)}


def slow_readers(grpc_port: int, http_port: int, size: int) -> Became:
    """Pages and calls are asked for, far more than the kernel buffers of the answers, and not read."""
    page = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    clients: list[tuple[socket.socket, bytes]] = []
    for _ in range(size):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", http_port))
        client.sendall(page * 500)
        clients.append((client, page))
        # Windows that let the server send all it likes.
        grpc = Frames(grpc_port, receive_bytes=4096, settings=b"\0\4" + wire.WINDOW_MAX.to_bytes(4))
        grpc.send(wire.number_frame(wire.WINDOW_UPDATE, 0, wire.WINDOW_MAX - 2**16))
        for stream in streams(25):  # five clients' fill the place for such requests, and none is refused
            grpc.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, block(LOG_METRICS)))
            grpc.send(wire.frame(wire.DATA, wire.END_STREAM, stream, MANY_BAD))
        clients.append((grpc.socket, wire.frame(0xBE, 0, 0, b"")))
    until, number = time.monotonic() + 40, len(clients)
    while clients and time.monotonic() < until:
        time.sleep(0.5)
        clients = [(client, word) for client, word in clients if not cut_off(client, word)]
    return {"ended": number - len(clients)}


def too_many_connections(grpc_port: int, http_port: int, size: int) -> Became:
    """More than either port takes, each of which says who it is."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    clients = []
    for _ in range(size):
        for port, begun in ((grpc_port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (http_port, b"GET /he")):
            with suppress(OSError):
                clients.append(connected(port))
                clients[-1].sendall(begun)
    open_now = 0
    for client in clients:
        client.settimeout(0.01)
        open_now += ended(client) == "open"
    return {"open": open_now}


def window_zero(grpc_port: int, http_port: int, size: int) -> Became:
    """Calls with large answers, on connections that let none of it be sent, and read all that comes."""
    statuses: list[str] = []
    for _ in range(size):
        client = Frames(grpc_port, settings=b"\0\4\0\0\0\0")
        for stream in streams(60):
            client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, block(LOG_METRICS)))
            for at in range(0, len(MOSTLY_BAD), 16_384):
                flags = wire.END_STREAM if at + 16_384 >= len(MOSTLY_BAD) else 0
                client.send(wire.frame(wire.DATA, flags, stream, MOSTLY_BAD[at : at + 16_384]))
        statuses += client.statuses(60)
    return {"statuses": Counter(statuses)}


def watches(grpc_port: int, http_port: int, size: int) -> Became:
    """Connections that hold a Watch, or a Check that does not come whole, which nobody needs a key for; then one
    more connection, which shows none either."""
    clients = []
    for number in range(size):
        path = HEALTH_CHECK if number % 2 else HEALTH_WATCH
        begun = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block(path))
        with suppress(OSError):
            clients.append(Frames(grpc_port))
            clients[-1].send(
                begun if number % 2 else begun + wire.frame(wire.DATA, wire.END_STREAM, 1, bytes(5))
            )
    time.sleep(1.5)  # who has come just now is not made to go
    with suppress(OSError):
        last = Frames(grpc_port)
        last.send(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block()) + _data(bytes(5)))
        return {"statuses": last.statuses(1)}
    return {"statuses": []}


def _data(message: bytes) -> bytes:
    return wire.frame(wire.DATA, wire.END_STREAM, 1, message)


def half_open_tls(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` sockets on each port that begin no handshake, and then one that makes it."""
    clients = []
    for port in (grpc_port, http_port):
        for _ in range(size):
            with suppress(OSError):
                clients.append(connected(port))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answered = 0
    for port in (grpc_port, http_port):
        with suppress(OSError), connected(port) as plain, context.wrap_socket(plain):
            answered += 1
    return {"sockets": len(clients), "answered": answered}
