"""The calls of one connection: runs the method of a whole request as a task, answers, and ends each call once.

It knows no frame that comes in. No call ends without an answer but those that the client gave up, or whose answer
it does not read.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes
from loguru import logger

from ingestor.caller import CALLER
from ingestor.deadline import CALLER_SAYS
from ingestor.metadata import METADATA, CallMetadata
from ingestor.transport.compression import inflated_aside
from ingestor.transport.grpc.calls import told, too_late
from ingestor.transport.grpc.floods import LOST_TASK, Budget
from ingestor.transport.grpc.lane.answer import Answer, answered, refused
from ingestor.transport.grpc.lane.call import Call
from ingestor.transport.grpc.lane.lanes import Lanes
from ingestor.transport.grpc.lane.outgoing import Outgoing
from ingestor.transport.grpc.lane.sending import Answers
from ingestor.transport.observing import CANCELLED
from ingestor.transport.status import InternalFault


class Calls:
    """Those that are under way, `by_stream`."""

    __slots__ = ("_answers", "_budget", "_lanes", "_loop", "_outgoing", "by_stream")

    def __init__(self, lanes: Lanes, budget: Budget, outgoing: Outgoing, answers: Answers) -> None:
        self._lanes = lanes
        self._budget = budget
        self._outgoing = outgoing
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self.by_stream: dict[int, Call] = {}

    def begin(self, call: Call) -> None:
        """Its headers have come."""
        self.by_stream[call.stream_id] = call
        if call.opening.timeout_s is not None:
            call.timer = self._loop.call_later(call.opening.timeout_s, self._expire, call)

    def run(self, call: Call, message: bytes, *, deflated: bool) -> None:
        """Its request is whole."""
        call.task = self._loop.create_task(self._serve(call, message, deflated=deflated))
        self._lanes.tasks.add(call.task)
        call.task.add_done_callback(partial(self._ended, call))

    def refuse(
        self, call: Call, error: GRPCError, metadata: CallMetadata | None = None, *, resets: bool = False
    ) -> None:
        """Answers with this status; `resets` where its request has not ended."""
        self._answer(call, refused(error, metadata, resets=resets))

    def break_off(self, call: Call, code: ErrorCodes) -> None:
        """The client breaks HTTP/2 on this stream. To make us reset calls is as cheap as to reset them
        (CVE-2025-8671)."""
        self._budget.spend(LOST_TASK)
        self._outgoing.reset(call.stream_id, code)
        self.drop(call)

    def drop(self, call: Call) -> None:
        """Nobody waits for the answer any more."""
        call.let_go()
        self._answers.forget(call)
        self._over(call, CANCELLED)
        self._outgoing.tell_soon()

    def push(self) -> None:
        """Sends what may be sent by now of answers that could not be sent at once."""
        if not self._answers.blocked:
            return
        for call, answer in self._answers.push():
            self._over(call, answer.code)

    def check(self, now: float) -> None:
        """Lets go of answers that are not read."""
        for call in self._answers.stalled(now):
            self._leave(call)

    def lost(self) -> None:
        """The connection is gone: nobody waits for answers any more."""
        for call in tuple(self.by_stream.values()):
            call.let_go()
            self._over(call, CANCELLED)
        self._answers.blocked.clear()

    async def _serve(self, call: Call, message: bytes, *, deflated: bool) -> None:
        if call.timer is not None:
            CALLER_SAYS.set(True)  # this task serves this call alone
        metadata = CallMetadata(call.opening.metadata)
        METADATA.set(metadata)
        CALLER.set(call.caller)
        try:
            if deflated:
                message = await inflated_aside(message, self._lanes.message_bytes_max)
            serving = call.opening.method(message)
            del message  # the method may wait for long
            response = await serving
        except BaseException as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            late = call.expired and isinstance(error, asyncio.CancelledError)
            self.refuse(call, too_late() if late else told(error, call.opening.path), metadata)
        else:
            self._answer(call, answered(response, metadata))

    def _ended(self, call: Call, task: asyncio.Task[None]) -> None:
        """Sees to it that no task ends without an answer: cancelled before it began, it never came to answer."""
        self._lanes.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.opt(exception=error).error("a call ended without an answer")
        if self.by_stream.get(call.stream_id) is call and call.unsent is None:
            self.refuse(call, too_late() if call.expired else told(InternalFault(), call.opening.path))

    def _expire(self, call: Call) -> None:
        """Its time is over."""
        call.expired = True
        if call.task is None:
            call.heard_out()
            self.refuse(call, too_late(), resets=True)
        else:
            call.task.cancel()

    def _answer(self, call: Call, answer: Answer) -> None:
        if call.stream_id not in self.by_stream or call.unsent is not None:
            return  # nobody waits for it, or it was answered before: its time may end while that waits to leave
        if self._answers.sent(call, answer):
            self._over(call, answer.code)
        else:
            self._answers.keep(call, answer, partial(self._leave, call))

    def _leave(self, call: Call) -> None:
        """Its answer is not read, and not kept."""
        self._outgoing.reset(call.stream_id, ErrorCodes.CANCEL)
        self.drop(call)

    def _over(self, call: Call, code: int) -> None:
        self._lanes.observers[call.opening.path](code, time.monotonic() - call.began_at)
        if call.unread is not None:
            call.unread.end()
        if call.timer is not None:
            call.timer.cancel()
        del self.by_stream[call.stream_id]
        self._outgoing.some_ended = True
