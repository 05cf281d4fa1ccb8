"""What one caller may take of the server: connections, bytes and time, the same for both protocols.

Values alone; how many connections there is room for is the composition root's to find out.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
HANDSHAKES_SHARE = 0.25
"""TLS handshakes under way, as a share of the connections of a port."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`connections_max` are those of one port. A header block has to be there `header_timeout_s` after it (or its
    connection) began, the rest of a request `request_timeout_s` after that; within `send_timeout_s` a client has to
    take some of what it is sent. A connection without calls is ended after `idle_s`, any after `age_max_s`; 0 for
    never. `receive_bytes` are those of all requests that have not come whole, `send_bytes` what all clients
    together leave unread."""

    connections_max: int = 1_000
    header_timeout_s: float = 10.0
    request_timeout_s: float = 60.0
    send_timeout_s: float = 60.0
    idle_s: float = 900.0
    age_max_s: float = 0.0
    receive_bytes: int = 64 * MIB
    send_bytes: int = 64 * MIB

    @property
    def handshakes_max(self) -> int:
        """TLS handshakes under way on one port, beside its connections."""
        return max(1, int(self.connections_max * HANDSHAKES_SHARE))

    @property
    def shortest_s(self) -> float:
        """The shortest of the times that are bounded."""
        times = (
            self.header_timeout_s,
            self.request_timeout_s,
            self.send_timeout_s,
            self.idle_s,
            self.age_max_s,
        )
        return min(time for time in times if time)


DEFAULT = Bounds()
HEADER_BYTES_MAX = 64 * 1024
"""What a request's headers may take, names and values together; as HTTP/2 counts them (RFC 9113, 6.5.2)."""
BACKLOG = 1_024
"""Connections that wait to be accepted. One for which there is no room tries again after a second."""
STREAMS_MAX = 100
"""Calls at once on one HTTP/2 connection."""
