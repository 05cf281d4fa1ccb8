"""An HTTP/2 client that sends what no gRPC library would: for tests of the edge."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

LOG_METRIC = "/analytics.v1.AnalyticsService/LogMetric"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


@dataclass
class Answer:
    """What came back on a stream: headers and trailers together, the data, whether and how it was reset."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None


class RawClient:
    """One connection. Streams are answered into `answers` as data comes; `goaway` is the last stream taken."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.closed = False
        self._changed = asyncio.Event()

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self.h2.initiate_connection()
        self._task = asyncio.create_task(self._receive())
        await self.flush()

    async def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def send(self, data: bytes, *, path: str = LOG_METRIC, end: bool = True) -> int:
        """Opens a stream with this body; returns its id."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, [(":path", path), *HEADERS])
        self.h2.send_data(stream, data, end_stream=end)
        await self.flush()
        return stream

    async def send_after_goaway(self, data: bytes) -> int:
        """A stream that the client opened before it heard of GOAWAY, which h2 would not let us send now."""
        self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        return await self.send(data)

    async def answer(self, stream: int) -> Answer:
        """Waits until the stream has ended or was reset."""
        answer = self.answers[stream]
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def until(self, condition: object) -> None:
        assert callable(condition)
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)

    async def close(self) -> None:
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, self._writer.wait_closed(), return_exceptions=True)

    async def _receive(self) -> None:
        while data := await self._reader.read(65536):
            for event in self.h2.receive_data(data):
                self._note(event)
            self._writer.write(self.h2.data_to_send())
            self._changed.set()
        self.closed = True
        self._changed.set()

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.last_stream_id
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            answer.headers.update({str(name): str(value) for name, value in event.headers or []})
        elif isinstance(event, h2.events.DataReceived):
            answer.data += event.data or b""
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code or 0)
