"""An HTTP/2 client that sends what no gRPC library would: for tests of the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import Frame, GoAwayFrame, PingFrame

LOG_METRIC = "/analytics.v1.AnalyticsService/LogMetric"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]

# A list where a name comes twice.
Headers = dict[str, str] | list[tuple[str, str]]


@dataclass
class Answer:
    """What came back on a stream: headers and trailers together, the data, whether and how it was reset."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None


class RawClient:
    """One connection. Streams are answered into `answers` as data comes; `goaways` are the last streams that the
    server's GOAWAYs told. `broken` is set when the connection ended otherwise than in order.

    `reading` can be cleared to let what the server sends lie, `answers_pings` to leave it without an answer.
    """

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = _H2(config)
        self.answers: dict[int, Answer] = {}
        self.goaways: list[int] = []
        self.goaway_codes: list[int] = []
        self.one_by_one = False
        self.closed = False
        self.broken: OSError | None = None
        self.answers_pings = True
        self.reading = asyncio.Event()
        self.reading.set()
        self._pings: list[bytes] = []
        self._changed = asyncio.Event()

    @property
    def goaway(self) -> int | None:
        """What the latest GOAWAY said."""
        return self.goaways[-1] if self.goaways else None

    @property
    def pinged(self) -> bool:
        """Whether the server sent a PING that was left without an answer."""
        return bool(self._pings)

    @property
    def pings(self) -> int:
        """How many it sent."""
        return len(self._pings)

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self.h2.initiate_connection()
        self._task = asyncio.create_task(self._receive())
        await self.flush()

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        for piece in [bytes([byte]) for byte in data] if self.one_by_one else [data]:
            await self.send_bytes(piece)
            if self.one_by_one:
                await asyncio.sleep(0.0005)  # a packet of its own

    async def send(
        self, data: bytes, *, path: str = LOG_METRIC, end: bool = True, headers: Headers | None = None
    ) -> int:
        """Opens a stream with this body; returns its id."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        more = headers.items() if isinstance(headers, dict) else headers or ()
        self.h2.send_headers(stream, [(":path", path), *HEADERS, *more])
        await self.send_more(stream, data, end=end)
        return stream

    async def open(self, **options: Any) -> int:
        """Opens a stream with HEADERS alone."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, [(":path", LOG_METRIC), *HEADERS], **options)
        await self.flush()
        return stream

    async def open_with(self, headers: dict[str, str]) -> int:
        """Opens a stream with these headers beside the usual ones."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, [(":path", LOG_METRIC), *HEADERS, *headers.items()])
        await self.flush()
        return stream

    def expect(self, stream: int) -> None:
        """Makes h2 take answers on a stream whose request goes past it, as bytes."""
        self.h2.send_headers(stream, [(":path", LOG_METRIC), *HEADERS], end_stream=True)
        self.h2.data_to_send()

    async def send_bytes(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def send_more(self, stream: int, data: bytes = b"", *, end: bool = True) -> None:
        """A further DATA frame."""
        self.h2.send_data(stream, data, end_stream=end)
        await self.flush()

    async def reset(self, stream: int) -> None:
        """Gives the call up."""
        self.h2.reset_stream(stream, 8)
        await self.flush()

    async def open_and_reset(self) -> None:
        """Opens a stream and gives it up, in one packet."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":path", LOG_METRIC), *HEADERS])
        await self.reset(stream)

    async def send_frame(self, *frames: Frame) -> None:
        """Frames as they are."""
        await self.send_bytes(b"".join(frame.serialize() for frame in frames))

    async def answer_pings(self) -> None:
        """Those that were left without an answer, and all that come."""
        self._answer_pings()
        await self.flush()

    async def answer_pings_and_send(self, data: bytes) -> int:
        """The same, and a new stream in the same packet."""
        self._answer_pings()
        return await self.send(data)

    async def answer_pings_so_far(self) -> None:
        """Those that were left without an answer, and no others."""
        for data in self._pings:
            self.h2.ack(data)
        self._pings.clear()
        await self.flush()

    def _answer_pings(self) -> None:
        self.answers_pings = True
        for data in self._pings:
            self.h2.ack(data)

    async def answer(self, stream: int) -> Answer:
        """Waits until the stream has ended or was reset."""
        answer = self.answers[stream]
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)

    async def close(self) -> None:
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, self._writer.wait_closed(), return_exceptions=True)

    async def _receive(self) -> None:
        try:
            while data := await self._read():
                for event in self.h2.receive_data(data):
                    self._note(event)
                self._writer.write(self.h2.data_to_send())
                self._changed.set()
        except OSError as error:
            self.broken = error
        self.closed = True
        self._changed.set()

    async def _read(self) -> bytes:
        await self.reading.wait()
        return await self._reader.read(65536)

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append(event.last_stream_id or 0)
            self.goaway_codes.append(int(event.error_code or 0))
        elif isinstance(event, h2.events.PingReceived) and self.answers_pings:
            self.h2.ack(event.ping_data)
        elif isinstance(event, h2.events.PingReceived):
            self._pings.append(event.ping_data)
        elif answer := self.answers.get(getattr(event, "stream_id", None) or 0):
            _add(event, answer)


class _H2(h2.connection.H2Connection):
    """h2 that leaves to us when PINGs are answered, and that lives on after GOAWAY, as the streams do."""

    def __init__(self, config: h2.config.H2Configuration) -> None:
        super().__init__(config)
        self._frame_dispatch_table[GoAwayFrame] = self._note_goaway
        self._frame_dispatch_table[PingFrame] = self._note_ping

    def ack(self, data: bytes) -> None:
        self._prepare_for_sending([PingFrame(0, opaque_data=data, flags=["ACK"])])

    def _note_goaway(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        event.error_code = frame.error_code
        return [], [event]

    def _note_ping(self, frame: PingFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        return [], [h2.events.PingReceived(ping_data=frame.opaque_data)]


def _add(event: h2.events.Event, answer: Answer) -> None:
    if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
        answer.headers.update({str(name): str(value) for name, value in event.headers or []})
    elif isinstance(event, h2.events.DataReceived):
        answer.data += event.data or b""
    elif isinstance(event, h2.events.StreamEnded):
        answer.ended = True
    elif isinstance(event, h2.events.StreamReset):
        answer.reset = int(event.error_code or 0)
