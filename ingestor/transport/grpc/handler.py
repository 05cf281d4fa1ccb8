"""Runs the calls of one connection that go grpclib's way, each as a task; refuses streams when the connection's
farewell says so.

In place of grpclib's own tasks, which leave their stream behind when they are cancelled before they began. What a
call does is in `calls`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec, ProtoStatusDetailsCodec
from grpclib.events import _DispatchServerEvents
from grpclib.protocol import Stream
from grpclib.server import Handler
from h2.errors import ErrorCodes
from loguru import logger

from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.calls import Calls
from ingestor.transport.grpc.farewell import Farewell
from ingestor.transport.grpc.headers import from_grpclib
from ingestor.transport.observing import Observers


class StreamHandler(Handler):
    """The calls of one connection. `farewell` is known once the connection is made."""

    farewell: Farewell

    def __init__(self, calls: Calls, observers: Observers, allowance: Allowance) -> None:
        super().__init__({}, ProtoCodec(), ProtoStatusDetailsCodec(), _DispatchServerEvents())
        self._calls = calls
        self._observers = observers
        self.allowance = allowance

    @property
    def open(self) -> int:
        """How many calls are under way and still wanted."""
        return len(self._tasks)

    def accept(
        self, stream: Stream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]
    ) -> None:
        request = dict(headers)
        if from_grpclib(request):
            self.farewell.hangs_up = True
        if self.farewell.refuses:
            _reset(stream, ErrorCodes.REFUSED_STREAM)
            release_stream()
            return
        task = self.loop.create_task(self._calls.serve(stream, headers, self.allowance))
        self._tasks[stream] = task  # type: ignore[assignment] # grpclib's own return nothing
        # Not in the task itself, as grpclib does: cancelled before it began, it would leave its stream behind.
        observed = partial(self._observed, request.get(":path", ""), time.monotonic())
        task.add_done_callback(partial(self._ended, stream, release_stream, observed))

    def cancel(self, stream: Stream) -> None:
        if stream in self._tasks:
            super().cancel(stream)

    def _observed(self, path: str, began_at: float, code: Status) -> None:
        self._observers[path](code.value, time.monotonic() - began_at)

    def _ended(
        self,
        stream: Stream,
        release_stream: Callable[[], Any],
        observed: Callable[[Status], None],
        task: asyncio.Task[Status],
    ) -> None:
        self._tasks.pop(stream, None)
        self._cancelled.discard(task)
        stream.buffer.close()  # type: ignore[attr-defined] # an Inbox
        release_stream()
        if task.cancelled():
            observed(Status.CANCELLED)
        elif (error := task.exception()) is not None:
            logger.opt(exception=error).error("a call ended without an answer")
            _reset(stream, ErrorCodes.INTERNAL_ERROR)
            observed(Status.INTERNAL)
        else:
            observed(task.result())
            self.allowance.budget.earn()
        self.farewell.call_ended()


def _reset(stream: Stream, code: ErrorCodes) -> None:
    if stream.closable:  # the client's own reset may have come in the same packet
        stream.reset_nowait(code)
