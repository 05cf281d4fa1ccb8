"""Serves one call, from its headers to its trailers: every failure by the one table of statuses.

In place of grpclib's own `request_handler`, which answers ordinary things (a deadline that has passed, a
malformed timeout) with UNKNOWN, and logs them, and clients that go away, as errors with a traceback. Here only
a bug is an ERROR.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Stream, _abort
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError as H2ProtocolError
from loguru import logger

from ingestor.caller import CALLER
from ingestor.deadline import CALLER_SAYS
from ingestor.errors import Refusal
from ingestor.metadata import METADATA, CallMetadata
from ingestor.transport.admission import OPEN, Gate
from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.framing import read_body, read_prefix, read_request
from ingestor.transport.grpc.headers import (
    NO_METADATA,
    check_ascii,
    check_headers,
    gzips,
    not_grpc,
    received_metadata,
    sendable,
    timeout_s,
)
from ingestor.transport.rpc import Rpc, StreamedRequest
from ingestor.transport.slowness import coming
from ingestor.transport.status import InternalFault, answer_to, details_of
from ingestor.transport.streams import run
from ingestor.transport.tls import peer_names

# Answers a request's bytes with the response's. Raises Refusal.
Method = Callable[[bytes], Awaitable[bytes]]


class Methods:
    """The methods of a server by their paths: those that are `unary`, and `streams`."""

    def __init__(self, rpcs: Iterable[Rpc]) -> None:
        self.unary: dict[str, Method] = {}
        self.streams: dict[str, Rpc] = {}
        for rpc in rpcs:
            if rpc.streams:
                self.streams[rpc.path] = rpc
            else:
                self.unary[rpc.path] = rpc.serve


class Calls:
    """`serve` runs as a task of its own, which is cancelled when the client resets the stream or is gone."""

    def __init__(self, methods: Methods, message_bytes_max: int, gate: Gate = OPEN) -> None:
        self._methods = methods
        self._gate = gate
        self._message_bytes_max = message_bytes_max
        self._codec = _BytesCodec()
        self._details_codec = ProtoStatusDetailsCodec()
        self._dispatch = _DispatchServerEvents()

    async def serve(
        self, stream: H2Stream, headers: Sequence[tuple[str, str]], allowance: Allowance
    ) -> Status:
        """Answers the call on this stream, and says how."""
        request = dict(headers)
        try:
            if (problem := not_grpc(request)) is not None:
                await _abort(stream, problem[0], Status.UNKNOWN, problem[1])
                return Status.UNKNOWN
            return await self._answer(self._opened(stream, request), headers, allowance)
        except H2ProtocolError:
            return Status.CANCELLED  # the stream was closed under us: nobody is left to be told

    def _opened(self, stream: H2Stream, request: Mapping[str, str]) -> Stream[bytes, bytes]:
        return Stream(
            stream,
            request.get(":path", ""),
            Cardinality.STREAM_STREAM,  # how many messages there may be is checked elsewhere
            bytes,
            bytes,
            codec=self._codec,
            status_details_codec=self._details_codec,
            dispatch=self._dispatch,
        )

    async def _answer(
        self, call: Stream[bytes, bytes], headers: Sequence[tuple[str, str]], allowance: Allowance
    ) -> Status:
        metadata = CallMetadata(NO_METADATA)
        METADATA.set(metadata)  # this task serves this call alone
        try:
            await self._run(call, headers, metadata, allowance)
        except GRPCError as error:
            # Where nothing went before them, the trailers are the headers, too.
            begun = call._send_initial_metadata_done
            await call.send_trailing_metadata(
                status=error.status,
                status_message=error.message,
                status_details=error.details,
                metadata=() if begun else sendable(metadata.sent),
            )
            return error.status
        await call.send_trailing_metadata(
            metadata=() if call._send_initial_metadata_done else sendable(metadata.sent)
        )
        if call._stream.closable:
            call._stream.reset_nowait()  # the client has not ended, and nobody reads what it sends
        return Status.OK

    async def _run(
        self,
        call: Stream[bytes, bytes],
        headers: Sequence[tuple[str, str]],
        metadata: CallMetadata,
        allowance: Allowance,
    ) -> None:
        """Sends what the method answers. Raises GRPCError, or what ends the task or the stream."""
        request = dict(headers)
        path = request.get(":path", "")
        try:
            if path not in self._methods.unary and path not in self._methods.streams:
                raise GRPCError(Status.UNIMPLEMENTED, "Method not found")
            check_headers(headers)
            check_ascii(headers)
            metadata.received = received_metadata(headers)
            names = peer_names(call._stream._transport)
            caller = self._gate.recognise(path, metadata.received, names).enter()
            allowance.acquaintance.note(caller)
            CALLER.set(caller)
            pipe = _Pipe(call, metadata, allowance, self._message_bytes_max, gzip=gzips(request))
            await self._in_time(path, pipe, timeout_s(request))
        except BaseException as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            raise told(error, path) from None

    async def _in_time(self, path: str, pipe: _Pipe, seconds: float | None) -> None:
        """Raises GRPCError when the time is over before the answer is sent; with no time left, nothing is begun."""
        if seconds == 0:
            raise too_late()
        if seconds is not None:
            CALLER_SAYS.set(True)
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                await self._exchange(path, pipe)
        except TimeoutError:
            if scope.expired():
                raise too_late() from None
            raise

    async def _exchange(self, path: str, pipe: _Pipe) -> None:
        rpc = self._methods.streams.get(path)
        if rpc is not None:
            await run(rpc, pipe.requests(rpc), pipe.send, pipe.closing)
        else:
            method = self._methods.unary[path]
            # Nested, so that no frame here holds the request or the answer while it waits.
            await pipe.send(await method(await pipe.request()))


class _Pipe:
    """One call's requests and answers, each waited for within bounds."""

    def __init__(
        self,
        call: Stream[bytes, bytes],
        metadata: CallMetadata,
        allowance: Allowance,
        message_bytes_max: int,
        *,
        gzip: bool,
    ) -> None:
        self._call = call
        self._metadata = metadata
        self._message_bytes_max = message_bytes_max
        self._gzip = gzip
        self._bounds = allowance.bounds
        self._answers = allowance.answers
        self._budget = allowance.budget
        self.closing = allowance.closing

    async def send(self, message: bytes) -> None:
        """Sends it. Raises ProtocolError when the client does not read it, or when there is no room to keep it."""
        call = self._call
        scope = asyncio.timeout(self._bounds.send_timeout_s)
        unread = self._answers.begin(partial(_end, scope))
        try:
            async with scope:
                unread.grow(len(message))
                if not call._send_initial_metadata_done:
                    await call.send_initial_metadata(metadata=sendable(self._metadata.sent))
                await call.send_message(message)
        except TimeoutError:
            if not scope.expired():
                raise
            if call._stream.closable:
                call._stream.reset_nowait(ErrorCodes.CANCEL)
            msg = "the client does not read its answer"
            raise H2ProtocolError(msg) from None
        finally:
            unread.end()
        self._budget.earn()

    async def request(self) -> bytes:
        """The one of a unary call. Raises Refusal."""
        receive, bytes_max = self._call._stream.recv_data, self._message_bytes_max
        async with coming(self._bounds.request_timeout_s):
            return await read_request(receive, bytes_max, gzip=self._gzip)

    async def requests(self, rpc: Rpc) -> AsyncGenerator[StreamedRequest, None]:
        """Those of a stream, one after another: the next may take any time to begin. Raises Refusal."""
        receive = self._call._stream.recv_data
        while True:
            async with self.closing.waiting():
                prefix = await read_prefix(receive, self._message_bytes_max, gzip=self._gzip)
                if prefix is None:
                    return
                async with coming(self._bounds.request_timeout_s):
                    body = await read_body(receive, prefix, self._message_bytes_max)
            self._budget.earn()
            request = [await rpc.read(body)]
            del body  # the method may wait for long
            yield request.pop()


