"""What hostile callers do. Each is a function of the gRPC and the HTTP port and of how much; it returns what became
of the caller. They run as a process of their own (`python -m tests.hostile.attacks NAME GRPC_PORT HTTP_PORT SIZE
SECONDS`), so that what they take of the interpreter is not the bystander's; again until so long has passed."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from ingestor.transport.grpc import wire
from tests.hostile.wire_client import LOG_METRICS, SETTINGS, STREAM_METRICS, Frames, block, streams

GIB = 2**30
# One metric to be taken and 4,000 to be rejected, each with its reason: the answer is ten times as large.
_METRICS = b"\x0a\x0f\x0a\1s\x12\1m\x19" + bytes(8) + b"\x0a\0" * 4000
MANY_BAD = b"\0" + len(_METRICS).to_bytes(4) + _METRICS
# The same with far more of them, and an answer of 4.5 MB.
_MOSTLY_BAD = _METRICS[:17] + b"\x0a\0" * 49_990
MOSTLY_BAD = b"\0" + len(_MOSTLY_BAD).to_bytes(4) + _MOSTLY_BAD
HEALTH_CHECK, HEALTH_WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
POST = b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
Became = dict[str, object]


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
        clients.append(_connected(http_port))
        clients[-1].sendall(head + deflated)
    return {"statuses": Counter(_status(client) for client in clients)}


def many_streams(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` calls at once on a connection, none of which comes to its end until all have begun."""
    client, headers = Frames(grpc_port), block()
    for stream in streams(size):
        client.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, headers))
    for stream in streams(100):
        client.send(wire.frame(wire.DATA, wire.END_STREAM, stream, b"\0\0\0\0\0"))
    return {"statuses": Counter(client.statuses(size))}


def large_headers(grpc_port: int, http_port: int, size: int) -> Became:
    """120 kB of them, `size` times over either protocol."""
    large = [(f"h-{number}", "x" * 4000) for number in range(30)]
    client, answers = Frames(grpc_port), []
    for stream in streams(size):
        for frame in wire.header_frames(stream, block(extra=large), 16_384, end_stream=True):
            client.send(frame)
    headers = "".join(f"{name}: {value}\r\n" for name, value in large).encode()
    for _ in range(size):
        over_http = _connected(http_port)
        with suppress(ConnectionError):
            over_http.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        answers.append(_status(over_http))
    return {"statuses": Counter(client.statuses(size)), "http": Counter(answers)}


def silent(grpc_port: int, http_port: int, size: int) -> Became:
    """`size` sockets on each port that say nothing, and some that say only half of a beginning."""
    clients = []
    for number in range(size):
        for port, begun in ((grpc_port, b"PRI * HTTP/2.0\r\n"), (http_port, b"GET / HT")):
            clients.append(_connected(port))
            if number % 2:
                clients[-1].sendall(begun)
    return {"ended": Counter(_ended(client) for client in clients)}


def slow_writers(grpc_port: int, http_port: int, size: int) -> Became:
    """Requests that come byte by byte, and never whole: heads and bodies, over either protocol."""
    slow = []
    for _ in range(size):
        grpc = Frames(grpc_port)
        grpc.send(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block()))
        slow.append((grpc.socket, wire.frame(wire.DATA, 0, 1, b"\0\0\0\1\0" + bytes(20)), b""))
        slow.append((_connected(http_port), POST + b"Content-Length: 1000\r\n\r\n", b" "))
        slow.append((_connected(http_port), POST, b"a: b\r\n"))
    for client, first, _ in slow:
        client.sendall(first)
    for _ in range(20):
        time.sleep(0.1)
        for client, _, drop in slow:
            with suppress(OSError):
                client.sendall(drop)
    half = [client for number, (client, _, _) in enumerate(slow) if number % 3]
    grpc_answers = Counter(_grpc_status_within(client) for client, _, drop in slow if not drop)
    return {"http": Counter(_status(client) for client in half), "statuses": grpc_answers}


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
        for stream in streams(50):
            grpc.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, block(LOG_METRICS)))
            grpc.send(wire.frame(wire.DATA, wire.END_STREAM, stream, MANY_BAD))
        clients.append((grpc.socket, wire.frame(0xBE, 0, 0, b"")))
    until, number = time.monotonic() + 40, len(clients)
    while clients and time.monotonic() < until:
        time.sleep(0.5)
        clients = [(client, word) for client, word in clients if not _cut_off(client, word)]
    return {"ended": number - len(clients)}


def too_many_connections(grpc_port: int, http_port: int, size: int) -> Became:
    """More than either port takes, each of which says who it is."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    clients = []
    for _ in range(size):
        for port, begun in ((grpc_port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (http_port, b"GET /he")):
            with suppress(OSError):
                clients.append(_connected(port))
                clients[-1].sendall(begun)
    open_now = 0
    for client in clients:
        client.settimeout(0.01)
        open_now += _ended(client) == "open"
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
                clients.append(_connected(port))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answered = 0
    for port in (grpc_port, http_port):
        with suppress(OSError), _connected(port) as plain, context.wrap_socket(plain):
            answered += 1
    return {"sockets": len(clients), "answered": answered}


def _connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 20)
    client.settimeout(20)
    return client


def _status(client: socket.socket) -> int:
    answer = b""
    with suppress(OSError):
        while b"\r\n" not in answer and (data := client.recv(4096)):
            answer += data
    return int(answer.split(b" ", 2)[1]) if answer else 0


def _grpc_status_within(client: socket.socket) -> str:
    answer = b""
    with suppress(OSError):
        while b"grpc-status" not in answer and (data := client.recv(4096)):
            answer += data
    at = answer.find(b"grpc-status") + len(b"grpc-status")
    return answer[at + 1 : at + 1 + answer[at]].decode() if b"grpc-status" in answer else ""


def _cut_off(client: socket.socket, word: bytes) -> bool:
    """Whether the server has ended it, of which one more word makes sure: what it sent before is not read."""
    client.setblocking(False)
    try:
        client.send(word)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def _ended(client: socket.socket) -> str:
    """Reads to the end: whether there is one."""
    try:
        while client.recv(2**16):
            pass
    except TimeoutError:
        return "open"
    except ConnectionError:
        pass
    return "ended"


ATTACKS: dict[str, Callable[[int, int, int], Became]] = {
    attack.__name__: attack
    for attack in (
        rapid_resets,
        rapid_resets_of_streams,
        resets_by_us,
        pings,
        settings,
        empty_data,
        continuations,
        prefix,
        gzip_bombs,
        gzip_bombs_over_http,
        many_streams,
        large_headers,
        silent,
        slow_writers,
        half_requests,
        slow_readers,
        too_many_connections,
        window_zero,
        watches,
        half_open_tls,
    )
}

if __name__ == "__main__":
    name, *numbers, seconds = sys.argv[1:]
    attacks_until = time.monotonic() + float(seconds)
    while True:
        print(json.dumps(ATTACKS[name](*map(int, numbers))))
        if time.monotonic() >= attacks_until:
            break
