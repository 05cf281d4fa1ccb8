"""Begins an HTTP/2 connection, with the settings that a server of metrics wants, in place of grpclib's own.

Its windows are 4 MiB for each stream, which a hundred streams may fill and leave. And h2 ends the whole connection
at a stream too many, which a client may well have opened before it read how many there may be.
"""

from __future__ import annotations

import asyncio
import socket

from grpclib.config import Configuration
from grpclib.protocol import Connection
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from ingestor.transport.bounds import HEADER_BYTES_MAX, STREAMS_MAX

_CONNECTION_WINDOW = 4 * 1024 * 1024
# A request that is larger gets a window of its own size, once its size is known.
_STREAM_WINDOW = 256 * 1024


def begun(transport: asyncio.Transport, config: Configuration, h2_config: H2Configuration) -> Connection:
    """A connection over `transport`, of which our first frames are written."""
    if (sock := transport.get_extra_info("socket")) is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    h2 = _H2(h2_config)
    h2.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
            SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES_MAX,
            SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
        },
    )
    h2.initiate_connection()
    h2.increment_flow_control_window(_CONNECTION_WINDOW - h2.inbound_flow_control_window)
    connection = Connection(h2, transport, config=config)
    connection.flush()
    return connection


class _H2(H2Connection):
    """Takes any number of streams: who is one too many is refused alone, by the one who serves them."""

    @property
    def open_inbound_streams(self) -> int:
        """None; h2's own forgets those that are closed when it counts them."""
        super().open_inbound_streams  # noqa: B018
        return 0