def _end(scope: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # it is at its end already
        scope.reschedule(0.0)


def told(error: BaseException, path: str) -> GRPCError:
    """What the caller is told of this failure of a call of the method at `path`. Raises `error` again where it is
    the end of the task or of the stream."""
    if isinstance(error, Refusal):
        return _grpc_error(error)
    if isinstance(error, GRPCError):
        return error
    ends = isinstance(error, asyncio.CancelledError) and _cancelled()
    if ends or isinstance(error, (H2ProtocolError, KeyboardInterrupt, SystemExit)):
        raise error
    return _bug(path, error)


def too_late() -> GRPCError:
    """The answer to a call whose time is over."""
    return GRPCError(Status.DEADLINE_EXCEEDED, "the deadline passed before the call was answered")


def _cancelled() -> bool:
    """Whether it is our task that is being cancelled, and not something that the method awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _bug(path: str, error: BaseException) -> GRPCError:
    logger.bind(rpc=path).opt(exception=error).error("a call failed in a way not foreseen")
    return _grpc_error(InternalFault())


def _grpc_error(refusal: Refusal) -> GRPCError:
    code = Status(answer_to(refusal).code)
    return GRPCError(code, refusal.message, details_of(refusal) or None)


class _BytesCodec(CodecBase):
    """Messages are encoded and decoded elsewhere; grpclib only carries their bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data
