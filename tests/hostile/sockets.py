"""Blocking sockets for attackers, and what became of them."""

from __future__ import annotations

import socket
from contextlib import suppress

POST = b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
Became = dict[str, object]


def connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 20)
    client.settimeout(20)
    return client


def status(client: socket.socket) -> int:
    answer = b""
    with suppress(OSError):
        while b"\r\n" not in answer and (data := client.recv(4096)):
            answer += data
    return int(answer.split(b" ", 2)[1]) if answer else 0


def grpc_status_within(client: socket.socket) -> str:
    answer = b""
    with suppress(OSError):
        while b"grpc-status" not in answer and (data := client.recv(4096)):
            answer += data
    at = answer.find(b"grpc-status") + len(b"grpc-status")
    return answer[at + 1 : at + 1 + answer[at]].decode() if b"grpc-status" in answer else ""


def cut_off(client: socket.socket, word: bytes) -> bool:
    """Whether the server has ended it, of which one more word makes sure: what it sent before is not read."""
    client.setblocking(False)
    try:
        client.send(word)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def ended(client: socket.socket) -> str:
    """Reads to the end: whether there is one."""
    try:
        while client.recv(2**16):
            pass
    except TimeoutError:
        return "open"
    except ConnectionError:
        pass
    return "ended"
