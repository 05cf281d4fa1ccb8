"""Answers on their way out: as much of each as the client's windows and the transport let out, the rest when they
do. It ends no call: whoever asks is told which answers have left, and which the client does not read.
"""

from __future__ import annotations

from collections.abc import Callable

from grpclib.protocol import Connection
from h2.errors import ErrorCodes

from ingestor.transport.grpc import wire
from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.floods import ANSWER
from ingestor.transport.grpc.lane.accounts import Accounts
from ingestor.transport.grpc.lane.answer import OK_BLOCK, Answer
from ingestor.transport.grpc.lane.call import Call
from ingestor.transport.grpc.lane.outgoing import Outgoing
from ingestor.transport.stalls import Stall


class Answers:
    """The answers of one connection. `blocked` are the calls whose answer could not be sent at once."""

    __slots__ = ("_accounts", "_budget", "_connection", "_held", "_outgoing", "_send_timeout_s", "blocked")

    def __init__(
        self, connection: Connection, allowance: Allowance, accounts: Accounts, outgoing: Outgoing
    ) -> None:
        self._connection = connection
        self._held = allowance.answers
        self._budget = allowance.budget
        self._send_timeout_s = allowance.bounds.send_timeout_s
        self._accounts = accounts
        self._outgoing = outgoing
        self.blocked: dict[int, Call] = {}

    def sent(self, call: Call, answer: Answer) -> bool:
        """Sends what may be sent. Says whether that was all."""
        if not self._connection.write_ready.is_set():
            return False
        outgoing = self._outgoing
        if answer.block is not None:
            outgoing.headers(call.stream_id, answer.block, ends=answer.message is None)
            answer.block = None
        if answer.message is not None:
            if not self._sent_message(call, answer):
                return False
            outgoing.send(
                wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, call.stream_id, OK_BLOCK)
            )
        if answer.resets:
            self._budget.spend()
            outgoing.reset(call.stream_id, ErrorCodes.NO_ERROR)
        else:
            self._budget.left += ANSWER
        return True

    def keep(self, call: Call, answer: Answer, let_go: Callable[[], None]) -> None:
        """Keeps what is left of it for later; `let_go` is called when there is no room for it."""
        call.unsent = answer
        self.blocked[call.stream_id] = call
        call.unread = self._held.begin(let_go)
        call.unread.grow(answer.bytes_left)

    def push(self) -> list[tuple[Call, Answer]]:
        """Sends what may be sent by now: the answers of which nothing is left."""
        done = []
        for call in tuple(self.blocked.values()):
            answer = call.unsent
            assert answer is not None
            assert call.unread is not None
            before = answer.bytes_left
            if self.sent(call, answer):
                del self.blocked[call.stream_id]
                done.append((call, answer))
            elif (moved := before - answer.bytes_left) > 0:
                call.unread.grow(-moved)
        return done

    def stalled(self, now: float) -> list[Call]:
        """The calls whose answer has not moved for too long."""
        if not self._connection.write_ready.is_set():
            return []  # the connection as a whole is waited for
        return [call for call in self.blocked.values() if self._is_stalled(call, now)]

    def forget(self, call: Call) -> None:
        """Nobody waits for its answer any more."""
        self.blocked.pop(call.stream_id, None)

    def _is_stalled(self, call: Call, now: float) -> bool:
        if call.stall is None:
            call.stall = Stall(self._send_timeout_s)
        return call.stall.is_over(now, -call.sent)

    def _sent_message(self, call: Call, answer: Answer) -> bool:
        while answer.message:
            size = self._accounts.let_out(call, len(answer.message))
            if not size:
                return False
            piece, answer.message = answer.message[:size], answer.message[size:]
            self._outgoing.send(wire.frame(wire.DATA, 0, call.stream_id, piece))
        return True
